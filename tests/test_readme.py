"""What is written is true: the README's tutorial is run here as it stands, and the pages are compared."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest
from apache import Host, VirtualHost, running_host, why_not
from conftest import SCRIPT, Environ, hermetic_environ, run
from installing import serving
from machine import running_sshd

ROOT = SCRIPT.parent
README = ROOT / "README.rst"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.rst", ROOT / "CONTRIBUTING.rst", *sorted(DOCS.glob("*.rst"))]
NAME = "yourprojectname"
DOWNLOAD = "https://example.org/flaskflex.py"

pytestmark = pytest.mark.once


def section(title: str) -> str:
    """Return the text of one of the README's sections, which are underlined with dashes."""
    parts = re.split(r"^(.+)\n-{5,}\n", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title]


def blocks(text: str, opening: str) -> List[str]:
    """Return the indented blocks that follow a line such as `::`, without their indentation."""
    found = re.findall(rf"^{re.escape(opening)}\n\n((?:(?:    .*)?\n)+)", text, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in found]


def code_lines(text: str) -> List[str]:
    """Return the lines of a template that do something: no blank, no comment, not the module's docstring."""
    text = re.sub(r'\A(#!.*\n)"""(?s:.*?)"""\n', r"\1", text)
    return [line for line in text.split("\n") if line and not re.match(r"\s*#(?!!)", line)]


def test_each_line_of_the_templates_is_explained() -> None:
    explained = "".join(blocks((DOCS / "templates.rst").read_text(encoding="utf-8"), "::")).split("\n")
    templates = [ROOT / "templates" / name for name in ("flx", "htaccess", "dispatch.fcgi")]
    lines = [line for path in templates for line in code_lines(path.read_text(encoding="utf-8"))]
    assert [line for line in explained if line] == lines


def test_each_promise_names_tests_that_exist() -> None:
    promises = (DOCS / "promises.rst").read_text(encoding="utf-8").split("\n- ")[1:]
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    existing = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE))
    for promise in promises:
        named = re.findall(r"``(test_\w+)``", promise)
        assert named and existing.issuperset(named), (promise, set(named) - existing)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_renders_without_a_warning(page: Path) -> None:
    command = [sys.executable, "-m", "docutils", "--report=info", "--halt=info", str(page), os.devnull]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout.decode()) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_or_leads_to_is_there_and_a_picture_has_a_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pictures = re.findall(r"^\.\. image:: (\S+)\n((?:   .*\n)*)", text, re.MULTILINE)
    links = re.findall(r"`[^`<]+\s<([^`>:]+)>`_", text)
    named = [path for path, _ in pictures] + links
    assert [path for path in named if not (page.parent / path).exists()] == []
    assert [path for path, options in pictures if not re.search(r":alt: \S.{20}", options)] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


class Student(NamedTuple):
    """Who follows the tutorial: a home, with a folder to type the commands in, and the environment."""

    home: Path
    environ: Environ

    def types(self, commands: str) -> str:
        """Type commands into a shell; return all that is shown."""
        return run("bash", "-ec", commands, cwd=self.home / "work", env=self.environ)


@pytest.fixture
def apache(tmp_path: Path) -> Iterator[Host]:
    """The Apache of a host, which serves the project's site as soon as there is one."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with running_host() as apache:
        site = apache.homes / NAME / NAME
        site.parent.mkdir()
        override = "FileInfo Options=ExecCGI,SymLinksIfOwnerMatch"
        apache.start([VirtualHost(NAME, site / "public_html", override, options="SymLinksIfOwnerMatch")])
        yield apache


@pytest.fixture
def student(tmp_path: Path, apache: Host) -> Student:
    """A student, whose wget asks that Apache for every site, and whose git calls a new branch trunk."""
    home = tmp_path / "student"
    environ = hermetic_environ(home)
    for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"):
        del environ[name]
    for name in (".ssh", "work"):
        (home / name).mkdir(mode=0o700)
    (home / ".gitconfig").write_text("[init]\n\tdefaultBranch = trunk\n")
    (home / ".wgetrc").write_text(f"http_proxy = http://127.0.0.1:{apache.port}/\nno_proxy = 127.0.0.1\n")
    return Student(home, environ)


@contextlib.contextmanager
def host_of(student: Student, apache: Host, folder: Path) -> Iterator[None]:
    """Make the project on a host, as the README says, and let the student in by the key that they made."""
    environ = hermetic_environ(folder / "host-home")
    url = f"http://127.0.0.1:{apache.port}/"
    run("python3", SCRIPT, "host", NAME, "--url", url, cwd=apache.homes / NAME, env=environ)
    with running_sshd(folder / "sshd", environ) as sshd:
        own_key = student.home / ".ssh" / "id_ed25519"
        shutil.copy(f"{own_key}.pub", folder / "sshd" / "user_key.pub")
        student.environ["GIT_SSH_COMMAND"] = sshd.ssh.replace(str(folder / "sshd" / "user_key"), str(own_key))
        place = sshd.url(apache.homes / NAME)
        student.types(f"git config --global url.{place}/.insteadOf ssh://{NAME}@{NAME}.example.org/~/")
        yield


def test_the_tutorial_deploys_and_its_changes_are_seen(
    tmp_path: Path, apache: Host, student: Student
) -> None:
    """It takes half a minute, for it is all of it: two virtualenvs, and two pushes that are tried."""
    commands = "".join(blocks(section("Tutorial: deploying your application"), ".. code-block:: sh"))
    register, clone, deploy = commands.partition("git clone ")
    assert "ssh-ed25519" in student.types(register)
    with host_of(student, apache, tmp_path), serving(ROOT) as (address, _):
        shown = student.types(clone + deploy.replace(DOWNLOAD, f"{address}/flaskflex.py"))
    assert re.findall("Hello, world!|Hello again!", shown) == ["Hello, world!", "Hello again!"]
    assert re.search(r"^ +ok   .*GET / answers 200 OK", shown, re.MULTILINE)
    site = apache.homes / NAME / NAME
    asked = [line for line in (site / "req.txt").read_text().splitlines() if not line.startswith("#")]
    installed = run(site / ".venv/bin/python", "-Im", "pip", "freeze", cwd=site, env=student.environ)
    assert sorted(asked) == sorted(installed.splitlines()) and "Flask-Login" in installed
    assert "trunk" in run("git", "branch", cwd=site.with_suffix(".git"), env=student.environ)
