"""Who is here."""
from flask import Blueprint, g, redirect, session, url_for
from werkzeug.wrappers import Response

from .db import get_db

bp = Blueprint("auth", __name__, url_prefix="/auth")


@bp.before_app_request
def load_user() -> None:
    g.user = get_db().execute("SELECT * FROM user WHERE id = ?", (session.get("user"),)).fetchone()


@bp.route("/logout")
def logout() -> Response:
    session.clear()
    return redirect(url_for("index"))
