"""Every way of starting flaskflex prepares the same project for the same virtualenv: the active one."""
from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

import pytest
from conftest import SCRIPT, Environ, Flaskflex, run, without_coverage
from helpers import assert_prepared, assert_refused, site_packages, untouched, write
from installing import (
    copy_source, other_python, pip_install, python_of, read_files, serving, start, tool, tool_environ,
    written_files,
)

pytestmark = pytest.mark.real_pip


class World(NamedTuple):
    """What the ways of starting need: folders, each made once for all of them, since that takes seconds."""

    virtualenv: Path  # with Flask in it
    beside: Path  # with Flask and flaskflex in it
    source: Path  # flaskflex's own repository
    tools: Path  # where pipx and uv keep what they make


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ) -> World:
    folder = tmp_path_factory.mktemp("starting")
    source = copy_source(folder / "source")
    beside = folder / "beside"
    venv.create(beside, symlinks=True)
    shutil.copytree(site_packages(virtualenv), site_packages(beside), dirs_exist_ok=True)
    pip_install(beside, ".", cwd=source, env=session_environ)
    return World(virtualenv, beside, source, folder / "tools")


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ
) -> Dict[str, bytes]:
    """The four files, as `python flaskflex.py` writes them with the virtualenv active."""
    return written_files(tmp_path_factory.mktemp("expected"), virtualenv, session_environ)


def activate(environ: Environ, virtualenv: Path) -> None:
    """What `source virtualenv/bin/activate` does, in an environment where another one is active."""
    folders = environ["PATH"].split(os.pathsep)
    folders.remove(str(Path(environ["VIRTUAL_ENV"], "bin")))
    environ["PATH"] = os.pathsep.join([str(virtualenv / "bin"), *folders])
    environ["VIRTUAL_ENV"] = str(virtualenv)


def deactivate(environ: Environ) -> None:
    """What `deactivate` does."""
    environ["PATH"] = environ["PATH"].replace(str(Path(environ.pop("VIRTUAL_ENV"), "bin")) + os.pathsep, "")


def in_tool_environ(environ: Environ, world: World) -> Environ:
    return tool_environ(environ, world.tools)


# The words that are typed in the clone, with the application's virtualenv active.
WAYS: Dict[str, Callable[[World], List[object]]] = {
    "python flaskflex.py": lambda world: ["python", "flaskflex.py"],
    "./flaskflex.py": lambda world: ["./flaskflex.py"],
    "uv run flaskflex.py": lambda world: [tool("uv"), "run", "flaskflex.py"],
    "pipx run --spec . flaskflex": lambda world: [tool("pipx"), "run", "--spec", world.source, "flaskflex"],
    "uvx --from . flaskflex": lambda world: [tool("uvx"), "--from", world.source, "flaskflex"],
    "python -m flaskflex": lambda world: ["python", "-m", "flaskflex"],
    "flaskflex": lambda world: ["flaskflex"],
    "another Python": lambda world: [other_python(), "flaskflex.py"],
    "a pipe": lambda world: ["sh", "-c", "cat flaskflex.py | python -"],
}
INSTALLED = ("python -m flaskflex", "flaskflex")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_starting_writes_the_same_files(
    way: str, world: World, project: Path, environ: Environ, expected: Dict[str, bytes]
) -> None:
    """The project holds modules of names that flaskflex imports, and no tool that starts it does."""
    for name in ("git", "gitdb", "smmap"):
        write(project / f"{name}.py", f"raise SystemExit('the {name} of the project was imported')\n")
    if way in INSTALLED:
        activate(environ, world.beside)
        (project / "flaskflex.py").unlink()  # python -m would find this one
    # env looks a program up in the PATH that it hands on, as a shell does
    result = start("/usr/bin/env", *WAYS[way](world), cwd=project, env=in_tool_environ(environ, world))
    assert result.status == 0, result
    assert f"Virtualenv  {environ['VIRTUAL_ENV']} " in result.out
    assert read_files(project) == expected
    assert_prepared(project, environ)


