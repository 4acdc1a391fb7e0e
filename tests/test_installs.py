"""req.txt installs on the server, and gives nothing away: proven with real installs, and with pip."""
from __future__ import annotations

import re
import shutil
import socket
import zipfile
from pathlib import Path
from typing import Any, List, NamedTuple, Tuple

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import assert_refused, light_virtualenv, untouched, write
from installing import serving
from test_requirements import make_library

SECRET = "s3cr3t"
FLUP = "flup==1.0.3"

pytestmark = [pytest.mark.oldest_and_newest, pytest.mark.real_pip]


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


def test_what_req_txt_asks_for_can_be_installed_elsewhere(
    tmp_path: Path, project: Path, active: Path, virtualenv: Path, pip: Pip, git: Git, flaskflex: Flaskflex
) -> None:
    """With an origin, which pip freeze names then, and without one it is the same req.txt."""
    modern_library(project / "libs" / "modern", "modern_one")
    make_library(project / "libs" / "own backend", "backend_one")
    make_library(project / "libs" / "copied", "copied_one")
    wheel(project / "vendor", "vendored_one")
    legacy = legacy_library(project / "libs" / "legacy", "legacy_one")
    git("add", "libs", "vendor")
    git("commit", "-q", "-m", "libraries")
    for name in ("cloned_one", "edited_one"):
        on_host(repository(tmp_path / name, name, git), f"https://host.example/{name}", git)
    with serving(wheel(tmp_path / "served", "served_one").parent) as (address, _):
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
        frozen = pip("freeze")
        git("remote", "remove", "origin")
        assert f"-e {project}" in pip("freeze").replace(" @ file://", " ") and pip("freeze") != frozen
        with untouched(project):
            result = flaskflex()
        assert (result.status, "Nothing" in result.out) == (0, True), result
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


def clone_of_its_own(folder: Path, name: str, git: Git) -> Path:
    """A library in a repository: pip freeze shows the origin, which may or may not have what is there."""
    repository(folder, name, git)
    git("remote", "add", "origin", f"https://host.example/{name}", cwd=folder)
    return folder


def test_what_is_only_on_this_machine_is_refused_by_name(
    tmp_path: Path, project: Path, pip: Pip, git: Git, flaskflex: Flaskflex
) -> None:
    elsewhere = tmp_path / "elsewhere"
    places = {
        "copied": wheel(tmp_path / "downloads", "copied"),
        "modern": modern_library(elsewhere / "modern", "modern"),
        "cloned": clone_of_its_own(elsewhere / "cloned", "cloned", git),
    }
    pip("install", "-q", "setuptools<80", "wheel")
    build = ["install", "-q", "--no-build-isolation"]
    pip(*build, places["copied"], "-e", places["modern"], "-e", places["cloned"])
    if pip.version < [25, 1]:  # the last to run setup.py develop
        places["legacy"] = legacy_library(elsewhere / "legacy", "legacy")
        pip(*build, "--no-use-pep517", "-e", places["legacy"])
    assert "-e git+https://host.example/cloned@" in pip("freeze")
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "--exclude", *(f"{name} is installed from {places[name]}" for name in places))
    assert flaskflex(*(f"--exclude={name}" for name in places)).status == 0
    text = (project / "req.txt").read_text()
    assert [name for name in places if str(places[name]) in text or f"\n{name}" in text] == []


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


# Addresses of repositories, and whether what is in there is installed as an editable one; NAME is its own.
REPOSITORIES: List[Tuple[str, bool]] = [
    (f"https://user:{SECRET}@host.example/NAME", True),
    (f"https://{SECRET}@host.example/NAME", True),
    (f"https://{SECRET}:x-oauth-basic@host.example/NAME", True),
    (f"https://:{SECRET}@host.example/NAME", True),
    (f"ssh://git:{SECRET}@host.example/NAME", True),
    (f"https://host.example/NAME?private_token={SECRET}", True),
    (f"https://host.example/NAME?private_token={SECRET}", False),
    (f"http://user:%73{SECRET}@host.example/NAME", True),
]


