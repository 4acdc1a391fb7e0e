"""An application that tells its settings, to a visitor and to `flask settings`."""
import json
import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def settings() -> str:
    told = {name: value for name, value in os.environ.items() if name.startswith("SETTING_")}
    return json.dumps({**told, "cwd": os.getcwd(), "debug": app.debug}, sort_keys=True)


@app.cli.command("settings")
def print_settings() -> None:
    print(settings())
