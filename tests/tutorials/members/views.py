"""The pages."""
from flask import Blueprint, g, redirect, request, session, url_for
from werkzeug.wrappers import Response

import models  # noqa: F401 (it tells the login manager how to find a member)
from tiny_login import login_required

main = Blueprint("main", __name__)


@main.route("/")
@login_required
def index() -> str:
    return f"Welcome back, {g.user}."


@main.route("/login", methods=["GET", "POST"])
def login() -> "str | Response":
    if request.method == "POST":
        session["user"] = request.form["name"]
        return redirect(url_for("main.index"))
    return '<form method="post"><input name="name"></form>'
