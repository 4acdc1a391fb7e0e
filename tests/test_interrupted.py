"""Interrupted anywhere: at every system call that changes the disk, a run can be stopped dead.

strace stops it, or makes the call fail: once for each such call of flaskflex itself, and of each git that it
starts. Without FLASKFLEX_EVERY_POINT in the environment a sample is tried: of flaskflex itself, and of each
git, each kind of call in one of the scenes at least, and with each an injection in turn.
"""
from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import pytest
from conftest import IDENTITY, SCRIPT, Environ, git_in, hermetic_environ, run, without_coverage
from helpers import FILES, site_packages, write

STRACE = shutil.which("strace")
EVERY_POINT = "FLASKFLEX_EVERY_POINT" in os.environ
SHARES = 8  # of the points, each tried in a test of its own

# What is injected into a call, and how flaskflex may end then. Killed, there is no status to choose; a
# failing call may be one that git can do without, such as that for the log of a branch: then the run
# succeeds, and all is as after an undisturbed one.
INJECTIONS: Dict[str, List[int]] = {
    "signal=SIGKILL": [-signal.SIGKILL], "error=ENOSPC": [0, 1], "signal=SIGINT": [130], "error=EIO": [0, 1],
}

# The calls by which a program changes files and folders. Opening one may make it, too.
CALLS = [
    "write", "pwrite64", "writev", "sendfile", "copy_file_range", "ftruncate", "fsync", "fdatasync", "openat",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat",
    "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat",
]

# What git still locks when the commit is made: the last two since 2.47, to remove an AUTO_MERGE.
LOCKS_AFTER_A_COMMIT = ["HEAD.lock", "maintenance.lock", "AUTO_MERGE.lock", "packed-refs.lock"]

# A git in front of the real one: the one whose turn it is runs under strace, and if a signal ends that,
# flaskflex gets the signal as well, as from a power cut or from ^C in a terminal.
GIT = """\
#!/bin/sh
turn=$(($(cat "$TURNS" 2>/dev/null || echo 0) + 1))
echo $turn > "$TURNS"
case $TRACED_TURN in
    every) exec {strace} -f -y -qq -o "$TRACE.$turn" -e trace={calls} {git} "$@" ;;
    $turn) ;;
    *) exec {git} "$@" ;;
esac
{strace} -f -qq -o "$TRACE" -e trace=$TRACED_CALL -e "inject=$TRACED_CALL:$INJECTED" {git} "$@"
status=$?
[ -z "$SIGNAL" ] || ! grep -q "INJECTED\\|killed by\\|--- SIG$SIGNAL " "$TRACE" || kill -s "$SIGNAL" $PPID
exit $status
"""

# What a virtualenv's pip would print, at once: only the disk is of interest here.
PIP = """\
import os
import sys
import time

print(open(os.path.join(sys.prefix, "frozen.txt")).read(), end="")
"""


class Point(NamedTuple):
    """The n-th time that a program makes a system call; turn is 0 for flaskflex, else that of a git."""

    turn: int
    call: str
    number: int


class Scene(NamedTuple):
    """A project before a run and after an undisturbed one, and what that run needs; number is its own."""

    number: int
    folder: Path
    environ: Environ
    before: Dict[str, Any]
    after: Dict[str, Any]


Files = Dict[str, Tuple[int, bytes]]


def files(project: Path) -> Files:
    """The files of the work tree, each with its mode and content."""
    found = (path for path in sorted(project.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(project)): (path.lstat().st_mode, path.read_bytes())
        for path in found if ".git" not in path.relative_to(project).parts
    }


def outcome(project: Path, environ: Environ) -> Dict[str, Any]:
    """What a run can change, but for the names of commits and times."""
    git = git_in(project, {**environ, "GIT_OPTIONAL_LOCKS": "0"})
    return {
        "files": files(project),
        "log": git("log", "--format=%T %B"),
        "index": git("ls-files", "--stage", "-v"),
        "status": git("status", "--porcelain"),
        "stash": git("stash", "list"),
        "git's files": sorted(
            str(path.relative_to(project)) for path in (project / ".git").rglob("*")
            if "objects" not in path.parts and path.is_file()
        ),
    }


