"""Pushes to a site that is being visited: a real Apache serves it, and no visitor notices."""
from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from apache import Host, Site, VirtualHost, eventually, running_host, why_not
from conftest import IDENTITY, SCRIPT, Environ, hermetic_environ, run
from helpers import write
from hosting import NAME, Hosted, processes_of
from machine import Sshd, running_sshd

EVERY_POINT = "FLASKFLEX_EVERY_POINT" in os.environ
WHY_NOT = why_not()

# The system's python3 serves the site, whichever Python runs the tests.
pytestmark = [pytest.mark.once, pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))]

FLASK = ("3.0.3", "3.1.1")  # the releases between which the pushes go up and down

APPLICATION = """\
import flask

VERSION = {version}
app = flask.Flask(__name__)


@app.route("/")
def index():
    return str(VERSION)
"""


@pytest.fixture(scope="module")
def wheels(
    tmp_path_factory: pytest.TempPathFactory, host_virtualenv: Path, session_environ: Environ
) -> Path:
    """The only packages that pip finds on the host, for the host's Python, which need not be the tests'."""
    folder = tmp_path_factory.mktemp("wheels")
    for release in FLASK:
        run(host_virtualenv / "bin" / "python", "-m", "pip", "download", "-q", "-d", folder,
            f"flask=={release}", "flup==1.0.3", cwd=folder, env=session_environ)
    return folder


@pytest.fixture
def apache() -> Iterator[Host]:
    with running_host() as host:
        yield host


@pytest.fixture
def hosted(apache: Host, wheels: Path, tmp_path: Path) -> Iterator[Hosted]:
    """A project with Flask on a host whose Apache serves it; nothing is pushed yet."""
    environ = {**hermetic_environ(tmp_path / "home"), **IDENTITY}
    write(tmp_path / "home" / ".config" / "pip" / "pip.conf",
          f"[global]\nno-index = true\nfind-links = {wheels}\ndisable-pip-version-check = true\n")
    with running_sshd(tmp_path / "sshd", environ) as sshd:
        hosted = Hosted(apache.homes / "me", {**environ, "GIT_SSH_COMMAND": sshd.ssh})
        (hosted.folder / "host").mkdir(parents=True)
        apache.start([VirtualHost("site", hosted.site / "public_html")])
        hosted.flaskflex("host", NAME, "--url", f"http://127.0.0.1:{apache.port}/")
        clone_project(hosted, sshd)
        yield hosted


def clone_project(hosted: Hosted, sshd: Sshd) -> None:
    run("git", "clone", "-q", sshd.url(hosted.repository), hosted.clone, cwd=hosted.folder,
        env=hosted.environ)
    (hosted.clone / "public_html").mkdir()
    for template, path in (("flx", ".flx"), ("htaccess", "public_html/.htaccess"),
                           ("dispatch.fcgi", "public_html/dispatch.fcgi")):
        shutil.copy(SCRIPT.parent / "templates" / template, hosted.clone / path)
    (hosted.clone / "public_html" / "dispatch.fcgi").chmod(0o755)
    change(hosted, 0, FLASK[0])


def change(hosted: Hosted, version: int, flask: str) -> None:
    write(hosted.clone / "application" / "app.py", APPLICATION.format(version=version))
    write(hosted.clone / "req.txt", f"flask=={flask}\nflup==1.0.3\n")
    hosted.git("add", "-A")
    hosted.git("commit", "-q", "-m", f"version {version}")


class Visitors:
    """Four who ask for the page again and again, until they leave."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answers: List[Dict[str, str]] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.visit) for _ in range(4)]

    def visit(self) -> None:
        while not self.stop.is_set():
            answer = self.site.get("/")
            text = answer.body.decode("utf-8", "replace")
            self.answers.append({"status": str(answer.status), "text": text})
            time.sleep(0.01)

    def __enter__(self) -> Visitors:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_no_visitor_of_a_site_notices_pushes_nor_changes_of_flask_itself(
    hosted: Hosted, apache: Host
) -> None:
    """It takes long: pip installs another Flask twice in each of most pushes."""
    out = hosted.push()
    assert f"GET http://127.0.0.1:{apache.port}/ answers 200" in out, out
    assert out.splitlines()[-3] == f"http://127.0.0.1:{apache.port}/"
    site = Site(apache.port, "127.0.0.1")
    pushes = 10 if EVERY_POINT else 3
    with Visitors(site) as visitors:
        for version in range(1, pushes + 1):
            change(hosted, version, FLASK[version % 3 != 0])
            hosted.push()
            assert site.get("/").text == str(version)
            hosted.served()
    assert {answer["status"] for answer in visitors.answers} == {"200"}, [
        answer for answer in visitors.answers if answer["status"] != "200"][:3]
    assert {answer["text"] for answer in visitors.answers} <= {str(version) for version in range(pushes + 1)}
    hosted.push("origin", "+HEAD:main")
    before = set(serving(hosted))
    change(hosted, pushes + 1, FLASK[0])
    hosted.push()
    assert site.get("/").text == str(pushes + 1)
    assert eventually(lambda: not before & set(serving(hosted)), 5), "a process of an older version is left"


def serving(hosted: Hosted) -> List[str]:
    """The processes that serve the site, each with its number."""
    return [line for line in processes_of(hosted.site) if "dispatch.fcgi" in line]


def test_a_word_that_apache_does_not_know_is_put_back(
    hosted: Hosted, apache: Host, host_virtualenv: Path
) -> None:
    """What only the live site's Apache refuses does not stay live, and can be pushed again."""
    flx = (hosted.clone / ".flx").read_text().replace("python3 -m venv", f"cp -a {host_virtualenv}")
    hosted.commit(".flx", flx)
    hosted.push()
    served = hosted.served()
    hosted.commit("public_html/.htaccess", "Nonsense On\n")
    out = hosted.push(status=None)
    assert hosted.served() == served, out
    assert "500" in out, out
    assert Site(apache.port, "127.0.0.1").get("/").text == "0"
    assert "Everything up-to-date" not in hosted.push(status=None)
