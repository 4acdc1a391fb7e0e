"""A Debian machine that hosts projects, for the tests: its own users, a real sshd, Apache and MariaDB."""
from __future__ import annotations

import configparser
import contextlib
import http.client
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional

import hosting
import pytest
from apache import eventually
from conftest import PASSED_ON, SCRIPT, Environ, make_host_virtualenv
from machine import PATIENCE, QUICK, Machine, running_machine

KEY = "/home/student/.ssh/id_ed25519.pub"
PROGRAM = "python3 /root/flaskflex.py"  # where only root can read it
FROM_BYTECODE = "cd /root; python3 -m flaskflex"  # the same in less time, if its bytecode is up to date

APPLICATION = '''\
import os

from flask import Flask, request

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def index():
    return f"{os.getuid()} {len(request.get_data())} Hello!"


@app.route("/path/<path:path>")
def path(path):
    return path
'''

FLX = hosting.FLX.replace("mkdir .venv", "cp -a /srv/prepared .venv")

# The client of all projects: one user, one key, no questions.
SSH_CONFIG = f"""\
Host *
    {QUICK}
    StrictHostKeyChecking accept-new
    BatchMode yes
    LogLevel ERROR
"""

MARIADBD = "/usr/sbin/mariadbd --user=mysql --skip-networking >/tmp/mariadb.log 2>&1 </dev/null &"


class Answer(NamedTuple):
    """What a site answered."""

    status: int
    text: str


class HostMachine(NamedTuple):
    """A machine that hosts projects, at a loopback address of its own, on the usual ports."""

    machine: Machine
    address: str

    @property
    def root(self) -> Path:
        return self.machine.root

    def run(self, script: str, status: int = 0) -> str:
        """Run a shell script as root; return all that it printed."""
        return self.machine.run(script, status)

    def as_user(self, user: str, script: str, status: int = 0) -> str:
        """Run a shell script as a user, at home there; return all that it printed."""
        return self.run(f"cd ~{user}; runuser -u {user} -- env -i HOME=\"$PWD\" USER={user} LANG=C.UTF-8 "
                        f"PATH=/usr/bin:/bin sh -ec {shlex.quote(script)} </dev/null", status)

    def host(self, *args: str, status: int = 0) -> str:
        """Run flaskflex host as root; return all that it printed."""
        return self.run(f"{FROM_BYTECODE} host {shlex.join(args)}", status)

    def compile(self) -> None:
        """Compile flaskflex.py: without that, each of the many runs does it again."""
        self.run("python3 -m compileall -q /root/flaskflex.py")

    def add(self, name: str, *args: str) -> str:
        """Make a project with the student's key."""
        self.name(f"{name}.example.org")
        return self.host(name, "--domain", f"{name}.example.org", "--key", KEY, *args)

    def name(self, domain: str) -> None:
        """Let a domain lead to this machine, on this machine."""
        with (self.root / "etc" / "hosts").open("a") as hosts:
            hosts.write(f"{self.address} {domain}\n")

    def ask(self, domain: str, path: str = "/", method: str = "GET", body: Optional[bytes] = None,
            headers: Optional[Dict[str, str]] = None) -> Answer:
        """Ask Apache for a page, as a visitor of a domain."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, {"Host": domain, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.read().decode("utf-8", "replace"))

    def clone(self, name: str) -> None:
        """Let the student clone a project, and commit an application that serves there."""
        self.as_user("student", f"git clone -q ssh://{name}@{name}.example.org/~/{name}.git; "
                                f"cp -a /srv/project/. {name}; "
                                f"cd {name}; git add .; git commit -qm 'The application'")

    def push(self, name: str, status: int = 0) -> str:
        """Let the student push the clone of a project, with all that is new there."""
        return self.as_user("student", f"cd {name}; git add -A; git diff --cached --quiet || git commit "
                                       f"-qm more; "
                                       "git push origin HEAD:main", status)


def prepare_machine(own: HostMachine, environ: Environ) -> None:
    """Give a machine what a host has anyway: its servers, a student with a key, and what pip needs."""
    root = own.root
    pip = configparser.RawConfigParser()
    pip.read(root / "etc" / "pip.conf")
    pip.read_dict({"global": {name[4:].lower().replace("_", "-"): environ[name] for name in PASSED_ON
                              if name.startswith("PIP_") and name in environ}})
    with (root / "etc" / "pip.conf").open("w") as file:
        pip.write(file)
    shutil.copy(SCRIPT, root / "root" / "flaskflex.py")
    (root / "etc/apache2/ports.conf").write_text(f"Listen {own.address}:80\n")
    (root / "etc/apache2/conf-enabled/name.conf").write_text("ServerName machine.invalid\n")
    (root / "etc/ssh/sshd_config.d/address.conf").write_text(f"ListenAddress {own.address}\n")
    own.run("rm -f /etc/apache2/sites-enabled/*; chmod 600 /root/flaskflex.py; "
            "useradd -m -s /bin/bash student; ssh-keygen -A; /usr/sbin/sshd")
    own.as_user("student", "mkdir -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -C student@home -f "
                           ".ssh/id_ed25519; "
                           "git config --global user.name 'A Student'; "
                           "git config --global init.defaultBranch main;"
                           "git config --global user.email student@example.org")
    (root / "home/student/.ssh/config").write_text(SSH_CONFIG)
    own.compile()
    # Each push copies it: it does without pip, which is most of a virtualenv.
    shutil.copytree(make_host_virtualenv(environ), root / "srv" / "prepared", symlinks=True,
                    ignore=shutil.ignore_patterns("pip*", "setuptools*", "pkg_resources"))
    project = root / "srv" / "project"
    for folder in ("application", "public_html"):
        (project / folder).mkdir(parents=True)
    (project / ".flx").write_text(FLX)
    (project / "application" / "app.py").write_text(APPLICATION)
    shutil.copy(SCRIPT.parent / "templates" / "htaccess", project / "public_html" / ".htaccess")
    shutil.copy(SCRIPT.parent / "templates" / "dispatch.fcgi", project / "public_html" / "dispatch.fcgi")
    (project / "public_html" / "dispatch.fcgi").chmod(0o755)


@contextlib.contextmanager
def running_host_machine(folder: Path, environ: Environ, number: int = 0) -> Iterator[HostMachine]:
    """Start a machine that can host projects: what is missing there is installed as flaskflex says."""
    pid = os.getpid()
    with running_machine(folder, environ) as machine:
        own = HostMachine(machine, f"127.{77 + number}.{pid >> 8 & 255}.{pid & 255}")
        prepare_machine(own, environ)
        missing = own.run(f"cd /root; {PROGRAM} host missing --domain missing.example.org --database "
                          f"--key x || true")
        for line in re.findall("sudo (apt-get .*)", missing):
            if "impossible" in own.run(f"{line} || (apt-get update && {line}) || echo impossible"):
                pytest.skip(f"this cannot be installed here: {line}")
        own.run("apache2ctl start")
        yield own


def start_mariadb(own: HostMachine) -> None:
    """Start the MariaDB of a machine."""
    own.run("install -d -o mysql /run/mysqld; " + MARIADBD)
    assert eventually(lambda: own.run("mariadb-admin ping 2>&1 || true").startswith("mysqld is alive"))