def command(environ: Environ) -> List[str]:
    return [environ["PYTHON"], environ["COMPILED"]]


def make_project(folder: Path, environ: Environ) -> Path:
    """A project with work of its user's under way: staged, partly staged, and unknown to git."""
    run("git", "init", "-q", "-b", "main", folder, cwd=folder.parent, env=environ)
    shutil.copy(SCRIPT, folder)
    write(folder / "application" / "app.py", "app = 1\n")
    write(folder / "half.txt", "one\n")
    run("git", "add", ".", cwd=folder, env=environ)
    run("git", "commit", "-q", "-m", "first", cwd=folder, env=environ)
    write(folder / "half.txt", "two and\n")
    write(folder / "staged.py", "staged = 1\n", mode=0o755)
    run("git", "add", "half.txt", "staged.py", cwd=folder, env=environ)
    write(folder / "half.txt", "three or so\n")
    write(folder / "unknown.txt", "not git's\n")
    return folder


def fresh_project(folder: Path, environ: Environ) -> None:
    """All four files are to be created, and the folder of two of them."""
    make_project(folder, environ)


def quiet_project(folder: Path, environ: Environ) -> None:
    """All four files are to be created, and nothing else of the user's is under way."""
    make_project(folder, environ)
    run("git", "add", ".", cwd=folder, env=environ)
    run("git", "commit", "-q", "-m", "second", cwd=folder, env=environ)


def older_project(folder: Path, environ: Environ) -> None:
    """One file is to be created, one merged, and two updated."""
    make_project(folder, environ)
    older = SCRIPT.read_text(encoding="utf-8")
    older, count = re.subn(r'(?m)^__version__ = ".*"', '__version__ = "0.9"', older)
    assert count == 1
    for start in ("FLX = r'''", "HTACCESS = r'''", "DISPATCH_FCGI = r'''#!/usr/bin/env python3\n"):
        assert older.count(f"\n{start}") == 1
        older = older.replace(f"\n{start}", f"\n{start}# Of an older flaskflex.\n")
    frozen = Path(environ["VIRTUAL_ENV"], "frozen.txt")
    new = frozen.read_text()
    frozen.write_text("Flask==2.0\n")
    script = write(folder.parent / "older.py", older)
    run(environ["PYTHON"], script, "--quiet", cwd=folder, env=environ)
    frozen.write_text(new)
    with (folder / ".flx").open("a") as file:
        file.write("# mine\n")
    (folder / "public_html" / ".htaccess").unlink()
    run("git", "commit", "-q", "-m", "second", ".flx", "public_html", cwd=folder, env=environ)


@pytest.fixture(scope="module")
def scene_environ(
    tmp_path_factory: pytest.TempPathFactory, warm_cache: Path, compiled: Path
) -> Environ:
    """The environment of all runs here, with a virtualenv whose pip is quick."""
    home = tmp_path_factory.mktemp("interrupted")
    environ = {**without_coverage(hermetic_environ(home)), **IDENTITY, "XDG_CACHE_HOME": str(warm_cache)}
    environ.update(VIRTUAL_ENV=str(home / "env"), PYTHON=str(home / "env" / "bin" / "python"),
                   COMPILED=str(compiled))
    venv.create(home / "env", symlinks=True)
    write(site_packages(home / "env") / "pip" / "__init__.py")
    write(site_packages(home / "env") / "pip" / "__main__.py", PIP)
    write(home / "env" / "frozen.txt", "Flask==3.1.0\nWerkzeug==3.1.3\n")
    return environ


SCENES = [fresh_project, older_project, quiet_project]


