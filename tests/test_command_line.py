"""The command line itself: help, wrong usage, colour, and how it ends when somebody stops it."""
from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List

import pytest
from conftest import SCRIPT, Environ, Flaskflex, Git, without_coverage
from helpers import assert_refused, untouched, write

TOO_OLD = ["2.7", "3.6", "3.7", "3.8"]
SUPPORTED = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]


@pytest.fixture
def python(request: pytest.FixtureRequest) -> str:
    """A Python of the version that the test asks for: one of pyenv's, or one on PATH."""
    version: str = request.param
    found = [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    path = found[-1] if found else shutil.which(f"python{version}")
    if path is None:
        pytest.skip(f"there is no Python {version} here")
    asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    answer = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    if answer.decode().strip() != version:
        pytest.skip(f"{path} does not start as Python {version}")
    return path


def run_alone(command: List[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder with an environment that holds nothing at all."""
    return subprocess.run(
        command, cwd=folder, env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
@pytest.mark.parametrize("python", SUPPORTED, indirect=True)
def test_help_and_version_need_nothing_but_an_interpreter(option: str, python: str, tmp_path: Path) -> None:
    for flags in ([], ["-I", "-S"]):
        done = run_alone([python, "-B", *flags, str(SCRIPT), option], tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("flaskflex " if option == "--version" else "usage: flaskflex ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=["", "--help"])
@pytest.mark.parametrize("python", TOO_OLD, indirect=True)
def test_an_old_python_says_which_one_is_needed(arguments: List[str], python: str, tmp_path: Path) -> None:
    done = run_alone([python, "-B", str(SCRIPT), *arguments], tmp_path)
    assert done.returncode == 1
    assert "Python 3.9 or newer" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_help_tells_of_every_option_and_command(flaskflex: Flaskflex) -> None:
    told = flaskflex("--help").out
    options = [
        "-C", "--directory", "--venv", "--exclude", "-n", "--dry-run", "-f", "--force", "--no-commit",
        "-m", "--message", "-q", "--quiet", "--version", "-h",
    ]
    assert [option for option in options if not re.search(rf"(^|[\s,]){option}\b", told)] == []
    assert "demo" in told
    assert "DIR" in flaskflex("demo", "--help").out


@pytest.mark.parametrize("arguments", [
    ["--frobnicate"], ["frobnicate"], ["demo", "one", "two"],
    ["-C"], ["--venv"], ["--exclude"], ["-m"], ["-m", ""], ["-m", " \n"],
    ["check", "--timeout", "0"], ["check", "--timeout", "soon"], ["serve", "--port", "65536"],
    ["--dry-run", "host", "blog"], ["-n", "demo"], ["--exclude", "x", "check"], ["-f", "serve"],
    ["--no-commit", "host"], ["-m", "x", "check"], ["--venv", ".", "host", "blog"], ["--venv", ".", "demo"],
], ids=" ".join)
def test_wrong_usage_exits_with_2(arguments: List[str], project: Path, flaskflex: Flaskflex) -> None:
    with untouched(project):
        result = flaskflex(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("usage: flaskflex ") and "error: " in result.err
    assert "_" not in result.err.splitlines()[-1]  # no name of a function


def test_results_go_to_standard_output_and_errors_to_standard_error(
    project: Path, flaskflex: Flaskflex
) -> None:
    assert flaskflex("-n").err == ""
    write(project / ".flx", "foreign\n")
    result = flaskflex("-n")
    assert_refused(result, ".flx")
    assert "error" not in result.out


def test_the_last_line_says_what_is_left_to_do(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    def last_line() -> str:
        return flaskflex().out.splitlines()[-1].partition("Next        ")[2]

    assert last_line() == "copy your application to application/app.py, commit, and git push"
    write(project / "application" / "app.py", "app = 1\n")
    assert last_line() == "git add application, commit, and git push"
    git("add", "application")
    git("commit", "-q", "-m", "my application")
    assert last_line() == "git push"


# --- colour ---


def on_a_terminal(command: List[str], cwd: Path, env: Environ) -> str:
    """What a command prints when its standard output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not read:
            break
        printed += read
    os.close(ours)
    assert process.wait() == 0, printed
    return printed.decode()


@pytest.mark.parametrize("setting, coloured", [({}, True), ({"NO_COLOR": "1"}, False)], ids=["", "NO_COLOR"])
def test_colour_is_for_terminals_unless_it_is_unwanted(
    setting: Dict[str, str], coloured: bool, project: Path, virtualenv: Path, environ: Environ
) -> None:
    command = [str(virtualenv / "bin" / "python"), "flaskflex.py", "--no-commit"]
    printed = on_a_terminal(command, project, {**environ, **setting, "TERM": "xterm"})
    assert ("\033[" in printed) == coloured
    assert "create" in printed and "req.txt" in printed


def test_there_is_no_colour_where_there_is_no_terminal(environ: Environ, flaskflex: Flaskflex) -> None:
    result = flaskflex("--no-commit", env={**environ, "TERM": "xterm", "FORCE_COLOR": "1"})
    assert "create" in result.out
    assert "\033" not in result.out + result.err


# --- how it ends ---


@pytest.mark.parametrize("buffered", [True, False], ids=["at the end", "at once"])
@pytest.mark.parametrize("arguments", [["-n"], ["--no-commit"], ["--help"]], ids=" ".join)
def test_a_reader_who_has_heard_enough_gets_no_traceback(
    arguments: List[str], buffered: bool, project: Path, virtualenv: Path, environ: Environ
) -> None:
    process = subprocess.Popen(
        [str(virtualenv / "bin" / "python"), *([] if buffered else ["-u"]), "flaskflex.py", *arguments],
        cwd=project, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read().decode()
    process.wait()
    assert said == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("arguments", ["--version", "", "check"])
def test_a_closed_stream_is_no_hindrance(
    arguments: str, closed: str, project: Path, environ: Environ, git: Git
) -> None:
    command = f"exec python flaskflex.py {arguments} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=project, env=environ, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done
    assert done.returncode == (1 if arguments == "check" else 0), done
    assert git("rev-list", "--all", "--count") == ("0\n" if arguments else "1\n")


@pytest.mark.parametrize("where", ["pip freeze", "commit"])
def test_control_c_ends_it_with_130_and_leaves_no_lock(
    where: str, tmp_path: Path, project: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    reached = tmp_path / "reached"
    wait = f"#!/bin/sh\ntouch '{reached}'\nexec sleep 60\n"
    if where == "commit":
        write(project / ".git" / "hooks" / "pre-commit", wait, 0o755)
    else:  # a virtualenv whose Python takes its time
        write(tmp_path / "slow" / "pyvenv.cfg", "version = 3.11.0\n")
        write(tmp_path / "slow" / "bin" / "python", wait, 0o755)
        environ["VIRTUAL_ENV"] = str(tmp_path / "slow")
    process = subprocess.Popen(
        [str(virtualenv / "bin" / "python"), "flaskflex.py"], cwd=project, env=environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not reached.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.decode().splitlines()[-1] == "flaskflex: interrupted"
    assert "Traceback" not in said.decode()
    assert not (project / ".git" / "index.lock").exists()
    (project / ".git" / "hooks" / "pre-commit").unlink(missing_ok=True)
    environ["VIRTUAL_ENV"] = str(virtualenv)
    assert flaskflex().status == 0


def test_a_folder_that_is_gone_is_told(
    tmp_path: Path, virtualenv: Path, project: Path, environ: Environ
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir "{gone}"; exec "{virtualenv / "bin" / "python"}" "{project / "flaskflex.py"}"'
    own = without_coverage(environ)
    done = subprocess.run(["sh", "-c", command], cwd=gone, env=own, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"flaskflex: error: ")
    assert b"Traceback" not in done.stderr


def test_what_cannot_be_shown_in_the_terminals_encoding_does_not_stop_it(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    renamed = project.rename(project.parent / "zażółć")
    environ["PYTHONIOENCODING"] = "ascii"
    result = flaskflex("--no-commit", cwd=renamed, script=renamed / "flaskflex.py")
    assert result.status == 0
    assert "za\\u017c\\xf3\\u0142\\u0107" in result.out


@pytest.mark.parametrize("command", ["", "check", "serve", "host", "demo"])
def test_the_help_fits_into_80_columns_and_ends_with_examples(
    command: str, flaskflex: Flaskflex, environ: Environ
) -> None:
    helped = flaskflex(*command.split(), "--help", env={**environ, "COLUMNS": "80"}).out.splitlines()
    assert [line for line in helped if len(line) > 80] == []
    if not command:
        examples = helped[helped.index("Examples:") + 1:]
        assert [line for line in examples if not re.match("    (sudo )?python3? flaskflex.py ", line)] == []
