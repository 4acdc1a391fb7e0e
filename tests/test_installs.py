"""req.txt installs on the server, and gives nothing away: proven with real installs, and with pip."""
from __future__ import annotations

import contextlib
import functools
import http.server
import re
import shutil
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import assert_refused, light_virtualenv, untouched, write
from test_requirements import make_library

SECRET = "s3cr3t"
FLUP = "flup==1.0.3"

pytestmark = pytest.mark.real_pip


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ) -> Path:
    """A folder with all that is needed of the package index, fetched once."""
    folder = tmp_path_factory.mktemp("wheels")
    run(
        virtualenv / "bin" / "python", "-I", "-m", "pip", "download", "-q", "-d", folder,
        "flask", FLUP, "setuptools<80", "wheel", cwd=folder, env=session_environ,
    )
    return folder


@pytest.fixture
def offline(environ: Environ, wheels: Path) -> Environ:
    """The environment of pip: it takes from the wheels, and from the addresses it is given, alone."""
    return {**environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "GIT_ALLOW_PROTOCOL": "file"}


@pytest.fixture
def active(tmp_path: Path, virtualenv: Path, environ: Environ) -> Path:
    """The application's virtualenv, which is active."""
    own = light_virtualenv(tmp_path / "env", virtualenv)
    environ["VIRTUAL_ENV"] = str(own)
    return own


class Pip(NamedTuple):
    """The pip of a virtualenv, in a folder."""

    virtualenv: Path
    folder: Path
    environ: Environ

    def __call__(self, *arguments: Any) -> str:
        python = self.virtualenv / "bin" / "python"
        return run(python, "-I", "-m", "pip", *arguments, cwd=self.folder, env=self.environ)

    @property
    def version(self) -> List[int]:
        return [int(number) for number in re.findall(r"\d+", self("--version"))[:2]]


@pytest.fixture
def pip(active: Path, project: Path, offline: Environ) -> Pip:
    return Pip(active, project, offline)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; gives its address."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# --- what can be installed ---


def modern_library(folder: Path, name: str) -> Path:
    """A package that setuptools builds, also as an editable one (PEP 660)."""
    settings = f"[project]\nname = '{name}'\nversion = '1.0'\n[tool.setuptools]\npy-modules = ['{name}']\n"
    write(folder / "pyproject.toml", f"[build-system]\nrequires = ['setuptools']\n{settings}")
    write(folder / f"{name}.py")
    return folder


def legacy_library(folder: Path, name: str) -> Path:
    """A package of the time before pyproject.toml."""
    text = f"import setuptools\nsetuptools.setup(name={name!r}, version='1.0', py_modules=[])\n"
    write(folder / "setup.py", text)
    return folder


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel, which needs no building."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    start = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{start}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{start}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{start}/RECORD", "")
    return path


def repository(folder: Path, name: str, git: Git) -> Path:
    """A git repository with a package in it."""
    make_library(folder, name)
    git("init", "-q", "-b", "main", folder)
    git("add", ".", cwd=folder)
    git("commit", "-q", "-m", name, cwd=folder)
    return folder


def on_host(folder: Path, address: str, git: Git) -> None:
    """Let git find behind an address what lies on the disk: all is as with a host, but for the host."""
    git("config", "--global", f"url.{folder.as_uri()}.insteadOf", address)


# --- the proof ---