@pytest.fixture(scope="module", params=SCENES)
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scene_environ: Environ
) -> Scene:
    folder = tmp_path_factory.mktemp("scene") / "project"
    request.param(folder, scene_environ)
    done = shutil.copytree(folder, folder.parent / "done", symlinks=True)
    run(*command(scene_environ), cwd=done, env=scene_environ)
    number = SCENES.index(request.param)
    scene = Scene(number, folder, scene_environ, outcome(folder, scene_environ), outcome(done, scene_environ))
    assert scene.after["log"].count("Flaskflex-Version") == scene.before["log"].count("Flaskflex-Version") + 1
    assert all(scene.before["files"].get(path) != scene.after["files"][path] for path in FILES)
    return scene


# --- the points ---


def points_of(trace: Path, turn: int) -> Iterator[Point]:
    """The calls in a trace of strace's that changed the disk."""
    counters: Counter[Tuple[str, str]] = Counter()
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.match(r"(\d+ +)?(\w+)\((.*)", line)
        if not found:
            continue
        process, call, rest = found[1] or "", found[2], found[3]
        counters[process, call] += 1
        target = re.match(r"\d+<([^>]*)>", rest)
        elsewhere = call.startswith(("write", "pwrite")) and target and not target[1].startswith("/")
        opened = call == "openat" and not re.search("O_CREAT|O_TRUNC", rest)
        if not (elsewhere or opened or "/dev/null" in rest or re.search(r"= -1 E\w+ \(.*\)$", rest)):
            yield Point(turn, call, counters[process, call])


