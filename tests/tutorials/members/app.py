"""Pages for members alone: the extensions are made in a module of their own, and bound later."""
from flask import Flask

from extensions import login_manager
from views import main


def create_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "dev"
    login_manager.init_app(app)
    login_manager.login_view = "main.login"
    app.register_blueprint(main)
    return app
