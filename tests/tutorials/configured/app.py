"""An application with settings in two files: the usual ones, and in instance/ those of this one place."""
from flask import Flask, render_template_string

app = Flask(__name__, instance_relative_config=True)
app.config.from_object("config.Production")
app.config.from_pyfile("config.py")


@app.route("/")
def index() -> str:
    with app.open_instance_resource("motto.txt", "r") as motto:
        return render_template_string("{{ config.TITLE }}: {{ motto }}", motto=motto.read().strip())
