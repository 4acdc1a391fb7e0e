"""What the tests share: a hermetic environment, one virtualenv, real clones, and the script itself.

Everything here is real: git, pip, virtualenvs, and flaskflex.py run as a program of its own.
"""
from __future__ import annotations

import fcntl
import importlib.util
import os
import py_compile
import shutil
import signal
import subprocess
import venv
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import pytest

# Their assertions show what they compared; it has to be said before any of them is imported.
pytest.register_assert_rewrite("apache", "deployed", "helpers", "installing", "machine")

from machine import Machine, Sshd, running_machine, running_sshd  # noqa: E402

SCRIPT = Path(__file__).resolve().parent.parent / "flaskflex.py"

# Whoever runs the tests under nohup, or in a shell's background, has these ignored in all that they start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How this machine reaches its package index and which certificates it trusts; all else stays out.
PASSED_ON = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_DEFAULT_TIMEOUT",
    "UV_INDEX_URL", "UV_DEFAULT_INDEX", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)

Environ = Dict[str, str]

# These files take longest, so they come first: none is left for one process alone at the end. Those that wait
# much (for servers, users and timeouts) stand beside those that do not.
LONGEST = [
    "machine_host", "host_data", "answer", "isolation", "interrupted", "requirements", "environments",
    "host_cut", "host_odd", "host_live", "host", "hostile", "apache", "installs", "setups", "two_machines",
    "host_branches", "check", "serve", "tutorial", "untouched", "history", "attacks",
]


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    names = [f"test_{name}" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


class Result(NamedTuple):
    """What a run of flaskflex gave: its exit status, and its two outputs as text."""

    status: int
    out: str
    err: str


def hermetic_environ(home: Path) -> Environ:
    """Environment variables that hold nothing of the machine but its PATH and its package index."""
    environ = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environ.update(
        PATH=os.pathsep.join(dict.fromkeys([os.path.dirname(shutil.which("git") or ""), "/usr/bin", "/bin"])),
        HOME=str(home),
        XDG_CONFIG_HOME=str(home / ".config"),
        XDG_CACHE_HOME=str(home / ".cache"),
        XDG_DATA_HOME=str(home / ".local" / "share"),
        TMPDIR=str(home / "tmp"),
        LANG="C.UTF-8",
        GIT_CONFIG_NOSYSTEM="1",
        GIT_TEMPLATE_DIR="",
        GIT_AUTHOR_DATE="2012-02-20T12:00:00+0000",
        GIT_COMMITTER_DATE="2012-02-20T12:00:00+0000",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    environ.update(coverage_environ())
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    # Otherwise git looks after each commit and push for work to do, from 2.47 on behind the user's back.
    (home / ".gitconfig").write_text("[maintenance]\n\tauto = false\n")
    return environ


def coverage_environ() -> Environ:
    """What makes a run of flaskflex.py in any virtualenv count towards the coverage being measured.

    The test session's own coverage is lent to it through a sitecustomize module on PYTHONPATH, which pip
    (run with -I) never sees.
    """
    if "COVERAGE_PROCESS_START" not in os.environ:
        return {}
    coverage = importlib.util.find_spec("coverage")
    assert coverage and coverage.origin
    return {
        "COVERAGE_PROCESS_START": os.environ["COVERAGE_PROCESS_START"],
        "COVERAGE_FILE": os.path.abspath(os.environ.get("COVERAGE_FILE", ".coverage")),
        "PYTHONPATH": str(Path(__file__).resolve().parent / "coverage_site"),
        "COVERAGE_LENT_FROM": str(Path(coverage.origin).parent.parent),
    }


def without_coverage(environ: Environ) -> Environ:
    """The same environment, for runs of which each system call counts: coverage makes many of its own."""
    return {name: value for name, value in environ.items() if name not in coverage_environ()}


def run(*command: Any, cwd: Path, env: Environ, check: bool = True, **options: Any) -> str:
    """Run a command and give back its output, both streams together; a failure shows it."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )
    text: str = done.stdout.decode("utf-8", "backslashreplace")
    assert not check or done.returncode == 0, f"{command} gave {done.returncode}:\n{text}"
    return text


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that several processes share: who needs it first makes what is in it."""
    made = folder.with_name(f"{folder.name}.made")
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that has failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all processes of a session (pytest -n) share."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # then that is one worker's own
        base = base.parent
    return make_once(base / name, make)


@pytest.fixture(scope="session")
def session_environ(tmp_path_factory: pytest.TempPathFactory) -> Environ:
    """The environment in which what the whole session shares is made."""
    environ = hermetic_environ(made_once(tmp_path_factory, "session-home", lambda home: None))
    environ["FREEZE"] = str(made_once(tmp_path_factory, "freezes", lambda folder: None))
    return environ


@pytest.fixture(scope="session")
def virtualenv(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Path:
    """A virtualenv with Flask and nothing else, shared by all tests: none may change it."""
    def make(folder: Path) -> None:
        path = make_virtualenv(folder / "env", session_environ, "flask")
        packages = next(path.glob("lib/python*/site-packages"))
        pip = packages / "pip" / "__main__.py"
        pip.write_text(REMEMBERED_FREEZE + pip.read_text())
        # With setuptools, as older Pythons' virtualenvs have it, this has a look at each import.
        (packages / "distutils-precedence.pth").unlink(missing_ok=True)

    return made_once(tmp_path_factory, "shared", make) / "env"


# Stands in front of the shared virtualenv's pip, which others borrow. pip freeze takes more time than all the
# rest of a run, and always prints the same of the same distributions: if FREEZE in the environment names a
# folder, it is done once for these. An editable install is another matter: there, the disk has a say.
REMEMBERED_FREEZE = """\
import os, sys

def distributions(folder):
    for name in sorted(os.listdir(folder)):
        for file in ("METADATA", "direct_url.json") if name.endswith(".dist-info") else ():
            path = os.path.join(folder, name, file)
            if os.path.exists(path):
                with open(path, "rb") as content:
                    yield os.fsencode(name) + content.read()

def remembered(memory):
    import zlib  # and not hashlib, which loads much
    site_packages = os.path.join(sys.prefix, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    state = b"\\0".join(distributions(site_packages))
    path = os.path.join(memory, "%d-%d" % (len(state), zlib.crc32(state)))
    if b'"editable"' not in state and not any(".egg-" in name for name in os.listdir(site_packages)):
        if not os.path.exists(path):
            import contextlib, io
            from pip._internal.cli.main import main
            with contextlib.redirect_stdout(io.StringIO()) as output:
                status = main(["freeze"])
            if status:
                sys.exit(status)
            with open(path + "-" + str(os.getpid()), "w", errors="surrogateescape") as file:
                file.write(output.getvalue())
            os.rename(file.name, path)
        with open(path, errors="surrogateescape") as file:
            print(file.read(), end="")
        sys.exit()

if sys.argv[1:] == ["freeze"] and "FREEZE" in os.environ:
    remembered(os.environ["FREEZE"])
"""


def make_virtualenv(path: Path, environ: Environ, *requirements: str) -> Path:
    """A virtualenv at path, by the Python that runs the tests, with the requirements installed."""
    venv.create(path, with_pip=True, symlinks=True)
    if requirements:
        run(path / "bin" / "python", "-I", "-m", "pip", "install", "-q", *requirements, cwd=path, env=environ)
    return path


@pytest.fixture(scope="session")
def warm_cache(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ
) -> Path:
    """A cache folder into which flaskflex itself has fetched GitPython, once for the whole session."""
    def make(project: Path) -> None:
        run("git", "init", "-q", cwd=project, env=session_environ)
        environ = {**session_environ, **IDENTITY, "VIRTUAL_ENV": str(virtualenv)}
        run(virtualenv / "bin" / "python", SCRIPT, cwd=project, env=environ)

    made_once(tmp_path_factory, "warming", make)
    return Path(session_environ["XDG_CACHE_HOME"])


def make_host_virtualenv(environ: Environ) -> Path:
    """A virtualenv by the system's Python, as a host has it, with Flask and flup: to be copied only.

    It is made once for all that share a home. The programs in a copy are still those of this one:
    `bin/python -m pip` is the copy's.
    """
    def make(folder: Path) -> None:
        run("python3", "-m", "venv", "env", cwd=folder, env=environ)
        run("env/bin/python", "-m", "pip", "install", "-q", "flask", "flup==1.0.3", cwd=folder, env=environ)

    return make_once(Path(environ["HOME"]) / "host", make) / "env"


@pytest.fixture(scope="session")
def host_virtualenv(session_environ: Environ) -> Path:
    return make_host_virtualenv(session_environ)


IDENTITY = {
    "GIT_AUTHOR_NAME": "A Student", "GIT_AUTHOR_EMAIL": "student@example.org",
    "GIT_COMMITTER_NAME": "A Student", "GIT_COMMITTER_EMAIL": "student@example.org",
}


@pytest.fixture
def environ(
    request: pytest.FixtureRequest, tmp_path: Path, virtualenv: Path, warm_cache: Path,
    session_environ: Environ,
) -> Environ:
    """The environment of one test: its own home, an identity, an active virtualenv, a warm cache.

    Unless the test is marked with real_pip, what was frozen once in the session is not frozen anew.
    """
    own = hermetic_environ(tmp_path / "home")
    own.update(IDENTITY, VIRTUAL_ENV=str(virtualenv), XDG_CACHE_HOME=str(warm_cache))
    if not request.node.get_closest_marker("real_pip"):
        own["FREEZE"] = session_environ["FREEZE"]
    own["PATH"] = f"{virtualenv / 'bin'}{os.pathsep}{own['PATH']}"
    return own


Git = Callable[..., str]


@pytest.fixture(scope="session")
def cloned(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Path:
    """The folder of a host's repository and of a fresh clone of it: to be copied only."""
    def make(folder: Path) -> None:
        host = folder / "host.git"
        run("git", "init", "-q", "--bare", "-b", "main", host, cwd=folder, env=session_environ)
        run("git", "clone", "-q", host, "yourprojectname", cwd=folder, env=session_environ)

    return made_once(tmp_path_factory, "cloned", make)


@pytest.fixture
def project(tmp_path: Path, environ: Environ, cloned: Path) -> Path:
    """A fresh clone of an empty project, as a host gives it, with flaskflex.py downloaded into it."""
    for name in ("host.git", "yourprojectname"):
        shutil.copytree(cloned / name, tmp_path / name)
    clone = tmp_path / "yourprojectname"
    config = clone / ".git" / "config"
    config.write_text(config.read_text().replace(str(cloned), str(tmp_path)))
    shutil.copy(SCRIPT, clone)
    return clone


def git_in(folder: Path, environ: Environ) -> Git:
    """Return a function that runs git in a folder: git("log", "--oneline") returns what it printed."""
    def git(*arguments: Any, cwd: Path = folder, check: bool = True) -> str:
        return run("git", *arguments, cwd=cwd, env=environ, check=check)
    return git


@pytest.fixture
def git(project: Path, environ: Environ) -> Git:
    """Run git in the project."""
    return git_in(project, environ)


def compile_script(script: Path, folder: Path) -> Path:
    """Compile a script into a folder, where a copy of it tells what was compiled; return what to start."""
    shutil.copy(script, folder / "flaskflex.py")
    py_compile.compile(str(script), cfile=str(folder / "flaskflex.pyc"), doraise=True)
    return folder / "flaskflex.pyc"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script as the Python that runs the tests has compiled it.

    For a script Python does that at each start, which is a third of a run: most tests start from here. Those
    of ways to start it, of Pythons and of hostile projects, or that change it, start flaskflex.py itself.
    """
    folder = made_once(tmp_path_factory, "compiled", lambda folder: compile_script(SCRIPT, folder))
    return folder / "flaskflex.pyc"


Flaskflex = Callable[..., Result]


@pytest.fixture
def flaskflex(project: Path, environ: Environ, virtualenv: Path, compiled: Path) -> Flaskflex:
    """Run the script as its user does: flaskflex("-n") is `python flaskflex.py -n`."""
    def flaskflex(
        *arguments: Any, cwd: Path = project, env: Environ = environ,
        python: Optional[Path] = None, script: Optional[Path] = None,
    ) -> Result:
        own = script or project / "flaskflex.py"
        if not (script or python) and own.read_bytes() == compiled.with_suffix(".py").read_bytes():
            own = compiled
        command = [python or virtualenv / "bin" / "python", own, *arguments]
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return Result(
            done.returncode,
            done.stdout.decode("utf-8", "backslashreplace"),
            done.stderr.decode("utf-8", "backslashreplace"),
        )
    return flaskflex


@pytest.fixture
def machine(tmp_path: Path, environ: Environ) -> Iterator[Machine]:
    """A throwaway machine of one test's own: root's, with users and packages and /etc."""
    with running_machine(tmp_path / "machine", environ) as machine:
        yield machine


@pytest.fixture
def sshd(tmp_path: Path, environ: Environ) -> Iterator[Sshd]:
    """An sshd of one test's own, in whose sessions the environment is the test's."""
    with running_sshd(tmp_path / "sshd", environ) as sshd:
        yield sshd


@pytest.fixture
def active(tmp_path: Path, virtualenv: Path, environ: Environ) -> Path:
    """A virtualenv of one test's own, which is active: there is pip in it, and no package."""
    from helpers import light_virtualenv  # which imports this module

    own = light_virtualenv(tmp_path / "env", virtualenv)
    environ["VIRTUAL_ENV"] = str(own)
    return own


@pytest.fixture(scope="session")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, warm_cache: Path, session_environ: Environ
) -> Path:
    """The folder of a project that was prepared, committed and pushed, and of its host: to be copied only."""
    from deployed import deploy

    return made_once(tmp_path_factory, "deployed", lambda folder: deploy(folder, virtualenv, session_environ))
