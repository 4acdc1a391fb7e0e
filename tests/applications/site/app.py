"""An application that tells what reached it, for the HTTP checks."""
from __future__ import annotations

import hashlib
import os
import time
from typing import Any, Dict, Iterator, Tuple
from urllib.parse import quote

from flask import Flask, Response, redirect, render_template, request, session, url_for

app = Flask(__name__)
app.secret_key = "only for the tests"

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


@app.route("/")
def index() -> str:
    return render_template("index.html")


@app.route("/where/")
@app.route("/where/<path:rest>")
def where(rest: str = "") -> Dict[str, Any]:
    """What the application believes about the address that was asked for."""
    return {
        "rest": rest,
        "path": request.path,
        "script_root": request.script_root,
        "query": request.query_string.decode("latin-1"),
        "arguments": request.args.to_dict(flat=False),
        "url": request.url,
        "scheme": request.scheme,
        "secure": request.is_secure,
        "here": url_for("where", rest=rest),
    }


@app.route("/raw/<path:rest>", merge_slashes=False)
def raw(rest: str) -> Dict[str, str]:
    return {"rest": rest, "script_root": request.script_root}


@app.route("/links")
def links() -> Dict[str, str]:
    return {
        "index": url_for("index"),
        "odd": url_for("where", rest="50% är #1?", q="a&b"),
        "static": url_for("static", filename="hello.txt"),
        "external": url_for("index", _external=True),
    }


@app.route("/go")
def go() -> Any:
    return redirect(url_for("links"))


@app.route("/folder/")
def folder() -> str:
    return "a folder"


@app.route("/pictures/")
def pictures() -> str:
    return "the application's pictures"


@app.route("/method", methods=METHODS, provide_automatic_options=False)
def method() -> Tuple[str, Dict[str, str]]:
    return f"{request.method} {request.get_data(as_text=True)}", {"X-Method": request.method}


@app.route("/form", methods=["POST"])
def form() -> Dict[str, Any]:
    return {"fields": request.form.to_dict(flat=False)}


@app.route("/json", methods=["POST"])
def json() -> Dict[str, Any]:
    return {"given": request.get_json()}


@app.route("/upload", methods=["POST"])
def upload() -> Dict[str, Any]:
    file = request.files["file"]
    content = file.read()
    return {"name": file.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.route("/unread", methods=["POST"])
def unread() -> str:
    return "not interested"


@app.route("/remember/<word>")
def remember(word: str) -> Response:
    session["word"] = word
    response = Response("remembered")
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@app.route("/recall")
def recall() -> Dict[str, Any]:
    return {"word": session.get("word"), "cookies": sorted(request.cookies)}


@app.route("/login")
def login() -> Any:
    given = request.authorization
    if given is None or given.type != "basic":
        return "who are you?", 401, {"WWW-Authenticate": 'Basic realm="tests"'}
    return {"username": given.username, "password": given.password}


@app.route("/token")
def token() -> str:
    return request.headers.get("Authorization", "")


@app.route("/tagged")
def tagged() -> Response:
    response = Response("the same every time")
    response.add_etag()
    return response.make_conditional(request)


@app.route("/large")
def large() -> bytes:
    return b"x" * 1_000_000


@app.route("/stream/<name>")
def stream(name: str) -> Response:
    """Send 200 kB at once, and the end only when the client has made a file: it has read some of it."""
    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b"." * 10_000
        deadline = time.monotonic() + 20
        while not os.path.exists(f"{name}.read"):
            if time.monotonic() > deadline:
                yield b"nobody read the beginning"
                return
            time.sleep(0.01)
        yield b"the end"
    return Response(parts(), mimetype="text/plain")


@app.route("/broken")
def broken() -> str:
    raise RuntimeError("broken on purpose, for " + request.args["reason"])


@app.route("/teapot")
def teapot() -> Tuple[str, int]:
    return "short and stout", 418


@app.errorhandler(404)
def not_found(error: Exception) -> Tuple[str, int, Dict[str, str]]:
    return "the application has no such page", 404, {"X-Path": quote(request.path)}
