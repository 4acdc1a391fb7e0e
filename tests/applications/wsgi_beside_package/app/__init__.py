from flask import Flask


def create_app(greeting: str = "the package alone") -> Flask:
    app = Flask(__name__)

    @app.route("/")
    def index() -> str:
        return greeting

    return app