@pytest.fixture(scope="module")
def points(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> List[Point]:
    """All points at which a run in the scene changes the disk, in order."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("counting")
    project = shutil.copytree(scene.folder, folder / "project", symlinks=True)
    tracing = [STRACE, "-y", "-qq", "-o", folder / "trace.0", "-e", f"trace={','.join(CALLS)}"]
    run(*tracing, *command(scene.environ), cwd=project,
        env=git_environ(scene.environ, folder, TRACED_TURN="every"))
    traces = sorted(folder.glob("trace.*"), key=lambda path: int(path.suffix[1:]))
    found = [point for path in traces for point in dict.fromkeys(points_of(path, int(path.suffix[1:])))]
    assert {point.turn > 0 for point in found} == {False, True} and len(found) > 50
    return found


def git_environ(environ: Environ, folder: Path, **variables: str) -> Environ:
    """The environment in which the git in front of the real one runs."""
    git = GIT.format(strace=STRACE, calls=",".join(CALLS), git=shutil.which("git", path=environ["PATH"]))
    write(folder / "bin" / "git", git, mode=0o755)
    return {
        **environ, "PATH": f"{folder / 'bin'}{os.pathsep}{environ['PATH']}",
        "TURNS": str(folder / "turns"), "TRACE": str(folder / "trace"), **variables,
    }


def some_of(points: List[Point], scene: int) -> List[Point]:
    """Of each kind of call of each program the point in the middle; every other kind, in turns of the scenes.

    In the first two scenes flaskflex starts the same gits, so that together these have all kinds.
    """
    turns = sorted({point.turn for point in points})
    kinds: Dict[Tuple[int, int], List[Point]] = {}
    for point in points:
        kinds.setdefault((turns.index(point.turn), CALLS.index(point.call)), []).append(point)
    return [same[len(same) // 2] for (turn, call), same in sorted(kinds.items())
            if (turn + call + scene) % 2 == 0]


def tries(points: List[Point], scene: int) -> List[Tuple[Point, str]]:
    """The points, each with what is injected there: all that can be, or of a sample one thing each."""
    if EVERY_POINT:
        return [(point, injected) for injected in INJECTIONS for point in points]
    return list(zip(some_of(points, scene), itertools.cycle(INJECTIONS)))


def test_the_sample_has_each_kind_of_call_and_each_injection_in_each_program() -> None:
    points = [Point(turn, call, number) for turn in (0, 14, 17) for call in CALLS for number in (1, 2, 3)]
    samples = [tries(points, scene) for scene in (0, 1)]
    assert samples[0] != samples[1]
    tried = sorted(point for sample in samples for point, _ in sample)
    assert EVERY_POINT or tried == sorted(point for point in points if point.number == 2)
    assert {(point.turn, injected) for point, injected in samples[0]} == {
        (turn, injected) for turn in (0, 14, 17) for injected in INJECTIONS
    }


def disturbed(
    scene: Scene, point: Point, injected: str, folder: Path
) -> subprocess.CompletedProcess[bytes]:
    """A run in a copy of the scene, with something injected into one system call of its."""
    project = shutil.copytree(scene.folder, folder / "project", symlinks=True)
    what = f"{injected}:when={point.number}"
    words = command(scene.environ)
    environ = scene.environ
    if point.turn:
        ending = re.match("signal=SIG(.*)", injected)
        environ = git_environ(
            environ, folder, TRACED_TURN=str(point.turn), TRACED_CALL=point.call, INJECTED=what,
            SIGNAL=ending[1] if ending else "",
        )
    else:
        trace = ["-qq", "-o", str(folder / "trace"), "-e", f"trace={point.call}"]
        words = [str(STRACE), *trace, "-e", f"inject={point.call}:{what}", *words]
    return subprocess.run(words, cwd=project, env=environ, stdin=subprocess.DEVNULL, capture_output=True,
                          preexec_fn=heed_interrupts)


def heed_interrupts() -> None:
    """Shells let what they start in the background ignore ^C, and so may the tests have been started."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# --- what must hold ---


def assert_nothing_is_broken(scene: Scene, project: Path) -> None:
    """Each file is as before the run or as after it, and git finds no fault with its repository."""
    now = outcome(project, scene.environ)
    for path in now["files"].keys() | scene.before["files"].keys():
        if not Path(path).name.startswith(".flaskflex-"):
            sides = [scene.before["files"].get(path), scene.after["files"].get(path)]
            assert now["files"].get(path) in sides, path
    for part in ("log", "index"):
        assert now[part] in (scene.before[part], scene.after[part]), part
    assert now["stash"] == scene.before["stash"]
    aside = project.parent / "locks"
    aside.mkdir(exist_ok=True)
    left = sorted((project / ".git" / "refs").rglob("*.lock"))
    locks = {lock: aside / f"{number}" for number, lock in enumerate(left)}
    for lock, place in locks.items():  # what a git that was killed leaves; git 2.53 takes it for a ref
        lock.rename(place)
    run("git", "fsck", "--strict", "--no-dangling", cwd=project, env=scene.environ)
    for lock, place in locks.items():
        place.rename(lock)


def finish(scene: Scene, project: Path) -> None:
    """The next run does the rest; where a git was killed that held locks of its own, after naming these."""
    done = run_again(scene, project)
    for _ in range(2):  # git locks HEAD, and the branch
        if done.returncode:
            left = [lock for lock in (project / ".git").rglob("*.lock") if lock.name in done.stderr.decode()]
            assert len(left) == 1 and left[0].name != "index.lock", done
            left[0].unlink()
            done = run_again(scene, project)
    assert done.returncode == 0, done
    for lock in (project / ".git").rglob("*.lock"):  # of a git that had done its work, and was killed then
        assert lock.name in LOCKS_AFTER_A_COMMIT and b"Nothing" in done.stdout, lock
        lock.unlink()
    assert outcome(project, scene.environ) == scene.after


def run_again(scene: Scene, project: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(scene.environ), cwd=project, env=scene.environ, capture_output=True)


def problem_at(scene: Scene, point: Point, injected: str, statuses: List[int], folder: Path) -> Optional[str]:
    """What is wrong after a disturbed run, None if nothing is."""
    folder.mkdir()
    done = disturbed(scene, point, injected, folder)
    try:
        trace = (folder / "trace").read_text(encoding="utf-8", errors="replace")
        reached = "INJECTED" in trace or re.search(rf"--- {injected[7:]} |killed by", trace)
        # Not every git opens as many files as the one before: then nothing was injected.
        assert done.returncode in (statuses if reached else [0]), done
        assert b"Traceback" not in done.stderr, done
        if done.returncode == 1:
            assert done.stderr.startswith(b"flaskflex: error: ") and done.stderr.count(b"\n") > 1, done
        assert_nothing_is_broken(scene, folder / "project")
        finish(scene, folder / "project")
    except AssertionError as error:
        return str(error)
    shutil.rmtree(folder)
    return None


# On every Python git does the same, and flaskflex in the same order: two Pythons are enough.
@pytest.mark.oldest_and_newest
@pytest.mark.parametrize("share", range(SHARES))
def test_a_run_that_is_disturbed_breaks_nothing_and_the_next_one_finishes(
    share: int, scene: Scene, points: List[Point], tmp_path: Path
) -> None:
    tried = tries(points, scene.number)[share::SHARES]
    problems = [
        (point, injected, problem_at(scene, point, injected, INJECTIONS[injected], tmp_path / str(number)))
        for number, (point, injected) in enumerate(tried)
    ]
    print(f"{len(tried)} tries, {len(points)} points", file=sys.stderr)
    told = [f"{injected} into {point}: {text}" for point, injected, text in problems if text]
    assert tried and not told, "\n\n".join(told)


# --- runs at the same time ---


@pytest.mark.parametrize("abandoned", [False, True], ids=["", "after one that was killed"])
@pytest.mark.parametrize("count, scene", [
    (8, fresh_project), (2, older_project), (2, quiet_project),
], indirect=["scene"])
def test_of_runs_at_the_same_time_one_commits_and_others_refuse(
    count: int, abandoned: bool, scene: Scene, tmp_path: Path
) -> None:
    for attempt in range(10 if EVERY_POINT else 1):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        project = folder / "project"
        if not abandoned:
            shutil.copytree(scene.folder, project, symlinks=True)
        elif STRACE is None:
            pytest.skip("strace is not installed")
        else:
            disturbed(scene, Point(0, "rename", 2), "signal=SIGKILL", folder)
            assert (project / ".git" / "index.lock").exists()
        runs = [
            subprocess.Popen(command(scene.environ), cwd=project, env=scene.environ, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(count)
        ]
        ends = [(process.communicate()[1].decode(), process.returncode) for process in runs]
        assert ("", 0) in ends
        assert all(
            said == "" if status == 0 else said.startswith("flaskflex: error: ") and "again" in said
            for said, status in ends
        ), ends
        assert outcome(project, scene.environ) == scene.after
        run("git", "fsck", "--strict", "--no-dangling", cwd=project, env=scene.environ)


@pytest.mark.parametrize("scene", [fresh_project], indirect=True)
def test_a_run_that_was_killed_while_it_recovered_another_is_recovered_too(
    scene: Scene, tmp_path: Path
) -> None:
    if STRACE is None:
        pytest.skip("strace is not installed")
    disturbed(scene, Point(0, "rename", 2), "signal=SIGKILL", tmp_path)
    project = tmp_path / "project"
    folder, = (project / ".git").glob(".flaskflex-*-*")
    folder.rename(re.sub("[0-9]+$", "4999999", str(folder)))  # no process can have that number
    finish(scene, project)


@pytest.mark.parametrize("scene", [fresh_project], indirect=True)
def test_a_killed_run_is_recovered_by_one_with_the_same_number(scene: Scene, tmp_path: Path) -> None:
    """In a container each run may have the number that the last one had."""
    if STRACE is None:
        pytest.skip("strace is not installed")
    disturbed(scene, Point(0, "rename", 2), "signal=SIGKILL", tmp_path)
    project = tmp_path / "project"
    folder, = (project / ".git").glob(".flaskflex-*-*")
    number = len(str(folder)) - len(re.sub("[0-9]+$", "", str(folder)))
    rename = f'mv {shlex.quote(str(folder))} {shlex.quote(str(folder)[:-number])}$$; exec "$@"'
    run("sh", "-c", rename, "sh", *command(scene.environ), cwd=project, env=scene.environ)
    assert outcome(project, scene.environ) == scene.after


# --- where nobody can be told ---


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=str)
def test_an_output_that_cannot_be_written_is_an_error(
    options: List[str], scene: Scene, tmp_path: Path
) -> None:
    project = shutil.copytree(scene.folder, tmp_path / "project", symlinks=True)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*command(scene.environ), *options], cwd=project, env=scene.environ,
                              stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.startswith(b"flaskflex: error: "), done
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done
    assert_nothing_is_broken(scene, project)
    finish(scene, project)


