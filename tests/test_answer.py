"""Whether the application answers: check starts it as Apache would, asks it for /, and ends it."""
from __future__ import annotations

import ast
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import pytest
from apache import PATIENCE, Host, Site, VirtualHost, eventually, running_host, why_not
from conftest import Environ, Flaskflex, Git, compile_script, run
from deployed import NAME, copy_deployed, deploy, item, processes_in, troubles
from helpers import light_virtualenv, load_flaskflex, site_packages, snapshot, write

pytestmark = pytest.mark.oldest_and_newest

HERE = Path(__file__).resolve().parent
DISPATCH = "public_html/dispatch.fcgi"
LONG = 600  # seconds that no test waits for


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, warm_cache: Path, session_environ: Environ
) -> Path:
    folder = deploy(tmp_path_factory.mktemp("deployed"), virtualenv, session_environ)
    over_fastcgi(folder / NAME / "flaskflex.py")
    # The first check fetches flup into the cache that all tests share.
    command = [str(virtualenv / "bin" / "python"), "flaskflex.py", "check"]
    environ = {**session_environ, "VIRTUAL_ENV": str(virtualenv)}
    subprocess.run(command, cwd=folder / NAME, env=environ, stdout=subprocess.DEVNULL, check=True)
    return folder


def over_fastcgi(script: Path) -> None:
    """Let a copy of flaskflex find no Apache; test_serve.py asks through one."""
    nowhere = 'MODULE_FOLDERS = ("/nowhere",)'
    text, count = re.subn("(?m)^MODULE_FOLDERS = .*", nowhere, script.read_text("utf-8"))
    assert count == 1
    script.write_text(text, "utf-8")


