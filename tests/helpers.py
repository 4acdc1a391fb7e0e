"""What several tests use to look at a project, and to make the unusual ones."""
from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import stat
import subprocess
import venv
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from conftest import SCRIPT, Environ, Result, git_in

FILES = [".flx", "public_html/.htaccess", "public_html/dispatch.fcgi", "req.txt"]

Snapshot = Dict[str, Tuple[int, int, bytes]]


def snapshot(folder: Path) -> Snapshot:
    """Each path below a folder with its mode, its mtime and its content (of a folder only its mode)."""
    seen: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = b""
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(facts.st_mode):
            content = path.read_bytes()
        elif stat.S_ISDIR(facts.st_mode):
            seen[str(path.relative_to(folder))] = facts.st_mode, 0, b""
            continue
        seen[str(path.relative_to(folder))] = facts.st_mode, facts.st_mtime_ns, content
    return seen


@contextlib.contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """Fail if the block changes anything below the folders."""
    before = [snapshot(folder) for folder in folders]
    yield
    assert [snapshot(folder) for folder in folders] == before


def assert_refused(result: Result, *words: str) -> None:
    """A refusal says what is wrong, and how to go on, and exits with 1."""
    assert result.status == 1, result
    _, said, message = result.err.partition("flaskflex: error: ")
    what, _, how = message.partition("\n")
    assert said and what and how.strip(), result
    for word in words:
        assert word in message, result


def assert_prepared(folder: Path, environ: Environ) -> None:
    """The newest commit of the project holds the four files and nothing else, as the server needs them."""
    git = git_in(folder, environ)
    assert git("show", "--format=", "--name-only", "HEAD").splitlines() == FILES
    entries = [line.split() for line in git("ls-tree", "HEAD", "--", *FILES).splitlines()]
    assert [(mode, path) for mode, _, _, path in entries] == [
        ("100755" if path.endswith(".fcgi") else "100644", path) for path in FILES
    ]
    assert git("status", "--porcelain", "--", *FILES) == ""
    # Newer gits hint at the expense of looking into a sparse index.
    assert git("-c", "advice.sparseIndexExpanded=false", "fsck", "--no-dangling") == ""


def write(path: Path, text: str = "", mode: int = 0o644) -> Path:
    """Write a text as it is, line endings and all, making the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


def light_virtualenv(path: Path, lender: Path, *lent: str) -> Path:
    """A virtualenv that borrows pip (and other packages) from another one: ensurepip takes seconds."""
    venv.create(path, symlinks=True)
    for name in ("pip", *lent):
        (site_packages(path) / name).symlink_to(site_packages(lender) / name)
    return path


def add_hook(project: Path, name: str, *lines: str, place: str = ".git/hooks") -> Path:
    """Make a hook of git's, a shell script; it runs at the root of the work tree."""
    return write(project / place / name, "\n".join(["#!/bin/sh", *lines, ""]), mode=0o755)


def site_packages(virtualenv: Path) -> Path:
    """Where a virtualenv keeps its distributions."""
    return next(virtualenv.glob("lib/python*/site-packages"))


def add_distribution(
    virtualenv: Path, name: str, version: str, direct_url: Optional[Dict[str, Any]] = None
) -> None:
    """Put what pip freeze reads of a distribution into a virtualenv, as pip would write it."""
    folder = site_packages(virtualenv) / f"{name.replace('-', '_')}-{version}.dist-info"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if direct_url:
        write(folder / "direct_url.json", json.dumps(direct_url))


@functools.lru_cache(maxsize=None)
def load_flaskflex() -> ModuleType:
    """flaskflex.py as a module, for its pure functions and its constants."""
    spec = importlib.util.spec_from_file_location("flaskflex", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def newer_script(script: Path, constant: str, change: Callable[[str], str]) -> Path:
    """A later version of flaskflex beside the script: one of its templates is changed."""
    text = script.read_text(encoding="utf-8")
    newer, count = re.subn(
        rf"(?ms)^({constant} = r''')(.*?)(''')", lambda found: found[1] + change(found[2]) + found[3], text
    )
    assert count == 1 and newer != text
    newer, count = re.subn(r'(?m)^(__version__ = ".*)"', r'\1.1"', newer)
    assert count == 1
    return write(script.parent / "newer.py", newer)


def output_bytes(command: List[Any], cwd: Path, env: Environ) -> bytes:
    """What a command that succeeds prints, byte for byte."""
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, stdout=subprocess.PIPE, check=True).stdout
