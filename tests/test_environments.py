"""Every kind of virtualenv is frozen as it is, and nothing is installed into it."""
from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from conftest import Environ, run, without_coverage
from helpers import (
    Snapshot, add_distribution, assert_prepared, assert_refused, light_virtualenv, site_packages, snapshot,
    untouched, write,
)
from installing import (
    copy_source, make_wheel, old_python, other_python, pip_install, python_of, start, tool, tool_environ,
)

BASE_PYTHON = Path(os.path.realpath(sys.executable))

pytestmark = [pytest.mark.oldest_and_newest, pytest.mark.real_pip]


def frozen(project: Path) -> List[str]:
    """The requirements of req.txt in lower case: pip and uv differ in how they write names."""
    lines = (project / "req.txt").read_text(encoding="utf-8").lower().splitlines()
    # Some of these, which virtualenv and uv bring along, pip freeze shows.
    return [line for line in lines if not line.startswith(("#", "packaging==", "setuptools==", "wheel=="))]


def activated(virtualenv: Path, environ: Environ) -> Environ:
    """The environment with this virtualenv active instead of the shared one."""
    path = environ["PATH"].replace(str(Path(environ["VIRTUAL_ENV"], "bin")), str(virtualenv / "bin"))
    return {**environ, "VIRTUAL_ENV": str(virtualenv), "PATH": path}


def installed_files(virtualenv: Path) -> Snapshot:
    """All that is in a virtualenv but the byte code that Python keeps of what it has run."""
    return {path: facts for path, facts in snapshot(virtualenv).items() if "__pycache__" not in path}


def version_of(python: Path, environ: Environ) -> str:
    """The version of a Python, by its own word."""
    asked = "import platform; print(platform.python_version())"
    return run(python, "-I", "-c", asked, cwd=Path("/"), env=environ).strip()


# --- who made it ---

Maker = Callable[[Path, Environ], object]


def by_python(*options: str) -> Maker:
    """Virtualenvs that `python -m venv` makes."""
    return lambda path, environ: run(BASE_PYTHON, "-m", "venv", *options, path, cwd=path.parent, env=environ)


def by_tool(name: str, *options: str) -> Maker:
    """Virtualenvs that another tool makes for the same Python."""
    return lambda path, environ: run(
        tool(name), *options, "--quiet", "--python", BASE_PYTHON, path, cwd=path.parent,
        env=tool_environ(environ, path.parent / "tools"),
    )


def by_other_python(path: Path, environ: Environ) -> None:
    """Virtualenvs of another Python than the one that will run flaskflex."""
    run(other_python(), "-m", "venv", "--without-pip", path, cwd=path.parent, env=environ)


# How it is made, and in which folder: spaces and the like are all one to the maker.
KINDS: List[Tuple[str, str, Maker]] = [
    ("venv", "my env, été #1", by_python()),
    ("venv --copies", "env", by_python("--copies", "--without-pip")),
    ("venv --system-site-packages", "env", by_python("--system-site-packages", "--without-pip")),
    ("virtualenv", "env", by_tool("virtualenv")),
    ("virtualenv --system-site-packages", "env", by_tool("virtualenv", "--system-site-packages")),
    ("uv venv", "my env, été #1", by_tool("uv", "venv")),
    ("uv venv --seed", "env", by_tool("uv", "venv", "--seed")),
    ("another Python", "env", by_other_python),
]


@pytest.mark.parametrize("kind, name, make", KINDS, ids=[kind for kind, _, _ in KINDS])
def test_every_kind_of_virtualenv_is_frozen(
    kind: str, name: str, make: Maker, tmp_path: Path, project: Path, environ: Environ
) -> None:
    virtualenv = tmp_path / name
    make(virtualenv, environ)
    add_distribution(virtualenv, "shop", "1.0")
    python = BASE_PYTHON if kind == "another Python" else python_of(virtualenv)
    before = installed_files(virtualenv)
    result = start(python, "flaskflex.py", cwd=project, env=activated(virtualenv, environ))
    assert result.status == 0, result
    assert installed_files(virtualenv) == before
    assert f"Virtualenv  {virtualenv} (Python {version_of(python_of(virtualenv), environ)})\n" in result.out
    assert ("packages of the whole machine" in result.err) == ("--system" in kind)
    assert frozen(project) == ["flup==1.0.3", "shop==1.0"]
    assert_prepared(project, environ)


