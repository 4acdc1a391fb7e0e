"""The posts, newest first."""
from flask import Blueprint, g, render_template

from .db import get_db

bp = Blueprint("posts", __name__)


@bp.route("/")
def index() -> str:
    posts = get_db().execute("SELECT title FROM post ORDER BY id DESC").fetchall()
    return render_template("posts/index.html", posts=posts, user=g.user)
