"""Attacks: what somebody who writes the project, or who shares the machine, tries against its user."""
from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from conftest import SCRIPT, Environ, Flaskflex, Git, run, without_coverage
from helpers import FILES, assert_prepared, assert_refused, load_flaskflex, untouched, write

pytestmark = pytest.mark.once

flaskflex_module = load_flaskflex()
WORDS_OF_THE_ATTACKER = "echo attacked\n"


# --- files that are written ---


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(
    tmp_path: Path, project: Path, environ: Environ, virtualenv: Path
) -> None:
    victim = write(tmp_path / "bashrc", "mine\n")
    names = [Path(path).name for path in FILES]
    plant = "".join(f"ln -s {victim} .flaskflex-$$-{name}; " for name in names)
    for option in ("--no-commit", "--quiet"):  # "$$" is the number that the script will have as a process
        shell = f"{plant} exec {virtualenv / 'bin' / 'python'} flaskflex.py {option}"
        run("sh", "-c", shell, cwd=project, env=environ)
        assert victim.read_text() == "mine\n"
        assert all((project / path).is_file() and not (project / path).is_symlink() for path in FILES)


# A git that exchanges public_html for a link to somewhere else at the moment before the files are written.
SWAPPING_GIT = """\
#!/bin/sh
case "$*" in
    *"hash-object -w"*) [ -L public_html ] || {{ mv public_html {aside} && ln -s {outside} public_html; }} ;;
esac
exec {git} "$@"
"""


