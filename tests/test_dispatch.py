"""What dispatch.fcgi does as a process: started by hand, and started by a server with a listening socket."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, NamedTuple, Optional

import pytest
from apache import PATIENCE, ask_process, eventually
from conftest import Environ, run
from helpers import site_packages, write

TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "dispatch.fcgi"
APPLICATIONS = Path(__file__).resolve().parent / "applications"
STRACE = shutil.which("strace")


@contextlib.contextmanager
def nothing() -> Iterator[int]:
    with open(os.devnull, "rb") as file:
        yield file.fileno()


@contextlib.contextmanager
def pipe() -> Iterator[int]:
    read, write = os.pipe()
    os.close(write)
    yield read
    os.close(read)


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    master, slave = os.openpty()
    yield slave
    os.close(slave)
    os.close(master)


@contextlib.contextmanager
def file() -> Iterator[int]:
    with open(__file__, "rb") as opened:
        yield opened.fileno()


@contextlib.contextmanager
def connection() -> Iterator[int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs.fileno()


@pytest.mark.parametrize("stdin", [nothing, pipe, terminal, file, connection])
def test_started_by_hand_it_says_in_one_line_what_it_is_for(
    stdin: Callable[[], ContextManager[int]], tmp_path: Path
) -> None:
    with stdin() as number:
        done = by_hand(tmp_path, stdin=number)
    assert_explained(done)


def test_started_without_a_standard_input_it_says_the_same(tmp_path: Path) -> None:
    assert_explained(by_hand(tmp_path, preexec_fn=lambda: os.close(0)))


def by_hand(tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Start the script in a project that has nothing else: no virtualenv, no application."""
    script = tmp_path / "public_html" / "dispatch.fcgi"
    script.parent.mkdir()
    script.write_bytes(TEMPLATE.read_bytes())
    environ: Dict[str, str] = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(script)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=60, **options,
    )


def assert_explained(done: subprocess.CompletedProcess[bytes]) -> None:
    said = done.stderr.decode()
    assert done.returncode == 1
    assert done.stdout == b""
    assert said.count("\n") == 1
    assert "Apache" in said and "flask --app application/app.py run" in said


# --- started with a listening socket ---

HELLO = """\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return "Hello!"

"""


class Process(NamedTuple):
    """A dispatch.fcgi that runs: its process, and the path of its socket."""

    popen: subprocess.Popen[bytes]
    path: Path

    def ask(self) -> bytes:
        """All that it answers to GET /, on both of its streams; nothing if it takes no requests any more."""
        return ask_process(self.path) or b""


@pytest.fixture(scope="module")
def server_virtualenv(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ
) -> Path:
    """A virtualenv with Flask and flup, and with python-dotenv in a folder beside it."""
    path = tmp_path_factory.mktemp("server") / ".venv"
    venv.create(path, symlinks=True)
    write(site_packages(path) / "flask.pth", f"{site_packages(virtualenv)}\n")
    pip = [virtualenv / "bin" / "python", "-I", "-m", "pip", "install", "-q", "--no-deps", "--target"]
    run(*pip, site_packages(path), "flup==1.0.3", cwd=path, env=session_environ)
    run(*pip, path.parent / "dotenv", "python-dotenv", cwd=path, env=session_environ)
    return path


@pytest.fixture
def site(tmp_path: Path, server_virtualenv: Path) -> Path:
    """A project as a host has it, with a virtualenv of its own and an application that says hello."""
    site = tmp_path / "site"
    write(site / "public_html" / "dispatch.fcgi", TEMPLATE.read_text(), 0o755)
    write(site / "application" / "app.py", HELLO)
    shutil.copytree(server_virtualenv, site / ".venv", symlinks=True)
    return site