# --- conda's layout ---


@pytest.fixture
def conda(tmp_path: Path, virtualenv: Path, environ: Environ) -> Path:
    """A folder that looks like an environment of conda's, which itself cannot be had here.

    It has no pyvenv.cfg; its Python believes itself at home in it.
    """
    prefix = tmp_path / "conda" / "envs" / "shop"
    own = light_virtualenv(tmp_path / "hidden", virtualenv)
    add_distribution(own, "shop", "1.0")
    write(prefix / "conda-meta" / "history")
    write(prefix / "bin" / "python", f'#!/bin/sh\nexec {python_of(own)} "$@"\n', 0o755)
    (prefix / "lib").symlink_to(own / "lib")
    environ.pop("VIRTUAL_ENV")
    return prefix


def test_an_active_conda_environment_is_frozen(conda: Path, project: Path, environ: Environ) -> None:
    environ.update(CONDA_PREFIX=str(conda), CONDA_DEFAULT_ENV="shop")
    result = start(BASE_PYTHON, "flaskflex.py", cwd=project, env=environ)
    assert result.status == 0, result
    assert f"Virtualenv  {conda} (Python {version_of(BASE_PYTHON, environ)})\n" in result.out
    assert frozen(project) == ["flup==1.0.3", "shop==1.0"]


def test_condas_base_is_no_environment_of_the_applications(
    conda: Path, project: Path, environ: Environ
) -> None:
    environ.update(CONDA_PREFIX=str(conda), CONDA_DEFAULT_ENV="base")
    with untouched(project):
        result = start(BASE_PYTHON, "flaskflex.py", cwd=project, env=environ)
    assert_refused(result, "no virtualenv is active")


def test_a_virtualenv_that_is_active_within_a_conda_environment_is_the_one(
    conda: Path, virtualenv: Path, project: Path, environ: Environ
) -> None:
    environ.update(CONDA_PREFIX=str(conda), CONDA_DEFAULT_ENV="shop", VIRTUAL_ENV=str(virtualenv))
    result = start(BASE_PYTHON, "flaskflex.py", "-n", cwd=project, env=environ)
    assert f"Virtualenv  {virtualenv} " in result.out
    assert str(conda) in result.err and "warning" in result.err


# --- a Python that does not start ---


def take_away_the_execute_bit(python: Path) -> None:
    python.chmod(0o644)


def make_it_one_of_another_machine(python: Path) -> None:
    python.write_bytes(b"\x7fELF" + bytes(60))


def make_it_end_at_once(python: Path) -> None:
    write(python, "#!/bin/sh\necho no such library >&2\nexit 127\n", 0o755)


@pytest.mark.parametrize("noted", [True, False], ids=["", "version unknown"])
@pytest.mark.parametrize("harm", [
    take_away_the_execute_bit, make_it_one_of_another_machine, make_it_end_at_once,
], ids=lambda harm: str(harm.__name__))
def test_a_virtualenv_whose_python_does_not_start_is_named(
    harm: Callable[[Path], None], noted: bool, tmp_path: Path, project: Path, environ: Environ
) -> None:
    virtualenv = tmp_path / "env"
    by_python("--copies", "--without-pip")(virtualenv, environ)
    write(site_packages(virtualenv) / "pip" / "__main__.py")
    if not noted:
        write(virtualenv / "pyvenv.cfg", f"home = {BASE_PYTHON.parent}\n")
    harm(python_of(virtualenv))
    with untouched(project):
        result = start(BASE_PYTHON, "flaskflex.py", cwd=project, env=activated(virtualenv, environ))
    assert_refused(result, str(virtualenv))


# --- one without pip ---

BAD_PIP = "#!/bin/sh\necho a bare pip was run >&2\nexit 1\n"


@pytest.fixture
def pipless(tmp_path: Path, environ: Environ) -> Path:
    """A virtualenv as `uv venv` makes it, active, with a pip of something else's first on PATH."""
    virtualenv = tmp_path / "env"
    by_python("--without-pip")(virtualenv, environ)
    add_distribution(virtualenv, "shop", "1.0")
    environ.update(activated(virtualenv, environ), XDG_CACHE_HOME=str(tmp_path / "cache"))
    for name in ("pip", "pip3"):
        write(tmp_path / "programs" / name, BAD_PIP, 0o755)
    environ["PATH"] = f"{tmp_path / 'programs'}{os.pathsep}{environ['PATH']}"
    return virtualenv