def test_a_folder_that_is_exchanged_for_a_link_does_not_lead_out_of_the_project(
    tmp_path: Path, project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    write(project / "public_html" / ".htaccess", "foreign\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    git = SWAPPING_GIT.format(git=shutil.which("git"), aside=tmp_path / "aside", outside=outside)
    write(tmp_path / "bin" / "git", git, 0o755)
    with untouched(outside):
        flaskflex("--force", env={**environ, "PATH": f"{tmp_path / 'bin'}:{environ['PATH']}"})
    assert (project / "public_html").is_symlink()
    assert (tmp_path / "aside" / ".htaccess").read_text() != "foreign\n"


@pytest.mark.parametrize("lock_stays", [True, False])
def test_what_a_killed_run_left_is_cleared_and_nothing_else(
    lock_stays: bool, project: Path, environ: Environ, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    killed = subprocess.run(
        [strace, "-qq", "-o", os.devnull, "-e", "trace=/rename", "-e", "inject=/rename:signal=KILL",
         str(virtualenv / "bin" / "python"), "flaskflex.py"],
        cwd=project, env=without_coverage(environ), stdin=subprocess.DEVNULL, capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed
    left = {path for path in project.rglob(".flaskflex-*") if ".git" not in path.parts}
    assert len(left) == len(FILES)
    look_alike = write(project / "public_html" / f".flaskflex-{'0' * 16}", "the user's\n")
    if not lock_stays:  # removed, as git advises
        (project / ".git" / "index.lock").unlink()
    assert flaskflex().status == 0
    assert [path for path in project.rglob(".flaskflex-*")] == [look_alike]
    assert look_alike.read_text() == "the user's\n"
    assert_prepared(project, environ)


def test_what_a_copied_repository_says_of_a_killed_run_removes_nothing_else(
    tmp_path: Path, project: Path, flaskflex: Flaskflex
) -> None:
    victim = write(tmp_path / "victim", "mine\n")
    process = subprocess.Popen(["true"])
    process.wait()
    folder = project / ".git" / f".flaskflex-{flaskflex_module.lock_owner(process.pid)}"
    write(folder / ".flaskflex-..")
    write(folder / ".flaskflex-app.py")
    (folder / f".flaskflex-{'1' * 16}").symlink_to(victim)
    (project / f".flaskflex-{'1' * 16}").symlink_to(victim)
    mine = write(project / ".flaskflex-app.py", "mine\n")
    strange = project / ".git" / f".flaskflex-{flaskflex_module.lock_owner(2 ** 31)}"  # no process has that
    strange.mkdir()
    result = flaskflex()
    assert result.status == 0, result
    assert victim.read_text() == mine.read_text() == "mine\n"
    assert (folder.exists(), strange.exists()) == (False, True)


def test_the_lock_of_a_git_at_work_is_not_taken_for_that_of_a_run_killed_before_it_had_any(
    project: Path, flaskflex: Flaskflex
) -> None:
    """Both are empty at first: git's lock until git has all of the index, the run's own note for a moment."""
    process = subprocess.Popen(["true"])
    process.wait()
    write(project / ".git" / f".flaskflex-{flaskflex_module.lock_owner(process.pid)}" / "owner")
    lock = write(project / ".git" / "index.lock")
    result = flaskflex()
    assert (result.status, "another git command" in result.err) == (1, True), result
    assert lock.exists()


# --- the repository ---


def worktree_elsewhere(project: Path, other: Path, git: Git) -> None:
    git("config", "core.worktree", str(other))


def worktree_that_is_no_repository(project: Path, other: Path, git: Git) -> None:
    shutil.rmtree(other / ".git")
    git("config", "core.worktree", str(other))


def worktree_that_is_the_parent_folder(project: Path, other: Path, git: Git) -> None:
    git("config", "core.worktree", "../..")


@pytest.mark.parametrize("lead_astray", [
    worktree_elsewhere, worktree_that_is_no_repository, worktree_that_is_the_parent_folder,
])
def test_a_repository_whose_files_lie_elsewhere_is_refused(
    lead_astray: Callable[[Path, Path, Git], None],
    tmp_path: Path, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex,
) -> None:
    other = tmp_path / "other"
    git("init", "-q", other)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=other)
    lead_astray(project, other, git)
    with untouched(project, other):
        for arguments in ([], ["--no-commit"], ["check"], ["--dry-run"]):
            result = flaskflex(*arguments)
            assert_refused(result, "has its files in", "core.worktree")
    run("sh", "-c", result.err.splitlines()[-1], cwd=tmp_path, env=environ)  # the hint
    assert flaskflex("--dry-run").status == 0


def test_a_git_that_lies_in_the_project_is_not_run(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    write(project / "git", f"#!/bin/sh\n{WORDS_OF_THE_ATTACKER}touch attacked\nexit 1\n", 0o755)
    for path in (f".:{environ['PATH']}", f":{environ['PATH']}", f"{environ['PATH']}::"):
        assert flaskflex("--dry-run", env={**environ, "PATH": path}).status == 0
    assert not (project / "attacked").exists()


@pytest.mark.parametrize("checked_out", [True, False])
def test_a_public_html_that_is_a_submodule_is_refused_before_anything_is_written(
    checked_out: bool, tmp_path: Path, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    other = tmp_path / "other"
    git("init", "-q", other)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=other)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "public_html")
    git("commit", "-q", "-m", "add a submodule")
    if not checked_out:
        git("submodule", "--quiet", "deinit", "-f", "public_html")
    with untouched(project):
        for option in ("--force", "--no-commit"):
            assert_refused(flaskflex(option), "submodule")


# --- sizes ---


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_is_too_large_is_refused_and_not_read_whole(
    path: str, project: Path, environ: Environ, virtualenv: Path
) -> None:
    large = project / path
    large.parent.mkdir(exist_ok=True)
    with large.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte, of which the disk holds nothing
    command = f"ulimit -v 4000000; exec {virtualenv / 'bin' / 'python'} flaskflex.py --no-commit --force"
    output = run("sh", "-c", command, cwd=project, env=environ, check=False)
    assert "flaskflex: error: " in output and path.rpartition("/")[2] in output and "bytes" in output
    assert large.stat().st_size == 1 << 40


def test_a_committed_file_that_is_too_large_is_refused(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "req.txt", "# a comment\n" * 200_000)
    git("add", "req.txt")
    git("commit", "-q", "-m", "large")
    (project / "req.txt").unlink()
    assert_refused(flaskflex(), "req.txt", "larger than")


# --- the cache ---


def planted_by_somebody_else(folder: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(folder, 12345, 12345)


def below_a_folder_of_somebody_else(folder: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(folder.parent.parent, 12345, 12345)


def writable_for_the_group(folder: Path) -> None:
    folder.chmod(0o770)


def below_a_folder_that_is_writable_for_all(folder: Path) -> None:
    folder.parent.chmod(0o777)


def a_link(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def a_dangling_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def without_a_distribution(folder: Path) -> None:
    for path in folder.glob("smmap*"):
        shutil.rmtree(path)


def without_a_module(folder: Path) -> None:
    (folder / "git" / "repo" / "base.py").unlink()


def cut_off(folder: Path) -> None:
    os.truncate(folder / "git" / "repo" / "base.py", 10)


@pytest.mark.parametrize("spoil", [
    planted_by_somebody_else, below_a_folder_of_somebody_else, writable_for_the_group,
    below_a_folder_that_is_writable_for_all, a_link, a_dangling_link, a_file, empty, without_a_distribution,
    without_a_module, cut_off,
])
def test_a_cache_that_is_damaged_or_not_the_users_alone_is_not_used(
    spoil: Callable[[Path], None], tmp_path: Path, warm_cache: Path, project: Path, environ: Environ,
    flaskflex: Flaskflex,
) -> None:
    cache = tmp_path / "xdg" / "cache"
    shutil.copytree(warm_cache, cache)
    [folder] = (cache / "flaskflex").glob("GitPython-*")
    write(folder / "git" / "planted.py")
    module = folder / "git" / "__init__.py"
    write(module, module.read_text() + "\nprint('the cache was used')\n")
    spoil(folder)
    result = flaskflex(env={**environ, "XDG_CACHE_HOME": str(cache)})
    assert result.status == 0, result
    assert "the cache was used" not in result.out and "Fetched     GitPython for this run only" in result.out
    assert_prepared(project, environ)
    assert list((tmp_path / "home" / "tmp").iterdir()) == []


def test_a_cache_is_made_for_its_user_alone(
    tmp_path: Path, project: Path, environ: Environ, virtualenv: Path
) -> None:
    cache = tmp_path / "cache"
    command = f"umask 000; exec {virtualenv / 'bin' / 'python'} flaskflex.py"
    run("sh", "-c", command, cwd=project, env={**environ, "XDG_CACHE_HOME": str(cache)})
    made = [cache, *cache.rglob("*")]
    assert [path for path in made if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []


# --- what reaches the terminal ---

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ESCAPE = "\x1b]52;c;ZXZpbA==\x07\x1b[2K\r\x9b1mok\u202eko\u2066"


def hostile_folder(project: Path, git: Git) -> Path:
    return project.rename(project.with_name(f"p{ESCAPE}"))


def hostile_branch(project: Path, git: Git) -> Path:
    git("symbolic-ref", "HEAD", "refs/heads/\u202eko\u2066\x9b1m")
    return project


def hostile_application(project: Path, git: Git) -> Path:
    write(project / "application" / "app.py", f"raise SystemExit({ESCAPE!r})\n")
    write(project / "application" / f"{ESCAPE}.py")
    return project


def hostile_files(project: Path, git: Git) -> Path:
    write(project / ".flx", f"[{ESCAPE}]\n{ESCAPE}\n[replace]\n{ESCAPE} a b\n")
    write(project / "req.txt", f"# {ESCAPE}\n-e {ESCAPE}\n{ESCAPE}\n")
    write(project / "public_html" / "dispatch.fcgi", f"#!/bin/{ESCAPE}\n", 0o755)
    write(project / "public_html" / f"{ESCAPE}.py", "")
    git("add", ".")
    git("commit", "-q", "-m", f"{ESCAPE}")
    return project


def hostile_hook(project: Path, git: Git) -> Path:
    write(project / ".git" / "hooks" / "pre-commit", f"#!/bin/sh\necho '{ESCAPE}'\nexit 1\n", 0o755)
    return project


@pytest.mark.parametrize("make", [
    hostile_folder, hostile_branch, hostile_application, hostile_files, hostile_hook,
])
def test_nothing_that_others_wrote_reaches_the_terminal_as_a_control(
    make: Callable[[Path, Git], Path], project: Path, environ: Environ, virtualenv: Path, git: Git
) -> None:
    folder = make(project, git)
    for arguments in ([], ["check", "--timeout=5"], ["--force", "--no-commit"], ["-C", ESCAPE]):
        done = subprocess.run(
            [str(virtualenv / "bin" / "python"), str(folder / "flaskflex.py"), *arguments],
            cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = done.stdout.decode()
        assert "Traceback (most recent call last):\n  File" not in output.partition("\n")[0], output
        assert CONTROLS.findall(output) == [], output


def on_a_terminal(command: List[str], cwd: Path, env: Environ) -> str:
    """What a command shows on a terminal of 80 columns."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env={**env, "COLUMNS": "80", "TERM": "xterm"},
                               stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    shown = b""
    while select.select([reader], [], [], 60)[0]:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # the last one has closed the terminal
            break
        if not piece:
            break
        shown += piece
    process.wait()
    os.close(reader)
    return shown.decode().replace("\r\n", "\n")


def test_a_diff_is_shown_on_a_terminal_without_controls_and_piped_byte_for_byte(
    project: Path, environ: Environ, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / ".flx", f"# {ESCAPE}\n")
    python = str(virtualenv / "bin" / "python")
    shown = on_a_terminal([python, "flaskflex.py", "-n", "--force"], project, {**environ, "NO_COLOR": "1"})
    assert CONTROLS.findall(shown) == [] and "diff --git a/.flx b/.flx" in shown
    patch = subprocess.run([python, "flaskflex.py", "-n", "--force"], cwd=project, env=environ,
                           stdout=subprocess.PIPE, check=True).stdout
    assert f"-# {ESCAPE}\n".encode() in patch


def test_a_terminal_of_80_columns_cuts_no_word(
    tmp_path: Path, environ: Environ, virtualenv: Path
) -> None:
    home = Path(environ["HOME"])
    project = home / "a-project-with-quite-a-long-name" / "below-another-folder"
    run("git", "init", "-q", project, cwd=home, env=environ)
    write(project / "application" / "app.py", "import nowhere\n")
    write(project / ".htaccess" / "x")
    python = str(virtualenv / "bin" / "python")
    for arguments in (["--no-commit"], ["check"], ["--help"], ["check", "--help"], ["demo", "--help"],
                      ["--venv=/nowhere/where/there/is/a/virtualenv/that/has/a/long/path/name"]):
        shown = on_a_terminal([python, str(SCRIPT), *arguments], project, environ)
        plain = re.sub("\x1b\\[[0-9;]*[mK]|[^\n]*\r", "", shown)
        too_long = [line for line in plain.split("\n") if len(line) > 80]
        # A command stays on one line, to be pasted; so does what the application printed.
        assert [line for line in too_long if not re.match(" {14}[^A-Z]", line)] == [], plain
    assert f"Virtualenv  {virtualenv}" not in shown and "\x1b[31merror\x1b[0m" in shown


def test_the_result_of_check_has_its_colour(project: Path, environ: Environ, virtualenv: Path) -> None:
    command = [str(virtualenv / "bin" / "python"), "flaskflex.py", "check"]
    assert "\x1b[31mNot ready\x1b[0m" in on_a_terminal(command, project, environ)
    assert "\x1b[3" not in on_a_terminal(command, project, {**environ, "NO_COLOR": "1"})


def test_piped_facts_and_errors_come_in_their_order(
    project: Path, environ: Environ, virtualenv: Path
) -> None:
    write(project / ".flx", "foreign\n")
    output = run(virtualenv / "bin" / "python", "flaskflex.py", cwd=project, env=environ, check=False)
    assert output.index("Project ") < output.index("Virtualenv ") < output.index("flaskflex: error:"), output


def test_what_is_waited_for_is_shown_on_a_terminal_and_not_when_piped(
    tmp_path: Path, project: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    outputs: Dict[bool, str] = {}
    for terminal in (True, False):
        cold = {**environ, "XDG_CACHE_HOME": str(tmp_path / f"cache {terminal}"), "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": ""}
        command = [str(virtualenv / "bin" / "python"), "flaskflex.py"]
        outputs[terminal] = on_a_terminal(command, project, cold) if terminal else flaskflex(env=cold).err
    assert "Fetching GitPython from the package index ..." in outputs[True]
    assert outputs[True].index("Fetching") < outputs[True].index("error")
    assert "Fetching" not in outputs[False]
