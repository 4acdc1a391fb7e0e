"""What the tests of installing and starting flaskflex share: tools, Pythons, wheels, a server."""
from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple
from urllib.parse import urlsplit

import pytest
from conftest import SCRIPT, Environ, Result, run
from helpers import FILES


def tool(name: str) -> str:
    """A program of the test requirements: that beside the Python that runs the tests, else that of PATH."""
    folders = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=folders)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def copy_source(folder: Path) -> Path:
    """What a clone of flaskflex's own repository holds; to be built from, which leaves traces in a folder."""
    top = SCRIPT.parent
    for name in ("flaskflex.py", "pyproject.toml", "setup.cfg", "README.rst", "CHANGELOG.rst", "LICENSE"):
        folder.mkdir(exist_ok=True)
        shutil.copy(top / name, folder)
    for name in ("templates", "tests"):
        shutil.copytree(top / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def tool_environ(environ: Environ, folder: Path) -> Environ:
    """The environment of pipx and uv, which keep all that they make in one folder."""
    folder.mkdir(exist_ok=True)
    return {
        **environ,
        "PIPX_HOME": str(folder / "pipx"), "PIPX_DEFAULT_PYTHON": os.path.realpath(sys.executable),
        "PIPX_BIN_DIR": str(folder / "bin"), "PIPX_MAN_DIR": str(folder / "man"), "USE_EMOJI": "0",
        "UV_CACHE_DIR": str(folder / "uv"), "UV_TOOL_DIR": str(folder / "tools"),
        "UV_PYTHON_DOWNLOADS": "never",
    }


def start(*command: Any, cwd: Path, env: Environ) -> Result:
    """Run a program as its user would; flaskflex is never to end with a traceback."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    result = Result(done.returncode, done.stdout.decode("utf-8", "backslashreplace"),
                    done.stderr.decode("utf-8", "backslashreplace"))
    assert "Traceback" not in result.err, result.err
    return result


def read_files(project: Path) -> Dict[str, bytes]:
    """The content of the four files."""
    return {path: (project / path).read_bytes() for path in FILES}


@functools.lru_cache(maxsize=None)
def pythons() -> Dict[Tuple[int, ...], Path]:
    """The Pythons 3 of this machine but that which runs the tests, one a version: those of PATH and pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *os.defpath.split(os.pathsep),
               *map(str, sorted(pyenv.glob("versions/*/bin")))]
    asked = "import sys, ssl, venv; print(sys.executable); print('%d.%d' % sys.version_info[:2])"
    found: Dict[Tuple[int, ...], Path] = {}
    for program in filter(None, (shutil.which("python3", path=folder) for folder in folders if folder)):
        done = subprocess.run([program, "-I", "-c", asked], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        path, _, version = done.stdout.decode().strip().partition("\n")
        if not done.returncode and os.path.realpath(path) != os.path.realpath(sys.executable):
            found.setdefault(tuple(map(int, version.split("."))), Path(os.path.realpath(path)))
    return found


def other_python() -> Path:
    """Another Python that flaskflex supports, of another version than that of the tests if possible."""
    supported = [version for version in pythons() if version >= (3, 9)]
    if not supported:
        pytest.skip("this machine has no other Python")
    return pythons()[min(supported, key=lambda version: version == sys.version_info[:2])]


def old_python() -> Path:
    """A Python that is too old for flaskflex and for GitPython."""
    versions = [version for version in pythons() if version < (3, 9)]
    if not versions:
        pytest.skip("this machine has no Python that is old enough")
    return pythons()[max(versions)]


def written_files(folder: Path, virtualenv: Path, environ: Environ) -> Dict[str, bytes]:
    """The four files, as `python flaskflex.py` writes them in a new repository with the virtualenv active."""
    run("git", "init", "-q", cwd=folder, env=environ)
    own = {**environ, "VIRTUAL_ENV": str(virtualenv)}
    run(python_of(virtualenv), SCRIPT, "--no-commit", cwd=folder, env=own)
    return read_files(folder)


def make_wheel(folder: Path, name: str, *requires: str) -> str:
    """Make a wheel with nothing in it but its metadata; gives the name, to be installed from the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = f"{name}-1.0.dist-info"
    contents = {
        f"{facts}/METADATA": "".join([
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: more\n",
            *(f"Requires-Dist: {need}\n" for need in requires),
        ]),
        f"{facts}/WHEEL":
            "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{facts}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{facts}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in contents.items():
            wheel.writestr(path, text)
    return name


def python_of(virtualenv: Path) -> Path:
    """The interpreter of a virtualenv."""
    return virtualenv / "bin" / "python"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, also as a proxy for any host; notes down what was asked for instead of printing it."""

    asked: List[str] = []

    def log_message(self, format: str, *arguments: Any) -> None:
        if self.requestline not in self.asked:
            self.asked.append(self.requestline)

    def translate_path(self, path: str) -> str:
        return super().translate_path(urlsplit(path).path)


def certified(folder: Path, environ: Environ) -> Tuple[Path, ssl.SSLContext]:
    """Make a certificate for localhost, signed by itself, and the context of a server that shows it."""
    program = tool("openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    run(program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
        cwd=folder, env=environ)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


@contextlib.contextmanager
def serving(folder: Path, *, context: Optional[ssl.SSLContext] = None) -> Iterator[Tuple[str, List[str]]]:
    """Serve a folder on a loopback port; gives its address and the growing list of what was asked for."""
    asked: List[str] = []
    noting = type("NotingHandler", (QuietHandler,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(noting, directory=str(folder)))
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # a client may hang up
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pip_install(virtualenv: Path, *arguments: Any, cwd: Path, env: Environ) -> None:
    """Install into a virtualenv as its user does."""
    run(python_of(virtualenv), "-m", "pip", "install", "-q", *arguments, cwd=cwd, env=env)
