"""How many requests a second dispatch.fcgi serves, beside a plain flup script and beside mod_wsgi.

The three serve the same application from the same virtualenv, in one Apache, and are asked in turn.
"""
from __future__ import annotations

import re
import shutil
import statistics
import subprocess
from typing import Dict, List

from apache import NEEDED, SYSTEM_PATH, Host, VirtualHost, running_host, why_not
from conftest import SCRIPT

CLIENTS = (1, 8)
REQUESTS = 2000  # in one measurement

APPLICATION = """\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello, world!"
"""

# What people write by hand: no virtualenv to find, no path to mend, no new code to follow.
PLAIN_SCRIPT = """\
#!{project}/.venv/bin/python
import os
import sys

folder = os.path.join("{project}", "application")
sys.path.insert(0, folder)
from app import app
from flup.server.fcgi_single import WSGIServer

WSGIServer(app).run()
"""

PLAIN_HTACCESS = """\
Options +ExecCGI
AddHandler fcgid-script .fcgi
RewriteEngine On
RewriteCond %{REQUEST_FILENAME} !-f
RewriteRule ^(.*)$ plain.fcgi/$1 [QSA,L]
"""

# As many processes as mod_fcgid starts for as many clients, each of which serves one request at a time.
WSGI_HOST = """\
WSGIDaemonProcess application python-home={project}/.venv python-path={project}/application \
processes={processes} threads=1
WSGIProcessGroup application
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / {project}/application/app.wsgi
"""


def why_not_served() -> str:
    """Why the three cannot be compared here, "" if they can."""
    if not shutil.which("ab", path=SYSTEM_PATH):
        return "ab is not installed (Debian's package apache2-utils)"
    return why_not(modules=(*NEEDED, "wsgi")) or ""


def make_hosts(host: Host) -> List[VirtualHost]:
    """A project with one application and three ways to serve it, each under a name of its own."""
    project = host.base / "www" / "project"
    files = {
        ".flx": (SCRIPT.parent / "templates" / "flx").read_text("utf-8"),
        "req.txt": "flask\nflup==1.0.3\n",
        "application/app.py": APPLICATION,
        "application/app.wsgi": "from app import app as application\n",
        "public_html/.htaccess": (SCRIPT.parent / "templates" / "htaccess").read_text("utf-8"),
        "public_html/dispatch.fcgi": (SCRIPT.parent / "templates" / "dispatch.fcgi").read_text("utf-8"),
        "plain/.htaccess": PLAIN_HTACCESS,
        "plain/plain.fcgi": PLAIN_SCRIPT.format(project=project),
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "plain" / "plain.fcgi").chmod(0o755)
    host.hand_over(project)
    host.apply_changes(project, "setup", "deploy", "permission")
    wsgi = WSGI_HOST.format(project=project, processes=max(CLIENTS))
    return [
        VirtualHost("dispatch.fcgi", project / "public_html"),
        VirtualHost("flup", project / "plain"),
        VirtualHost("mod_wsgi", project / "application", override="None", more=wsgi),
    ]


def requests_a_second(host: Host, name: str, clients: int) -> float:
    """Ask a virtual host for / over and over, by so many clients at once; every answer must be a good one."""
    command = ["ab", "-q", "-n", str(REQUESTS), "-c", str(clients), "-H", f"Host: {name}",
               f"http://127.0.0.1:{host.port}/"]
    done = subprocess.run(command, env={"PATH": SYSTEM_PATH}, stdin=subprocess.DEVNULL, check=True,
                          stdout=subprocess.PIPE, universal_newlines=True)
    found = dict(re.findall(r"^(.+?): +([\d.]+)", done.stdout, re.MULTILINE))
    good = found["Failed requests"] == "0" and "Non-2xx responses" not in found
    assert good, done.stdout + host.error_log()
    return float(found["Requests per second"])


def compare_served(pairs: int) -> None:
    """Print requests a second, and what part of each other's dispatch.fcgi reaches."""
    reason = why_not_served()
    if reason:
        print(f"Requests a second: not measured, {reason}")
        return
    with running_host(modules=(*NEEDED, "wsgi")) as host:
        hosts = make_hosts(host)
        host.start(hosts)
        for clients in CLIENTS:
            served: Dict[str, List[float]] = {one.name: [] for one in hosts}
            for name in served:
                requests_a_second(host, name, clients)  # starts the processes
            for _ in range(pairs):
                for name, results in served.items():
                    results.append(requests_a_second(host, name, clients))
            print(f"Requests a second, {clients} at a time:")
            for name, results in served.items():
                ratio = statistics.median(ours / its for ours, its in zip(served["dispatch.fcgi"], results))
                print(f"    {name:<14}{statistics.median(results):8.0f} /s   "
                      f"dispatch.fcgi serves {ratio:.2f} of it", flush=True)