@pytest.mark.parametrize("origin", [True, False], ids=["with an origin", "without an origin"])
def test_what_req_txt_asks_for_can_be_installed_elsewhere(
    origin: bool, tmp_path: Path, project: Path, active: Path, virtualenv: Path, pip: Pip, git: Git,
    flaskflex: Flaskflex,
) -> None:
    if not origin:
        git("remote", "remove", "origin")
    modern_library(project / "libs" / "modern", "modern_one")
    make_library(project / "libs" / "own backend", "backend_one")
    make_library(project / "libs" / "copied", "copied_one")
    wheel(project / "vendor", "vendored_one")
    legacy = legacy_library(project / "libs" / "legacy", "legacy_one")
    git("add", "libs", "vendor")
    git("commit", "-q", "-m", "libraries")
    for name in ("cloned_one", "edited_one"):
        on_host(repository(tmp_path / name, name, git), f"https://host.example/{name}", git)
    with served(wheel(tmp_path / "served", "served_one").parent) as address:
        pip("install", "-q", "flask", "git+https://host.example/cloned_one",
            "-e", "git+https://host.example/edited_one#egg=edited_one",
            "-e", "libs/modern", "-e", "libs/own backend", "./libs/copied",
            "./vendor/vendored_one-1.0-py3-none-any.whl", f"{address}/served_one-1.0-py3-none-any.whl")
        names = ["backend", "cloned", "copied", "edited", "modern", "served", "vendored"]
        if pip.version < [25, 1]:  # the last to run setup.py develop
            pip("install", "-q", "setuptools<80", "wheel")
            pip("install", "-q", "--no-build-isolation", "--no-use-pep517", "-e", legacy)
            pip("uninstall", "-q", "-y", "setuptools", "wheel")
            assert list(active.glob("lib/*/site-packages/*.egg-link"))
            names.append("legacy")
        result = flaskflex()
        assert result.status == 0, result
        host = tmp_path / "server"
        git("clone", "-q", project, host / "project")
        server = Pip(light_virtualenv(host / "env", virtualenv), host / "project", pip.environ)
        # Nothing of the folders of this machine is there to help.
        project.rename(tmp_path / "gone")
        server("install", "-q", "-r", "req.txt")
    assert "No broken requirements" in server("check")
    listed = re.findall(r"^(\w+?)[-_]one ", server("list"), re.MULTILINE)
    assert sorted(listed) == sorted(names)
    editable = dict(re.findall(r"^(\w+?)[-_]one .* (/\S.*)$", server("list", "--editable"), re.MULTILINE))
    places = {"modern": "modern", "backend": "own backend", "legacy": "legacy"}
    for name in places.keys() & set(names):
        assert editable.pop(name) == str(server.folder / "libs" / places[name])
    assert list(editable) == ["edited"]
    assert FLUP in server("freeze")


# --- what the server could not install ---


def a_wheel_of_this_machine(tmp_path: Path, pip: Pip) -> str:
    path = wheel(tmp_path / "downloads", "x")
    pip("install", "-q", path)
    return str(path)


def an_editable_of_setuptools(tmp_path: Path, pip: Pip) -> str:
    folder = modern_library(tmp_path / "elsewhere", "x")
    pip("install", "-q", "-e", folder)
    return str(folder)


def an_editable_of_setup_py(tmp_path: Path, pip: Pip) -> str:
    if pip.version >= [25, 1]:
        pytest.skip("this pip does not run setup.py develop")
    folder = legacy_library(tmp_path / "elsewhere", "x")
    pip("install", "-q", "setuptools<80", "wheel")
    pip("install", "-q", "--no-build-isolation", "--no-use-pep517", "-e", folder)
    return str(folder)


def an_editable_in_a_repository_of_its_own(tmp_path: Path, pip: Pip) -> str:
    """pip freeze shows the repository's origin, which may or may not have what is in the folder."""
    folder = make_library(tmp_path / "elsewhere", "x")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"],
                    ["remote", "add", "origin", "https://host.example/x"]):
        run("git", *command, cwd=folder, env=pip.environ)
    pip("install", "-q", "-e", folder)
    assert "-e git+https://host.example/x@" in pip("freeze")
    return str(folder)


@pytest.mark.parametrize("install", [
    a_wheel_of_this_machine, an_editable_of_setuptools, an_editable_of_setup_py,
    an_editable_in_a_repository_of_its_own,
])
def test_what_is_only_on_this_machine_is_refused_by_name(
    install: Callable[[Path, Pip], str], tmp_path: Path, project: Path, pip: Pip, flaskflex: Flaskflex
) -> None:
    place = install(tmp_path, pip)
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "x is installed from", place, "--exclude")
    assert flaskflex("--exclude", "x").status == 0
    assert place not in (project / "req.txt").read_text()


def test_what_was_built_on_another_machine_is_asked_for_by_its_version(
    tmp_path: Path, project: Path, pip: Pip, flaskflex: Flaskflex
) -> None:
    """As conda's packages are: built in a folder of a machine that nobody has."""
    folder = make_library(tmp_path / "feedstock_root" / "work", "x")
    pip("install", "-q", folder)
    assert f"x @ {folder.as_uri()}" in pip("freeze")
    shutil.rmtree(folder)
    assert flaskflex().status == 0
    assert "\nx==1.0\n" in (project / "req.txt").read_text()


# --- secrets ---


def assert_nowhere(secret: str, project: Path, environ: Environ, *said: str) -> None:
    """The secret is in no file that flaskflex could write, in no git object, and in no output."""
    for text in said:
        assert secret not in text
    everything = ["cat-file", "--batch-all-objects", "--batch"]
    assert secret not in run("git", *everything, cwd=project, env=environ)
    for place in (project, Path(environ["HOME"]), Path(environ["XDG_CACHE_HOME"]) / "flaskflex"):
        for path in place.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


