"""Pushes that are cut off, that come at once, and that nobody looks at: the site serves one commit, whole."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from apache import eventually
from conftest import run
from helpers import snapshot, untouched, write
from hosting import DISPATCH, FLX, NAME, Hosted, processes_of

pytest_plugins = ["hosting_fixtures"]

pytestmark = pytest.mark.once

STRACE = shutil.which("strace")
EVERY_POINT = "FLASKFLEX_EVERY_POINT" in os.environ

# The calls by which a program changes files and folders.
CALLS = [
    "write", "copy_file_range", "openat", "rename", "renameat2", "link", "symlink", "unlink", "unlinkat",
    "mkdir", "rmdir", "chmod", "fchmodat", "ftruncate", "utimensat",
]


@contextlib.contextmanager
def pushing(hosted: Hosted) -> Iterator[subprocess.Popen[bytes]]:
    """Push in the background, in a session of its own, which ends with the block."""
    process = subprocess.Popen(["git", "push", "origin", "HEAD:main"], cwd=hosted.clone, env=hosted.environ,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


# --- a pusher who goes ---


def interrupt(push: int) -> None:
    os.killpg(push, signal.SIGINT)


def kill(push: int) -> None:
    os.killpg(push, signal.SIGKILL)


def kill_ssh(push: int) -> None:
    run("pkill", "-9", "-s", str(push), "-x", "ssh", cwd=Path("/"), env={"PATH": os.environ["PATH"]})


def stop_reading(push: int) -> None:
    os.killpg(push, signal.SIGSTOP)


@pytest.mark.parametrize("stage, goes", [
    *(("trial", goes) for goes in (interrupt, kill, kill_ssh, stop_reading)),
    *(("live", goes) for goes in (kill, stop_reading)),
])
def test_a_pusher_who_goes_neither_stops_nor_hangs_a_deploy(
    stage: str, goes: Callable[[int], None], live: Hosted
) -> None:
    """Whatever the commands print: more than any pipe between the host and the pusher holds."""
    write(live.folder / "hold")
    write(live.folder / "line", f"""\
case $PWD in */trial) now=trial ;; *) now=live ;; esac
test $now = {stage} || exit 0
touch {live.folder}/reached
while test -e {live.folder}/hold; do sleep 0.02; done
yes 'a line of output' | head -n 30000
""")
    live.commit(".flx", f"{FLX}[deploy]\nsh {live.folder}/line\n")
    with pushing(live) as push:
        assert eventually((live.folder / "reached").exists)
        goes(push.pid)
        time.sleep(0.2)
        (live.folder / "hold").unlink()
        if goes == stop_reading:
            assert eventually(live.lock_is_free)
            kill(push.pid)
    done = eventually(lambda: not processes_of(live.folder))
    assert done, processes_of(live.folder)
    write(live.folder / "hold").unlink()
    again = live.push(status=None)  # it went live without its pusher, or can be pushed again
    assert live.served() == live.git("rev-parse", "HEAD"), again
    live.commit()
    live.push()
    live.served()
    assert eventually(lambda: not processes_of(live.folder)), processes_of(live.folder)


def test_output_that_comes_faster_than_it_is_read_is_shown_and_kept(live: Hosted) -> None:
    new = live.commit(".flx", "[deploy]\nyes 'a line of output' | head -n 10000\n")
    out = live.push()
    log = live.repository / "flaskflex" / "logs" / f"{new}.log"
    assert out.count("a line of output\n") == log.read_text().count("a line of output\n") == 20_000
    live.served()


def test_output_without_an_end_is_refused(live: Hosted) -> None:
    served = live.served()
    new = live.commit(".flx", "[deploy]\nyes 'a line of output'\n")
    with untouched(live.site):
        out = live.push(status=1)
    assert "prints more than 16 MB" in out and "... and more, in " in out
    assert live.served() == served
    assert (live.repository / "flaskflex" / "logs" / f"{new}.log").stat().st_size < 1 << 28


# --- several pushers ---


@pytest.mark.parametrize("count", [2, 6])
def test_of_pushes_at_once_one_goes_live_and_the_others_are_told(count: int, live: Hosted) -> None:
    clones: List[Path] = []
    for number in range(count):
        clone = live.folder / f"clone{number}"
        shutil.copytree(live.clone, clone)
        write(clone / f"file{number}.txt", "one")
        run("git", "add", ".", cwd=clone, env=live.environ)
        run("git", "commit", "-q", "-m", f"commit {number}", cwd=clone, env=live.environ)
        clones.append(clone)
    pushes = [subprocess.Popen(["git", "push", "origin", "HEAD:main"], cwd=clone, env=live.environ,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
              for clone in clones]
    outs = [push.communicate()[0].decode() for push in pushes]
    assert sorted(bool(push.returncode) for push in pushes) == [False] + [True] * (count - 1), outs
    for push, out, clone in zip(pushes, outs, clones):
        if push.returncode:
            assert re.search("pushed meanwhile|cannot lock ref|fetch first", out), out
        else:
            assert live.served() == live.git("rev-parse", "HEAD", cwd=clone)
    shutil.rmtree(live.clone)
    clones[0].rename(live.clone)
    live.git("pull", "-q", "--rebase", "origin", "main")
    live.push()
    assert live.served() == live.git("rev-parse", "HEAD")


# --- killed anywhere ---

# In front of the host's Python: the hook whose turn it is runs under strace.
PYTHON = """\
#!/bin/sh
for word; do case $word in update|live|watch) hook=$word; break ;; esac; done
case ",$HOOKS," in
    *,$hook,*) exec {strace} $FOLLOW -y -qq -o "$TRACE.$hook" -e trace=$CALLS $INJECT {python} "$@" ;;
    *) exec {python} "$@" ;;
