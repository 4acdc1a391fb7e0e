"""A list of things to do: a database object here, and models in a module that imports it back."""
from flask import Flask, redirect, request, url_for
from werkzeug.wrappers import Response

from database import Database

app = Flask(__name__)
app.config["DATABASE_URI"] = "todo.db"  # relative, as it is on the author's machine
db = Database(app)

from models import Todo  # noqa: E402 (the models need db)

db.create_all()


@app.route("/")
def index() -> str:
    return "".join(f"<li>{todo.title}" for todo in Todo.all()) or "Nothing to do."


@app.route("/add", methods=["POST"])
def add() -> Response:
    Todo(request.form["title"]).save()
    return redirect(url_for("index"))


if __name__ == "__main__":
    app.run(debug=True)
