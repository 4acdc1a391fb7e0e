#!/usr/bin/env python3
"""Serve the Flask application in application/ to Apache, over FastCGI.

Written by flaskflex: change what you like, it keeps your changes.
"""
import errno
import fcntl
import os
import re
import signal
import socket
import sys
import traceback
from urllib.parse import unquote

HERE = os.path.abspath(__file__)
PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
APPLICATION = os.path.join(PROJECT, "application")
STARTED, ENVIRON = os.stat(HERE), dict(os.environ)

# Apache's mod_fcgid starts this file with a listening socket as standard input.
try:
    listener = socket.socket(fileno=os.dup(0))
    started_by_apache = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
except OSError:
    started_by_apache = False
if not started_by_apache:
    sys.exit("dispatch.fcgi is for Apache to start; by hand, type: flask --app application/app.py run")

# Wait while a deploy is under way: as long as it lasts, the host locks the project's folder.
try:
    lock = os.open(PROJECT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
except OSError:
    lock = None  # a file system without locks, or a folder that we may not read

# Go on in the project's own virtualenv, where the packages of req.txt are.
python = os.path.join(PROJECT, ".venv", "bin", "python")
if sys.prefix == sys.base_prefix and os.path.exists(python):
    os.execv(python, [python, HERE])
from flup.server.fcgi_single import WSGIServer  # noqa: E402 (the virtualenv has it)

# Read .env and .flaskenv and find the application, as "flask run" does in the folder application.
failure = b""
try:
    os.chdir(APPLICATION)
    sys.path.append(PROJECT)
    from flask.cli import ScriptInfo, load_dotenv
    os.environ["FLASK_DEBUG"] = "0"  # whatever .flaskenv says: visitors are no developers
    load_dotenv()
    os.chdir(APPLICATION)  # Flask 1.1 went to where .env is
    application = ScriptInfo("wsgi.py" if os.path.isfile("wsgi.py") else "app.py").load_app()
except BaseException:  # sys.exit() too
    failure = traceback.format_exc().encode(errors="backslashreplace")
if lock:
    fcntl.flock(lock, fcntl.LOCK_UN)


def answer(environ, start_response):
    """Call the application with the path that was asked for, which .htaccess passes on."""
    if failure:  # the reason goes to the error log, and the next request to a process that tries again
        listener.shutdown(socket.SHUT_RD)
        environ["wsgi.errors"].write(failure)
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"Internal Server Error\n"]
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
        if failure or (now.st_dev, now.st_ino) != (STARTED.st_dev, STARTED.st_ino):
            listener.shutdown(socket.SHUT_RD)  # serve who waits, and then end: Apache starts the new file
        elif now.st_mtime_ns != STARTED.st_mtime_ns:
            os.execve(sys.executable, [sys.executable, HERE], ENVIRON)  # touched: anew, on the same socket


try:
    Server(answer).run()
except OSError as error:
    if error.errno != errno.EINVAL:  # shut down, and nobody waits any more
        raise
signal.alarm(3)  # threads of the application that never end would keep this process