@contextlib.contextmanager
def running(site: Path, *wrapper: str, env: Optional[Environ] = None) -> Iterator[Process]:
    """Start the project's dispatch.fcgi as mod_fcgid does; at the end it is gone."""
    script = site / "public_html" / "dispatch.fcgi"
    with tempfile.TemporaryDirectory(prefix="flaskflex-", dir="/tmp") as folder:  # a socket's path is short
        path = Path(folder, "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(5)
            popen = subprocess.Popen(
                [*wrapper, os.path.realpath(sys.executable), str(script)], cwd=script.parent,
                stdin=listener.fileno(), env={"PATH": os.defpath, **(env or {})}, start_new_session=True,
            )
        try:
            yield Process(popen, path)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, 9)
            popen.wait()


def replace_script(site: Path) -> None:
    """Give dispatch.fcgi a new inode, as the lines of .flx do."""
    script = site / "public_html" / "dispatch.fcgi"
    shutil.copy2(script, script.with_name("new"))
    script.with_name("new").replace(script)


@contextlib.contextmanager
def locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock of a folder, as a host does while it deploys."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, how)
        yield
    finally:
        os.close(number)


def waits_for_lock(popen: subprocess.Popen[bytes]) -> bool:
    """Whether the kernel has a process among those that wait for somebody's lock."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1] == "->" and line[5] == str(popen.pid) for line in lines)


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who waits for a lock")
def test_it_waits_while_a_deploy_is_under_way(site: Path) -> None:
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        with locked(site):
            flask = (site_packages(site / ".venv") / "flask.pth").rename(site / "taken away")
            process = stack.enter_context(running(site))
            answer = pool.submit(process.ask)
            assert eventually(lambda: waits_for_lock(process.popen))
            flask.rename(site_packages(site / ".venv") / "flask.pth")
        assert b"Hello!" in answer.result()


@pytest.mark.parametrize("more", [
    "", "import os\nif not os.fork():\n    import time\n    time.sleep(60)\n",
], ids=["alone", "with a child"])
def test_a_deploy_need_not_wait_for_one_that_has_started(site: Path, more: str) -> None:
    write(site / "application" / "app.py", HELLO + more)
    with running(site) as process:
        assert b"Hello!" in process.ask()
        with locked(site, fcntl.LOCK_EX | fcntl.LOCK_NB):
            assert b"Hello!" in process.ask()


@pytest.mark.skipif(not STRACE, reason="strace makes the calls fail")
@pytest.mark.parametrize("failing", ["flock:error=ENOLCK", "flock:error=EOPNOTSUPP", "flock:error=EBADF"])
def test_file_system_without_locks_does_no_harm(site: Path, failing: str) -> None:
    strace = [str(STRACE), "-o", os.devnull, "-e", "trace=flock", "-e", f"inject={failing}"]
    with running(site, *strace) as process:
        assert b"Hello!" in process.ask()


def test_folder_that_it_may_not_read_does_no_harm(site: Path) -> None:
    site.chmod(0o311)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    try:
        assert run(*powerless, "ls", site, cwd=site.parent, env=dict(os.environ), check=False).count("denied")
        with running(site, *powerless) as process:
            assert b"Hello!" in process.ask()
    finally:
        site.chmod(0o755)


def test_application_that_does_not_start_is_told_of_once_and_tried_anew(site: Path) -> None:
    write(site / "application" / "app.py", "raise RuntimeError('no settings \\udc80')\n")
    with running(site) as process:
        answer = process.ask()
        assert b"Status: 500 Internal Server Error" in answer
        assert b"Traceback (most recent call last):" in answer and b"no settings \\udc80" in answer
        assert process.ask() == b""
        assert process.popen.wait(PATIENCE) == 0


def test_thread_of_the_application_does_not_keep_what_was_replaced(site: Path) -> None:
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n"
    write(site / "application" / "app.py", HELLO + thread)
    with running(site) as process:
        assert b"Hello!" in process.ask()
        replace_script(site)
        process.popen.wait(PATIENCE)


# --- settings ---

SETTINGS: Dict[str, Dict[str, str]] = {
    "none": {},
    ".env in the project": {".env": "SETTING_A=1\n"},
    ".env beside the application": {"application/.env": "SETTING_A=1\n"},
    "the nearer one counts": {".env": "SETTING_A=1\nSETTING_B=1\n", "application/.env": "SETTING_A=2\n"},
    ".flaskenv": {".flaskenv": "SETTING_A=1\n"},
    ".env before .flaskenv": {".env": "SETTING_A=1\n", ".flaskenv": "SETTING_A=2\nSETTING_B=2\n"},
    "a nearer .flaskenv": {".env": "SETTING_A=1\n", "application/.flaskenv": "SETTING_A=2\nSETTING_B=2\n"},
    "what the server says first": {".env": "SETTING_SERVER=2\nSETTING_A=${SETTING_SERVER}\n"},
    "quotes, spaces and letters": {".env": "export SETTING_A=\"b  c\" # d\nSETTING_B='ż=ó'\n\nSETTING_C=\n"},
    "a folder of that name": {".env/bin/python": "", "application/.flaskenv": "SETTING_A=1\n"},
}


def served_settings(process: Process) -> Any:
    """What an application that tells its settings says."""
    body = process.ask()
    return json.loads(body[body.index(b"{"):body.rindex(b"}") + 1])


@pytest.fixture
def dotenv(site: Path, server_virtualenv: Path) -> Path:
    """The project, with python-dotenv in its virtualenv and an application that tells its settings."""
    write(site_packages(site / ".venv") / "dotenv.pth", f"{server_virtualenv.parent / 'dotenv'}\n")
    shutil.copy(APPLICATIONS / "settings" / "app.py", site / "application" / "app.py")
    return site


@pytest.mark.parametrize("files", SETTINGS.values(), ids=list(SETTINGS))
def test_settings_are_read_as_flask_run_reads_them(dotenv: Path, files: Dict[str, str]) -> None:
    for name, text in files.items():
        write(dotenv / name, text)
    environ = {"SETTING_SERVER": "1", "PATH": os.defpath, "LANG": "C.UTF-8"}
    flask = [dotenv / ".venv" / "bin" / "python", "-m", "flask", "--app", "app.py", "settings"]
    expected = json.loads(run(*flask, cwd=dotenv / "application", env=environ))
    assert ("SETTING_A" in expected) == bool(files)
    with running(dotenv, env=environ) as process:
        assert served_settings(process) == expected


def test_settings_that_changed_count_after_a_touch(dotenv: Path) -> None:
    write(dotenv / ".env", "SETTING_A=1\nSETTING_OLD=1\n")
    with running(dotenv) as process:
        assert served_settings(process)["SETTING_A"] == "1"
        write(dotenv / ".env", "SETTING_A=2\n")
        os.utime(dotenv / "public_html" / "dispatch.fcgi")
        assert eventually(lambda: served_settings(process)["SETTING_A"] == "2")
        assert "SETTING_OLD" not in served_settings(process)


@pytest.mark.parametrize("line", ["FLASK_DEBUG=1", "FLASK_ENV=development\nSETTING_A=1"])
@pytest.mark.parametrize("name", [".env", ".flaskenv"])
def test_settings_of_a_developer_turn_no_debugger_on(dotenv: Path, name: str, line: str) -> None:
    write(dotenv / name, f"{line}\n")
    with running(dotenv) as process:
        assert served_settings(process)["debug"] is False


def test_settings_that_cannot_be_read_are_told_of(dotenv: Path) -> None:
    (dotenv / ".env").write_bytes(b"SETTING_A=\xff\n")
    with running(dotenv) as process:
        answer = process.ask()
        assert b"Status: 500" in answer and b"UnicodeDecodeError" in answer


def test_settings_wait_for_python_dotenv(site: Path) -> None:
    shutil.copy(APPLICATIONS / "settings" / "app.py", site / "application" / "app.py")
    write(site / ".env", "SETTING_A=1\n")
    with running(site) as process:
        assert "SETTING_A" not in served_settings(process)
