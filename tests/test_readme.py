"""What is written is true: pages are compared with what they are about. Commands: see test_tutorial.py."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
from conftest import SCRIPT
from test_two_machines import HAPROXY

ROOT = SCRIPT.parent
README = ROOT / "README.rst"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.rst", ROOT / "CONTRIBUTING.rst", *sorted(DOCS.glob("*.rst"))]
NAME = "yourprojectname"

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


def test_the_balancers_settings_are_those_that_were_tried() -> None:
    (shown,) = blocks((DOCS / "several-machines.rst").read_text(encoding="utf-8"), ".. code-block:: text")
    tried = HAPROXY.format(port="", one="one.example.org", two="two.example.org")
    assert shown.strip() == tried.replace("127.0.0.1:", ":80").replace("blog", NAME).strip()


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250