RUNS: List[List[str]] = [["--dry-run"], [], ["--force", "--no-commit"]]


@pytest.mark.parametrize("address, editable", [
    (f"https://user:{SECRET}@host.example/x", True),
    (f"https://{SECRET}@host.example/x", True),
    (f"https://{SECRET}:x-oauth-basic@host.example/x", True),
    (f"https://:{SECRET}@host.example/x", True),
    (f"ssh://git:{SECRET}@host.example/x", True),
    (f"https://host.example/x?private_token={SECRET}", True),
    (f"https://host.example/x?private_token={SECRET}", False),
    (f"http://user:%73{SECRET}@host.example/x", True),
])
def test_a_repository_whose_address_holds_a_secret_is_refused(
    address: str, editable: bool, tmp_path: Path, project: Path, pip: Pip, git: Git, environ: Environ,
    flaskflex: Flaskflex,
) -> None:
    library = repository(tmp_path / "library", "x", git)
    on_host(library, address, git)
    pip("install", "-q", *(["-e"] if editable else []), f"git+{address}#egg=x")
    git("config", "--global", "--remove-section", f"url.{library.as_uri()}")
    assert SECRET in pip("freeze")
    with untouched(project):
        results = [flaskflex(*options) for options in RUNS]
    for result in results:
        assert_refused(result, "x holds what looks like a password or a token", "--exclude")
    assert flaskflex("--exclude", "x").status == 0
    said = (text for result in results for text in (result.out, result.err))
    assert_nowhere(SECRET, project, environ, *said)


@pytest.mark.parametrize("user, query, refused", [
    ("", f"?token={SECRET}", True),
    ("", f"?X-Amz-Signature={SECRET}&Expires=1", True),
    (f"user:{SECRET}@", "", False),  # pip itself leaves these out of what it writes down
    (f"{SECRET}@", "", False),
])
def test_a_wheel_whose_address_holds_a_secret_is_refused_or_cleared_of_it(
    user: str, query: str, refused: bool, tmp_path: Path, project: Path, pip: Pip, environ: Environ,
    flaskflex: Flaskflex,
) -> None:
    with served(wheel(tmp_path / "served", "x").parent) as address:
        host = address.partition("://")[2]
        pip("install", "-q", f"http://{user}{host}/x-1.0-py3-none-any.whl{query}")
    frozen = pip("freeze")
    assert (SECRET in frozen) == refused
    result = flaskflex()
    if refused:
        assert_refused(result, "x holds what looks like a password or a token")
    else:
        assert result.status == 0, result
        assert f"x @ http://{host}/x-1.0-py3-none-any.whl" in (project / "req.txt").read_text()
    assert_nowhere(SECRET, project, environ, result.out, result.err)


@pytest.mark.parametrize("url", [
    f"git+https://user:{SECRET}@host.example/x?token={SECRET}",
    f"https://user:two words {SECRET}@host.example/",
    f"'/simple/{SECRET}/x'",
])
def test_a_secret_in_what_pip_says_when_it_fails_is_not_passed_on(
    url: str, project: Path, pip: Pip, active: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    """A damaged virtualenv: pip's last words may quote any URL."""
    words = f"ERROR: cannot read {url}\n"
    broken = next(active.glob("lib/*/site-packages/pip"))
    broken.unlink()
    write(broken / "__main__.py", f"import sys\nsys.exit({words!r})\n")
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "pip freeze failed", "ERROR: cannot read ")
    assert SECRET not in result.out + result.err


def test_a_failed_fetch_tells_no_path_of_the_index(
    tmp_path: Path, project: Path, active: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    """A package host takes its token in the path, and pip names that on several lines."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}/simple/?token={SECRET}"
        cold = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_INDEX_URL": index, "PIP_RETRIES": "1",
                "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": ""}
        with untouched(project):
            result = flaskflex(env={**environ, **cold})
    assert_refused(result, "could not be fetched", "No matching distribution found for GitPython")
    assert SECRET not in result.out + result.err


def test_the_phantom_package_is_dropped_and_flaskflex_with_its_own_needs(
    tmp_path: Path, project: Path, pip: Pip, flaskflex: Flaskflex
) -> None:
    wheel(tmp_path / "served", "pkg_resources", "0.0.0")
    wheel(tmp_path / "served", "flaskflex")
    pip("install", "-q", "--no-index", f"--find-links={tmp_path / 'served'}", "pkg_resources", "flaskflex")
    result = flaskflex()
    assert result.status == 0, result
    lines = [line for line in (project / "req.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == [FLUP]
    assert "pkg-resources" in result.err and "flaskflex" in result.err
