"""An application that tells its version and its process, and leaves a note of both."""
import os

from flask import Flask

VERSION = "0"

app = Flask(__name__)

with open(f"../processes/{os.getpid()}", "w") as note:
    note.write(VERSION)


@app.route("/")
def index() -> str:
    return f"{VERSION} {os.getpid()}"
