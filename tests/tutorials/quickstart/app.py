"""A first application: one module, a page, and a page with a name in it."""
from flask import Flask, url_for
from markupsafe import escape

app = Flask(__name__)


@app.route("/")
def index() -> str:
    return f'<p>Welcome. <a href="{url_for("hello", name="you")}">Say hello</a>'


@app.route("/hello/<name>")
def hello(name: str) -> str:
    return f"<p>Hello, {escape(name)}!"


if __name__ == "__main__":
    app.run(debug=True)