# A GitPython during whose import a signal arrives: where Python swallows what is raised there, or where it
# makes another error of it.
SIGNALLED = {
    "swallowed": """\
import os, weakref

class Thing:
    pass

thing = Thing()
reference = weakref.ref(thing, lambda gone: os.kill(os.getpid(), NUMBER))
del thing
""",
    "changed": """\
import os

class Thing:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), NUMBER)

class Owner:
    thing = Thing()
""",
}


@pytest.mark.parametrize("scene", [fresh_project], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", SIGNALLED.values(), ids=SIGNALLED)
def test_an_interruption_of_an_import_is_not_lost(
    module: str, number: signal.Signals, scene: Scene, tmp_path: Path
) -> None:
    project = shutil.copytree(scene.folder, tmp_path / "project", symlinks=True)
    own = shutil.copytree(scene.environ["VIRTUAL_ENV"], tmp_path / "env", symlinks=True)
    write(site_packages(own) / "git" / "__init__.py", module.replace("NUMBER", str(int(number))))
    write(site_packages(own) / "gitpython-99.0.dist-info" / "METADATA", "Name: GitPython\nVersion: 99.0\n")
    before = outcome(project, scene.environ)
    done = subprocess.run([own / "bin" / "python", "flaskflex.py"], cwd=project, stdin=subprocess.DEVNULL,
                          env=scene.environ, capture_output=True, preexec_fn=heed_interrupts)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, b"flaskflex: interrupted"), done
    assert b"Traceback" not in done.stderr, done
    assert outcome(project, scene.environ) == before