@pytest.mark.parametrize("has_gitpython", [True, False])
def test_another_python_uses_its_own_gitpython_if_it_has_one(
    has_gitpython: bool, tmp_path: Path, world: World, project: Path, environ: Environ,
    expected: Dict[str, bytes],
) -> None:
    run(other_python(), "-I", "-m", "venv", "--without-pip", tmp_path / "other", cwd=tmp_path, env=environ)
    if has_gitpython:
        folder = next((tmp_path / "other").glob("lib/python*/site-packages"))
        pip_install(world.virtualenv, "--target", folder, "GitPython", "typing_extensions",
                    cwd=tmp_path, env=environ)
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    # Coverage would lend it the GitPython of the tests' own environment.
    own = without_coverage(environ)
    result = start(python_of(tmp_path / "other"), "flaskflex.py", cwd=project, env=own)
    assert result.status == 0, result
    assert ("Fetched" in result.out) is (not has_gitpython)
    assert (tmp_path / "cache").exists() is (not has_gitpython)
    assert f"Virtualenv  {world.virtualenv} " in result.out
    assert read_files(project) == expected
    assert_prepared(project, environ)


# The words that are typed while no virtualenv is active, and whether flaskflex.py lies in the clone.
WAYS_WITHOUT: Dict[str, Tuple[bool, Callable[[World], List[object]]]] = {
    "pipx run --spec . flaskflex": (False, WAYS["pipx run --spec . flaskflex"]),
    "uvx --from . flaskflex": (False, WAYS["uvx --from . flaskflex"]),
    "uv run flaskflex.py": (True, lambda world: [
        tool("uv"), "run", "--python", os.path.realpath(sys.executable), "flaskflex.py",
    ]),
    "env/bin/flaskflex": (False, lambda world: [world.beside / "bin" / "flaskflex"]),
    "env/bin/python -m flaskflex": (False, lambda world: [python_of(world.beside), "-m", "flaskflex"]),
    "env/bin/python -m flaskflex, in a clone that holds one":
        (True, lambda world: [python_of(world.beside), "-m", "flaskflex"]),
    "env/bin/python flaskflex.py": (True, lambda world: [python_of(world.beside), "flaskflex.py"]),
    "another Python": (True, lambda world: [other_python(), "flaskflex.py"]),
}


@pytest.mark.parametrize("way", WAYS_WITHOUT)
def test_the_environment_of_the_tool_is_never_taken_for_the_applications(
    way: str, world: World, project: Path, environ: Environ
) -> None:
    downloaded, command = WAYS_WITHOUT[way]
    if not downloaded:
        (project / "flaskflex.py").unlink()
    deactivate(environ)
    with untouched(project):
        result = start(*command(world), cwd=project, env=in_tool_environ(environ, world))
    assert_refused(result, "no virtualenv is active", "/bin/activate", "--venv")


@pytest.mark.parametrize("download", [
    ["wget", "-q"],
    [sys.executable, "-c", "import sys, urllib.request as r; r.urlretrieve(sys.argv[1], 'flaskflex.py')"],
], ids=["wget", "urllib"])
def test_the_downloaded_file_is_all_that_is_needed(
    download: List[str], project: Path, environ: Environ, expected: Dict[str, bytes]
) -> None:
    if not shutil.which(download[0]):
        pytest.skip(f"{download[0]} is not installed")
    (project / "flaskflex.py").unlink()
    with serving(SCRIPT.parent) as (address, asked):
        run(*download, f"{address}/flaskflex.py", cwd=project, env={**environ, "no_proxy": "127.0.0.1"})
    assert asked == ["GET /flaskflex.py HTTP/1.1"]
    assert (project / "flaskflex.py").read_bytes() == SCRIPT.read_bytes()
    result = start("/usr/bin/env", "python", "flaskflex.py", cwd=project, env=environ)
    assert result.status == 0, result
    assert read_files(project) == expected
    assert_prepared(project, environ)


def test_it_runs_from_a_folder_that_cannot_be_written_and_elsewhere_than_the_project(
    tmp_path: Path, project: Path, flaskflex: Flaskflex, expected: Dict[str, bytes]
) -> None:
    script = tmp_path / "elsewhere" / "flaskflex.py"
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    script.chmod(0o444)
    script.parent.chmod(0o555)
    with untouched(script.parent):
        result = flaskflex("-C", project, cwd=tmp_path, script=script)
    assert result.status == 0, result
    assert read_files(project) == expected