def put_on_path(name: str, environ: Environ, log: Path) -> None:
    """Put a tool on PATH which notes down how it is called."""
    folder = Path(environ["PATH"].split(os.pathsep)[0])
    write(folder / name, f'#!/bin/sh\necho {name} "$@" >> {log}\nexec {tool(name)} "$@"\n', 0o755)


# Whether uv is on PATH, and whether flaskflex runs on a Python with pip; then what freezes, with what.
FREEZERS = [(True, True, "uv"), (True, False, "uv"), (False, True, "pip"), (False, False, "pip's wheel")]


@pytest.mark.parametrize("has_uv, has_pip, freezer", FREEZERS)
def test_a_virtualenv_without_pip_is_frozen_and_stays_without(
    has_uv: bool, has_pip: bool, freezer: str, tmp_path: Path,
    virtualenv: Path, pipless: Path, project: Path, environ: Environ,
) -> None:
    """GitPython is fetched as well: nothing is in the cache."""
    log = write(tmp_path / "log")
    if has_uv:
        put_on_path("uv", environ, log)
    python = python_of(virtualenv) if has_pip else python_of(pipless)
    with untouched(pipless):
        result = start(python, "flaskflex.py", cwd=project, env=tool_environ(environ, tmp_path / "tools"))
    assert result.status == 0, result
    assert ("pip freeze" in log.read_text()) == (freezer == "uv")
    assert "Fetched     GitPython" in result.out
    assert frozen(project) == ["flup==1.0.3", "shop==1.0"]
    assert_prepared(project, environ)


def hide_ensurepip(folder: Path, environ: Environ) -> None:
    """Debian leaves it out of Python, which is all that it takes to be without one."""
    write(folder / "ensurepip" / "__init__.py", "raise ImportError('there is no ensurepip')\n")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environ.get("PYTHONPATH")]))


def test_a_pip_that_is_too_old_for_another_python_is_passed_over(
    tmp_path: Path, virtualenv: Path, pipless: Path, project: Path, environ: Environ
) -> None:
    old = tmp_path / "old"
    by_python("--without-pip")(old, environ)
    write(site_packages(old) / "pip" / "__main__.py", "raise SystemExit('no such option: --python')\n")
    add_distribution(old, "pip", "22.2.2")
    result = start(python_of(old), "flaskflex.py", "-n", cwd=project, env=environ)
    assert result.status == 0, result
    assert "+shop==1.0" in result.out


def test_without_any_pip_it_says_what_is_missing(
    tmp_path: Path, pipless: Path, project: Path, environ: Environ
) -> None:
    hide_ensurepip(tmp_path / "modules", environ)
    with untouched(project, pipless):
        result = start(python_of(pipless), "flaskflex.py", cwd=project, env=environ)
    assert_refused(result, "no pip", str(pipless), "uv")


@pytest.mark.parametrize("has_uv, has_pip, freezer", FREEZERS[1:])
def test_without_pip_the_freeze_is_isolated_all_the_same(
    has_uv: bool, has_pip: bool, freezer: str, tmp_path: Path,
    virtualenv: Path, pipless: Path, project: Path, environ: Environ,
) -> None:
    """From the project's modules, from PYTHONPATH, and from settings for pip and uv."""
    if has_uv:
        put_on_path("uv", environ, tmp_path / "log")
    for name in ("typing", "json", "pip", "email"):
        write(project / f"{name}.py", "raise SystemExit('a module of the project was imported')\n")
    write(project / "intruder-1.0.dist-info" / "METADATA", "Name: intruder\nVersion: 1.0\n")
    write(project / "uv.toml", "system = [\n")
    hostile = {
        "PYTHONPATH": str(project), "PIP_PATH": str(project), "PIP_EXCLUDE": "shop", "PIP_PYTHON": "/nowhere",
        "PIP_QUIET": "3", "UV_SYSTEM_PYTHON": "1", "UV_QUIET": "1", "UV_CACHE_DIR": "/dev/null/cache",
    }
    python = python_of(virtualenv) if has_pip else python_of(pipless)
    result = start(python, "flaskflex.py", "-n", cwd=project, env={**without_coverage(environ), **hostile})
    assert result.status == 0, result
    assert "+shop==1.0" in result.out
    assert "intruder" not in result.out