def test_repositories_whose_address_holds_a_secret_are_refused(
    tmp_path: Path, project: Path, pip: Pip, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    names = [f"x{number}" for number in range(len(REPOSITORIES))]
    wanted: List[str] = []
    for name, (address, editable) in zip(names, REPOSITORIES):
        address = address.replace("NAME", name)
        on_host(repository(tmp_path / name, name, git), address, git)
        wanted += [*(["-e"] if editable else []), f"git+{address}#egg={name}"]
    pip("install", "-q", *wanted)
    for name in names:
        git("config", "--global", "--remove-section", f"url.{(tmp_path / name).as_uri()}")
    assert [SECRET in line for line in pip("freeze").splitlines()] == [True] * len(names)
    with untouched(project):
        results = [flaskflex(*options) for options in RUNS]
    reasons = [f"{name} holds what looks like a password or a token" for name in names]
    for result in results:
        assert_refused(result, *reasons, "--exclude")
    assert flaskflex(*(f"--exclude={name}" for name in names)).status == 0
    said = (text for result in results for text in (result.out, result.err))
    assert_nowhere(SECRET, project, environ, *said)


# The user and the query in the address of a wheel, and whether pip itself leaves the secret in it.
WHEELS: List[Tuple[str, str, bool]] = [
    ("", f"?token={SECRET}", True),
    ("", f"?X-Amz-Signature={SECRET}&Expires=1", True),
    (f"user:{SECRET}@", "", False),
    (f"{SECRET}@", "", False),
]


def test_wheels_whose_address_holds_a_secret_are_refused_or_cleared_of_it(
    tmp_path: Path, project: Path, pip: Pip, environ: Environ, flaskflex: Flaskflex
) -> None:
    names = [wheel(tmp_path / "served", f"x{number}").name for number in range(len(WHEELS))]
    with serving(tmp_path / "served") as (address, _):
        host = address.partition("://")[2]
        pip("install", "-q", *(f"http://{user}{host}/{name}{query}"
                               for name, (user, query, _) in zip(names, WHEELS)))
    secret = [f"x{number}" for number, (_, _, refused) in enumerate(WHEELS) if refused]
    assert [line.split()[0] for line in pip("freeze").splitlines() if SECRET in line] == secret
    refused = flaskflex()
    assert_refused(refused, *(f"{name} holds what looks like a password or a token" for name in secret))
    assert "x2" not in refused.err and "x3" not in refused.err
    result = flaskflex(*(f"--exclude={name}" for name in secret))
    assert result.status == 0, result
    for name in names[2:]:
        assert f"{name[:2]} @ http://{host}/{name}" in (project / "req.txt").read_text()
    assert_nowhere(SECRET, project, environ, refused.out, refused.err, result.out, result.err)


def test_a_secret_in_what_pip_says_when_it_fails_is_not_passed_on(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    """A damaged virtualenv: pip's last words may quote any URL."""
    broken = next(active.glob("lib/*/site-packages/pip"))
    broken.unlink()
    for url in (f"git+https://user:{SECRET}@host.example/x?token={SECRET}",
                f"https://user:two words {SECRET}@host.example/", f"'/simple/{SECRET}/x'"):
        words = f"ERROR: cannot read {url}\n"
        write(broken / "__main__.py", f"import sys\nsys.exit({words!r})\n")
        with untouched(project):
            result = flaskflex()
        assert_refused(result, "pip freeze failed", "ERROR: cannot read ")
        assert SECRET not in result.out + result.err, url


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
    listed = "==0.0.0" in pip("freeze")  # Debian 12's own pip leaves it out by itself
    assert ("pkg-resources" in result.err, "flaskflex" in result.err) == (listed, True)
