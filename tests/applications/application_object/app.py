"""The application under the name that WSGI servers look for."""
from flask import Flask

application = Flask(__name__)


@application.route("/")
def index() -> str:
    return "application"
