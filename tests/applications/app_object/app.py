"""The usual first application, with the lines at its end that start it by hand."""
from flask import Flask

app = Flask(__name__)


@app.route("/")
def index() -> str:
    return "app"


if __name__ == "__main__":
    app.run(debug=True)
