"""A module inside the package."""
from flask import Blueprint

from ..words import GREETING

pages = Blueprint("pages", __name__)


@pages.route("/")
def index() -> str:
    return GREETING
