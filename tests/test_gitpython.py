"""How flaskflex comes by GitPython where it is not installed, which is the normal case."""
from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from conftest import Environ, Flaskflex, run
from helpers import (
    add_distribution, assert_prepared, assert_refused, light_virtualenv, site_packages, snapshot, untouched,
    write,
)


@pytest.fixture
def cold(tmp_path: Path, environ: Environ) -> Environ:
    """The environment of somebody who never ran flaskflex: nothing is in its cache."""
    return {**environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody answers on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def offline(environ: Environ) -> Environ:
    """The environment with no way to any package."""
    return {**environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}


def freeze(virtualenv: Path, environ: Environ) -> str:
    python = virtualenv / "bin" / "python"
    return run(python, "-I", "-m", "pip", "freeze", "--all", cwd=virtualenv, env=environ)


def test_it_is_fetched_into_a_cache_of_flaskflexs_own(
    tmp_path: Path, project: Path, virtualenv: Path, cold: Environ, flaskflex: Flaskflex
) -> None:
    # Settings that would send the packages elsewhere, or forbid to install them at all.
    hindered = {**cold, "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1"}
    before = freeze(virtualenv, cold)
    result = flaskflex(env=hindered)
    assert result.status == 0, result
    assert re.findall("^Fetched     GitPython", result.out, re.MULTILINE) == ["Fetched     GitPython"]
    assert freeze(virtualenv, cold) == before
    assert "gitpython" not in (project / "req.txt").read_text().lower()
    assert_prepared(project, cold)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["flaskflex"]
    assert [path for path in (tmp_path / "cache" / "flaskflex").iterdir() if path.name.startswith(".")] == []
    assert not (tmp_path / "home" / ".local").exists()


def test_once_fetched_it_is_used_without_a_network(
    warm_cache: Path, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    with untouched(warm_cache):
        result = flaskflex(env=offline(environ))
    assert result.status == 0
    assert "Fetched" not in result.out
    assert_prepared(project, environ)


@pytest.mark.parametrize("way", ["no index", "no answer"])
def test_without_a_network_it_says_what_is_missing_and_changes_nothing(
    way: str, closed_port: int, tmp_path: Path, project: Path, cold: Environ, flaskflex: Flaskflex
) -> None:
    cut_off = offline(cold)
    if way == "no answer":
        cut_off.update(PIP_NO_INDEX="0", PIP_INDEX_URL=f"http://127.0.0.1:{closed_port}/")
    with untouched(project):
        result = flaskflex(env=cut_off)
    assert_refused(result, "GitPython is not installed", "could not be fetched", "index", "--no-commit")
    assert snapshot(tmp_path / "cache" / "flaskflex") == {}


def test_what_does_not_have_the_known_hash_is_not_installed(
    tmp_path: Path, project: Path, cold: Environ, flaskflex: Flaskflex
) -> None:
    script = project / "flaskflex.py"
    text = script.read_text()
    found = re.search(r"smmap==[\d.]+ --hash=sha256:([0-9a-f]{64})", text)
    assert found
    write(script, text.replace(found[1], found[1][::-1]))
    with untouched(project):
        result = flaskflex(env=cold)
    assert_refused(result, "GitPython", "hash")
    assert snapshot(tmp_path / "cache" / "flaskflex") == {}


def test_two_runs_at_once_both_find_it(
    tmp_path: Path, project: Path, virtualenv: Path, cold: Environ
) -> None:
    projects = [tmp_path / "one", tmp_path / "two"]
    for folder in projects:
        run("git", "init", "-q", folder, cwd=tmp_path, env=cold)
    command = [str(virtualenv / "bin" / "python"), str(project / "flaskflex.py")]
    runs = [
        subprocess.Popen(command, cwd=folder, env=cold, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for folder in projects
    ]
    outputs = [process.communicate()[0].decode() for process in runs]
    assert [process.returncode for process in runs] == [0, 0], outputs
    for folder in projects:
        assert_prepared(folder, cold)
    assert len(list((tmp_path / "cache" / "flaskflex").iterdir())) == 1


@pytest.mark.parametrize("option", ["-n", "--no-commit"])
def test_without_a_commit_nothing_is_fetched(
    option: str, tmp_path: Path, cold: Environ, flaskflex: Flaskflex
) -> None:
    result = flaskflex(option, env=offline(cold))
    assert result.status == 0, result
    assert not (tmp_path / "cache").exists()


# A GitPython that tells when it is used.
TELLTALE = "raise SystemExit('this GitPython was used')\n"


@pytest.mark.parametrize("version, used", [
    ("3.1.59", False), ("3.0.99", False), ("3.1.60", True), ("10.0", True),
])
def test_an_installed_gitpython_is_used_unless_it_is_too_old(
    version: str, used: bool,
    tmp_path: Path, virtualenv: Path, environ: Environ, project: Path, flaskflex: Flaskflex,
) -> None:
    own = light_virtualenv(tmp_path / "own", virtualenv)
    add_distribution(own, "GitPython", version)
    write(site_packages(own) / "git" / "__init__.py", TELLTALE)
    result = flaskflex(python=own / "bin" / "python")
    assert ("this GitPython was used" in result.err) == used, result
    if not used:
        assert_prepared(project, environ)


def test_a_real_installed_gitpython_is_used_without_a_network(
    tmp_path: Path, virtualenv: Path, cold: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    own = light_virtualenv(tmp_path / "own", virtualenv)
    run(own / "bin" / "python", "-I", "-m", "pip", "install", "-q", "GitPython", cwd=own, env=cold)
    result = flaskflex(python=own / "bin" / "python", env=offline(cold))
    assert result.status == 0, result
    assert_prepared(project, cold)
    assert not (tmp_path / "cache").exists()


VARIABLES: List[Dict[str, str]] = [
    {"GIT_PYTHON_GIT_EXECUTABLE": "/nowhere/git"},
    {"GIT_PYTHON_TRACE": "full"},
    {"XDG_CACHE_HOME": "relative"},
]


@pytest.mark.parametrize("variables", VARIABLES, ids=lambda variables: next(iter(variables)))
def test_variables_of_gitpythons_do_no_harm(
    variables: Dict[str, str], warm_cache: Path, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    (Path(environ["HOME"]) / ".cache").symlink_to(warm_cache)
    result = flaskflex(env=offline({**environ, **variables}))
    assert result.status == 0, result
    assert_prepared(project, environ)
    assert not (project / "relative").exists()
