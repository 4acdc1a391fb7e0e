"""flaskflex as a distribution: what `python -m build` makes, and that it installs and runs."""
from __future__ import annotations

import email
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import pytest
from conftest import SCRIPT, Environ, run
from helpers import light_virtualenv, load_flaskflex, snapshot
from installing import copy_source, pip_install, python_of, tool

pytestmark = pytest.mark.once

flaskflex_module: Any = load_flaskflex()
VERSION: str = flaskflex_module.__version__


class Built(NamedTuple):
    """The files that were built from, by their paths, and the two distributions."""

    source: Dict[str, bytes]
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Built:
    """Both distributions; the wheel is made from the sdist, as an index's users may have to."""
    folder = tmp_path_factory.mktemp("packaging")
    source = copy_source(folder / "source")
    files = {path: content for path, (_, _, content) in snapshot(source).items() if (source / path).is_file()}
    run(tool("pyproject-build"), "--outdir", folder / "dist", source, cwd=folder, env=session_environ)
    names = sorted(path.name for path in (folder / "dist").iterdir())
    assert names == [f"flaskflex-{VERSION}-py3-none-any.whl", f"flaskflex-{VERSION}.tar.gz"]
    return Built(files, folder / "dist" / names[1], folder / "dist" / names[0])


@pytest.fixture
def unpacked(built: Built, tmp_path: Path) -> Path:
    """The folder that is in the sdist."""
    with tarfile.open(built.sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    return tmp_path / f"flaskflex-{VERSION}"


def test_the_wheel_holds_one_module(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        modules = [name for name in wheel.namelist() if ".dist-info/" not in name]
        assert modules == ["flaskflex.py"]
        assert wheel.read("flaskflex.py") == built.source["flaskflex.py"]


def test_the_sdist_holds_all_of_the_source(built: Built, unpacked: Path) -> None:
    differing = [path for path, content in built.source.items()
                 if not (unpacked / path).is_file() or (unpacked / path).read_bytes() != content]
    assert differing == []


def test_the_tests_in_the_sdist_run(unpacked: Path, session_environ: Environ) -> None:
    """All can be loaded, with what they import, and some of them are run: no more, as this is one of them."""
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run(*pytest_here, "--collect-only", cwd=unpacked, env=session_environ)
    run(*pytest_here, "tests/test_templates.py", cwd=unpacked, env=session_environ)


def test_an_index_would_accept_both(built: Built, session_environ: Environ) -> None:
    run(tool("twine"), "check", "--strict", built.sdist, built.wheel,
        cwd=built.sdist.parent, env=session_environ)


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
@pytest.mark.parametrize("command", [["bin/flaskflex"], ["bin/python", "-m", "flaskflex"]], ids=" ".join)
def test_both_install_and_run(
    kind: str, command: List[str], built: Built, tmp_path: Path, virtualenv: Path, environ: Environ
) -> None:
    own = light_virtualenv(tmp_path / "env", virtualenv)
    pip_install(own, "--no-deps", built.sdist if kind == "sdist" else built.wheel, cwd=tmp_path, env=environ)
    command = [str(own / command[0]), *command[1:]]
    assert run(*command, "--version", cwd=tmp_path, env=environ) == f"flaskflex {VERSION}\n"
    helped = run(python_of(virtualenv), SCRIPT, "--help", cwd=tmp_path, env=environ)
    assert run(*command, "--help", cwd=tmp_path, env=environ) == helped


def test_the_metadata_says_what_the_module_says(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"flaskflex-{VERSION}.dist-info/METADATA"))
    floor = ".".join(map(str, flaskflex_module.GITPYTHON_MIN))
    oldest = ".".join(map(str, flaskflex_module.OLDEST_PYTHON))
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra" not in need]
    assert metadata["Version"] == VERSION
    assert needs == [f"GitPython>={floor}"]
    assert metadata["Requires-Python"] == f">={oldest}"
    assert f"Programming Language :: Python :: {oldest}" in metadata.get_all("Classifier", [])


def test_the_version_stands_in_one_place() -> None:
    files = [SCRIPT, SCRIPT.parent / "pyproject.toml", SCRIPT.parent / "setup.cfg",
             *(SCRIPT.parent / "templates").iterdir()]
    found = [path.name for path in files for _ in re.findall(rf"\b{re.escape(VERSION)}\b", path.read_text())]
    assert found == ["flaskflex.py"]
