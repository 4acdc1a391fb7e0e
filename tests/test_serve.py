"""A private Apache for the project: serve shows the application in a browser, and check asks through it."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest
from apache import PATIENCE, Site, eventually, why_not
from conftest import Environ, Flaskflex, Git, run, without_coverage
from deployed import copy_deployed, deploy, item, processes_in
from helpers import assert_refused, load_flaskflex, write

pytestmark = [pytest.mark.once, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]

DAEMON = "subprocess.Popen(['setsid', 'sleep', '600'], env={})\n"
HELLO = """\
import os, subprocess, sys, time
from flask import Flask, request
app = Flask(__name__)
@app.route("/")
def index():
    return "Hello!"
"""


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, warm_cache: Path, session_environ: Environ
) -> Path:
    return deploy(tmp_path_factory.mktemp("deployed"), virtualenv, session_environ)


@pytest.fixture
def project(deployed: Path, tmp_path: Path) -> Path:
    return copy_deployed(deployed, tmp_path)


def folder_of(flaskflex: int) -> Path:
    """The folder of the private Apache that a flaskflex has started."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((process / "stat").read_text("latin-1").rpartition(")")[2].split()[1])
            found = re.search(rb"\0FLASKFLEX_FOLDER=([^\0]+)", b"\0" + (process / "environ").read_bytes())
            if parent == flaskflex and found:
                return Path(os.fsdecode(found[1]))
    raise AssertionError("there is no Apache")


def processes_of(folder: Path) -> List[int]:
    """The processes that a private Apache's folder, or one below another folder, has to do with."""
    found = processes_in(folder)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in texts and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


class Served(NamedTuple):
    """A flaskflex serve that runs: its process, where it answers, its folder, and the file of its output."""

    process: "subprocess.Popen[bytes]"
    site: Site
    folder: Path
    output: Path

    def tells(self, pattern: str) -> Any:
        return eventually(lambda: re.search(pattern, self.output.read_text("utf-8"), re.MULTILINE))


