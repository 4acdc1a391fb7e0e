"""The templates: valid files of their own kind, and in flaskflex.py byte for byte."""
from __future__ import annotations

import re
from types import ModuleType
from typing import Dict

import pytest
from conftest import SCRIPT, run
from helpers import load_flaskflex

TEMPLATES = SCRIPT.parent / "templates"

# Each template, its constant in flaskflex.py, and where it is written in a project ("": nowhere).
EMBEDDED = [
    ("flx", "FLX", ".flx"),
    ("htaccess", "HTACCESS", "public_html/.htaccess"),
    ("dispatch.fcgi", "DISPATCH_FCGI", "public_html/dispatch.fcgi"),
    ("hook", "HOOK", ""),
]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """flaskflex.py, imported."""
    return load_flaskflex()


@pytest.mark.parametrize("name, constant, path", EMBEDDED)
def test_the_script_holds_each_template_byte_for_byte(
    name: str, constant: str, path: str, module: ModuleType
) -> None:
    content = (TEMPLATES / name).read_bytes()
    assert getattr(module, constant).encode() == content
    assert not path or module.TEMPLATES[path].encode() == content


def test_every_template_is_embedded(module: ModuleType) -> None:
    names = sorted([*(name for name, _, _ in EMBEDDED), "apache.conf"])
    assert sorted(path.name for path in TEMPLATES.iterdir()) == names
    assert module.APACHE_CONF == (TEMPLATES / "apache.conf").read_text("utf-8")
    assert list(module.TEMPLATES) == [path for _, _, path in EMBEDDED if path]


@pytest.mark.parametrize("name", [name for name, _, _ in EMBEDDED])
def test_each_template_is_plain_text(name: str) -> None:
    content = (TEMPLATES / name).read_bytes()
    assert content.isascii() and content.endswith(b"\n") and not content.endswith(b"\n\n")
    assert b"\r" not in content and b"\t" not in content
    assert [line for line in content.splitlines() if line != line.rstrip()] == []


def test_the_script_compiles_and_names_an_interpreter() -> None:
    source = (TEMPLATES / "dispatch.fcgi").read_bytes()
    compile(source, "dispatch.fcgi", "exec", dont_inherit=True)
    assert source.startswith(b"#!/usr/bin/env python3\n")


def test_the_hook_is_a_script_of_a_posix_shell() -> None:
    assert (TEMPLATES / "hook").read_bytes().startswith(b"#!/bin/sh\n")
    run("sh", "-n", TEMPLATES / "hook", cwd=TEMPLATES, env={"PATH": "/usr/bin:/bin"})


def sections(text: str) -> Dict[str, Dict[str, str]]:
    """Section to line to the comment above it: the form of a .flx."""
    found: Dict[str, Dict[str, str]] = {}
    section, comment = "", ""
    for line in text.splitlines():
        header = re.fullmatch(r"\[(\w+)\]", line)
        if header:
            section, comment = header[1], ""
            found[section] = {}
        elif line.startswith("#"):
            comment += line
        elif line:
            found[section][line] = comment
    return found


def test_the_flx_has_the_sections_that_the_host_knows() -> None:
    flx = sections((TEMPLATES / "flx").read_text())
    assert list(flx) == ["setup", "deploy", "permission"]
    assert any(line.endswith("-m venv .venv") for line in flx["setup"])
    assert any(line.startswith(".venv/") and line.endswith("-r req.txt") for line in flx["deploy"])
    assert flx["permission"]["public_html/dispatch.fcgi 755"]
    assert all(comment for lines in flx.values() for comment in lines.values())
