"""The application under a name of its own: the only Flask object there is."""
from flask import Flask

blog = Flask(__name__)


@blog.route("/")
def index() -> str:
    return "blog"
