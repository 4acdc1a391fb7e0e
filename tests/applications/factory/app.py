"""An application factory."""
from flask import Flask


def create_app(greeting: str = "create_app") -> Flask:
    app = Flask(__name__)

    @app.route("/")
    def index() -> str:
        return greeting

    return app