@pytest.fixture(scope="module")
def compiled(deployed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of these projects, compiled: the others' would find Apache."""
    return compile_script(deployed / NAME / "flaskflex.py", tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def project(deployed: Path, tmp_path: Path) -> Path:
    return copy_deployed(deployed, tmp_path)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Whatever a test is about: when check has ended, nothing that it started is left."""
    yield
    assert end_what_is_left(tmp_path) == []


def end_what_is_left(folder: Path) -> List[int]:
    """The processes that still work in a folder, which are ended now."""
    left = processes_in(folder)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def put(project: Path, code: str) -> None:
    """Make this code the application: it finds `app`, a Flask object, and `note`, which tells the test."""
    head = HEAD.replace("NOTES_FOLDER", repr(str(project.parent)))
    (project / "application" / "app.py").write_text(head + code)


HEAD = """\
import os, signal, sys, time
from flask import Flask, abort, redirect, request

app = Flask(__name__)
NOTES = NOTES_FOLDER


def note(name, value):
    with open(os.path.join(NOTES, name + ".new"), "w") as file:
        file.write(repr(value))
    os.rename(file.name, os.path.join(NOTES, name))


"""


def noted(project: Path, name: str) -> Any:
    """What the application has noted, once it has."""
    assert eventually((project.parent / name).exists), f"the application did not note its {name}"
    return ast.literal_eval((project.parent / name).read_text())


def view(body: str) -> str:
    """An application whose page for / does this."""
    return "@app.route('/')\ndef index():\n" + "".join(f"    {line}\n" for line in body.split("\n"))


HELLO = view("return 'Hello!'")


class Outcome(NamedTuple):
    """What a check gave: its exit status, its outputs, the processes that it left, and the project."""

    status: int
    out: str
    err: str
    left: List[int]
    project: Path


@pytest.fixture(scope="module")
def outcomes(
    deployed: Path, compiled: Path, tmp_path_factory: pytest.TempPathFactory, virtualenv: Path,
    session_environ: Environ,
) -> Dict[str, Outcome]:
    """What check says of each application in the tables below, by its name there.

    All are checked at the start, several at a time, since many of them do nothing but wait.
    """
    environ = {**session_environ, "VIRTUAL_ENV": str(virtualenv), "ONLY_HERE": "set"}
    environ["PATH"] = f"{virtualenv / 'bin'}{os.pathsep}{environ['PATH']}"

    def ask(number: int, change: "Tuple[str, str]", options: Sequence[str]) -> Outcome:
        folder = tmp_path_factory.mktemp(f"outcome-{number}")
        project = copy_deployed(deployed, folder)
        kind, text = change
        if kind == "application":
            put(project, text)
        elif kind == "example":
            use_example(project, text)
        else:
            (project / DISPATCH).write_text(text)
        said = finish(start_check(compiled, project, environ, *options), folder)
        return Outcome(*said, end_what_is_left(folder), project)

    asked: Dict[str, Tuple[Tuple[str, str], Sequence[str]]] = {
        **{name: (("application", case.code), case.options) for name, case in CASES.items()},
        **{name: (("application", TELL + code + WAIT + HELLO), ()) for name, code in CHILDREN.items()},
        **{example: (("example", example), ()) for example in EXAMPLES},
        **{repr(answer): (("script", RAW.replace("ANSWER", repr(answer))), ()) for answer in RESPONSES},
        **{name: (("script", script), ()) for name, (script, _) in PROTOCOL.items()},
        **{script: (("script", f"#!/usr/bin/env python3\n{script}"), SHORT) for script in SCRIPTS},
    }
    with ThreadPoolExecutor(6) as pool:
        given = [pool.submit(ask, number, *what) for number, what in enumerate(asked.values())]
        return dict(zip(asked, (one.result() for one in given)))


def start_check(
    script: Path, project: Path, environ: Environ, *options: str
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["python", str(script), "check", *options], cwd=project, env=environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


def finish(check: "subprocess.Popen[bytes]", folder: Path) -> Tuple[int, str, str]:
    """The exit status and the outputs of a check that has to end by itself; one that does not is ended."""
    try:
        out, err = check.communicate(timeout=2 * PATIENCE)
    finally:
        if check.poll() is None:
            check.kill()
            end_what_is_left(folder)
            check.communicate()
    return check.returncode, out.decode(), err.decode()


# --- what it says ---


class Case(NamedTuple):
    """An application, and the level and words of the item, words of its hint, and the options of check."""

    code: str
    level: str
    words: str
    hint: Sequence[str] = ()
    options: Sequence[str] = ()


SHORT = ("--timeout", "3")
TRACEBACK = "Traceback (most recent call last):\n"

CASES: Dict[str, Case] = {
    "answers": Case(HELLO, "ok", r"^GET / answers 200 OK in \d+\.\d\d s, over FastCGI$"),
    "answers with 2 MB": Case(view("return 'x' * 2_000_000"), "ok", "^GET / answers 200 OK"),
    "streams": Case(view("return (str(number) for number in range(1000))"), "ok", "^GET / answers 200 OK"),
    "redirects": Case(view("return redirect('/login')"), "ok", "^GET / answers 302 FOUND"),
    "asks for a password": Case(view("abort(401)"), "ok", "^GET / answers 401 UNAUTHORIZED"),
    "has no such page": Case("", "warn", "^GET / answers 404 NOT FOUND", ["/"]),
    "fails": Case(view("abort(503)"), "fail", "^GET / answers 503 SERVICE UNAVAILABLE"),
    "raises": Case(
        view("raise ValueError('a reason')"), "fail",
        "^GET / answers 500 INTERNAL SERVER ERROR: ValueError: a reason$",
        ["Traceback (most recent call last):", "application/app.py", "raise ValueError('a reason')"],
    ),
    "raises in the midst of its answer": Case(
        "def pieces():\n    yield 'a beginning'\n    raise ValueError('a reason')\n"
        + view("return pieces()"), "warn", "^GET / answers 200 OK, with an exception: ValueError: a reason$",
        ["Traceback (most recent call last):", "application/app.py", "raise ValueError('a reason')"],
    ),
    "crashes at import": Case(
        "1 / 0\n", "fail", "answers 500 Internal Server Error: ZeroDivisionError: division by zero$",
        ["Traceback (most recent call last):", "application/app.py", "1 / 0"],
    ),
    "cannot be compiled": Case("def\n", "fail", "SyntaxError: ", ["app.py", "def"]),
    "exits": Case("sys.exit('no settings here')\n", "fail", "answers 500 .*: SystemExit: no settings here$"),
    "exits without a word": Case("os._exit(0)\n", "fail", "ended without an answer"),
    "exits in its page": Case(view("os._exit(0)"), "fail", "ended without an answer"),
    "is killed": Case("os.kill(os.getpid(), signal.SIGSEGV)\n", "fail", "ended without an answer"),
    "makes no application": Case("del app\n", "fail", "Failed to find Flask application"),
    "prints": Case("print('Status: 500 nonsense')\nprint(file=sys.stderr)\n" + view(
        "print('X-Y: z\\n\\n', flush=True)\nsys.stderr.write('said')\nreturn 'Hello!'"),
        "ok", "^GET / answers 200 OK"),
    "closes standard input": Case("os.close(0)\n" + HELLO, "fail", "ended without an answer"),
    "closes its outputs": Case("os.close(1)\nos.close(2)\n" + HELLO, "ok", "^GET / answers 200 OK"),
    "asks its user": Case("input('Password: ')\n" + HELLO, "fail", "answers 500 Internal Server Error: "),
    "hangs at import": Case(f"time.sleep({LONG})\n", "fail", "no answer within 3 s", options=SHORT),
    "hangs in its page": Case(
        view(f"print('about to hang', flush=True)\ntime.sleep({LONG})"), "fail",
        "no answer within 3 s: about to hang$", ["about to hang"], SHORT,
    ),
    "hangs in the midst of its answer": Case(
        f"def pieces():\n    yield 'a beginning'\n    time.sleep({LONG})\n" + view("return pieces()"),
        "fail", "no answer within 3 s", options=SHORT,
    ),
    "answers without an end": Case(
        "def pieces():\n    while True:\n        yield 'x' * 1000\n" + view("return pieces()"),
        "fail", "no answer within 3 s", options=SHORT,
    ),
    "stops": Case("os.kill(os.getpid(), signal.SIGSTOP)\n", "fail", "no answer within 3 s", options=SHORT),
    "ignores SIGTERM and hangs": Case(
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep({LONG})\n",
        "fail", "no answer within 3 s", options=SHORT,
    ),
    "ignores SIGTERM and answers": Case(
        view("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nreturn 'Hello!'"), "ok", "^GET / answers 200 OK"
    ),
    "serves itself": Case(
        "app.run(port=0)\n", "fail", "no answer", ["app.run()", "__main__"], ("--timeout", "6")
    ),
    # The debugger starts the program anew, which may work (and hang), or end it.
    "serves itself, with the debugger": Case(
        "app.run(port=0, debug=True)\n", "fail", "no answer|without an answer", ["app.run()", "__main__"],
        ("--timeout", "6"),
    ),
    "serves itself at a port that is taken": Case(
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
        "app.run(port=listener.getsockname()[1])\n",
        "fail", "answers 500 Internal Server Error", ["app.run()", "__main__"],
    ),
    "lacks a package": Case(
        "import nosuchpackage.part\n", "fail", "No module named 'nosuchpackage'$",
        ["python -m pip install nosuchpackage"],
    ),
    "lacks a package in its page": Case(
        view("import nosuchpackage"), "fail", "^GET / answers 500 .*No module named 'nosuchpackage'$",
        ["python -m pip install nosuchpackage"],
    ),
    "relies on the developer's environment": Case(
        "os.environ['ONLY_HERE']\n", "fail", "KeyError: 'ONLY_HERE'$",
        ["(echo; echo ONLY_HERE=VALUE) >> .env", "python -m pip install python-dotenv"],
    ),
    "lacks a key of its own": Case("{}['ONLY_HERE']\n", "fail", "KeyError: 'ONLY_HERE'$"),
    "answers to one name only": Case(
        "app = Flask(__name__, subdomain_matching=True)\napp.config['SERVER_NAME'] = 'example.org'\n" + HELLO,
        "warn", "^GET / answers 404 NOT FOUND", ["SERVER_NAME", "example.org"],
    ),
    "raises what SQLAlchemy raises": Case(
        view("raise ValueError('(sqlite3.OperationalError) no such table: user\\n[SQL: SELECT 1]\\n'\n"
             "                 '(Background on this error at: https://sqlalche.me/e/20/e3q8)')"),
        "fail", r"ERROR: ValueError: \(sqlite3.OperationalError\) no such table: user$",
    ),
    "warns after its failure": Case(
        "import atexit, warnings\natexit.register(warnings.warn, 'old thing')\n1 / 0\n",
        "fail", "answers 500 .*: ZeroDivisionError: division by zero$",
    ),
    "warns, and ends": Case(
        "import warnings\nprint('no settings here', flush=True)\nwarnings.warn('old thing')\nos._exit(1)\n",
        "fail", "ended without an answer: no settings here$",
    ),
    "writes over its log": Case(
        "os.ftruncate(1, 0)\nos.ftruncate(1, 1 << 29)\n" + view("raise ValueError('a reason')"),
        "fail", "^GET / answers 500 INTERNAL SERVER ERROR: ValueError: a reason$",
    ),
}


@pytest.mark.parametrize("log, line", [
    ("", ""),
    ("one\ntwo\n", "two"),
    ("reason\n/x/app.py:3: UserWarning: old thing\n  warnings.warn('old thing')\n", "reason"),
    (f"{TRACEBACK}  File 'x'\n    1 / 0\nZeroDivisionError: by zero\n", "ZeroDivisionError: by zero"),
    (f"{TRACEBACK}  File 'x'\nKeyError: 1\n\nDuring:\n\n{TRACEBACK}  File 'x'\nValueError: 2\n",
     "ValueError: 2"),
    (f"{TRACEBACK}  File 'x'\nValueError: first\nsecond\n  third\n\n[2026-11-25 20:37:17] an entry\n",
     "ValueError: first second third"),
    (f"{TRACEBACK}  File 'x'\nValueError: 2\nsys:1: ResourceWarning: unclosed\nmore\n", "ValueError: 2"),
    (f"{TRACEBACK}  File 'cut off", ""),
])
def test_headline_is_the_exception_of_the_last_traceback(log: str, line: str) -> None:
    assert load_flaskflex().headline(log) == line


@pytest.mark.parametrize("name, case", CASES.items(), ids=list(CASES))
def test_application(name: str, case: Case, outcomes: Dict[str, Outcome]) -> None:
    result = outcomes[name]
    found = item(result.out, "GET /|the application ended|the application gave|the answer")
    assert found.level == case.level, result.out
    assert re.search(case.words, found.text), result.out
    for words in case.hint:
        assert words in found.hint, result.out
    assert (result.status, result.err) == (1 if case.level == "fail" else 0, "")
    assert result.left == []


def test_variable_of_the_shell_is_put_where_its_file_may_lack_its_last_end_of_line(
    project: Path, environ: Environ
) -> None:
    for name in (".env", ".gitignore"):
        write(project / name, "A=1")
    log = "  File \"<frozen os>\", line 679, in __getitem__\nKeyError: 'KEY'\n"
    hint = load_flaskflex().known_hint(log, project)
    run("sh", "-ec", hint.split("\n")[1], cwd=project, env=environ)
    texts = [(project / name).read_text().split("\n") for name in (".env", ".gitignore")]
    assert texts == [["A=1", "KEY=VALUE", ""], ["A=1", "/.env", ""]]


def test_slow_answer_in_time_is_ok_and_its_time_is_told(project: Path, flaskflex: Flaskflex) -> None:
    put(project, "time.sleep(1)\n" + view("time.sleep(1)\nreturn 'Hello!'"))
    found = item(flaskflex("check", "--timeout", str(PATIENCE)).out, "GET /")
    seconds = re.search(r"answers 200 OK in (\d+\.\d\d) s", found.text)
    assert seconds and float(seconds[1]) >= 2


def test_long_traceback_is_cut_to_its_end(project: Path, flaskflex: Flaskflex) -> None:
    put(project, "for number in range(5000):\n    print('line', number, file=sys.stderr)\n1 / 0\n")
    found = item(flaskflex("check").out, "answers 500 Internal Server Error")
    lines = found.hint.split("\n")
    assert lines[-1] == "ZeroDivisionError: division by zero" and len(lines) < 50


@pytest.mark.parametrize("files", [
    {"__init__.py": "from flask import Flask\napp = Flask(__name__)\nfrom sayhello import views\n",
     "views.py": "from sayhello import app\n@app.route('/')\ndef index():\n    return 'Hello!'\n",
     "app.py": "from sayhello import app\n"},
    {"__init__.py": "", "app.py": "from flask import Flask\nfrom sayhello.views import index\n"
     "app = Flask(__name__)\napp.add_url_rule('/', view_func=index)\n",
     "views.py": "def index():\n    return 'Hello!'\n"},
    {"app.py": "from flask import Flask\nimport sayhello.views\n"
     "app = Flask(__name__)\napp.add_url_rule('/', view_func=sayhello.views.index)\n",
     "views.py": "def index():\n    return 'Hello!'\n"},
], ids=["package", "empty package", "plain folder"])
def test_application_that_imports_itself_by_its_old_name_can_keep_it(
    files: Dict[str, str], project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    for name, text in files.items():
        write(project / "application" / name, text)
    found = item(flaskflex("check").out, "No module named 'sayhello'")
    assert found.level == "fail" and "pip install" not in found.hint
    line = next(line for line in found.hint.split("\n") if line.startswith("mv "))
    run("sh", "-c", line, cwd=project, env=environ)
    assert item(flaskflex("check").out, "GET /").level == "ok"


def test_package_that_only_seems_to_be_the_applications_own_is_to_be_installed(
    project: Path, flaskflex: Flaskflex
) -> None:
    put(project, "from sayhello import something\n")
    hint = item(flaskflex("check").out, "No module named 'sayhello'").hint
    assert "python -m pip install sayhello" in hint and "mv application" not in hint


# --- how it is started, and asked ---

LOOK = "import socket\n" + view("""\
note("environ", dict(os.environ))
note("cwd", os.getcwd())
note("request", {name: value for name, value in request.environ.items() if isinstance(value, str)})
note("listener", socket.socket(fileno=os.dup(0)).getsockname())
note("session", (os.getpid(), os.getsid(0), os.isatty(0), os.isatty(1), os.isatty(2)))
note("python", (sys.executable, sys.prefix, sys.path, sys.argv))
return 'Hello!'""")


def test_it_is_started_and_asked_as_apache_does_it(
    project: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    put(project, LOOK)
    result = flaskflex("check", env={**environ, "SECRET_KEY": "s3cr3t", "FLASK_DEBUG": "1"})
    assert item(result.out, "GET /").level == "ok"
    assert noted(project, "cwd") == str(project / "application")
    # Python itself may set LC_CTYPE where there is no locale; check's own are for flup, and no __pycache__.
    own_names = {"LC_CTYPE", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    assert set(noted(project, "environ")) - own_names == {"PATH", "FLASK_DEBUG"}
    own, session, *terminals = noted(project, "session")
    assert (own, terminals) == (session, [False, False, False])
    executable, prefix, path, argv = noted(project, "python")
    assert prefix == str(virtualenv) and argv == [str(project / DISPATCH)]
    assert path[0] == str(project / "application")
    asked = noted(project, "request")
    for name, value in {
        "REQUEST_METHOD": "GET", "REQUEST_URI": "/", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "",
        "SCRIPT_FILENAME": str(project / DISPATCH), "REDIRECT_FLX_PATH": "/",
    }.items():
        assert asked[name] == value
    # Its socket was in a folder of its own, which is gone.
    assert not Path(noted(project, "listener")).parent.exists()


# --- what it changes ---


@pytest.mark.parametrize("code, paths", [
    ("open('visits.txt', 'a').write('one more')\n", ["application/visits.txt"]),
    ("os.remove('visits.txt')\n", ["application/visits.txt"]),
    ("open('visits.txt', 'a').write('.')\nopen('../req.txt', 'a').write('.')\n",
     ["application/visits.txt", "req.txt"]),
    ("import sqlite3\nsqlite3.connect('todo.db').execute('CREATE TABLE todo (title)')\n", []),
    ("open('visits.txt').read()\n", []),
])
def test_change_of_a_tracked_file_is_told(
    code: str, paths: List[str], project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "application" / "visits.txt", "one\n")
    put(project, code + HELLO)
    git("add", "application")
    git("commit", "-q", "-m", "Visits")
    result = flaskflex("check")
    assert item(result.out, "GET /").level == "ok"
    told = [item for item in troubles(result.out) if "git tracks" in item.text]
    if not paths:
        assert told == []
    else:
        assert [item.level for item in told] == ["warn"]
        assert told[0].text.endswith(f": {', '.join(paths)}")
        assert paths[0] in told[0].hint
    assert result.status == 0


@pytest.mark.parametrize("name", ["todo.db", "a b*[1] \\.db"])
def test_file_that_the_application_makes_is_told_and_never_to_be_added(
    name: str, project: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    put(project, f"open({name!r}, 'a').write('one more')\n" + HELLO)
    git("commit", "-q", "-m", "Makes a file", "application")
    found = item(flaskflex("check").out, "makes files while it runs")
    assert found.level == "warn" and f"application/{name}" in found.text
    assert "git add application" not in found.hint
    run("sh", "-c", found.hint, cwd=project, env=environ)
    left = [item.text for item in troubles(flaskflex("check").out) if "push" not in item.text]
    assert all("the host will not have" in text for text in left), left  # now git ignores it, as it should
    assert (project / "application" / name).exists()


def test_many_files_that_the_application_makes_are_counted_and_ignored_by_their_folder(
    project: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    code = ("for folder in ('cache/a', 'cache/b', 'mine', 'static/cache'):\n"
            "    os.makedirs(folder, exist_ok=True)\n"
            "    for number in range(20):\n"
            "        open(f'{folder}/{number}', 'w')\n")
    write(project / "application" / "mine" / "own.py", "")
    write(project / "application" / "static" / "ignored" / "a.css", "")
    write(project / ".gitignore", "ignored/\n")
    put(project, code + HELLO)
    git("add", "application", ".gitignore")
    git("commit", "-q", "-m", "Makes many files")
    write(project / "application" / "mine" / "new.py", "")
    found = item(flaskflex("check").out, "makes files while it runs")
    assert found.text.endswith(" and 75 more") and len(found.hint) < 1000
    run("sh", "-c", found.hint, cwd=project, env=environ)
    assert git("ls-files", "-o", "--exclude-standard") == "application/mine/new.py\n"
    for place in ("mine/later.py", "static/later.css"):
        assert git("check-ignore", f"application/{place}", check=False) == ""


def test_file_that_git_tracks_and_the_application_changes_is_left_to_the_site(
    project: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    write(project / "application" / "todo.db", "one\n")
    put(project, "open('todo.db', 'a').write('one more')\n" + HELLO)
    git("add", "application")
    git("commit", "-q", "-m", "A database")
    run("sh", "-c", item(flaskflex("check").out, "git tracks").hint, cwd=project, env=environ)
    left = [item.text for item in troubles(flaskflex("check").out) if "push" not in item.text]
    assert all("the host will not have" in text for text in left), left  # now git ignores it, as it should
    assert (project / "application" / "todo.db").read_text().startswith("one\n")


def test_log_without_an_end_fills_neither_memory_nor_disk(project: Path, environ: Environ) -> None:
    put(project, "while True:\n    print('x' * 100_000)\n")
    limits = {name: 400 << 20 if name == "RLIMIT_AS" else 50 << 20 for name in ("RLIMIT_AS", "RLIMIT_FSIZE")}

    def limit() -> None:
        for name, size in limits.items():
            resource.setrlimit(getattr(resource, name), (size, size))

    check = subprocess.run(["python", "flaskflex.py", "check"], cwd=project, env=environ, preexec_fn=limit,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    found = item(check.stdout.decode(), "File too large")
    assert (found.level, check.returncode, check.stderr) == ("fail", 1, b"")
    assert len(found.hint) < 1 << 17


# --- its end ---

# What an application may start; `tell` notes the process of each.
CHILDREN = {
    "a child": "if os.fork() == 0:\n    tell()\n",
    "a child in a session of its own": "if os.fork() == 0:\n    os.setsid()\n    tell()\n",
    "an orphan in a session of its own":
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    tell()\n",
    "a child that ignores every signal that it can":
        "if os.fork() == 0:\n    for number in (1, 2, 15):\n        signal.signal(number, signal.SIG_IGN)\n"
        "    tell()\n",
    "another program": "import subprocess\nsubprocess.Popen(['sleep', '600'])\nnote('child', 0)\n",
    "another program, in a session of its own and with an environment of its own":
        "import subprocess\nsubprocess.Popen(['sleep', '600'], env={}, start_new_session=True)\n"
        "note('child', 0)\n",
    "a daemon: an orphan in a session of its own and with an environment of its own":
        "import subprocess\n"
        "subprocess.run(['sh', '-c', 'setsid sleep 600 &'], env={'PATH': '/bin:/usr/bin'})\n"
        "note('child', 0)\n",
    "children without an end":
        "if os.fork() == 0:\n    tell_first()\n    while True:\n        time.sleep(0.005)\n"
        "        if os.fork():\n            os._exit(0)\n        os.setsid()\n",
}
TELL = "def tell_first():\n    note('child', os.getpid())\n"
TELL += f"def tell():\n    note('child', os.getpid())\n    time.sleep({LONG})\n    os._exit(0)\n"
WAIT = "while not os.path.exists(os.path.join(NOTES, 'child')):\n    time.sleep(0.01)\n"


@pytest.mark.parametrize("name", CHILDREN)
def test_what_the_application_starts_is_gone_when_check_ends(name: str, outcomes: Dict[str, Outcome]) -> None:
    result = outcomes[name]
    assert item(result.out, "GET /").level == "ok"
    noted(result.project, "child")
    assert result.left == []


HANGS = TELL + CHILDREN["a child in a session of its own"] + """\
import socket
note("listener", socket.socket(fileno=os.dup(0)).getsockname())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("own", os.getpid())
time.sleep(600)
"""


@pytest.mark.parametrize("signals", [
    (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGINT),
], ids=lambda signals: " ".join(number.name for number in signals))
def test_interrupted_check_leaves_nothing(
    signals: Tuple[signal.Signals, ...], project: Path, tmp_path: Path, environ: Environ
) -> None:
    put(project, HANGS)
    check = start_check(project / "flaskflex.py", project, environ)
    noted(project, "child"), noted(project, "own")
    for number in signals:
        check.send_signal(number)
        time.sleep(0.3)  # as an impatient user does it: while the first is still being attended to
    status, _, err = finish(check, tmp_path)
    assert (status, err) == (130, "flaskflex: interrupted\n")
    assert processes_in(tmp_path) == []
    assert not Path(noted(project, "listener")).parent.exists()


# --- dispatch.fcgi ---

# A FastCGI program that answers the first request with ANSWER, whatever it is.
RAW = '''#!/usr/bin/env python3
import socket, struct
connection, _ = socket.socket(fileno=0).accept()
connection.recv(65536)
for kind, content in ((6, ANSWER), (6, b""), (3, bytes(8))):
    connection.sendall(struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content)
connection.close()
'''


RESPONSES = {
    b"Content-Type: text/plain\r\n\r\nHello!": ("ok", "answers 200 OK"),
    b"content-type: text/plain\nstatus: 201 CREATED\n\nHello!": ("ok", "answers 201 CREATED"),
    b"Location: /elsewhere\r\n\r\n": ("ok", "answers"),
    b"Status: 500 Oops\r\n\r\n": ("fail", "answers 500 Oops"),
    b"X: y\r\nStatus: 404 NOT FOUND\r\n\r\nStatus: 200 OK": ("warn", "answers 404 NOT FOUND"),
    b"Hello!": ("fail", "not a CGI response: Hello!"),
    b"": ("fail", "not a CGI response"),
    b"Hello!\r\n\r\nHello!": ("fail", "not a CGI response: Hello!"),
    b"Content-Type: text/plain\r\n": ("fail", "not a CGI response"),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n": ("fail", "not a CGI response: HTTP/1.1 200 OK"),
    b"\xff\x00\x1b[2J": ("fail", r"not a CGI response: \xff\x00\x1b[2J"),
}


# The same with a good answer, and one thing wrong in the protocol.
GOOD = RAW.replace("ANSWER", repr(b"Content-Type: text/plain\r\n\r\nHello!"))
PROTOCOL = {
    "another version": (GOOD.replace('">BBHHBx", 1,', '">BBHHBx", 2,'), "does not speak FastCGI"),
    "another request's number": (GOOD.replace("kind, 1,", "kind, 2,"), "does not speak FastCGI"),
    "an end that tells of an overload":
        (GOOD.replace("bytes(8)", "bytes(4) + b'\\2' + bytes(3)"), "it failed"),
    "an end that tells of an exit status":
        (GOOD.replace("bytes(8)", "b'\\0\\0\\0\\1' + bytes(4)"), "it failed"),
    "an end that is too short": (GOOD.replace("bytes(8)", "bytes(4)"), "it failed"),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_answer_that_is_no_good_fastcgi_fails(name: str, outcomes: Dict[str, Outcome]) -> None:
    found = item(outcomes[name].out, "FastCGI")
    assert (found.level, outcomes[name].status) == ("fail", 1)
    assert found.text.startswith("the application ") and PROTOCOL[name][1] in found.text


@pytest.mark.parametrize("answer", RESPONSES)
def test_what_is_no_cgi_response_fails(answer: bytes, outcomes: Dict[str, Outcome]) -> None:
    level, words = RESPONSES[answer]
    result = outcomes[repr(answer)]
    found = item(result.out, "GET /|the answer")
    assert (found.level, result.status) == (level, 1 if level == "fail" else 0)
    assert words in found.text


# What somebody may have put in the place of dispatch.fcgi, and what is said of it.
SCRIPTS = {
    "": "ended without an answer",
    "print('Content-Type: text/html\\n\\nI am a CGI program')\n":
        "ended without an answer: I am a CGI program",
    "import socket\nc, _ = socket.socket(fileno=0).accept()\nc.recv(9)\n"
    "c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')\n":
        "the application does not speak FastCGI",
    f"import time\ntime.sleep({LONG})\n": "no answer within 3 s",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_that_speaks_no_fastcgi_fails(script: str, outcomes: Dict[str, Outcome]) -> None:
    result = outcomes[script]
    found = item(result.out, "the application ended|the application gave|FastCGI")
    assert (found.level, result.status) == ("fail", 1)
    assert SCRIPTS[script] in found.text


@pytest.mark.parametrize("first", ["#!/usr/bin/env python3", "#! /usr/bin/env\tpython3"])
def test_script_is_started_in_its_own_folder(first: str, project: Path, flaskflex: Flaskflex) -> None:
    (project / DISPATCH).write_text(f"{first}\nimport os, sys\nsys.exit(os.getcwd())\n")
    found = item(flaskflex("check").out, "the application ended|GET / answers 500")
    assert found.text.endswith(f": {(project / DISPATCH).parent}")


# --- flup ---

WHICH_FLUP = view("import flup\nnote('flup', (flup.__path__[0], sys.path))\nreturn 'Hello!'")


def test_flup_is_fetched_once_for_the_child_alone_and_hides_nothing(
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    put(project, WHICH_FLUP)
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    before = sorted(os.listdir(site_packages(virtualenv)))
    first, second = flaskflex("check"), flaskflex("check")
    assert [re.findall(r"^Fetched +flup into (\S+),", run.out, re.MULTILINE) for run in (first, second)] == [
        [str(next((tmp_path / "cache" / "flaskflex").glob("flup-*")))], []
    ]
    assert [item(run.out, "GET /").level for run in (first, second)] == ["ok", "ok"]
    place, path = noted(project, "flup")
    assert Path(place).parent.parent == tmp_path / "cache" / "flaskflex"
    assert str(site_packages(virtualenv)) in path
    assert [name for name in os.listdir(Path(place).parent) if not name.startswith("flup")] == []
    assert sorted(os.listdir(site_packages(virtualenv))) == before


def test_flup_of_the_virtualenv_is_taken_where_there_is_one(
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, warm_cache: Path, flaskflex: Flaskflex
) -> None:
    flask = [path.name for path in site_packages(virtualenv).iterdir() if not path.name.startswith("pip")]
    own = light_virtualenv(tmp_path / "env", virtualenv, *flask)
    shutil.copytree(next((warm_cache / "flaskflex").glob("flup-*")) / "flup", site_packages(own) / "flup")
    put(project, WHICH_FLUP)
    environ.update(VIRTUAL_ENV=str(own), XDG_CACHE_HOME=str(tmp_path / "cache"), PIP_NO_INDEX="1")
    environ.pop("PIP_FIND_LINKS", None)
    result = flaskflex("check")
    assert item(result.out, "GET /").level == "ok"
    assert noted(project, "flup")[0] == str(site_packages(own) / "flup")


def test_without_flup_and_without_an_index_it_says_what_is_missing(
    project: Path, tmp_path: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    environ.update(XDG_CACHE_HOME=str(tmp_path / "cache"), PIP_NO_INDEX="1")
    environ.pop("PIP_FIND_LINKS", None)
    result = flaskflex("check")
    found = item(result.out, "flup is not installed here")
    assert (found.level, result.status) == ("fail", 1)
    assert "python -m pip install flup==1.0.3" in found.hint and "--no-commit" not in found.hint
    assert item(result.out, "branch main").level == "ok"  # the other items are told all the same


def test_virtualenv_without_flask_is_told_with_the_line_that_installs_it(
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    environ["VIRTUAL_ENV"] = str(light_virtualenv(tmp_path / "env", virtualenv))
    result = flaskflex("check")
    found = item(result.out, "No module named 'flask'")
    assert (found.level, result.status) == ("fail", 1)
    assert "python -m pip install flask" in found.hint.lower()


# --- --fresh ---


def test_fresh_virtualenv_has_what_the_committed_req_txt_names_and_nothing_else(
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    names = [path.name for path in site_packages(virtualenv).iterdir() if not path.name.startswith("pip")]
    own = light_virtualenv(tmp_path / "env", virtualenv, *names)
    environ["VIRTUAL_ENV"] = str(own)
    put(project, WHICH_FLUP.replace("return", "note('prefix', (sys.prefix, os.getcwd()))\n    return"))
    git("commit", "-q", "-m", "The application", "application")
    put(project, "this is not committed, and so does not count\n")
    before = snapshot(project)
    result = flaskflex("check", "--fresh")
    assert item(result.out, "GET /").level == "ok", result.out
    assert snapshot(project) == before
    prefix, cwd = map(Path, noted(project, "prefix"))
    assert prefix == cwd.parent / ".venv"
    assert own not in prefix.parents and project not in prefix.parents
    assert not prefix.exists()


def test_fresh_virtualenv_lacks_what_req_txt_does_not_name(
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    names = [path.name for path in site_packages(virtualenv).iterdir() if not path.name.startswith("pip")]
    own = light_virtualenv(tmp_path / "env", virtualenv, *names)
    write(site_packages(own) / "only_here.py")
    environ["VIRTUAL_ENV"] = str(own)
    put(project, "import only_here\n" + HELLO)
    git("commit", "-q", "-m", "The application", "application")
    assert item(flaskflex("check").out, "GET /").level == "ok"
    (project / "application" / "app.py").unlink()  # what is committed counts
    result = flaskflex("check", "--fresh")
    found = item(result.out, "No module named 'only_here'")
    assert (found.level, result.status) == ("fail", 1)
    assert "python -m pip install only_here" in found.hint


def test_fresh_virtualenv_that_cannot_be_made_fails_in_pips_own_words(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "req.txt", "-r missing.txt\n")
    git("commit", "-q", "-m", "Requirements", "req.txt")
    result = flaskflex("check", "--fresh")
    found = item(result.out, "req.txt$")
    assert (found.level, result.status) == ("fail", 1)
    assert "Could not open requirements file" in found.hint


def test_interrupted_making_of_the_fresh_virtualenv_leaves_nothing(
    project: Path, tmp_path: Path, environ: Environ
) -> None:
    temporary = Path(environ["TMPDIR"])
    check = start_check(project / "flaskflex.py", project, environ, "--fresh")
    begun = eventually(lambda: list(temporary.glob("*/clone/.venv/bin/python")))
    check.terminate()
    status, _, err = finish(check, tmp_path)
    assert begun and (status, err) == (130, "flaskflex: interrupted\n")
    assert processes_in(tmp_path) == []
    assert list(temporary.iterdir()) == []


# --- the same under Apache ---

# What each of them answers to GET /: five tutorials' shapes, and the applications of the tests of Apache.
EXAMPLES = {
    **{f"tutorials/{name}": 200 for name in ("quickstart", "blog", "todo", "configured")},
    "tutorials/members": 302,
    **{f"applications/{name}": 200 for name in (
        "app_object", "application_object", "factory", "other_name", "package", "plain_folder",
        "relative_files", "site",
    )},
}


def use_example(project: Path, example: str) -> None:
    shutil.rmtree(project / "application")
    shutil.copytree(HERE / example, project / "application", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize("example, status", EXAMPLES.items())
def test_example_answers_under_check(example: str, status: int, outcomes: Dict[str, Outcome]) -> None:
    result = outcomes[example]
    found = item(result.out, "GET /|the application ended|the application gave")
    assert found.level == "ok", result.out
    assert f"GET / answers {status} " in found.text
    assert result.err == ""


@pytest.fixture(scope="module")
def host(deployed: Path, host_virtualenv: Path) -> Iterator[Host]:
    """Apache, with each of the examples at a host of its own."""
    with running_host() as host:
        first = host.homes / "first"
        shutil.copytree(deployed / NAME, first)
        shutil.copytree(host_virtualenv, first / ".venv", symlinks=True)
        host.hand_over(first)
        host.apply_changes(first, "deploy", "permission")
        for example in EXAMPLES:
            project = host.homes / example.rpartition("/")[2]
            shutil.copytree(first, project, ignore=shutil.ignore_patterns(".venv", ".git"))
            (project / ".venv").symlink_to(first / ".venv")
            use_example(project, example)
            host.hand_over(project)
        host.start([VirtualHost(host_name(example), host.homes / example.rpartition("/")[2] / "public_html")
                    for example in EXAMPLES])
        yield host


def host_name(example: str) -> str:
    return f"{example.rpartition('/')[2].replace('_', '-')}.test"


@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
@pytest.mark.parametrize("example, status", EXAMPLES.items())
def test_example_answers_the_same_under_apache(example: str, status: int, host: Host) -> None:
    answer = Site(host.port, host_name(example)).get("/")
    assert answer.status == status, host.error_log()[-3000:]
