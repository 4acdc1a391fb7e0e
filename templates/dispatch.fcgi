#!/usr/bin/env python3
"""Serve the Flask application in application/app.py to Apache, over FastCGI.

Written by flaskflex: change what you like, it keeps your changes.
"""
import errno
import os
import re
import socket
import sys
from urllib.parse import unquote

HERE = os.path.abspath(__file__)
PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
STARTED = os.stat(HERE)

# Apache's mod_fcgid starts this file with a listening socket as standard input.
try:
    listener = socket.socket(fileno=os.dup(0))
    started_by_apache = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
except OSError:
    started_by_apache = False
if not started_by_apache:
    sys.exit("dispatch.fcgi is for Apache to start; by hand, type: flask --app application/app.py run")

# Go on in the project's own virtualenv, where the packages of req.txt are.
python = os.path.join(PROJECT, ".venv", "bin", "python")
if sys.prefix == sys.base_prefix and os.path.exists(python):
    os.execv(python, [python, HERE])

# Find the application as "flask --app application/app.py run" finds it.
os.chdir(os.path.join(PROJECT, "application"))
sys.path.append(PROJECT)
from flask.cli import ScriptInfo  # noqa: E402 (the virtualenv has it)
from flup.server.fcgi_single import WSGIServer  # noqa: E402

application = ScriptInfo("app.py").load_app()


def with_path(environ, start_response):
    """Call the application with the path that was asked for, which .htaccess passes on."""
    path = environ.get("REDIRECT_FLX_PATH")
    if path:
        # Some servers leave %2F as it is, and only what was typed tells it from %252F.
        typed = unquote(re.sub("^[^/]+//[^/]*", "", environ["REQUEST_URI"].split("?")[0]), "latin-1")
        if re.sub("(?i)%2f", "/", typed) == re.sub("(?i)%2f", "/", path):
            path = typed
        environ["SCRIPT_NAME"] = environ["SCRIPT_NAME"].rpartition("/")[0]  # as Apache knows this folder
        environ["PATH_INFO"] = "/" + path.removeprefix(environ["SCRIPT_NAME"]).lstrip("/")
    return application(environ, start_response)


class Server(WSGIServer):
    """Make way for new code when this file is touched or replaced."""

    def _mainloopPeriodic(self):  # flup calls this after each request and every second
        try:
            now = os.stat(HERE)
        except OSError:
            return  # it is being replaced at this very moment
        if (now.st_dev, now.st_ino) != (STARTED.st_dev, STARTED.st_ino):
            listener.shutdown(socket.SHUT_RD)  # replaced: serve who waits, and Apache starts the new file
        elif now.st_mtime_ns != STARTED.st_mtime_ns:
            os.execv(sys.executable, [sys.executable, HERE])  # touched: start again, on the same socket


try:
    Server(with_path).run()
except OSError as error:
    if error.errno != errno.EINVAL:  # replaced, and nobody waits any more
        raise