@pytest.mark.parametrize("scene", [fresh_project], indirect=True)
@pytest.mark.parametrize("number, status", [
    (signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9),
])
def test_a_run_that_is_ended_while_pip_freezes_leaves_no_process_and_no_change(
    number: signal.Signals, status: int, scene: Scene, tmp_path: Path
) -> None:
    project = shutil.copytree(scene.folder, tmp_path / "project", symlinks=True)
    slow = shutil.copytree(scene.environ["VIRTUAL_ENV"], tmp_path / "env", symlinks=True)
    started = tmp_path / "started"
    waiting = f"import pathlib, sys\npathlib.Path({str(started)!r}).touch()\nsys.stdout.close()\n"
    os.mkfifo(tmp_path / "never")
    write(site_packages(slow) / "pip" / "__main__.py", f"{waiting}open({str(tmp_path / 'never')!r})\n")
    before = outcome(project, scene.environ)
    process = subprocess.Popen(command(scene.environ), cwd=project, stdin=subprocess.DEVNULL,
                               env={**scene.environ, "VIRTUAL_ENV": str(slow)},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1]
    # Whoever still waits for the pipe can be seen: a writer that does not block finds nobody there.
    if number == signal.SIGKILL:
        os.close(os.open(tmp_path / "never", os.O_WRONLY))
    else:
        assert b"interrupted" in said and b"Traceback" not in said
        with pytest.raises(OSError):
            os.open(tmp_path / "never", os.O_WRONLY | os.O_NONBLOCK)
    assert process.returncode == status
    assert outcome(project, scene.environ) == before
    finish(scene, project)