esac
"""


def traced(hosted: Hosted, hooks: str, call: str, number: int, *, children: bool) -> None:
    """Let hooks of the next push run under strace, which kills at the n-th call of a kind, or never (0)."""
    inject = f"-e inject={call}:signal=SIGKILL:when={number}" if number else ""
    write(hosted.folder / "python", f"""\
#!/bin/sh
HOOKS={hooks} TRACE={hosted.folder}/trace CALLS={call} INJECT='{inject}' FOLLOW={'-f' if children else ''}
""" + PYTHON.format(strace=STRACE, python=os.path.realpath(sys.executable)), mode=0o755)
    hosted.git("config", "flaskflex.python", hosted.folder / "python", cwd=hosted.repository)


def points(hosted: Hosted, hooks: str) -> List[str]:
    """Push once, and return the calls that change the disk, as CALL:NUMBER, of the hooks' own Python."""
    traced(hosted, hooks, ",".join(CALLS), 0, children=False)
    hosted.push()
    assert eventually(lambda: not processes_of(hosted.folder))
    found: List[str] = []
    for trace in hosted.folder.glob("trace.*"):
        counts = dict.fromkeys(CALLS, 0)
        for line in trace.read_text("utf-8", "replace").splitlines():
            call = line.partition("(")[0]
            if call in counts:
                counts[call] += 1
                looks = call == "openat" and not re.search("O_CREAT|O_TRUNC", line)
                shown = re.match(r"write\(\d+<(pipe|/dev|anon)", line)
                if not (looks or shown or "= -1 " in line):
                    found.append(f"{call}:{counts[call]}")
    return list(dict.fromkeys(found))


def prepare(hosted: Hosted) -> None:
    """Make a push that touches much: files come, change and go, and the site has data of its own."""
    hosted.commit("gone/file.txt", "one")
    hosted.commit("application/todo.db", "seed")
    hosted.commit("settings.txt", "PROJECT_NAME")
    hosted.commit(".flx", FLX + "[replace]\nsettings.txt PROJECT_NAME PROJECT_NAME\n")
    hosted.push()
    write(hosted.site / "application" / "todo.db", "a visitor's")
    write(hosted.site / "uploads" / "cat.jpg", "a cat")
    hosted.git("rm", "-q", "gone/file.txt", "--cached", "application/todo.db")
    hosted.commit("new/file.txt", "two")
    hosted.commit("public_html/dispatch.fcgi", DISPATCH + "# more\n")
    (hosted.clone / "public_html" / "dispatch.fcgi").chmod(0o755)
    hosted.git("commit", "-q", "-a", "--amend", "-m", "much")
    hosted.commit()


def assert_data_is_kept(hosted: Hosted) -> None:
    assert (hosted.site / "application" / "todo.db").read_text() == "a visitor's"
    assert (hosted.site / "uploads" / "cat.jpg").read_text() == "a cat"