def test_an_application_on_an_older_python_than_gitpython_needs_is_prepared_all_the_same(
    tmp_path: Path, project: Path, environ: Environ
) -> None:
    """Its own pip would find no GitPython that suits it; it is flaskflex's Python that is to import it."""
    virtualenv = tmp_path / "env"
    run(old_python(), "-m", "venv", virtualenv, cwd=tmp_path, env=environ)
    environ = {**activated(virtualenv, environ), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = start(BASE_PYTHON, "flaskflex.py", cwd=project, env=environ)
    assert result.status == 0, result
    assert f"(Python {version_of(old_python(), environ)})\n" in result.out
    assert_prepared(project, environ)


# --- flaskflex beside the application ---


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ) -> Path:
    """A folder with the wheels of flaskflex, of what it requires, and of some applications."""
    folder = tmp_path_factory.mktemp("wheels")
    source = copy_source(tmp_path_factory.mktemp("source"))
    run(python_of(virtualenv), "-m", "pip", "wheel", "-q", "-w", folder, source,
        cwd=folder, env=session_environ)
    make_wheel(folder, "shop", "GitPython")
    make_wheel(folder, "mapper", "smmap>=1")
    make_wheel(folder, "blog", 'GitPython; extra == "more"')
    return folder


BROUGHT = ["gitdb", "gitpython", "smmap"]

# What is installed by name beside flaskflex, and what of flaskflex's needs stays in req.txt for it.
BESIDE: List[Tuple[List[str], List[str]]] = [
    ([], []),
    (["shop"], BROUGHT),
    (["mapper"], ["smmap"]),
    (["blog[more]"], BROUGHT),
    (["blog"], BROUGHT),  # nothing notes whether an extra was asked for
    (["GitPython"], BROUGHT),
    (["gitdb"], ["gitdb", "smmap"]),
]


@pytest.mark.parametrize("names, kept", BESIDE, ids=[" ".join(names) for names, _ in BESIDE])
def test_what_was_installed_for_flaskflex_alone_is_left_out(
    names: List[str], kept: List[str], tmp_path: Path, wheels: Path, virtualenv: Path,
    project: Path, environ: Environ,
) -> None:
    own = light_virtualenv(tmp_path / "env", virtualenv)
    pip_install(own, "--no-index", "--find-links", wheels, *names, "flaskflex", cwd=tmp_path, env=environ)
    result = start(own / "bin" / "flaskflex", cwd=project, env=activated(own, environ))
    assert result.status == 0, result
    applications = [name.partition("[")[0].lower() for name in names]
    found = [line.partition("==")[0] for line in frozen(project)]
    told = re.findall("left out of req.txt, .*: (.*)", result.err)
    assert len(told) == 1, result
    of_old_pythons = {"typing-extensions", "typing_extensions"}  # which GitPython needs before Python 3.10
    assert set(found) - of_old_pythons == {"flup", *applications, *kept}
    assert set(told[0].split(", ")) - of_old_pythons == {"flaskflex", *BROUGHT} - set(kept)


def test_it_is_left_out_of_a_virtualenv_that_uv_manages(
    tmp_path: Path, wheels: Path, project: Path, environ: Environ
) -> None:
    own = tmp_path / "env"
    environ = tool_environ(activated(own, environ), tmp_path / "tools")
    run(tool("uv"), "venv", "-q", "--python", BASE_PYTHON, own, cwd=tmp_path, env=environ)
    run(tool("uv"), "pip", "install", "-q", "--no-index", "--find-links", wheels, "mapper", "flaskflex",
        cwd=tmp_path, env=environ)
    environ["PATH"] += os.pathsep + os.path.dirname(tool("uv"))
    result = start(own / "bin" / "flaskflex", cwd=project, env=environ)
    assert result.status == 0, result
    names = [line.partition("==")[0] for line in frozen(project)]
    # Of what flaskflex brought uv notes, unlike pip, that it was asked for by name: it may stay.
    assert "flaskflex" not in names
    assert {"flup", "mapper", "smmap"} <= set(names)
