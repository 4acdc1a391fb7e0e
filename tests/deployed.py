"""A project that is prepared, committed and pushed, to try check on; and how to read what check says."""
from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import List, NamedTuple

from conftest import IDENTITY, SCRIPT, Environ, run

APPLICATION = '''\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return "Hello!"
'''

NAME = "yourprojectname"


class Item(NamedTuple):
    """One item of check: level is ok, warn or fail; hint is what stands below it."""

    level: str
    text: str
    hint: str


def deploy(folder: Path, virtualenv: Path, environ: Environ) -> Path:
    """Make a host's repository and a clone in a folder, with everything that a deployed project has.

    The clone knows its host by a relative path, so that copies of the folder are as good.
    """
    own = {**environ, **IDENTITY, "VIRTUAL_ENV": str(virtualenv)}
    clone = folder / NAME
    run("git", "init", "-q", "--bare", "-b", "main", "host.git", cwd=folder, env=own)
    run("git", "clone", "-q", "host.git", clone, cwd=folder, env=own)
    run("git", "remote", "set-url", "origin", "../host.git", cwd=clone, env=own)
    shutil.copy(SCRIPT, clone)
    run(virtualenv / "bin" / "python", "flaskflex.py", cwd=clone, env=own)
    (clone / "application").mkdir()
    (clone / "application" / "app.py").write_text(APPLICATION)
    run("git", "add", "application", "flaskflex.py", cwd=clone, env=own)
    run("git", "commit", "-q", "-m", "The application", cwd=clone, env=own)
    run("git", "push", "-q", "-u", "origin", "main", cwd=clone, env=own)
    return folder


def copy_deployed(deployed: Path, tmp_path: Path) -> Path:
    """A copy of a deployed project, with its host, for one test; gives the clone."""
    shutil.copytree(deployed, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / NAME


def read_items(out: str) -> List[Item]:
    """The items that check printed, in their order.

    Each that is not ok has a hint below it, and the summary at the end counts them right.
    """
    items: List[Item] = []
    lines = out.splitlines()
    for line in lines:
        found = re.fullmatch(r" {3,}(ok|warn|fail)   (.+)", line)
        if found and len(found[1]) + found.start(1) == 9:
            items.append(Item(found[1], found[2], ""))
        elif line.startswith(" " * 14) and items:
            last = items.pop()
            items.append(last._replace(hint=f"{last.hint}\n{line[14:]}".lstrip("\n")))
    levels = [item.level for item in items]
    assert re.fullmatch(
        rf"(Ready|Not ready) +{levels.count('ok')} ok, {levels.count('warn')} warnings?, "
        rf"{levels.count('fail')} failures?", lines[-1]
    ), out
    assert lines[-1].startswith("Not ready") == ("fail" in levels), out
    return items


def item(out: str, words: str) -> Item:
    """The one item whose text matches a pattern."""
    found = [item for item in read_items(out) if re.search(words, item.text)]
    assert len(found) == 1, f"{words!r} is in {len(found)} items of:\n{out}"
    return found[0]


def troubles(out: str) -> List[Item]:
    """The items that are not ok."""
    return [item for item in read_items(out) if item.level != "ok"]


def processes_in(*folders: Path) -> List[int]:
    """The processes that work in one of the folders: that stays, whatever else they change."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(process / "cwd").replace(" (deleted)", "")
        except OSError:  # gone, or over
            continue
        if any(cwd == str(folder) or cwd.startswith(f"{folder}/") for folder in folders):
            found.append(int(process.name))
    return found
