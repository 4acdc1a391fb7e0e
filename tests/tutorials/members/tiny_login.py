"""As much of a login extension as the pages need."""
from functools import wraps
from typing import Any, Callable, Optional

from flask import Flask, current_app, g, redirect, session, url_for


class LoginManager:
    def __init__(self) -> None:
        self.login_view = ""
        self.load: Callable[[str], Optional[Any]] = lambda name: None

    def init_app(self, app: Flask) -> None:
        app.extensions["login_manager"] = self
        app.before_request(self.load_user)
        app.context_processor(lambda: {"current_user": g.user})

    def user_loader(self, load: Callable[[str], Optional[Any]]) -> Callable[[str], Optional[Any]]:
        self.load = load
        return load

    def load_user(self) -> None:
        g.user = self.load(session.get("user", ""))


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def guarded(*values: Any, **named: Any) -> Any:
        if g.user is None:
            return redirect(url_for(current_app.extensions["login_manager"].login_view))
        return view(*values, **named)
    return guarded