def serves(hosted: Hosted) -> str:
    """The commit that is live, whose files the site holds; [replace] has been at work in one of them."""
    live = hosted.ref("refs/flaskflex/live")
    assert live == hosted.ref("main")
    assert (hosted.site / "settings.txt").read_text() == NAME
    for path in hosted.git("ls-tree", "-r", "--name-only", live, cwd=hosted.repository).splitlines():
        if path not in ("settings.txt", "application/todo.db"):
            blob = hosted.git("cat-file", "blob", f"{live}:{path}", cwd=hosted.repository)
            assert (hosted.site / path).read_text().rstrip("\n") == blob, path
    assert (hosted.site / "gone").exists() == ("gone/" in hosted.git("ls-tree", "-r", "--name-only", live,
                                                                     cwd=hosted.repository))
    hosted.assert_clean()
    return live


STAGES = {  # hooks whose Python is killed: what finishes then
    "update": "push",
    "live": "",  # the pusher's own hook does
    "live,watch": "host",
    "watch,live": "push",
}


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("hooks", STAGES)
def test_a_host_that_is_killed_at_any_moment_serves_one_commit_whole(
    hooks: str, live: Hosted, tmp_path: Path
) -> None:
    prepare(live)
    counting = Hosted(tmp_path / "counting", live.environ)
    relocate(live, counting)
    # Of the two that may take it live, the first one does.
    all_points = points(counting, "live,watch" if "live" in hooks else hooks)
    assert len(all_points) > 8, all_points
    middle = len(all_points) // 2
    some = all_points if EVERY_POINT else all_points[middle:middle + 1]
    assert problems(live, tmp_path, hooks, some, children=False) == []


CHILDREN = [f"{call}:{number}" for call in CALLS for number in (1, 2, 3, 5, 8, 13)]


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("hooks", STAGES if EVERY_POINT else ["update", "live,watch"])
def test_a_command_of_the_hosts_that_is_killed_at_any_moment_harms_nothing(
    hooks: str, live: Hosted, tmp_path: Path
) -> None:
    prepare(live)
    some = CHILDREN if EVERY_POINT else ["rename:1"]
    assert problems(live, tmp_path, hooks, some, children=True) == []


def problems(source: Hosted, folder: Path, hooks: str, some: List[str], *, children: bool) -> List[str]:
    """Try a push from the same start for each point; return what was wrong."""
    found = []
    for number, point in enumerate(some):
        own = Hosted(folder / f"own{number}", source.environ)
        relocate(source, own)
        try:
            cut_and_finish(own, hooks, point, children=children)
            shutil.rmtree(own.folder)
        except AssertionError as error:
            found.append(f"{hooks} {point}: {error}")
    return found


def relocate(source: Hosted, target: Hosted) -> None:
    shutil.copytree(source.folder, target.folder, symlinks=True)
    url = source.git("remote", "get-url", "origin").replace(str(source.folder), str(target.folder))
    target.git("remote", "set-url", "origin", url)


def cut_and_finish(hosted: Hosted, hooks: str, point: str, *, children: bool) -> None:
    """Push with a kill at a point; whatever happened, all is well after what finishes it."""
    call, number = point.split(":")
    old, new = hosted.ref("main"), hosted.git("rev-parse", "HEAD")
    before = snapshot(hosted.site)
    traced(hosted, hooks, call, int(number), children=children)
    out = hosted.push(status=None)
    eventually(lambda: not processes_of(hosted.folder), 5)
    hosted.git("config", "flaskflex.python", os.path.realpath(sys.executable), cwd=hosted.repository)
    where = out
    assert hosted.ref("main") in (old, new), where
    assert_data_is_kept(hosted)
    if hosted.ref("main") == old and hooks == "update":
        assert snapshot(hosted.site) == before, where
    if STAGES[hooks] == "host":
        hosted.flaskflex("host", NAME)
    elif STAGES[hooks] == "push":
        new = hosted.commit()
        hosted.push()
    if hosted.ref("main") == old:  # the push was refused
        hosted.push()
    assert serves(hosted) == new, where
    assert_data_is_kept(hosted)
    assert eventually(lambda: not processes_of(hosted.folder)), where