Serve = Callable[..., Served]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(project: Path, tmp_path: Path, environ: Environ) -> Iterator[Serve]:
    """Start `python flaskflex.py serve` and wait until it listens; whatever a test does, it is ended."""
    started: List["subprocess.Popen[bytes]"] = []

    def serve(*options: str) -> Served:
        port, output = free_port(), tmp_path / f"output-{len(started)}"
        with open(output, "wb") as file:
            process = subprocess.Popen(
                ["python", "flaskflex.py", "serve", "--port", str(port), *options], cwd=project, env=environ,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        started.append(process)
        eventually(lambda: b"Serving" in output.read_bytes() or process.poll() is not None)
        assert b"Serving" in output.read_bytes(), output.read_text("utf-8")
        return Served(process, Site(port, "localhost"), folder_of(process.pid), output)

    yield serve
    for process in started:
        process.terminate()  # it clears up after itself, as the tests say
        process.wait(PATIENCE)


def assert_gone(served: Served) -> None:
    assert eventually(lambda: not processes_of(served.folder), 10)
    assert not served.folder.exists()


def test_page_requests_and_errors_are_seen(project: Path, serve: Serve) -> None:
    write(project / "application" / "app.py", HELLO + (
        "@app.route('/fails')\ndef fails():\n"
        "    print('printed', file=sys.stderr)\n    raise ValueError('a reason')\n"))
    served = serve()
    assert served.site.get("/").text == "Hello!"
    assert served.tells(r"^\d\d:\d\d:\d\d GET / 200 \(\d+ ms\)$")
    assert served.site.get("/fails?x=%41").status == 500
    assert served.tells(r"^\d\d:\d\d:\d\d GET /fails\?x=%41 500 \(\d+ ms\)$")
    assert served.tells("^ValueError: a reason$") and served.tells("^printed$")
    assert "mod_fcgid" not in served.output.read_text("utf-8")


def test_application_sees_the_path_as_it_was_asked_for(project: Path, serve: Serve) -> None:
    write(project / "application" / "app.py", HELLO + (
        "@app.route('/path/<path:path>')\ndef path(path):\n    return path\n"))
    site = serve().site
    for asked, seen in (("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("a//b", "a//b"), ("a%20b", "a b")):
        assert site.get(f"/path/{asked}").text == seen


def test_changed_code_is_live_after_a_touch(project: Path, serve: Serve) -> None:
    served = serve()
    assert served.site.get("/").text == "Hello!"
    write(project / "application" / "app.py", HELLO.replace("Hello!", "Changed!"))
    (project / "public_html" / "dispatch.fcgi").touch()
    assert eventually(lambda: served.site.get("/").text == "Changed!")


def test_a_signal_just_before_the_wait_for_the_log_is_seen() -> None:
    module = load_flaskflex()
    reader, writer = os.pipe()
    interrupted, in_time = threading.Event(), []

    def signal_that_interrupts_no_call() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        in_time.append(interrupted.wait(5))
        os.close(writer)

    def handle(signum: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handle)
    other = threading.Thread(target=signal_that_interrupts_no_call)
    try:
        with open(reader, "rb", buffering=0) as log, pytest.raises(KeyboardInterrupt):
            other.start()
            list(module.lines_from(log))
        other.join()
        assert in_time == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_lines_of_the_log_are_whole_and_a_long_one_comes_in_pieces() -> None:
    module = load_flaskflex()
    reader, writer = os.pipe()

    def write_log() -> None:
        with open(writer, "wb", buffering=0) as log:
            for piece in (b"one\ntw", b"o\n\n", b"x" * 200_000, b"\n\xff end"):
                log.write(piece)
                time.sleep(0.01)

    other = threading.Thread(target=write_log)
    other.start()
    with open(reader, "rb", buffering=0) as log:
        lines = list(module.lines_from(log))
    other.join()
    assert lines[:3] == ["one", "two", ""] and lines[-1] == "\\xff end"
    assert "".join(lines[3:-1]) == "x" * 200_000 and max(map(len, lines)) <= 2 * module.LOG_SIZE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(number: signal.Signals, project: Path, serve: Serve) -> None:
    write(project / "application" / "app.py", HELLO + DAEMON)
    served = serve()
    assert served.site.get("/").status == 200
    served.process.send_signal(number)
    assert served.process.wait(PATIENCE) == 130
    assert_gone(served)
    assert processes_in(project) == []


def test_killed_it_ends_its_apache_and_the_next_run_clears_up(
    project: Path, serve: Serve, flaskflex: Flaskflex
) -> None:
    write(project / "application" / "app.py", HELLO + "subprocess.Popen(['setsid', 'sleep', '600'])\n")
    served = serve()
    assert served.site.get("/").status == 200
    served.process.kill()
    served.process.wait()
    assert eventually(lambda: "apache2" not in " ".join(map(str, commands(served.folder))))
    assert item(flaskflex("check").out, "GET /").level == "ok"
    assert_gone(served)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace kills at the right moment")
def test_killed_before_it_starts_its_apache_it_is_cleared_up_after_too(
    project: Path, tmp_path: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    killed = run("strace", "-qq", "-o", tmp_path / "trace", "-e", "trace=/symlink", "-e",
                 "inject=/symlink:signal=KILL", "python", "flaskflex.py", "check",
                 cwd=project, env=without_coverage(environ), check=False)
    left = re.search('"(/tmp/flaskflex-apache-[^/]+)/public_html"', (tmp_path / "trace").read_text())
    assert left and Path(left[1]).is_dir(), killed
    assert item(flaskflex("check").out, "GET /").level == "ok"
    assert not Path(left[1]).exists()


def commands(folder: Path) -> List[bytes]:
    return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(folder)
            if Path(f"/proc/{pid}").exists()]


def test_only_what_flaskflex_left_is_cleared_up(
    project: Path, tmp_path: Path, serve: Serve, flaskflex: Flaskflex
) -> None:
    served = serve()
    foreign = Path("/tmp/flaskflex-apache-foreign")
    link = Path("/tmp/flaskflex-apache-link")
    write(foreign / "apache.conf", "# An Apache of somebody else's\n")
    kept = write(tmp_path / "kept" / "apache.conf", (served.folder / "apache.conf").read_text("utf-8"))
    link.symlink_to(kept.parent)
    try:
        assert item(flaskflex("check").out, "GET /").level == "ok"
        assert served.site.get("/").status == 200
        assert (foreign / "apache.conf").exists() and kept.exists()
    finally:
        link.unlink()
        shutil.rmtree(foreign)


def test_taken_port_is_refused_with_another_to_type(project: Path, flaskflex: Flaskflex) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert_refused(flaskflex("serve", "--port", str(port)), f"port {port}", "serve --port")


def test_without_an_application_or_apache_it_says_what_to_do(project: Path, flaskflex: Flaskflex) -> None:
    script = project / "flaskflex.py"
    text = script.read_text("utf-8")
    script.write_text(text.replace('"/usr/lib/apache2/modules"', '"/nowhere"'), "utf-8")
    assert_refused(flaskflex("serve"), "mod_fcgid", "apt install apache2 libapache2-mod-fcgid")
    script.write_text(re.sub("(?m)^APACHE_PATH = .*", 'APACHE_PATH = "/nowhere"', text), "utf-8")
    assert_refused(flaskflex("serve"), "Apache is not installed", "apt install apache2 libapache2-mod-fcgid")
    script.write_text(text, "utf-8")
    shutil.rmtree(project / "application")
    assert_refused(flaskflex("serve"), "application/app.py", "copy your application")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_home_with_spaces_and_a_strict_umask_do_no_harm(
    umask: int, project: Path, tmp_path: Path, environ: Environ
) -> None:
    old = os.umask(umask)
    try:
        place = shutil.copytree(project, tmp_path / "a home's \"own\" ${HOME} folder" / "project")
        result = run("python", "flaskflex.py", "check", cwd=place, env=environ)
    finally:
        os.umask(old)
    assert item(result, "GET /").text.endswith("through Apache")


def test_ordinary_user_can_serve(project: Path, environ: Environ, serve: Serve) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user, too")
    served = serve()
    owners = {os.stat(f"/proc/{pid}").st_uid for pid in processes_of(served.folder)
              if b"apache2" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert owners and 0 not in owners


# --- check asks through it ---


class Broken(NamedTuple):
    """What is done to a project, and what check then says: the level, words of the item and of its hint."""

    path: str
    change: Callable[[str], str]
    level: str
    words: str
    hint: str = ""


BROKEN: Dict[str, Broken] = {
    "nothing": Broken(
        ".flx", lambda text: text, "ok", r"^GET / answers 200 OK in \d+\.\d\d s, through Apache$"),
    "a wrong word": Broken(
        "public_html/.htaccess", lambda text: text + "Foo bar\n", "fail",
        r"^GET / answers 500 .*/yourprojectname/public_html/\.htaccess: Invalid command 'Foo'"),
    "a missing module": Broken(
        "public_html/.htaccess", lambda text: text + "LuaRoot /x\n", "fail", "Invalid command 'LuaRoot'"),
    "a directive that a host forbids": Broken(
        "public_html/.htaccess", lambda text: text + "Options +Indexes\n", "fail",
        "Option Indexes not allowed"),
    "a loop": Broken(
        "public_html/.htaccess",
        lambda text: text.replace("Engine On\n", "Engine On\nRewriteRule ^ /x [N]\n"), "fail",
        "^GET / answers 500 "),
    "no rule": Broken(
        "public_html/.htaccess", lambda text: "", "fail", "^GET / answers 403 .*Cannot serve directory"),
    "an application that fails at import": Broken(
        "application/app.py", lambda text: "1 / 0\n", "fail",
        "^GET / answers 500 Internal Server Error: ZeroDivisionError: division by zero$", "1 / 0"),
    "an application that fails": Broken(
        "application/app.py", lambda text: HELLO.replace("return", "1 / 0; return"), "fail",
        "(?i)^GET / answers 500 Internal Server Error: ZeroDivisionError: division by zero$", "1 / 0"),
    "an application that ends": Broken(
        "application/app.py", lambda text: HELLO.replace("return", "os._exit(1); return"), "fail",
        "^GET / answers 500 ", "script"),
    "an application without a page": Broken(
        "application/app.py", lambda text: HELLO.replace('"/"', '"/x"'), "warn",
        "^GET / answers 404 NOT FOUND"),
    "a daemon": Broken(
        "application/app.py", lambda text: HELLO + DAEMON, "ok", "^GET / answers 200 OK"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_tells_what_apache_says(name: str, project: Path, flaskflex: Flaskflex) -> None:
    broken = BROKEN[name]
    path = project / broken.path
    path.write_bytes(broken.change(path.read_text("utf-8")).encode())
    found = item(flaskflex("check").out, "GET /")
    assert (found.level, bool(re.search(broken.words, found.text))) == (broken.level, True), found
    assert broken.hint in found.hint
    assert processes_in(project) == []


def test_script_that_may_not_be_executed_fails_with_the_line_that_lets_it(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    (project / "public_html" / "dispatch.fcgi").chmod(0o644)
    found = item(flaskflex("check").out, "does not start: dispatch.fcgi has no execute bit")
    assert found.level == "fail"
    run("sh", "-c", found.hint.split("\n")[0], cwd=project, env=environ)
    assert item(flaskflex("check").out, "GET /").level == "ok"


@pytest.mark.parametrize("text, attributes", [
    ("", ""), ("# A line of one's own.\n", ""), ("", "* text=auto eol=crlf"),
])
def test_a_script_to_which_git_gave_the_line_ends_of_windows_is_right_after_the_hint(
    text: str, attributes: str, project: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    script = project / "public_html" / "dispatch.fcgi"
    script.write_text(script.read_text("utf-8") + text, "utf-8")
    write(project / ".gitattributes", attributes)
    git("add", ".")
    git("commit", "-q", "-m", "A line more")
    git("config", "core.autocrlf", "true")
    script.unlink()
    git("checkout", "-q", str(script))
    assert b"\r\n" in script.read_bytes()
    found = item(flaskflex("check").out, "does not start: dispatch.fcgi needs")
    run("sh", "-c", found.hint.split("\n")[1], cwd=project, env=environ)
    assert item(flaskflex("check").out, "GET /").level == "ok"
    assert script.read_text("utf-8").endswith(text) and git("diff", "HEAD") == ""


@pytest.mark.parametrize("old, new, words", [
    ("#!", "", "dispatch.fcgi does not begin with #! and a program"),
    ("env python3", "env nosuchprogram", "dispatch.fcgi needs 'nosuchprogram', which is not here"),
    ("/usr/bin/env", "/bin/nosuchprogram", "dispatch.fcgi needs '/bin/nosuchprogram', which is not here"),
    ("\n", "\r\n", r"dispatch.fcgi needs 'python3\r', which is not here"),
])
def test_script_that_linux_would_not_start_is_a_failure_at_once(
    old: str, new: str, words: str, project: Path, flaskflex: Flaskflex
) -> None:
    script = project / "public_html" / "dispatch.fcgi"
    script.write_bytes(script.read_text("utf-8").replace(old, new).encode())
    found = item(flaskflex("check", "--timeout", "5").out, "does not start")
    assert (found.level, found.text) == ("fail", f"the application does not start: {words}")


# As Apache does: when it is told to end, it waits for its programs, and then gives back the memory that it
# shares (a file in /dev/shm), which stays if it is killed.
WAITS_FOR_A_STUBBORN_CHILD = """\
import os, signal, subprocess, sys
def end(*_):
    child.wait()
    os.unlink(sys.argv[1])
    sys.exit()
signal.signal(signal.SIGTERM, end)
child = subprocess.Popen([sys.executable, "-c", "import signal, time; "
                          "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
                          "time.sleep(600)"])
signal.pause()
"""


def test_what_a_server_has_to_remove_itself_is_gone_though_its_programs_do_not_end(tmp_path: Path) -> None:
    shared = write(tmp_path / "shared", "memory")
    command = [sys.executable, "-c", WAITS_FOR_A_STUBBORN_CHILD, str(shared)]
    with load_flaskflex().running(command, patience=0, stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"ready\n"
    assert server.returncode == 0 and not shared.exists()
    server.stdout.close()


def test_slow_application_has_the_time_that_was_given(project: Path, flaskflex: Flaskflex) -> None:
    write(project / "application" / "app.py", HELLO.replace("return", "time.sleep(600); return"))
    found = item(flaskflex("check", "--timeout", "1").out, "no answer")
    assert (found.level, found.text) == ("fail", "the application gave no answer within 1 s")
    assert processes_in(project) == []


def test_fresh_asks_through_apache_and_its_copy_is_removed_whatever_the_application_makes_of_it(
    project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    kept = write(tmp_path / "kept" / "file", "kept\n", 0o600)
    write(project / "application" / "app.py", HELLO + f"""\
os.makedirs("locked/locked")
os.symlink({str(kept.parent)!r}, "link")
os.symlink({str(kept)!r}, "locked/link")
os.chmod("locked", 0)
top = os.path.dirname(os.path.dirname(os.getcwd()))
os.mkdir(os.path.join(top, "more"))
os.chmod(os.path.join(top, "more"), 0o500)
""")
    write(project / "req.txt", "flask\n")
    git("commit", "-q", "-m", "Makes a mess", "application", "req.txt")
    write(project / "public_html" / ".htaccess", "Foo bar\n")  # what is committed counts
    found = item(flaskflex("check", "--fresh").out, "GET /")
    assert found.level == "ok" and found.text.endswith("through Apache")
    assert list(Path(environ["TMPDIR"]).iterdir()) == []
    assert kept.read_text() == "kept\n" and kept.stat().st_mode & 0o777 == 0o600


def test_paths_of_virtualenv_and_cache_that_are_too_long_for_mod_fcgid_are_used_all_the_same(
    tmp_path: Path, project: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    far = tmp_path / ("far" * 40)
    shutil.copytree(environ["XDG_CACHE_HOME"], far / "cache")
    (far / "env").symlink_to(virtualenv)
    result = flaskflex("check", "--venv", far / "env", env={**environ, "XDG_CACHE_HOME": str(far / "cache")})
    found = item(result.out, "GET /")
    assert found.level == "ok" and found.text.endswith("through Apache")
