"""The newcomer's first command."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPT, Environ, Flaskflex, Result, git_in, hermetic_environ, run
from helpers import FILES, assert_refused, untouched


@pytest.fixture
def newcomer(tmp_path: Path, warm_cache: Path) -> Environ:
    """Somebody with Python and git, whom git does not know, and no virtualenv."""
    environ = hermetic_environ(tmp_path / "newcomer")
    environ["XDG_CACHE_HOME"] = str(warm_cache)
    # Otherwise git may guess, from the names of the user and of the machine.
    run("git", "config", "--global", "user.useConfigOnly", "true", cwd=tmp_path, env=environ)
    return environ


def test_the_demo_goes_the_whole_way_from_a_host_to_the_page(
    tmp_path: Path, newcomer: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    result = flaskflex("demo", cwd=folder, env=newcomer, python=python)
    assert result.status == 0, result
    assert [path.name for path in folder.iterdir()] == ["flaskflex-demo"]
    demo = folder / "flaskflex-demo" / "yourprojectname"
    hosted = folder / "flaskflex-demo" / "host" / "yourprojectname.git"

    git = git_in(demo, newcomer)
    assert git("status", "--porcelain") == ""
    assert set(git("ls-files").splitlines()) == {*FILES, ".gitignore", "application/app.py"}
    assert set(git("log", "--format=%an <%ae>").splitlines()) == {"A Student <student@example.org>"}
    assert git("log", "--format=%(trailers:key=Flaskflex-Version,valueonly)", "--", ".flx").splitlines()[0]
    assert re.search("^[Ff]lask==", (demo / "req.txt").read_text(), re.MULTILINE)
    assert git("rev-parse", "refs/flaskflex/live", cwd=hosted) == git("rev-parse", "HEAD")
    # It shows what it does as one would type it, the page, and in the end what to look at.
    typed = "\n".join(line for line in result.out.splitlines() if line.startswith("$ "))
    steps = " host yourprojectname$.*git clone .* install .*flaskflex.py .*git commit .* check .*git push "
    assert re.search(steps, typed, re.MULTILINE | re.DOTALL), typed
    *_, page, history, application, _ = result.out.splitlines()
    assert re.fullmatch("The page +Hello, world!", page)
    run("sh", "-c", history.split(":", 1)[1], cwd=folder, env=newcomer)
    assert f" serve -C {demo} " in application


@pytest.mark.parametrize("name", ["a folder", "a file"])
def test_what_exists_is_left_alone(
    name: str, tmp_path: Path, newcomer: Environ, flaskflex: Flaskflex
) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file").touch()
    with untouched(tmp_path):
        result = flaskflex("demo", name, cwd=tmp_path, env=newcomer)
    assert_refused(result, name, "exists", "demo DIR")


def test_without_git_it_says_how_to_get_it_and_builds_nothing(
    tmp_path: Path, newcomer: Environ, flaskflex: Flaskflex
) -> None:
    with untouched(tmp_path):
        result = flaskflex("demo", "new", cwd=tmp_path, env={**newcomer, "PATH": str(tmp_path)})
    assert_refused(result, "git is not installed", "apt install git")


@pytest.mark.parametrize("args", ["demo new", "host blog"])
def test_from_a_pipe_it_says_that_it_needs_a_file(args: str, tmp_path: Path, newcomer: Environ) -> None:
    with untouched(tmp_path):
        with SCRIPT.open("rb") as source:
            done = subprocess.run([sys.executable, "-", *args.split()], stdin=source, cwd=tmp_path,
                                  env=newcomer, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert_refused(result, "as a file", f"Download it, and type: python3 flaskflex.py {args}\n")


def test_where_a_step_fails_it_says_which(tmp_path: Path, newcomer: Environ, flaskflex: Flaskflex) -> None:
    (tmp_path / "a file").touch()
    result = flaskflex("demo", "a file/new", cwd=tmp_path, env=newcomer)
    assert_refused(result, "the demo stopped at: mkdir", "try again")
    quiet = flaskflex("--quiet", "demo", "a file/new", cwd=tmp_path, env=newcomer)
    assert quiet.out == "" and quiet.err.startswith("flaskflex: error: the demo stopped at: mkdir")
    assert_refused(quiet, "a file", "try again")
