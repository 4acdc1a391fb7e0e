#!/usr/bin/env python3
"""Deploy a Flask project by git push: one file for both ends of the push.

    python flaskflex.py [options]         prepare this project for deployment
    python flaskflex.py check [options]   tell whether this project would deploy
    python flaskflex.py serve [options]   serve this project on 127.0.0.1, as a
                                          host would: by a private Apache
    python flaskflex.py host [NAME] ...   take pushes here: the other end of
                                          git push
    python flaskflex.py demo [DIR]        build a small example, and run all of
                                          the above on it

Run it inside the git clone of a project, with the application's virtualenv
active. It writes four files, commits exactly these, and touches nothing else:

    .flx                        what the host runs when the project is pushed
    public_html/.htaccess       hands every request that is not a file to
                                dispatch.fcgi
    public_html/dispatch.fcgi   serves application/app.py over FastCGI
    req.txt                     the virtualenv, frozen

Run it again whenever the virtualenv has changed. What you edit in the first
three files is kept, and so is what you write at the end of req.txt. A run
that would replace something of yours changes nothing, and says what to do.

Staging and committing are done with GitPython. If that is not installed,
flaskflex fetches it into a cache of its own; your virtualenv stays as it is.

Exit status: 0 done, or nothing to do; 1 it could not; 2 wrong usage;
130 interrupted.

Examples:
    python flaskflex.py --dry-run           show what a run would change
    python flaskflex.py --exclude pytest    leave a package out, and remember it
    python flaskflex.py check --fresh       try the last commit as a host would
    python flaskflex.py check --help        list the options of a command
    python3 flaskflex.py host blog --url https://blog.example.org/
    sudo python3 flaskflex.py host blog --domain blog.example.org --key me.pub
"""
from __future__ import annotations  # flaskflex needs Python 3.9 or newer

import sys

OLDEST_PYTHON: tuple[int, int] = (3, 9)  # flaskflex needs Python 3.9 or newer
if sys.version_info < OLDEST_PYTHON:
    sys.exit("flaskflex: error: Python 3.9 or newer is needed, and this is %d.%d" % sys.version_info[:2])

# The map. A section uses only what stands above it, and in a section a helper stands above its first user;
# only the templates, which are data, come last. Search for "# ---" to go from one to the next.
#
#   report and processes      what is printed, signals, files that others wrote
#   git                       the project: its work tree and its HEAD
#   the virtualenv            which one, its Python, its pip
#   req.txt                   the virtualenv, frozen so that a server can install it
#   the files                 what is to become of each of the four, and writing them
#   the commit                GitPython and its cache, the index and its lock, killed runs
#   .flx                      its lines, and what is wrong with them
#   asking an application     FastCGI, a private Apache, and what the answer means
#   check                     one function an item
#   host                      taking pushes: git's files, .flx, the trial, going live, the hooks; and, on a
#                             machine of one's own, users, keys, Apache's sites and databases
#   the commands              prepare, check, serve and demo, as the manual above describes them
#   the command line          the parser, and main()
#   the templates             the files that flaskflex writes
#
# Words that have a meaning of their own here:
#
#   base       what flaskflex itself committed last at a path: the base of a three-way merge
#   change     what is to become of one file; it is pending if the result still has to be committed
#   finding    what check has to say of one item: ok, warn or fail
#   fingerprint  the first digits of a text's hash
#   freeze     what pip freeze prints of the virtualenv, and what becomes of it in req.txt
#   live       the commit that a site serves: refs/flaskflex/live
#   marker     the line of req.txt above which flaskflex writes, and below which the user does
#   run folder   where a run notes what it is about to write, in git's own folder
#   site       the folder on a host that is served
#   template   the text of a file that flaskflex writes
#   trial      a copy of the site, in which a push is tried

import os

# A project may hold a git.py or a typing.py: nothing is imported from its folder.
if __name__ == "__main__":
    try:
        project_folders = {"", os.getcwd(), os.path.dirname(os.path.abspath(__file__))}
    except FileNotFoundError:
        sys.exit("flaskflex: error: the current folder is gone\nGo to the clone of your project (cd) first.")
    if __spec__ is not None:  # python -m flaskflex, where this file is installed
        project_folders = {"", os.getcwd()}
    sys.path[:] = [folder for folder in sys.path if folder not in project_folders]

import argparse
import atexit
import contextlib
import filecmp
import functools
import gc
import io
import itertools
import re
import select
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import (
    TYPE_CHECKING, Any, BinaryIO, Callable, Container, ContextManager, Iterable, Iterator, Mapping,
    NamedTuple, NoReturn, Optional, Sequence, TextIO, TypeVar,
)
from urllib.parse import unquote, urlsplit

with contextlib.suppress(ImportError):  # not on Windows; and the last one not on Android
    import fcntl
    import pwd
    import resource
    import grp

if TYPE_CHECKING:
    import socket

    import git

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

__version__ = "1.1.0"

Environ = Mapping[str, str]
Process = subprocess.Popen[bytes]

# The files that flaskflex writes, from the top of the project.
FILES = (".flx", "public_html/.htaccess", "public_html/dispatch.fcgi", "req.txt")


# --- report and processes ---


class Failure(Exception):
    """What went wrong and how to go on: the one exception that reaches the user, caught in main()."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Refused(Exception):
    """Why one file or requirement is refused; all such reasons are gathered into one Failure."""


def plural(count: int, noun: str) -> str:
    """Return `1 package`, `7 packages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shell_line(*args: str) -> str:
    """Return a command as it can be pasted into a POSIX shell: every hint that shows one is built here.

    A name from the project (a branch, a file, a folder) may hold anything that a shell would obey.
    """
    return shlex.join(args)


def append_line(file: str, lines: Iterable[str]) -> str:
    """Return the command that adds lines to a file, whose last line may lack its end, and stages that."""
    return shell_line("printf", r"%s\n", "", *lines) + f" >> {file} && git add {file}"


def display_path(path: Path) -> str:
    """Return a path as the user would write it: from ~ on if it is below the home."""
    home = os.path.expanduser("~")
    return re.sub(rf"^{re.escape(home)}(?=/)", "~", str(path)) if home != os.sep else str(path)


# Control characters: C0 and C1 except the newline, and Unicode's line ends and bidirectional controls, which
# can make one text look like another.
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text without anything that a terminal would obey: tabs as spaces, the rest as escapes."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text.expandtabs())


def wrapped(text: str, indent: int) -> str:
    """Return a text wrapped at words for this terminal's width, its later lines indented by `indent`."""
    import textwrap

    width = max(shutil.get_terminal_size().columns - indent, 20)
    lines = [part for line in text.split("\n")
             for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]]
    return f"\n{'':<{indent}}".join(lines)


class Report:
    """Print what a run does: facts on standard output, warnings and errors on standard error.

    Commands print through this alone. The names of files and branches, and what git, pip and applications
    say, were written by others: no control character of theirs reaches the terminal.
    """

    COLOURS = {"warn": 33, "warning": 33, "fail": 31, "Not ready": 31, "error": 31}  # all else is green

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    def fact(self, label: str, text: str) -> None:
        """Print a line such as `Project     ~/yourprojectname (branch main)`."""
        self._print(f"{label:<12}", text, paint=label if label in ("Ready", "Not ready") else "")

    def item(self, verb: str, text: str, hint: str = "") -> None:
        """Print a line such as `   create   .flx` or `     fail   .flx is missing`, and its hint below."""
        self._print(f"{verb:>9}   ", text.replace("\n", "\\n"), paint=verb)
        self._print_hint(" " * 14, hint, sys.stdout)

    def line(self, text: str) -> None:
        """Print a line as it is, such as one of a log."""
        self._print("", text)

    def warning(self, text: str) -> None:
        """Print a line on standard error: something is odd, and the run goes on."""
        self._print("flaskflex: warning: ", text, paint="warning", stream=sys.stderr)

    def error(self, text: str, hint: str) -> None:
        """Print on standard error why the run ends, and how to go on: --quiet keeps this, too."""
        self.quiet = False
        self._print("flaskflex: error: ", text, paint="error", stream=sys.stderr)
        self._print_hint("", hint, sys.stderr)

    def patch(self, content: bytes) -> None:
        """Print a patch: byte for byte, so that `git apply` takes it, or as a terminal can show it."""
        if sys.stdout.isatty():
            content = printable(content.decode("utf-8", "backslashreplace")).encode()
        if not self.quiet:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show on a terminal what is waited for, before and while it lasts."""
        shown = sys.stderr.isatty() and not self.quiet
        if shown:
            print(f"{printable(text)} ...", end="", file=sys.stderr, flush=True)
        try:
            yield
        finally:
            if shown:  # back to the start of the line, and clear it
                print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _print_hint(self, indent: str, hint: str, stream: TextIO) -> None:
        """Print a hint: sentences begin with a capital, commands do not and stay one line to be pasted."""
        for line in hint.split("\n") if hint else ():
            self._print(indent, line, stream=stream)

    def _print(self, label: str, text: str, *, paint: str = "", stream: Optional[TextIO] = None) -> None:
        """Print a label and a text; on a terminal wrapped at words, with one word of the label painted."""
        stream = stream or sys.stdout
        text = printable(text)
        if stream.isatty():
            if label.strip() or text[:1].isupper():
                text = wrapped(text, len(label))
            if paint and not os.environ.get("NO_COLOR"):  # https://no-color.org
                label = label.replace(paint, f"\033[{self.COLOURS.get(paint, 32)}m{paint}\033[0m")
        if not self.quiet:
            print(label + text, file=stream)


def error_text(output: bytes, program: str = "git") -> str:
    """Return what a program said when it failed, for the user to read."""
    return output.decode("utf-8", "backslashreplace").strip() or f"{program} gave no reason"


def last_lines(output: bytes, count: int = 20) -> str:
    """Return the last lines of what a program printed, each cut if it is long."""
    lines = output.decode("utf-8", "backslashreplace").strip().split("\n")[-count:]
    return "\n".join(line[:500] for line in lines)


def hide_urls(text: str) -> str:
    """Return what a program printed, each line cut where a URL or a path begins: these may hold secrets."""
    return re.sub(r"""(?:[^\s:]{0,20}://|(?<=[\s'"(])/)[^\n]*""", "...", text)


TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))


def handle_signal(signum: int, frame: object) -> NoReturn:
    """Raise KeyboardInterrupt, so that everything is put in order, which a second ^C must not cut short."""
    for further in TERMINATION_SIGNALS:
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


def catch_signals() -> None:
    """Let SIGTERM and a lost terminal end flaskflex like ^C."""
    for signum in TERMINATION_SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup, and a shell's &, have their reasons
            signal.signal(signum, handle_signal)


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Deliver signals after the block: an import may swallow the exception, or make another error of it."""
    waiting: list[int] = []
    caught = [signum for signum in TERMINATION_SIGNALS if signal.getsignal(signum) is handle_signal]
    for signum in caught:
        signal.signal(signum, lambda signum, _: waiting.append(signum))
    try:
        yield
    finally:
        for signum in caught:
            signal.signal(signum, handle_signal)
    if waiting:
        handle_signal(waiting[0], None)


@contextlib.contextmanager
def in_background(command: Sequence[str], **options: Any) -> Iterator[Process]:
    """Run a program while the block lasts, in a session of its own: it has no terminal on which to ask.

    `options` are those of subprocess.Popen; what it prints comes through pipes.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(OSError):  # it may have ended since it was asked
                if process.poll() is None:
                    process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Look again and again, at short intervals, until something is done, or the seconds are over."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.002)


READ_LIMIT = 1 << 20  # bytes: no file that flaskflex has to read is larger, unless somebody means harm

# Follow no link at the end of a path; and on Windows, which knows no such flag, change no line ending.
OPEN_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def open_regular(path: str | Path, *, dir_fd: Optional[int] = None, limit: int = READ_LIMIT,
                 flags: int = OPEN_SAFELY) -> Iterator[BinaryIO]:
    """Open a regular file of at most `limit` bytes for reading, not through a link at the path's end.

    Raise Failure for what is larger or is no file (to open a pipe would block), and OSError as open() does.
    """
    flags |= os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags, dir_fd=dir_fd), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise Failure(f"{path} is not a file of at most {limit} bytes",
                          "Move it elsewhere, and run flaskflex again.")
        yield file


def read_limited(path: Path, limit: int = READ_LIMIT) -> bytes:
    """Return the content of a file, even through a link. Raise as open_regular does."""
    with open_regular(path, limit=limit, flags=getattr(os, "O_BINARY", 0)) as file:
        return file.read(limit)


# --- git ---

# What `git rev-parse --local-env-vars` lists, but for settings: git sets these for its hooks, and left alone
# they would lead away from the project that was asked for.
GIT_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)

GITLINK = "160000"  # git's mode of a submodule
SUBMODULE = ("public_html is a git repository of its own (a submodule): files in it are not the project's",
             "Take it out: git rm --cached public_html && mv public_html ../public_html.old")

# What git's wt-status.c looks for: what is in progress while one of these exists beside the index, and the
# command that ends it.
IN_PROGRESS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
}


def require_git() -> None:
    """Raise Failure if there is no git."""
    if not shutil.which("git"):
        raise Failure("git is not installed",
                      "Install it (on Debian: apt install git), and run flaskflex again.")


def run_git(folder: Path, *args: str, stdin: bytes = b"",
            environ: Optional[Environ] = None) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with `stdin` on its standard input; the caller looks at how it ended."""
    return subprocess.run(["git", "-C", str(folder), *args], input=stdin, env=environ, capture_output=True)


def git_output(folder: Path, *args: str, stdin: bytes = b"", environ: Optional[Environ] = None) -> bytes:
    """Return what git prints. Raise Failure with git's own message if it fails."""
    result = run_git(folder, *args, stdin=stdin, environ=environ)
    if result.returncode:
        command = next(arg for arg in args if not arg.startswith("-") and "=" not in arg)  # after -c A=B
        raise Failure(f"git {command} failed in {folder}", error_text(result.stderr))
    return result.stdout


def split_nul(output: bytes) -> list[str]:
    """Return the entries of a list that git ended with NUL characters (-z)."""
    return os.fsdecode(output).split("\0")[:-1]


def join_nul(paths: Iterable[str]) -> bytes:
    """Return paths as a list for git, in which each ends with a NUL character (-z)."""
    return b"".join(os.fsencode(path) + b"\0" for path in paths)


class Blob(NamedTuple):
    """A file as a commit holds it: mode such as "100644", object name, content."""

    mode: str
    id: str
    content: bytes


def read_blobs(git: Callable[..., bytes], commit: str, paths: Iterable[str]) -> dict[str, Blob]:
    """Return the files among `paths` that a commit holds; `git` runs git in its repository.

    Raise Failure for one too large, or damaged.
    """
    held = []
    for entry in split_nul(git("ls-tree", "-l", "-z", commit, "--", *paths)):
        facts, path = entry.split("\t", 1)
        mode, _, name, size = facts.split()
        if not mode.startswith("100"):  # a folder, a symbolic link or a submodule
            continue
        if size == "BAD":
            raise Failure(f"git has lost the committed {path}", "See what is damaged: git fsck")
        if int(size) > READ_LIMIT:
            raise Failure(f"{path}, as it is committed, is larger than {READ_LIMIT} bytes",
                          f"Rename that file, and commit: {shell_line('git', 'mv', path, 'NEW')}")
        held.append((path, mode, name, int(size)))
    names = "".join(f"{name}\n" for _, _, name, _ in held)
    contents = io.BytesIO(git("cat-file", "--batch", stdin=names.encode()) if held else b"")
    blobs = {}
    for path, mode, name, length in held:
        contents.readline()  # name, type and size
        blobs[path] = Blob(mode, name, contents.read(length + 1)[:-1])  # without the end of line
    return blobs


class Project(NamedTuple):
    """A git work tree and where its HEAD stands.

    root is the work tree's folder; index_file lies in git's own folder; branch is None when HEAD is
    detached, commit is None before the first one. blobs are our files as HEAD has them.
    """

    root: Path
    index_file: Path
    branch: Optional[str] = None
    commit: Optional[str] = None
    blobs: Mapping[str, Blob] = {}

    def git(self, *args: str, stdin: bytes = b"") -> bytes:
        """Return what git prints in this project. Raise Failure with git's own message if it fails."""
        return git_output(self.root, *args, stdin=stdin)

    def head_commit(self) -> str:
        """Return the object name of the commit that HEAD is at now, "" if there is none yet.

        Raise Failure if git cannot tell: a commit that is taken for the first would remove all other files.
        """
        result = run_git(self.root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}")
        if result.returncode not in (0, 1):
            raise Failure(f"git does not tell the commit of {self.root}", error_text(result.stderr))
        return result.stdout.decode().strip()


def require_own_work_tree(folder: Path, root: Path) -> None:
    """Raise Failure if a folder's repository is not that of its work tree's root.

    core.worktree may point anywhere, in a copied project say: git would write there, and commit here.
    """
    repositories = [run_git(place, "rev-parse", "--absolute-git-dir").stdout for place in (folder, root)]
    if repositories[0] != repositories[1]:
        raise Failure(f"the repository of {folder} has its files in {root}, which is not part of it",
                      "Its core.worktree says so. If that is a mistake, undo it:\n"
                      + shell_line("git", "-C", str(folder), "config", "--unset", "core.worktree"))


def read_head(project: Project) -> Project:
    """Return a project with its branch, commit and blobs. Raise Failure if public_html is a submodule."""
    head = os.fsdecode(run_git(project.root, "symbolic-ref", "--quiet", "HEAD").stdout).rstrip("\n")
    commit = project.head_commit()
    blobs = read_blobs(project.git, commit, FILES) if commit else {}
    if commit and project.git("ls-tree", commit, "--", "public_html").startswith(GITLINK.encode()):
        raise Failure(*SUBMODULE)
    branch = head.removeprefix("refs/heads/")  # and not as --short has it, if a tag has the same name
    return project._replace(branch=branch or None, commit=commit or None, blobs=blobs)


def find_project(folder: Path) -> Project:
    """Return the git project that holds a folder, its HEAD read. Raise Failure if there is none."""
    require_git()
    if not folder.is_dir():
        raise Failure(f"{folder} is not a folder", "Name the clone of your project after -C.")
    folder = folder.resolve()  # git follows links, and the paths that it prints begin where they lead
    result = run_git(folder, "rev-parse", "--is-bare-repository", "--git-path", "index", "--show-toplevel")
    bare, _, places = os.fsdecode(result.stdout).partition("\n")
    if bare == "true":
        raise Failure(f"{folder} is a bare repository, without files to prepare",
                      "Clone it, and run flaskflex in the clone.")
    if result.returncode and any((place / ".git").exists() for place in (folder, *folder.parents)):
        raise Failure(f"git does not open the repository of {folder}", error_text(result.stderr))
    if result.returncode:
        hint = "Clone your project, and run flaskflex in the clone. (git init makes a new repository.)"
        clones = [path.parent for path in folder.glob("*/.git")]
        if len(clones) == 1:
            hint = f"Go to the clone: {shell_line('cd', os.path.relpath(clones[0]))}"
        raise Failure(f"{folder} is not in a git repository", hint)
    index, _, root = places.partition("\n")
    project = Project(Path(root[:-1]), Path(os.path.abspath(folder / index)))
    if folder != project.root:
        require_own_work_tree(folder, project.root)
    return read_head(project)


def require_committable(project: Project) -> None:
    """Raise Failure if a commit made now would be a wrong one, or if git would refuse to make it.

    During a merge, git would record our files as the merge's result.
    """
    for sign, activity in IN_PROGRESS.items():
        if (project.index_file.parent / sign).exists():
            raise Failure(f"a {activity} is under way in {project.root}",
                          f"Finish it (git {activity} --continue) or give it up (git {activity} --abort), "
                          "and run flaskflex again.")
    for variable in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        result = run_git(project.root, "var", variable)
        if result.returncode:
            raise Failure("git does not know who you are, so it cannot commit", error_text(result.stderr))


def sparse_hint(project: Project, gone: Sequence[str]) -> str:
    """Return the command that brings files back which a sparse checkout leaves out, "" if that is not why."""
    entries = split_nul(project.git("ls-files", "-t", "-z", "--", *gone)) if gone else []  # S .flx
    tops = sorted({entry[2:].partition("/")[0] for entry in entries if entry.startswith("S ")})
    return shell_line("git", "sparse-checkout", "add", *tops) if tops else ""


def require_checked_out(project: Project) -> None:
    """Raise Failure if a sparse checkout leaves out files of ours, which would be made anew without edits."""
    gone = [path for path in project.blobs if not os.path.lexists(project.root / path)]
    hint = sparse_hint(project, gone)
    if hint:
        raise Failure(f"a sparse checkout leaves out {', '.join(gone)}", hint)


def fingerprint(text: str) -> str:
    """Return twelve hexadecimal digits that change when the text does."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


# The trailers of flaskflex's commits: its version, and each template's path and fingerprint.
VERSION_TRAILER = "Flaskflex-Version"
TEMPLATE_TRAILER = "Flaskflex-Template"


def committed_fingerprints(project: Project, path: str) -> Iterator[tuple[str, str]]:
    """Yield (commit, fingerprint) of what flaskflex wrote at a path, the newest first, by its trailers."""
    if project.commit is None:
        return
    found = project.git("rev-list", "--full-history", "--format=%B%x00",
                        f"--grep=^{VERSION_TRAILER}: [0-9]", project.commit, "--", path)
    for entry in found.decode("utf-8", "replace").split("\0")[:-1]:
        heading, _, message = entry.strip().partition("\n")
        commit = heading.split()[1]  # `commit 0123abc...`
        recorded = re.findall(rf"^{TEMPLATE_TRAILER}: {re.escape(path)} (\w+)$", message, re.MULTILINE)
        yield from ((commit, digits) for digits in reversed(recorded))


def find_base(project: Project, path: str) -> tuple[str, Optional[bytes]]:
    """Return the fingerprint of the template that flaskflex committed last at a path, and its text.

    Git is its memory; "" stands for a path at which it never committed one. That commit may hold a merge
    with the user's edits, or have been amended: then an older one has the text, or none (None).
    """
    newest = ""
    for commit, digits in committed_fingerprints(project, path):
        newest = newest or digits
        blob = read_blobs(project.git, commit, [path]).get(path)
        if blob and fingerprint(blob.content.decode("utf-8", "surrogateescape")) == digits:
            return newest, blob.content
    return newest, None


def set_mode(descriptor: int, mode: int) -> None:
    """Set the permission bits of an open file or folder. Windows has none."""
    if os.name != "nt":
        os.fchmod(descriptor, mode)


class WorkTreeFile(NamedTuple):
    """A file as the work tree has it: content (None: no file) and permission bits."""

    content: Optional[bytes]
    mode: int


class WorkTree:
    """The project's root and public_html, each held open, so that no link is followed.

    Whoever else can write in the project may exchange a folder for a link at any moment; what goes by the
    descriptor of an open folder stays in that folder. Windows has no such descriptors: paths do there.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.descriptors: dict[str, int] = {}

    def __enter__(self) -> WorkTree:
        if os.open in os.supports_dir_fd:
            self.descriptors[""] = os.open(self.project.root, os.O_RDONLY | os.O_DIRECTORY)
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)

    def read(self, path: str) -> WorkTreeFile:
        """Return the file at a path. Raise Failure if something else is in its way, or it is too large."""
        if not self._is_there(path, "file"):
            return WorkTreeFile(None, 0)
        name, folder = self._place(path)
        with open_regular(name, dir_fd=folder) as file:
            return WorkTreeFile(file.read(READ_LIMIT), stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    def create(self, path: str, content: bytes, mode: int) -> None:
        """Write a new file, in a folder that is made if need be: writable for its owner alone (suexec)."""
        folder = os.path.dirname(path)
        if not self._is_there(folder, "folder"):
            name, root = self._place(folder)
            os.mkdir(name, 0o755, dir_fd=root)
            self._is_there(folder, "folder")
            if folder in self.descriptors:
                set_mode(self.descriptors[folder], 0o755)  # the user's umask may have taken something away
        name, parent = self._place(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_SAFELY
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(content)
            set_mode(file.fileno(), mode)

    def set_mode(self, path: str, mode: int) -> None:
        """Set the permission bits of a file."""
        name, folder = self._place(path)
        with open_regular(name, dir_fd=folder) as file:
            set_mode(file.fileno(), mode)

    def rename(self, source: str, target: str) -> None:
        """Put a file into the place of another in the same folder."""
        (old, folder), (new, _) = self._place(source), self._place(target)
        os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            if self._is_there(os.path.dirname(path), "folder"):
                name, folder = self._place(path)
                os.unlink(name, dir_fd=folder)

    def _place(self, path: str) -> tuple[str | Path, Optional[int]]:
        """Return what system calls take: a name and the open folder that it is in, or a path and None."""
        folder, name = os.path.split(path)
        if folder in self.descriptors:
            return name, self.descriptors[folder]
        return self.project.root / path, None

    def _is_there(self, path: str, kind: str) -> bool:
        """Return True if there is a file or a folder at a path; a folder is held open from then on.

        Raise Failure if something of another kind is there, or in the place of the folder above it.
        """
        if not path or path in self.descriptors:
            return True
        if not self._is_there(os.path.dirname(path), "folder"):
            return False
        name, parent = self._place(path)
        try:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode):
            raise Failure(f"{self.project.root / path} is a symbolic link, and flaskflex writes through none",
                          f"Put a real {kind} in its place, and run flaskflex again.")
        if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
            raise Failure(f"{self.project.root / path} is not a {kind}",
                          "Move it elsewhere, and run flaskflex again.")
        if kind == "folder" and os.path.lexists(self.project.root / path / ".git"):
            raise Failure(*SUBMODULE)
        if kind == "folder" and parent is not None:
            flags = os.O_RDONLY | os.O_DIRECTORY | OPEN_SAFELY
            self.descriptors[path] = os.open(name, flags, dir_fd=parent)
        return True


# --- the virtualenv ---

# One of these is in each virtualenv: of venv, virtualenv and uv; of virtualenv before 20; of conda.
VIRTUALENV_MARKERS = ("pyvenv.cfg", "bin/activate", "Scripts/activate", "conda-meta")

PYTHON_SECONDS = 120  # seconds that a virtualenv's Python has to say something


class Virtualenv(NamedTuple):
    """A virtualenv: its folder, its interpreter, and the version of that, such as "3.11.7"."""

    path: Path
    python: Path
    version: str


def interpreter(path: Path, windows: bool = os.name == "nt") -> Path:
    """Return where the interpreter of the virtualenv in a folder lies."""
    if windows:
        conda = path / "python.exe"
        return conda if conda.exists() else path / "Scripts" / "python.exe"
    return path / "bin" / "python"


def site_packages(path: Path) -> list[Path]:
    """Return the folders that hold the distributions of the virtualenv in a folder."""
    return [*path.glob("lib/*/site-packages"), *path.glob("Lib/site-packages")]


def in_site_packages(path: Path, name: str) -> bool:
    """Return True if the virtualenv in a folder has that file or folder among its distributions."""
    return any((folder / name).exists() for folder in site_packages(path))


def read_text_or_empty(path: Path) -> str:
    """Return the text of a file, "" if it cannot be read. Raise Failure if it is too large, or no file."""
    try:
        return read_limited(path, 8 << 20).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return ""


def last_line(output: bytes) -> str:
    """Return the last line of what a program printed, without URLs."""
    return hide_urls(last_lines(output, 1)) or "It gave no reason."


def python_version(path: Path, python: Path) -> str:
    """Return the version of a virtualenv's Python: venv, virtualenv and uv note it, conda does not.

    Raise Failure if that Python does not run, or does not answer.
    """
    version_line = r"^version(?:_info)? *= *([0-9]+\.[0-9]+\.[0-9]+)"
    noted = re.search(version_line, read_text_or_empty(path / "pyvenv.cfg"), re.MULTILINE)
    if noted:
        return noted[1]
    command = [str(python), "-I", "-c", "import platform; print(platform.python_version())"]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=PYTHON_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failure(f"the Python of the virtualenv {path} does not answer",
                      f"Nothing came in {PYTHON_SECONDS} s from: {shell_line(*command)}") from None
    if result.returncode:
        raise Failure(f"the Python of the virtualenv {path} does not run", last_line(result.stderr))
    return result.stdout.decode().strip()


def read_virtualenv(source: str, path: Path) -> Virtualenv:
    """Return the virtualenv in a folder; `source`, such as "--venv", says in errors who named it.

    Raise Failure if it is not one, or if its Python is gone or does not run.
    """
    again = "Activate your application's virtualenv, or name it with --venv."
    if not path.is_dir():
        raise Failure(f"{source} names {path}, which is not there", again)
    if not any((path / marker).exists() for marker in VIRTUALENV_MARKERS):
        raise Failure(f"{source} names {path}, which is not a virtualenv", again)
    python = interpreter(path)
    if not python.exists():
        links = f"{shell_line(str(python))}*"  # venv leaves these as they are; --clear would remove all files
        raise Failure(f"the Python of the virtualenv {path} is gone",
                      f"Make it again: rm -f {links} && {shell_line('python3', '-m', 'venv', str(path))}")
    return Virtualenv(path, python, python_version(path, python))


def virtualenv_candidates(named: Optional[Path]) -> Iterator[tuple[str, Path]]:
    """Yield where the virtualenv may be, in the order of precedence: (who says so, folder)."""
    if named is not None:
        yield "--venv", named
    if os.environ.get("VIRTUAL_ENV"):
        yield "VIRTUAL_ENV", Path(os.environ["VIRTUAL_ENV"]).absolute()
    # Installed by pipx or uv, flaskflex has a virtualenv of its own, which is not the application's.
    own = Path(sys.prefix)
    if sys.prefix != sys.base_prefix and not in_site_packages(own, "flaskflex.py"):
        yield "the Python that runs flaskflex", own
    if os.environ.get("CONDA_PREFIX") and os.environ.get("CONDA_DEFAULT_ENV") != "base":
        yield "CONDA_PREFIX", Path(os.environ["CONDA_PREFIX"]).absolute()


def project_root(folder: Path) -> Path:
    """Return the top of the clone that holds a folder, the folder itself if there is none."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def virtualenvs_in(folder: Path) -> list[Path]:
    """Return the virtualenvs in a folder that have one of the usual names."""
    places = (folder / name for name in (".venv", "venv", "env"))
    return [place for place in places if (place / "pyvenv.cfg").exists()]


def activate_command(path: Path, windows: bool = os.name == "nt") -> str:
    """Return what to type to activate a virtualenv."""
    return str(path / "Scripts" / "activate") if windows else shell_line("source", f"{path}/bin/activate")


def activation_hint(folder: Path) -> str:
    """Return how to get a virtualenv: the project's, one beside it, that of a tool, or a new one."""
    root = project_root(folder)
    for found, where in ((virtualenvs_in(root), "Your project holds one"),
                         (virtualenvs_in(root.parent), "There is one beside your project")):
        if found:
            return f"{where}; activate it: {activate_command(found[0])}"
    for name, command in (("poetry.lock", "poetry env info --path"), ("Pipfile", "pipenv --venv"),
                          ("hatch.toml", "hatch env find")):  # these tools keep a virtualenv elsewhere
        if (root / name).exists():
            return f'Name the virtualenv that belongs to {name}: python flaskflex.py --venv "$({command})"'
    new = root.parent / "env"
    return ("Activate the one you use for your application (source PATH/bin/activate), or name it (--venv "
            f"PATH), or make one: {shell_line('python3', '-m', 'venv', str(new))} && {activate_command(new)} "
            "&& python -m pip install flask")


def find_virtualenv(folder: Path, named: Optional[str], report: Report) -> Virtualenv:
    """Return the application's virtualenv: the named one, else the active one, else our interpreter's.

    Raise Failure if there is none, or if the one that was named is not a virtualenv.
    """
    found = list(virtualenv_candidates(folder / named if named else None))
    if not found:
        raise Failure("no virtualenv is active", activation_hint(folder))
    source, path = found[0]
    virtualenv = read_virtualenv(source, path)
    settings = read_text_or_empty(path / "pyvenv.cfg")
    if re.search(r"^include-system-site-packages *= *true", settings, re.MULTILINE):
        report.warning(f"{path} also sees the packages of the whole machine: req.txt leaves these out")
    for other_source, other in found[1:]:
        if not named and other.resolve() != path.resolve():
            report.warning(f"taking {path} ({source} names it), and not {other} ({other_source})")
    own = virtualenvs_in(project_root(folder))
    if own and not named and path.resolve() not in (place.resolve() for place in own):
        report.warning(f"taking {path} ({source} names it), though the project holds {own[0]}, "
                       f"which you can activate: {activate_command(own[0])}")
    return virtualenv


# `python -m pip`, without the quarter of its time that Python needs to free what pip has built.
QUICK_PIP = """\
import gc, os, runpy, sys
gc.disable()
try:
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
    sys.stdout.flush()
    os._exit(0)
"""


def installed_version(name: str, module: str) -> tuple[int, ...]:
    """Return the version of a distribution that this interpreter can import, such as (3, 2, 1), else ()."""
    import importlib.util

    if not importlib.util.find_spec(module):  # this takes no time, and to load importlib.metadata 0.01 s
        return ()
    from importlib import metadata

    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in re.findall(r"[0-9]+", version)[:3])


def bundled_pip(virtualenv: Virtualenv) -> Path:
    """Return the pip inside the wheel that Python keeps for ensurepip, which runs from there uninstalled."""
    with contextlib.suppress(ImportError):
        import ensurepip

        for folder in (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")):
            for wheel in folder.glob("pip-*.whl"):
                return wheel / "pip"
    raise Failure(f"there is no pip in {virtualenv.path}, and neither uv nor another pip to freeze it",
                  f"Install pip there: {shell_line(str(virtualenv.python), '-m', 'ensurepip')}")


def pip_command(virtualenv: Virtualenv, command: str) -> list[str]:
    """Return how to run a command of pip's on a virtualenv, by its own pip or else by any other.

    uv makes virtualenvs without pip. Raise Failure if there is neither.
    """
    python, isolated = str(virtualenv.python), ["-I", "-X", "utf8"]
    if in_site_packages(virtualenv.path, "pip/__main__.py"):
        return [python, *isolated, "-c", QUICK_PIP, command]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", command, "--python", python]
    if installed_version("pip", "pip") >= (22, 3):  # the first that has --python
        return [sys.executable, *isolated, "-m", "pip", "--python", python, command]
    return [python, *isolated, str(bundled_pip(virtualenv)), command]


def freezing(virtualenv: Virtualenv) -> ContextManager[Process]:
    """Run pip freeze while the caller does everything else: it takes longer than all the rest.

    Nothing that the user has set for pip, uv and Python is of use for it. Raise Failure if there is no pip
    at all.
    """
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith(("PIP_", "UV_", "PYTHON"))}
    environ.update(PIP_CONFIG_FILE=os.devnull, PIP_LOCAL="1", UV_NO_CONFIG="1", UV_NO_CACHE="1")
    return in_background(pip_command(virtualenv, "freeze"), env=environ)


def frozen_text(freeze: Process, virtualenv: Virtualenv) -> str:
    """Wait for pip freeze, and return what it printed. Raise Failure if it fails or never ends."""
    see_all = f"See all that it says: {shell_line(str(virtualenv.python), '-m', 'pip', 'freeze')}"
    try:
        output, errors = freeze.communicate(timeout=PYTHON_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failure(f"pip freeze did not end within {PYTHON_SECONDS} s in {virtualenv.path}",
                      see_all) from None
    if freeze.returncode:
        raise Failure(f"pip freeze failed in {virtualenv.path}", f"{last_line(errors)}\n{see_all}")
    return output.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


# --- req.txt ---

FLUP = "flup==1.0.3"  # what dispatch.fcgi imports to speak FastCGI
FLUP_PINS = f"{FLUP} --hash=sha256:ca9fd78e1cc0431da1236f73fafd1c01db684675b4d369460d5f5c62e6f0b8d6\n"

# The last line of the frozen part: always the same, so that git merges two freezes like any other text.
# That of version 1.0 held the fingerprint of what stands above it.
MARKER = "# --- frozen above; your own lines go below, and stay ---\n"
MARKER_LINE = re.compile(r"^# --- frozen above(?: \([0-9a-f]{12}\))?[;:].*\n?", re.MULTILINE)

# How --exclude is remembered, below the marker line.
EXCLUDE_LINE = re.compile(r"^# flaskflex: exclude ([\w.-]+) *$", re.MULTILINE | re.ASCII)

# What pip freeze prints for a distribution. A damaged or hostile one could put anything else in its place.
FROZEN_LINE = re.compile(r"[A-Za-z0-9][\w.-]*(?:===?[\w.!+-]+| @ [a-z][!-~]*)|-e [^\x00-\x1f]+", re.ASCII)
EDITABLE_LINE = re.compile(r"-e [a-z+]+://[!-~]+#egg=[A-Za-z0-9][\w.-]*(?:&subdirectory=[!-~]+)?", re.ASCII)

# How a requirement begins that is not a URL or an option: with a name (PEP 508).
NAME = re.compile(r"([A-Za-z0-9][\w.-]*)\s*([@<>=!~;\[( ]|$)", re.ASCII)

# What else pip reads in a requirements file: its options there, requirements (PEP 508), URLs and paths.
READABLE_LINE = re.compile(r"""
    -[cefir][ ]?\S.* | --(?:(?:extra-)?index-url|constraint|requirement|editable|find-links|no-binary
        |only-binary|trusted-host|use-feature)[ =]\S.* | --(?:no-index|pre|prefer-binary|require-hashes)
    | [A-Za-z0-9][\w.-]*[ ]?(?:\[[^][]*\][ ]?)?
        (?:@[ ]?\S+ | \(?(?:(?:[=!<>~]=|[<>]|===)[ ]?\w[\w.*+-]*(?:!\w[\w.*+-]*)?[ ]?,?[ ]?)*\)?)
        (?:[ ]?;.*)? (?:[ ]?--(?:hash|config-settings?|global-option)[ =].*)?
    | [\w.~+]*[/:].* | [\w.-]+\.(?:whl|zip|tar\.gz) | \.+(?:[ ]?[;[].*)?""", re.VERBOSE | re.ASCII)
LINE_LIMIT = 2000  # characters: no requirement is longer

NOT_INSTALLABLE = ("Publish such a package, copy it into the project, or leave it out (--exclude NAME).\n"
                   "Instead of a secret write ${NAME}: pip reads that from the environment of the server.")


class Requirement(NamedTuple):
    """One line of req.txt, and the name of the distribution that it asks for ("": the line tells none)."""

    name: str
    line: str


class Distribution(NamedTuple):
    """The metadata of a distribution that is installed in a virtualenv.

    needs has the canonical name of each that it requires, and the marker (PEP 508) or ""; requested is True
    if somebody asked for it by name (PEP 376); source is the folder or file of this machine that it comes
    from (PEP 610), or ""; bound is True if it is made for this system alone, which is no server's.
    """

    name: str
    version: str
    needs: list[tuple[str, str]]
    requested: bool
    source: str
    bound: bool


class Freeze(NamedTuple):
    """What is to become of req.txt, by the virtualenv.

    version is that of its Python; names are the canonical ones of all that is frozen; requirements are what a
    server can install; refused tells why it cannot install another one, by its canonical name; user_lines go
    below the marker line; warnings are to be shown.
    """

    version: str
    names: frozenset[str]
    requirements: list[Requirement]
    refused: dict[str, str]
    user_lines: str
    warnings: list[str]


def canonical(name: str) -> str:
    """Return a distribution's name as the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) as pip divides a file: a backslash at the end of a line joins it to the next."""
    number = 1
    for match in re.finditer(r"(?:(?![ \t]*#)[^\n]*\\\n)*[^\n]*\n?", text):
        lines = [match[0]] if "\\\n" in match[0] else match[0].splitlines()  # pip ends lines at \f, too
        yield from ((number, line.strip()) for line in lines)
        number += match[0].count("\n")


def parse_requirements(text: str) -> list[Requirement]:
    """Return the requirements in what pip freeze prints, or in a req.txt.

    pip freeze names an editable install without version control only in the comment above it.
    """
    requirements = []
    commented = ""
    for _, line in logical_lines(text):
        if line.startswith("#"):
            remark = re.search(r"\(([\w.-]+)==", line, re.ASCII)
            commented = remark[1] if remark else commented
        elif line:
            named = NAME.match(line) or re.search(r"[#&]egg=([\w.-]+)", line, re.ASCII)
            requirements.append(Requirement(named[1] if named else commented, line))
            commented = ""
    return requirements


def by_name(requirements: Iterable[Requirement], like: Iterable[Requirement] = ()) -> dict[str, str]:
    """Return the lines of requirements by the canonical names of these.

    One without a name takes that of an equal line in `like`, else its line stands for the name.
    """
    names = {requirement.line: requirement.name for requirement in like}
    return {canonical(name or names.get(line, "")) or line: line for name, line in requirements}


# The secrets of the well-known hosts: GitHub, GitLab, PyPI, AWS, Slack, npm, Google, Hugging Face, Bitbucket,
# and signed ones (JWT); then the package hosts that take a token in the path of a URL.
TOKEN = re.compile(
    r"gh[oprsu]_\w{16}|github_pat_\w{16}|gl(?:pat|dt|rt|ptt|cbt|ft|soat)-[\w-]{16}|pypi-[\w-]{30}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abeprs]-[\w-]{10}|npm_\w{30}|AIza[\w-]{30}|hf_\w{30}|AT(?:BB|CTT3)\w{16}"
    r"|eyJ[\w-]{16}|anaconda\.\w+/t/[^/]|packagecloud\.io/priv/|dl\.cloudsmith\.io/(?!public/|basic/)",
    re.ASCII)
FRAGMENT_KEYS = ("egg", "subdirectory", "sha1", "sha224", "sha256", "sha384", "sha512", "md5")
SSH_USERS = ("git", "hg", "svn", "gitea", "forgejo")  # who is asked for repositories: no secret


def url_has_credentials(before: str, after: str) -> bool:
    """Return True if what stands before and after a :// holds what looks like a password or a token."""
    word = (after.split(None, 1) or [""])[0]
    user, at, _ = re.split("[/?#]", word, maxsplit=1)[0].rpartition("@")
    if at and user not in ("\0", "\0:") and not user.endswith(":\0"):
        if not (before.endswith("ssh") and user in SSH_USERS):
            return True
    path, _, hash_part = word.partition("#")
    query = re.split(r"[?;]", path)[1:]
    pairs = [pair.partition("=") for part in query for pair in part.split("&") if part]
    keys = [key for key, equals, _ in (pair.partition("=") for pair in hash_part.split("&")) if equals]
    if any(value != "\0" for _, _, value in pairs) or not set(keys) <= set(FRAGMENT_KEYS):
        return True
    # A word without a meaning: long, and with letters of both kinds between several numbers.
    return any(len(re.findall("[0-9]+", part)) > 1 and part.lower() != part != part.upper()
               for part in re.findall("[A-Za-z0-9]{16,}", path))


def has_credentials(text: str) -> bool:
    """Return True if a line of a requirements file holds what looks like a password or a token.

    It is searched for URLs, also inside of URLs and quoted. pip takes ${NAME} from the environment, and that
    is no secret, nor is an e-mail address. A user name over ssh is none if it is a usual one; over https
    it may be a token, and so may any query. A line that is too long to be searched counts as one that holds
    a secret.
    """
    if len(text) > 10 * LINE_LIMIT:
        return True
    text = re.sub(r"\$\{[A-Z0-9_]+\}", "\0", re.sub(r"(?<![\w/])mailto:", "", text))
    for _ in range(3):  # %2540 is an @, quoted twice
        parts = text.split("://")
        if (TOKEN.search(text) or re.search(r":(?!\0@)[^\s/@:]+@", text)
                or any(map(url_has_credentials, parts, parts[1:]))):
            return True
        text = unquote(text)
    return False


def display_name(requirement: Requirement) -> str:
    """Return a requirement's name, or its line if it has none; of a line with a secret the option alone."""
    option = re.match("--[a-z-]+", requirement.line)
    if requirement.name or not has_credentials(requirement.line):
        return requirement.name or ascii(requirement.line[:80])
    return option[0] if option else "a line"


def local_path(text: str, folder: Path = Path("/")) -> Path:
    """Return the path that a text names in a folder, links resolved; it is UTF-8, whatever the locale is."""
    return Path(os.path.realpath(folder / os.fsdecode(text.encode("utf-8", "surrogateescape"))))


def path_in_line(line: str) -> Optional[str]:
    """Return the path of this machine that a requirement names, None if it names none.

    Raise ValueError if its quotes do not match, or if its URL cannot be read: judge_line says so.
    """
    option = re.match(r"(?:-[ercf]|--(?:editable|requirement|constraint|find-links))[ =]?", line)
    if option:
        target = "".join(shlex.split(line[option.end():])[:1])
    else:
        target = re.sub(r"^[A-Za-z0-9][\w.-]* ?(?:\[[^][]*\])? ?@ ?", "", line, flags=re.ASCII)
    if re.match(r"(?:[a-z]+\+)?file:", target):
        return unquote(urlsplit(target).path, errors="surrogateescape")
    if "://" in target or target.startswith("-"):
        return None
    path = re.sub(r"\[[^][]*\]$", "", target.partition(";")[0].rstrip())
    return path if option or path.startswith(".") or "/" in path else None


def judge_line(line: str, root: Path) -> None:
    """Raise Refused if a server cannot install a line of req.txt, or must not be told of it."""
    if max(map(len, line.split("\\\n"))) > LINE_LIMIT or len(line) > 10 * LINE_LIMIT:
        raise Refused(f"is longer than {LINE_LIMIT} characters")
    line = line.replace("\\\n", "")
    if has_credentials(line):
        raise Refused("holds what looks like a password or a token")
    line = " ".join(re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split())
    if not line:
        return
    try:
        path = path_in_line(line)
        place = None if path is None else local_path(path, root)
    except ValueError:
        raise Refused("names a place that cannot be read") from None
    if not READABLE_LINE.fullmatch(line):
        raise Refused("is not a line that pip can read")
    if path is not None and place and (os.path.isabs(path) or not place.is_relative_to(root.resolve())):
        shown = str(place) if str(place).isprintable() else ascii(str(place))
        raise Refused(f"is installed from {shown}, which the server does not have")


def refused_lines(text: str, root: Path, first: int = 1) -> list[str]:
    """Return what a server cannot install of the lines of a req.txt, the first of which has a number."""
    refused = []
    for number, line in logical_lines(text):
        try:
            judge_line(line, root)
        except Refused as reason:
            name = display_name((parse_requirements(line) or [Requirement("a comment", line)])[0])
            refused.append(f"line {number + first - 1} ({name}) {reason}")
    return refused


def source_in_direct_url(text: str) -> str:
    """Return the folder or file that a direct_url.json (PEP 610) names, "" if it names none."""
    import json

    try:
        url = json.loads(text)["url"]
        return unquote(urlsplit(url).path, errors="surrogateescape") if url.startswith("file:") else ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


# How markers and classifiers bind a distribution to a system that is no server's, by sys_platform.
BOUND_TO = {"win32": r"""== ?["'](?:win32|Windows|nt)["']|:: Microsoft""",
            "darwin": r"""== ?["'][Dd]arwin["']|:: MacOS"""}


def is_bound(texts: Sequence[str]) -> bool:
    """Return True if there are markers or classifiers, and all bind to this system, which is no server's."""
    sign = BOUND_TO.get(sys.platform, "")
    return bool(sign and texts) and all(re.search(sign, text) and " or " not in text for text in texts)


def parse_need(need: str) -> tuple[str, str]:
    """Return the canonical name that a Requires-Dist asks for, and its marker, "" if it has none."""
    name, _, marker = need.partition(";")
    return canonical(re.split(r"[^\w.-]", name, maxsplit=1, flags=re.ASCII)[0]), marker


def read_distribution(folder: Path, source: str = "") -> Distribution:
    """Return what the metadata in a folder (.dist-info, .egg-info) tells of a distribution."""
    text = read_text_or_empty(folder / "METADATA") or read_text_or_empty(folder / "PKG-INFO")
    fields: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z-]+): (.*)$", text.partition("\n\n")[0], re.MULTILINE):
        fields.setdefault(key, []).append(value.strip())
    needs = fields.get("Requires-Dist") or read_text_or_empty(folder / "requires.txt").split("\n")
    systems = [text for text in fields.get("Classifier", []) if text.startswith("Operating System ::")]
    return Distribution(
        name=fields.get("Name", [""])[0],
        version=fields.get("Version", [""])[0],
        needs=[parse_need(need) for need in needs],
        requested=(folder / "REQUESTED").exists(),
        source=source,
        bound=is_bound(systems),
    )


def read_distributions(virtualenv: Virtualenv) -> dict[str, Distribution]:
    """Return the distributions of a virtualenv by their canonical names."""
    found = []
    for folder in site_packages(virtualenv.path):
        for info in (*folder.glob("*.dist-info"), *folder.glob("*.egg-info")):
            origin = read_text_or_empty(info / "direct_url.json")
            found.append(read_distribution(info, source_in_direct_url(origin) if origin else ""))
        for link in folder.glob("*.egg-link"):  # of setup.py develop: where the package is, and setup.py
            place, _, setup = read_text_or_empty(link).rstrip("\n").partition("\n")
            for info in Path(place).glob("*.egg-info") if os.path.isabs(place) else ():
                found.append(read_distribution(info, os.path.join(place, setup)))
    return {canonical(distribution.name): distribution for distribution in found}


Node = TypeVar("Node", int, str)


def reachable(start: Iterable[Node], edges: Mapping[Node, Iterable[Node]]) -> set[Node]:
    """Return the nodes of a graph that can be reached from some of them, these included."""
    found: set[Node] = set()
    left = list(start)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += edges.get(node, ())
    return found


def needed_only_by(names: set[str], installed: Mapping[str, Distribution]) -> set[str]:
    """Return the names, and those of the distributions that are installed for their sake alone.

    What the user installed by name (pip notes that as REQUESTED) is not, nor what anything else may need.
    """
    needs = {name: {need for need, _ in distribution.needs} for name, distribution in installed.items()}
    brought = reachable(names, needs)
    others = {name for name, distribution in installed.items()
              if name not in brought or distribution.requested and name not in names}
    return names | (brought - reachable(others, needs))


def server_line(requirement: Requirement, distribution: Optional[Distribution], virtualenv: Virtualenv,
                root: Path) -> str:
    """Return how req.txt asks for what a line of pip freeze shows: a path is relative to the project's root.

    In a clone with an origin, pip freeze hides a local editable install behind the origin's URL; only the
    distribution's metadata tell where it lies. Raise Refused if pip could not read the line again, ValueError
    if its URL cannot be read.
    """
    line, editable = requirement.line, requirement.line.startswith("-e ")
    unreadable = Refused("is not a line that pip can read")
    if len(line) > LINE_LIMIT or not FROZEN_LINE.fullmatch(line) or "${" in line:
        raise unreadable
    source = distribution.source if distribution and editable else ""
    path = source or (line[3:] if editable and "://" not in line else path_in_line(line))
    place = None if path is None else local_path(path)
    # What pip install -e git+... has cloned into the virtualenv is asked for by its URL, as before.
    if place is None or (editable and virtualenv.path.resolve() in place.parents):
        if editable and not EDITABLE_LINE.fullmatch(line) and not has_credentials(line):
            raise unreadable
        return line
    if distribution and " @ file:" in line and not os.path.exists(place):  # as conda writes
        return f"{distribution.name}=={distribution.version}"
    path = str(place)
    if place.is_relative_to(root.resolve()):
        path = f"./{place.relative_to(root.resolve()).as_posix()}" if place != root.resolve() else "."
    if re.search(r"\s#", path):  # pip takes that for a comment
        raise unreadable
    return f"-e {shlex.quote(path)}" if editable else path


def named_requirements(output: str, installed: Mapping[str, Distribution]) -> Iterator[Requirement]:
    """Yield what pip freeze printed, with the names that it leaves out for editable installs.

    It shows the path of one, and uv a URL (file:).
    """
    names = {distribution.source: distribution.name for distribution in installed.values()}
    for name, line in parse_requirements(output):
        path = unquote(line[10:], errors="surrogateescape") if line.startswith("-e file://") else line[3:]
        yield Requirement(name or names.get(path, ""), line)


def bound_packages(installed: Mapping[str, Distribution]) -> set[str]:
    """Return the distributions that this system alone needs, by their metadata or that of their dependents.

    Metadata may be wrong: a package that is installed on another system does work there.
    """
    markers: dict[str, list[str]] = {}
    for name, marker in itertools.chain.from_iterable(one.needs for one in installed.values()):
        markers.setdefault(name, []).append(marker)
    return {name for name, one in installed.items()
            if one.bound or not one.requested and is_bound(markers.get(name, []))}


def odd_packages(frozen: Mapping[str, str], kept: Sequence[Requirement], virtualenv: Virtualenv,
                 user_lines: str) -> list[str]:
    """Return warnings: Flask is missing, or a package may be another on the index, or not be there."""
    warnings, lines = [], by_name(kept)
    if "flask" not in lines:
        warnings.append(f"there is no Flask in {virtualenv.path}: is this the right virtualenv?")
    gone = [line for name, line in lines.items() if "==" in line and " @ file:" in frozen.get(name, "")]
    if gone:
        warnings.append("these were built in folders that are gone, so the server will fetch them from the "
                        f"package index: {', '.join(gone)}")
    local = [line for line in lines.values() if re.match(r"[^;@=]*==[^;]*\+", line)]
    indexes = r"^(?:-[if]|--(?:extra-)?index-url|--find-links)\b"
    if local and not re.search(indexes, user_lines, re.MULTILINE):
        warnings.append(f"PyPI has no local version such as {', '.join(local)}: name an index that has it "
                        "below req.txt's marker line (--extra-index-url URL), or install another version")
    return warnings


def plan_freeze(output: str, virtualenv: Virtualenv, root: Path, user_lines: str) -> Freeze:
    """Return what is to become of req.txt, from what pip freeze printed and the user's lines."""
    installed = read_distributions(virtualenv)
    bound = bound_packages(installed)
    requirements = list(named_requirements(output, installed))
    frozen = by_name(requirements)
    excluded = frozen.keys() & map(canonical, EXCLUDE_LINE.findall(user_lines))
    unwanted = needed_only_by(excluded | (frozen.keys() & {"flaskflex"}), installed) & frozen.keys()
    if frozen.get("pkg-resources", "").endswith("==0.0.0"):  # pip issue 4022
        unwanted.add("pkg-resources")
    kept, refused = [], {}
    for requirement in requirements:
        name = canonical(requirement.name)
        if name in unwanted:
            continue
        try:
            line = server_line(requirement, installed.get(name), virtualenv, root)
            judge_line(line, root)
        except (Refused, ValueError) as error:
            reason = error if isinstance(error, Refused) else "names a place that cannot be read"
            refused[name] = f"{display_name(requirement)} {reason}"
        else:
            if name in bound and line == requirement.line:
                line += f' ; sys_platform == "{sys.platform}"'
            kept.append(requirement._replace(line=line))
    warnings = odd_packages(frozen, kept, virtualenv, user_lines)
    brought = ", ".join(sorted(unwanted - excluded))
    if brought:
        warnings.append(f"left out of req.txt, because the application does not need it: {brought}")
    return Freeze(virtualenv.version, frozenset(frozen), kept, refused, user_lines, warnings)


def split_requirements(text: str) -> tuple[str, str, str]:
    """Return the frozen part of a req.txt, its marker line and the user's lines, as str.partition does.

    Without a marker line, all of it is the first part: flaskflex did not write it.
    """
    marker = MARKER_LINE.search(text)
    return (text[:marker.start()], marker[0], text[marker.end():]) if marker else (text, "", "")


def decode(content: bytes) -> str:
    """Return a file's text with LF, whatever its encoding: PowerShell's `>` writes UTF-16, Notepad a BOM."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")
    return text.replace("\r\n", "\n")


def frozen_fingerprint(content: bytes) -> str:
    """Return the fingerprint of the frozen part of a req.txt, "" if it has none."""
    frozen, marker, _ = split_requirements(decode(content))
    return fingerprint(frozen) if marker else ""


def remember_excluded(user_lines: str, names: Iterable[str]) -> str:
    """Return the user's lines, and above them one for each name that they do not exclude yet."""
    new = {canonical(name): f"# flaskflex: exclude {name}\n" for name in names}
    for name in EXCLUDE_LINE.findall(user_lines):
        new.pop(canonical(name), None)
    return "".join([*new.values(), user_lines])


def render_requirements(requirements: Sequence[Requirement], version: str, user_lines: str) -> bytes:
    """Return the text of req.txt: the frozen requirements, the marker line, the user's lines."""
    lines = [f"# The application's virtualenv (Python {version}), frozen by flaskflex: edit nothing here.\n"]
    lines += [f"{requirement.line}\n" for requirement in requirements]
    return "".join([*lines, MARKER, user_lines]).encode("utf-8", "surrogateescape")


def add_flup(requirements: Sequence[Requirement], user_lines: str) -> list[Requirement]:
    """Return the requirements, sorted as pip sorts them, and flup unless they or the user's lines have it."""
    named = by_name([*requirements, *parse_requirements(user_lines)])
    flup = [] if "flup" in named else [Requirement("flup", FLUP)]
    return sorted([*requirements, *flup], key=lambda requirement: requirement.name.lower())


def describe_changes(old: str, new: Sequence[Requirement], limit: int = 8) -> str:
    """Return what a new freeze changes, such as `+urllib3 -redis, Flask 3.0.3 -> 3.1.2`, "" for nothing."""
    before, after = by_name(parse_requirements(old), new), by_name(new)
    names = {canonical(requirement.name): requirement.name for requirement in new}
    moved = [f"+{names.get(name) or name}" for name in after if name not in before]
    moved += [f"-{name[:40]}" for name in before if name not in after]
    changed = []
    for name in (name for name in after if before.get(name, after[name]) != after[name]):
        versions = [re.match(r"[^ ;=]+==([^ ;]+)", lines[name]) for lines in (before, after)]
        known = " -> ".join(version[1] for version in versions if version) if all(versions) else "changed"
        changed.append(f"{names.get(name) or name} {known}")
    more = len(moved) + len(changed) - limit
    parts = [" ".join(moved[:limit]), *changed[:max(limit - len(moved), 0)]]
    return ", ".join([part for part in parts if part] + ([f"and {more} more"] if more > 0 else []))


def lacking_packages(project: Project, freeze: Freeze, virtualenv: Virtualenv) -> list[str]:
    """Return a warning if HEAD's req.txt freezes what the virtualenv lacks: a colleague may have added it."""
    blob = project.blobs.get("req.txt")
    frozen, marker, _ = split_requirements(decode(blob.content) if blob else "")
    lines = [line for name, line in parse_requirements(frozen if marker else "")
             if name and canonical(name) not in freeze.names | {"flup"} and FROZEN_LINE.fullmatch(line)
             and not has_credentials(line)]
    command = shell_line(str(virtualenv.python), "-m", "pip", "install", *lines)
    return [f"the committed req.txt names packages that {virtualenv.path} lacks; to install them, type: "
            f"{command}"] if lines else []


def require_installable(output: str, virtualenv: Virtualenv, tree: WorkTree,
                        exclude: Sequence[str]) -> Freeze:
    """Return what is to become of req.txt. Raise Failure with all that a server could not install."""
    root = tree.project.root
    above, marker, user_lines = split_requirements(decode(tree.read("req.txt").content or b""))
    first = f"{above}{marker}".count("\n") + 1
    freeze = plan_freeze(output, virtualenv, root, remember_excluded(user_lines, exclude))
    refused = [*freeze.refused.values(), *refused_lines(user_lines, root, first)]
    if refused:
        raise Failure(f"req.txt cannot be installed: {'; '.join(refused)}", NOT_INSTALLABLE)
    known = [name for name in exclude if canonical(name) in freeze.names]
    warnings = [f"--exclude {name}: {virtualenv.path} holds no such package"
                for name in exclude if name not in known]
    return freeze._replace(user_lines=remember_excluded(user_lines, known),
                           warnings=warnings + freeze.warnings)


FROZEN_NOTE = "flaskflex-frozen"  # in git's folder: what flaskflex wrote last, which may not be committed


def note_frozen(project: Project, contents: Iterable[Optional[bytes]]) -> None:
    """Note the fingerprints of what flaskflex writes into req.txt, and of what was there before."""
    note = project.index_file.with_name(FROZEN_NOTE)
    note.unlink(missing_ok=True)  # a link, if somebody put one there, is not followed
    with open(note, "x", encoding="ascii") as file:
        file.writelines(f"{frozen_fingerprint(content)}\n" for content in contents if content)


def recorded_fingerprints(project: Project) -> set[str]:
    """Return the fingerprints of the frozen parts that flaskflex committed, or wrote last."""
    recorded = {digits for _, digits in committed_fingerprints(project, "req.txt")}
    with contextlib.suppress(FileNotFoundError):
        with open_regular(project.index_file.with_name(FROZEN_NOTE)) as file:
            recorded |= {*file.read().decode("ascii", "replace").split()}
    return recorded


# --- the files ---

EXECUTABLE = ("public_html/dispatch.fcgi",)
TEMP_PREFIX = ".flaskflex-"  # how the names of unfinished files begin, and of a run's folder inside git's


class Change(NamedTuple):
    """What is to become of one file.

    action is create, update, merge, replace, keep or unchanged; old_content (None: no file) and new_content,
    old_mode and new_mode (permission bits) are the file before and after; note is for the report; pending
    is true if HEAD does not hold the new content and mode, so that they have to be committed.
    """

    path: str
    action: str
    old_content: Optional[bytes]
    new_content: bytes
    old_mode: int
    note: str = ""
    new_mode: int = 0
    pending: bool = False

    @property
    def needs_write(self) -> bool:
        """True if the file is to be written."""
        before, after = (self.old_content, self.old_mode), (self.new_content, self.new_mode)
        return self.action != "unchanged" and before != after


def normalize_newlines(content: bytes) -> bytes:
    """Return a text with LF at the end of each line, as every file of flaskflex's has it."""
    return content.replace(b"\r\n", b"\n")


def is_up_to_date(content: bytes, wanted: bytes, committed: Optional[Blob]) -> bool:
    """Return True if a file needs no writing: git may have given it CRLF (core.autocrlf), and holds LF."""
    return content == wanted or (normalize_newlines(content) == wanted and committed is not None
                                 and committed.content == wanted)


def git_mode(path: str) -> str:
    """Return the mode that a file has in git: what the server needs, even if no file here can have it."""
    return "100755" if path in EXECUTABLE else "100644"


def with_target_mode(change: Change) -> Change:
    """Return a change with the file's new permission bits: as before, but executable if it must be.

    Nobody but the owner may write: Apache's suexec refuses a script otherwise. Windows has no such bits.
    """
    mode = (0o644 if change.old_content is None else change.old_mode) & ~0o022
    if change.path in EXECUTABLE:
        mode |= 0o111
    if change.action == "unchanged" and mode != change.old_mode and os.name != "nt":
        return change._replace(action="update", new_mode=mode, note="only its permissions")
    return change._replace(new_mode=mode)


def with_pending(change: Change, project: Project) -> Change:
    """Return a change that says whether it has to be committed; of a kept file only the mode counts."""
    blob = project.blobs.get(change.path)
    differs = blob is None or blob.mode != git_mode(change.path)
    if change.action == "keep":
        return change._replace(pending=blob is not None and differs)
    if not differs and blob and blob.content != change.new_content:  # unless git's filters make up for it
        filtered = project.git("hash-object", "--stdin", f"--path={change.path}", stdin=change.new_content)
        differs = blob.id != filtered.decode().strip()
    return change._replace(pending=differs)


def merge_file(ours: bytes, base: bytes, theirs: bytes) -> Optional[bytes]:
    """Return the text with both sides' changes to the base, by git merge-file; None if they conflict."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        names = ["ours", "base", "theirs"]
        for name, content in zip(names, (ours, base, theirs)):
            Path(folder, name).write_bytes(content)
        result = run_git(Path(folder), "merge-file", "-p", *names)
    return None if result.returncode else result.stdout


FOREIGN = "is not flaskflex's, and differs from what flaskflex would write"


def plan_template(path: str, file: WorkTreeFile, project: Project, *, force: bool) -> Change:
    """Return what is to become of a file that is made from a template, by the rules of a three-way merge.

    The base is what flaskflex committed last, the one side is the file, the other is the template. Raise
    Refused if the file is not flaskflex's to change.
    """
    template = TEMPLATES[path].encode()
    change = Change(path, "create", file.content, template, file.mode)
    if file.content is None:
        return change
    if is_up_to_date(file.content, template, project.blobs.get(path)):
        return change._replace(action="unchanged")
    text = normalize_newlines(file.content)
    if text == template:
        return change._replace(action="update", note="only its line endings")
    base_hash, base = find_base(project, path)
    newer = base_hash not in ("", fingerprint(TEMPLATES[path]))
    if newer and base is not None:
        merged = template if text == base else merge_file(text, base, template)
        if merged is not None:
            return change._replace(action="update" if merged == template else "merge", new_content=merged)
    if force:
        return change._replace(action="replace")
    if not base_hash:
        raise Refused(FOREIGN)
    if newer:
        raise Refused("has changes of yours that conflict with the new template")
    return change._replace(action="keep", new_content=file.content, note="with your changes")


def plan_requirements(file: WorkTreeFile, project: Project, freeze: Freeze, *, force: bool) -> Change:
    """Return what is to become of req.txt: frozen anew above the marker line, left alone below it.

    Raise Refused if an edit would be lost that no commit holds, Failure if a secret would be shown or kept.
    """
    text = decode(file.content or b"")
    frozen, marker, _ = split_requirements(text)
    committed = project.blobs.get("req.txt")
    new = add_flup(freeze.requirements, freeze.user_lines)
    after = render_requirements(new, freeze.version, freeze.user_lines)
    added = ", and flup to serve them" if len(new) > len(freeze.requirements) else ""
    change = Change("req.txt", "create", file.content, after, file.mode,
                    plural(len(freeze.requirements), "package") + added)
    if file.content is None:
        return change
    if is_up_to_date(file.content, after, committed):
        return change._replace(action="unchanged", note="")
    secret = next((number for number, line in logical_lines(text) if has_credentials(line)), None)
    if secret:
        raise Failure(f"req.txt holds what looks like a password or a token in line {secret}",
                      "Nothing was changed. Take it out yourself: git would keep it for ever.")
    change = change._replace(note=describe_changes(frozen, new))
    digits = fingerprint(frozen)
    own = marker and (f"({digits})" in marker
                      or committed and digits == frozen_fingerprint(committed.content)
                      or digits in recorded_fingerprints(project))
    if own or force:
        return change._replace(action="update" if own else "replace")
    raise Refused("was edited above its marker line, and no commit holds that edit" if marker else FOREIGN)


def plan_files(tree: WorkTree, freeze: Freeze, *, force: bool) -> list[Change]:
    """Return what is to become of each of the four files.

    Raise Failure with all those that are not flaskflex's to change, unless `force`.
    """
    project = tree.project
    changes, refused = [], []
    for path in FILES:
        file = tree.read(path)
        try:
            if path == "req.txt":
                change = plan_requirements(file, project, freeze, force=force)
            else:
                change = plan_template(path, file, project, force=force)
        except Refused as reason:
            refused.append(f"{path} {reason}")
        else:
            changes.append(with_pending(with_target_mode(change), project))
    if refused:
        hint = ("Nothing was changed. Rename such a file to keep it, or let --force replace it: "
                "git then keeps its text, and flaskflex says where.")
        if project.git("rev-parse", "--is-shallow-repository") == b"true\n":
            hint = f"Older commits, which this clone lacks, may tell more: git fetch --unshallow\n{hint}"
        raise Failure("; ".join(refused), hint)
    return changes


def patch_of(change: Change) -> bytes:
    """Return a change as a unified diff in git's own form, which `git apply` takes."""
    import difflib

    lines = [f"diff --git a/{change.path} b/{change.path}"]
    if change.old_content is None:
        lines.append(f"new file mode 100{change.new_mode:o}")
    elif change.old_mode != change.new_mode:
        lines += [f"old mode 100{change.old_mode:o}", f"new mode 100{change.new_mode:o}"]
    # As bytes: a file may be in any encoding, and hold characters that only look like ends of lines.
    before, after = (re.findall(rb"[^\n]*\n|[^\n]+", text)
                     for text in (change.old_content or b"", change.new_content))
    source = b"/dev/null" if change.old_content is None else f"a/{change.path}".encode()
    diff = difflib.diff_bytes(difflib.unified_diff, before, after, source, f"b/{change.path}".encode())
    ended = (line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in diff)
    return "".join(f"{line}\n" for line in lines).encode() + b"".join(ended)


def save_replaced(project: Project, changes: Sequence[Change], report: Report) -> None:
    """Store what --force replaces in git's object store, and say how to see it again."""
    for change in changes:
        if change.action == "replace" and change.old_content is not None:
            name = project.git("hash-object", "-w", "--stdin", stdin=change.old_content).decode().strip()
            report.fact("Kept", f"the old {change.path}: {shell_line('git', 'cat-file', '-p', name)}")


def write_files(tree: WorkTree, changes: Sequence[Change], run_folder: Path) -> None:
    """Write the files: each beside its place first, and only when all are whole, each into its place.

    The names of the unfinished ones cannot be guessed; they are noted in the run's own folder first, so that
    the next run can clear away what a killed one leaves.
    """
    with contextlib.ExitStack() as undo:
        ready = []
        for change in (change for change in changes if change.needs_write):
            if change.path == "req.txt":
                note_frozen(tree.project, (change.old_content, change.new_content))
            if change.old_content == change.new_content:
                tree.set_mode(change.path, change.new_mode)
            else:
                name = TEMP_PREFIX + os.urandom(8).hex()
                (run_folder / name).touch()
                unfinished = os.path.join(os.path.dirname(change.path), name)
                undo.callback(tree.remove, unfinished)  # first: ^C may come at any moment
                tree.create(unfinished, change.new_content, change.new_mode)
                ready.append((unfinished, change.path))
        for unfinished, path in ready:
            tree.rename(unfinished, path)


# --- the commit ---

# The pinned distributions are what was tested; releases before the minimum have known security faults.
GITPYTHON_MIN = (3, 1, 60)
GITPYTHON_PINS = """\
GitPython==3.2.1 --hash=sha256:d66b0832aa8755c1a84892937282df0befb16c97e5a64aeebd68be9c5e323f53
gitdb==4.0.12 --hash=sha256:67073e15955400952c6565cc3e707c554a4eea2e428946f7a4c162fab9bd9bcf
smmap==5.0.3 --hash=sha256:c106e05d5a61449cf6ba9a1e650227ecfb141590d2a98412103ff35d89fc7b2f
typing_extensions==4.16.0 --hash=sha256:481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8
"""


def is_private(folder: Path) -> bool:
    """Return True if a folder that is there can be changed by the user and root alone.

    That holds if it holds for each folder above it, too: who can write there can put another one into its
    place. A sticky one, such as /tmp, does not let others do that.
    """
    if os.name == "nt":  # there, a user's own folders are private unless the user changed that
        return folder.is_dir()
    for place in (folder, *folder.parents):
        try:
            status = place.lstat()
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            return False
        if status.st_mode & 0o022 and not (status.st_mode & stat.S_ISVTX and place != folder):
            return False
    return True


def is_complete(folder: Path, pins: str) -> bool:
    """Return True if a folder holds each pinned distribution with all its files, as pip recorded them."""
    import csv

    records = list(folder.glob("*.dist-info/RECORD"))  # PEP 376: path, hash, size in bytes
    with contextlib.suppress(OSError, ValueError, Failure):
        return len(records) == pins.count("--hash=") and all(
            (folder / path).stat().st_size == int(size)
            for record in records
            for path, _, size in csv.reader(read_limited(record).decode().splitlines()) if size)
    return False


def cache_folder(environ: Environ, windows: bool = os.name == "nt") -> Path:
    """Return where flaskflex keeps what it fetched, by the conventions of the system."""
    base = environ.get("LOCALAPPDATA" if windows else "XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.join(os.sep, os.path.expanduser("~"), ".cache")  # of a user without a home: /~/.cache
    return Path(os.path.realpath(base), "flaskflex")


def install_pinned(name: str, pins: str, target: Path, virtualenv: Virtualenv) -> None:
    """Install pinned, hashed wheels into a folder with pip. Raise Failure with pip's output if it cannot."""
    requirements = target.with_suffix(".txt")
    requirements.write_text(pins, encoding="utf-8")
    # These would forbid --target, or add to what is pinned; all other settings are the user's to make.
    environ = {"PIP_RETRIES": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ,
               "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DRY_RUN": "0",
               "PIP_CONSTRAINT": os.devnull, "PIP_REQUIREMENT": os.devnull,
               "PIP_IGNORE_REQUIRES_PYTHON": "1"}  # the virtualenv's may be older than ours, which imports it
    command = [*pip_command(virtualenv, "install"), "--require-hashes", "--only-binary", ":all:",
               "--no-deps", "--target", str(target), "--requirement", str(requirements)]
    done = subprocess.run(command, env=environ, umask=0o077, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or not is_complete(target, pins):  # some settings send it elsewhere
        instead = ("install it for the Python that runs flaskflex, or leave the commit to you (--no-commit)"
                   if name == "GitPython" else f"install it in the virtualenv: python -m pip install {FLUP}")
        raise Failure(f"{name} is not installed here, and could not be fetched",
                      f"{hide_urls(error_text(done.stdout, 'pip'))}\n"
                      f"Run flaskflex again when the package index can be reached, or {instead}")


def writable_cache(folder: Path) -> bool:
    """Make the cache's folder if need be; return True if it is private and a folder can be made in it."""
    try:
        for place in (folder.parent, folder):
            place.mkdir(0o700, parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=folder))
    except OSError:  # a home that cannot be written
        return False
    return is_private(folder)


def fetch(name: str, pins: str, virtualenv: Virtualenv, report: Report) -> Path:
    """Return a folder of flaskflex's cache with pinned distributions, installed now if they are not there.

    pins is a requirements file with a hash on every line. Only the pip of the virtualenv is used; it
    follows the user's settings for indexes, proxies and certificates. The folder appears whole or not at
    all, so that a run which is killed, or two at the same time, do no harm. What is damaged in the cache, or
    could be changed by somebody else, is not used: then it is fetched for this run alone.
    """
    cache = cache_folder(os.environ)
    folder = cache / f"{name}-{fingerprint(pins)}"
    if is_private(folder) and is_complete(folder, pins):
        return folder
    lasting = writable_cache(cache) and not os.path.lexists(folder)
    if not lasting:
        cache = Path(os.path.realpath(tempfile.mkdtemp(prefix="flaskflex-")))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as temporary:
        installed = Path(temporary, "installed")
        with report.waiting(f"Fetching {name} from the package index"):
            install_pinned(name, pins, installed, virtualenv)
        with contextlib.suppress(OSError):  # another run was faster, and its folder is as good
            installed.rename(cache / folder.name)
    where = f"into {display_path(folder)}, for flaskflex alone"
    if not lasting:
        where = (f"for this run only: {display_path(folder)} is damaged, read-only, or not yours alone "
                 "(once you have removed it, the next run fetches it for good)")
    report.fact("Fetched", f"{name} {where}")
    return cache / folder.name


def open_repository(project: Project, virtualenv: Virtualenv, report: Report) -> git.Repo:
    """Return the project as a Repo of the GitPython that is installed, or of the one in flaskflex's cache."""
    with signals_deferred():
        installed = installed_version("GitPython", "git")
    if installed < GITPYTHON_MIN:
        sys.path.insert(0, str(fetch("GitPython", GITPYTHON_PINS, virtualenv, report)))
    os.environ.pop("GIT_PYTHON_GIT_EXECUTABLE", None)  # GitPython is to run the git that we run
    with signals_deferred():
        import git

    return git.Repo(project.root, expand_vars=False)


INDEX_BEFORE = "index-before-"  # how the name of a prepared index begins; then comes the commit of HEAD


def lock_file(project: Project) -> Path:
    """Return the file that exists while somebody changes the index."""
    return project.index_file.with_name(project.index_file.name + ".lock")


def lock_owner(pid: int) -> str:
    """Return what flaskflex writes into the lock file, to know its own again: the machine and the process."""
    import platform

    return f"{platform.node()}-{pid}"


def is_running(pid: int) -> bool:
    """Return True if there is a process of that number on this machine, or if that cannot be known."""
    if os.name == "nt":  # there, to ask a process is to end it
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # it is somebody else's
    return True


def take_lock(project: Project, folder: Path) -> None:
    """Make the lock file, its owner's name in it. Raise Failure if somebody else has it."""
    lock, owner_file = lock_file(project), folder / "owner"
    owner_file.write_text(lock_owner(os.getpid()), encoding="utf-8")
    try:
        os.link(owner_file, lock)  # in one step, so that the lock is never without its owner's name
    except OSError:  # this file system has no hard links; or there is a lock, which open() meets, too
        try:
            with open(lock, "x", encoding="utf-8") as file:
                file.write(lock_owner(os.getpid()))
        except FileExistsError:
            raise Failure(f"another git command is at work in {project.root}: {lock} exists",
                          "Run flaskflex again when it has ended. If none runs, remove that file.") from None


def owns_lock(folder: Path, lock: Path) -> bool:
    """Return True if the run with that folder has the lock: the user may have removed it, as git advises."""
    with contextlib.suppress(OSError, Failure):
        with open_regular(lock) as file, open_regular(folder / "owner") as owner_file:
            return file.read() == owner_file.read() != b""
    return False


def install_prepared_index(project: Project, folder: Path) -> None:
    """Put the index that was prepared for a commit into its place, if that commit has been made."""
    for prepared in folder.glob(f"{INDEX_BEFORE}*"):
        cut_off = prepared.suffix == ".lock"  # it is of a git that was killed
        if not (cut_off or prepared.is_symlink() or prepared.name == INDEX_BEFORE + project.head_commit()):
            os.replace(prepared, project.index_file)


@contextlib.contextmanager
def index_locked(project: Project) -> Iterator[Path]:
    """Hold git's own lock on the index, so that neither git nor another flaskflex works here meanwhile.

    Yields a new folder beside the index for what this run needs; it is gone afterwards.
    """
    lock = lock_file(project)
    folder = lock.with_name(TEMP_PREFIX + lock_owner(os.getpid()))
    folder.mkdir(mode=0o700)
    try:
        take_lock(project, folder)
        yield folder
    finally:
        install_prepared_index(project, folder)
        if owns_lock(folder, lock):
            lock.unlink()
        shutil.rmtree(folder)  # last: by it the next run knows a lock that was left


def abandoned_folders(project: Project) -> Iterator[Path]:
    """Yield the folders of killed runs of this machine, each renamed to be this run's."""
    own = TEMP_PREFIX + lock_owner(os.getpid())  # one that is called so comes first, or is in the way
    folders = project.index_file.parent.glob(f"{TEMP_PREFIX}*")
    for folder in sorted(folders, key=lambda path: path.name != own):
        owner = folder.name[len(TEMP_PREFIX):]
        pid = owner.rpartition("-")[2]
        if not re.fullmatch("[0-9]{1,9}", pid) or owner != lock_owner(int(pid)):
            continue
        if is_running(int(pid)) and int(pid) != os.getpid():  # in containers, runs often have one number
            continue
        with contextlib.suppress(OSError):  # another run has been faster
            if stat.S_ISDIR(folder.lstat().st_mode):
                yield folder.rename(folder.with_name(own))


def recover_killed_runs(tree: WorkTree) -> None:
    """Finish what a flaskflex left that was killed on this machine, and clear its traces away.

    Its unfinished files are known by their names, which it noted in a folder of its own inside git's: nobody
    can push or clone anything to there.
    """
    project = tree.project
    lock = lock_file(project)
    for folder in abandoned_folders(project):
        for noted in folder.glob(f"{TEMP_PREFIX}*"):
            if re.fullmatch(r"[0-9a-f]{16}", noted.name[len(TEMP_PREFIX):]):
                for place in ("", "public_html/"):
                    tree.remove(place + noted.name)
        if owns_lock(folder, lock):
            install_prepared_index(project, folder)
            lock.unlink()
        shutil.rmtree(folder)


@contextlib.contextmanager
def merge_messages_kept(project: Project) -> Iterator[None]:
    """Keep what git has noted for the user's next commit (merge --squash does), and forgets after any."""
    paths = [project.index_file.with_name(name) for name in ("MERGE_MSG", "SQUASH_MSG", "AUTO_MERGE")]
    notes = {path: path.read_bytes() for path in paths if path.exists()}
    try:
        yield
    finally:
        for path, content in notes.items():
            if not path.exists():
                path.write_bytes(content)


def with_trailers(message: str, pending: Sequence[Change]) -> str:
    """Return a commit's message, and below it what find_base will look for."""
    prints = {change.path: fingerprint(TEMPLATES[change.path]) if change.path in TEMPLATES
              else frozen_fingerprint(change.new_content) for change in pending}
    trailers = [f"{TEMPLATE_TRAILER}: {path} {digits}" for path, digits in prints.items()]
    return "\n".join([message, "", *trailers, f"{VERSION_TRAILER}: {__version__}"])


class Commit(NamedTuple):
    """A commit of flaskflex's files and nothing else, made while the index is locked.

    Hooks, signing, filters and identity are git's own: GitPython's repo.index knows none of them.
    """

    project: Project
    repo: git.Repo
    message: str

    def make(self, pending: Sequence[Change], folder: Path) -> Optional[str]:
        """Commit; return the commit's object name, None if filters or hooks leave nothing to commit.

        An index is prepared in the folder that takes the place of the user's after the commit. Raise
        Failure with git's message if the commit fails.
        """
        new_index = self._copy_index(folder / "new-index")
        self._stage(pending, new_index)
        # From here on an interruption, even a power cut, leaves what is needed to finish.
        prepared = new_index.rename(folder / (INDEX_BEFORE + self.project.head_commit()))
        paths = {change.path for change in pending}
        only_ours = self.project.commit and self._staged_paths(prepared) <= paths
        commit_index = prepared if only_ours else self._index_without_staged(pending, folder)
        message = with_trailers(self.message, pending)
        try:
            with merge_messages_kept(self.project):
                self._git("commit", "--quiet", f"--message={message}", index=commit_index)
        except Failure:
            if self.project.commit and not self._staged_paths(commit_index):
                return None
            raise
        if commit_index != prepared:
            self._sync_with_head(prepared)
        return self.project.head_commit()

    def _git(self, *args: str, index: Optional[Path] = None) -> str:
        """Return what git prints, run through GitPython, on another index file if one is given."""
        environ = {"GIT_INDEX_FILE": str(index)} if index else {}
        status, output, errors = self.repo.git.execute(["git", *args], env=environ, with_extended_output=True,
                                                       with_exceptions=False)
        if status:
            raise Failure("the files are written, but git did not commit them",
                          f"{output}\n{errors}".strip()
                          + "\nFix that, and run flaskflex again to commit them.")
        return str(output)

    def _copy_index(self, target: Path) -> Path:
        """Copy the user's index, with its time: by that git knows which files it has to look at closely."""
        if self.project.index_file.exists():
            shutil.copy2(self.project.index_file, target)
        return target

    def _stage(self, pending: Sequence[Change], index: Path) -> None:
        """Put the pending files into an index; of those kept, HEAD's content with the right mode.

        The mode is what the server needs, whether or not core.fileMode lets git see it in the work tree.
        """
        args = []
        for change in pending:
            if change.action != "keep":
                args += ["--chmod=+x" if change.path in EXECUTABLE else "--chmod=-x", change.path]
            else:
                blob = self.project.blobs[change.path]
                args += ["--cacheinfo", f"{git_mode(change.path)},{blob.id},{change.path}"]
        # core.safecrlf would refuse our LF where core.autocrlf makes CRLF of it in the work tree.
        self._git("-c", "core.safecrlf=false", "update-index", "--add", *args, index=index)

    def _staged_paths(self, index: Path) -> set[str]:
        """Return the paths in which an index differs from HEAD."""
        names = self._git("diff-index", "--cached", "--name-only", "-z", "HEAD", index=index)
        return set(names.split("\0")[:-1])

    def _index_without_staged(self, pending: Sequence[Change], folder: Path) -> Path:
        """Return the index of a commit that leaves out what the user has staged: HEAD's, with our files.

        It begins as a copy of the user's for what that knows of all the files that did not change: without
        this, git would read each of them again.
        """
        index = self._copy_index(folder / "commit-index")
        if self.project.commit or self.project.head_commit():  # for a moment, git branch -m leaves no HEAD
            self._git("read-tree", "--reset", "HEAD", index=index)
        else:
            index.unlink(missing_ok=True)  # git takes no index for an empty one
        self._stage(pending, index)
        return index

    def _sync_with_head(self, index: Path) -> None:
        """Put into an index what was committed last: a hook may have changed it."""
        _, *entries = self._git("diff-tree", "--root", "-r", "-z", "--no-renames", "HEAD").split("\0")
        args = []
        for facts, path in zip(entries[::2], entries[1::2]):
            _, mode, _, name, status = facts.split(" ")
            args += ["--force-remove", path] if status == "D" else ["--cacheinfo", f"{mode},{name},{path}"]
        self._git("update-index", "--add", *args, index=index)


# --- .flx ---

FLX_SECTIONS = ("replace", "setup", "deploy", "permission")

# What the host puts into the files that [replace] lists.
FLX_VARIABLES = ("PROJECT_NAME", "DB_HOST", "DB_USER", "DB_PASSWORD")

# `git merge` always writes both of these, and a line of `=======` alone may be an underline.
CONFLICT_MARKER = re.compile(r"(<{7}|>{7}) ")


class FlxLine(NamedTuple):
    """A line of .flx that does something: its number in the file, its section ("": before any), its text."""

    number: int
    section: str
    text: str

    @property
    def fields(self) -> list[str]:
        """The parts of a line of [replace] or [permission]: a path, and what belongs to it."""
        return self.text.split()


def parse_flx(content: bytes) -> list[FlxLine]:
    """Return the lines of a .flx file that do something, in the file's order.

    An ini parser would mangle them: commands hold =, : and #, and a section may come more than once.
    """
    lines, section = [], ""
    for number, line in enumerate(map(str.strip, decode(content).split("\n")), 1):
        heading = re.fullmatch(r"\[([^\]]*)\]", line)
        if heading:
            section = heading[1].strip()
        elif line and not line.startswith("#"):
            lines.append(FlxLine(number, section, line))
    return lines


def flx_error(line: FlxLine) -> str:
    """Return why a line of .flx cannot be carried out as it stands, "" if it can be read."""
    if CONFLICT_MARKER.match(line.text):
        return "a conflict marker that a merge left"
    if "\0" in line.text:
        return "holds a NUL character"
    if line.section == "replace" and (len(line.fields) != 3 or line.fields[2] not in FLX_VARIABLES):
        return f"[replace] needs PATH TOKEN VARIABLE, the last one of {', '.join(FLX_VARIABLES)}"
    if line.section == "permission" and not (len(line.fields) == 2
                                             and re.fullmatch("[0-7]{3}", line.fields[1])):
        return "[permission] needs PATH MODE, the last three octal digits such as 755"
    return ""


def with_folders(paths: set[str]) -> set[str]:
    """Return paths and all folders that hold them."""
    found, level = set(paths), paths
    while level:
        level = {path.rpartition("/")[0] for path in level} - {""}
        found |= level
    return found


def has_path(path: str, paths: set[str]) -> bool:
    """Return True if a path leads to one of a project's files and folders, and not out of the project."""
    normal = os.path.normpath(path)
    return normal == "." or normal in paths


# pip, some options, `install`, and what follows that.
PIP_INSTALL = re.compile(r"""(?:^|[\s/"'])pip[\d.]*["']?(?:\s+-\S*){0,9}\s+install(\s.*)""")


def command_warning(command: str, paths: set[str]) -> str:
    """Return why a server of today will not run a command, "" if nothing is known against it."""
    found = PIP_INSTALL.search(command)
    args = found[1] if found else ""
    if re.search(r"\s--install-option", args):
        return "pip has no --install-option since 23.1"
    if re.search(r"""\s["']?--user["']?(?!\S)""", args):
        return "servers refuse pip install --user (PEP 668): install into a virtualenv"
    for name in re.findall(r"""\s(?:-r\s*|--requirement[\s=])["']?([\w./-]+)""", args):
        if not has_path(name, paths):
            return f"{name} is not in the project"
    return ""


def flx_warning(line: FlxLine, paths: set[str]) -> str:
    """Return what is odd about a line of .flx that can be read, "" if nothing is.

    `paths` are the files and folders of the project.
    """
    if line.section in ("setup", "deploy"):
        return command_warning(line.text, paths)
    if line.section not in FLX_SECTIONS:
        return f"[{line.section}] is no section of .flx" if line.section else "this line is in no [section]"
    return "" if has_path(line.fields[0], paths) else f"{line.fields[0]} is not in the project"


# --- asking an application ---


class Finding(NamedTuple):
    """One thing that check looked at: level is ok, warn or fail; hint says what to type, or shows why."""

    level: str
    text: str
    hint: str = ""


ANSWER_SECONDS = 30.0  # what an application may take to answer


class Response(NamedTuple):
    """What came back for a request: a status such as "200 OK", or the problem; the page, the log.

    seconds is the time that it took, way tells how it was asked.
    """

    status: str
    problem: str
    page: str
    seconds: float
    log: str = ""
    way: str = ""


APACHE_LINE = re.compile(r"^\[\w+:\w+\] ")
APACHE_ERROR = re.compile(r"^\[(?!fcgid:)\w+:(?:error|crit|alert|emerg)\] ", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last):\n"
WARNING = re.compile(r"\S.{0,1000}:\d+: \w*Warning: ")  # as Python's warnings module prints one

# Lines that do not belong to the message of an exception: log entries, and what SQLAlchemy adds to each.
NO_MESSAGE = re.compile(rf"\[|\(Background on |{WARNING.pattern}")


def headline(log: str) -> str:
    """Return the exception of the last traceback in a log, with its whole message; else the last line.

    A warning is not a reason, nor is the line of code that Python shows below it.
    """
    lines = [line for line in log.rpartition(TRACEBACK)[2].split("\n") if line.strip()]
    if TRACEBACK in log:
        lines = list(itertools.dropwhile(lambda line: line.startswith(" "), lines))
        message = itertools.takewhile(lambda line: not NO_MESSAGE.match(line), lines[1:10])
        return " ".join(map(str.strip, [*lines[:1], *message]))
    lines = [line for line in lines if not line.startswith(" ") and not WARNING.match(line)]
    own = [line for line in lines if not APACHE_LINE.match(line)]  # the application's, if it printed any
    return APACHE_LINE.sub("", (own or lines or [""])[-1].strip())


def entry_point(root: Path, tree: Container[str] = ()) -> str:
    """Return the path of the module that the host serves: wsgi.py if there is one, as with `flask run`."""
    path = "application/wsgi.py"
    return path if path in tree or (root / path).exists() else "application/app.py"


def offered_name(source: str) -> str:
    """Return the name by which a module offers the Flask object or a factory of it, "" if none is seen."""
    found = re.search(r"^(?:def )?(app|application|create_app|make_app)\b", source, re.MULTILINE)
    return found[1] if found else ""


def old_name_hint(name: str, log: str, root: Path) -> str:
    """Return how an application can keep the name by which it imports itself, "" if it is not that.

    Moved from a folder sayhello to application, it may still say `from sayhello import app`. It becomes a
    package of that name inside application.
    """
    folder = root / "application"
    package, module = read_text_or_empty(folder / "__init__.py"), read_text_or_empty(folder / "app.py")
    found = re.findall(rf"^ +(?:from {name}(?:\.| +import +\(?)|import {name}\.)(\w+)", log, re.MULTILINE)
    if not found or (root / name).exists() or not (
        (folder / found[-1]).is_dir() or (folder / f"{found[-1]}.py").is_file()
        or re.search(rf"^(?:def |class )?{found[-1]}\b", f"{package}\n{module}", re.MULTILINE)
    ):
        return ""
    made = offered_name(package)
    line = f"from {name} import {made}" if made else f"from {name}.app import *"
    return (f"application was called {name} before, and imports itself by that name. To keep it:\n"
            f"mv application {name} && mkdir application && mv {name} application/ && "
            f"{shell_line('echo', line)} > application/app.py")


def known_hint(log: str, root: Path) -> str:
    """Return how to go on after a well-known failure of the application in the project `root`, else ""."""
    script = "public_html/dispatch.fcgi"
    if not os.access(root / script, os.X_OK):
        return f"chmod 755 {script}"
    if b"\r\n" in read_limited(root / script):
        rule = append_line(".gitattributes", [f"/{script} text eol=lf"])
        return ("It has the line ends of Windows, perhaps from git, which need not give it these:\n"
                f"{rule} && git commit -m 'Start it anywhere' && mv {script} dispatch.fcgi.old && "
                f"git checkout {script} && python flaskflex.py")
    if re.search(r"\* Serving Flask app|\* Running on|is in use by another program", log):
        return 'app.run() starts a server of its own: put that line under if __name__ == "__main__":'
    entry = entry_point(root)
    if not (root / entry).exists():
        return f"The push holds no {entry}. In the project: git add application, commit, and push again."
    variable = re.search(r"(?:<frozen os>|/os\.py)\", line \d+, in __getitem__\n(?: .*\n)*KeyError: '(.+)'",
                         log)
    if variable:
        return ("The host does not have the variables of your shell. Let python-dotenv read it from .env, "
                "and copy that to the host once (scp), because it is not pushed:\n"
                f"(echo; {shell_line('echo', f'{variable[1]}=VALUE')}) >> .env && "
                "(echo; echo /.env) >> .gitignore\n"
                "python -m pip install python-dotenv && python flaskflex.py")
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", log)
    if missing is None:
        return ""
    return (old_name_hint(missing[1], log, root)
            or f"If {missing[1]} is a package: python -m pip install {missing[1]} && python flaskflex.py")


def failure_finding(what: str, log: str, root: Path) -> Finding:
    """Return a failure with the application's own message, and what to type if these are well known."""
    reason = headline(log)
    lines = [known_hint(log, root), *log.strip().split("\n")[-20:]]
    return Finding("fail", f"{what}: {reason}" if reason else what, "\n".join(filter(None, lines)))


def finding_for(response: Response, root: Path) -> Finding:
    """Return what check says of the response to GET / of the application in the project `root`."""
    asked = f"GET / answers {response.status}"
    took = f"in {response.seconds:.2f} s, {response.way}"
    if response.problem or response.status.startswith("5") or APACHE_ERROR.search(response.log):
        return failure_finding(response.problem or asked, response.log, root)
    if response.status.startswith("404"):
        name = re.search(r"doesn't match configured server name '([^']+)'", response.log)
        hint = "The application has no page at /, or does not import the module that defines it."
        if name:
            hint = f"SERVER_NAME is set: the application answers only when it is asked as {name[1]}."
        return Finding("warn", f"{asked} {took}", hint)
    if TRACEBACK in response.log:  # in the midst of the answer: the status was sent
        return failure_finding(f"{asked}, with an exception", response.log, root)._replace(level="warn")
    return Finding("ok", f"{asked} {took}")


# Names and layouts of the FastCGI specification, version 1.0, section 8.
FCGI_HEADER = struct.Struct(">BBHHBx")  # version, type, requestId, contentLength, paddingLength, reserved
FCGI_BEGIN_REQUEST, FCGI_END_REQUEST, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR = 1, 3, 4, 5, 6, 7
FCGI_VERSION_1, FCGI_RESPONDER, FCGI_REQUEST_ID = 1, 1, 1
LOG_SIZE = 1 << 16  # bytes at the end of a log, and at the beginning of a page, that are looked at
STREAM_SIZE = 1 << 22  # bytes of an answer that are looked at


def fastcgi_record(record_type: int, content: bytes) -> bytes:
    """Return a record of the one request that a connection carries."""
    return FCGI_HEADER.pack(FCGI_VERSION_1, record_type, FCGI_REQUEST_ID, len(content), 0) + content


def recv_some(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Return the next bytes, `count` at most, none at the end.

    Raise TimeoutError if that lasts until the deadline, by time.monotonic().
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    return connection.recv(count)


def recv_exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    """Return the next `count` bytes. Raise ConnectionError if there are fewer, and what recv_some raises."""
    received = bytearray()
    while len(received) < count:
        piece = recv_some(connection, count - len(received), deadline)
        if not piece:
            raise ConnectionError("the connection was closed")
        received += piece
    return bytes(received)


def cgi_environ(script: Path) -> dict[str, str]:
    """Return what Apache tells a CGI program (RFC 3875) of GET / that our .htaccess passed on."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "flaskflex check",
        "SERVER_NAME": "localhost", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "1024", "REQUEST_SCHEME": "http", "CONTENT_LENGTH": "0",
        "REQUEST_METHOD": "GET", "REQUEST_URI": "/", "QUERY_STRING": "", "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*", "HTTP_USER_AGENT": "flaskflex", "DOCUMENT_ROOT": str(script.parent),
        "SCRIPT_FILENAME": str(script), "SCRIPT_NAME": "/dispatch.fcgi", "PATH_INFO": "/",
        "REDIRECT_STATUS": "200", "REDIRECT_URL": "/", "REDIRECT_FLX_PATH": "/",
    }


def cgi_response(output: bytearray) -> tuple[str, str]:
    """Return the status and page of a CGI response (RFC 3875, section 6). Raise ValueError if it is none."""
    headers, blank, page = output.replace(b"\r\n", b"\n").partition(b"\n\n")
    if not blank or not all(re.match(rb"[!#$%&'*+.^_`|~\w-]+:", header) for header in headers.split(b"\n")):
        raise ValueError(f"the answer is not a CGI response: {ascii(bytes(output[:60]))[2:-1]}")
    status = re.search(rb"^Status: *(\d{3}.*)$", headers, re.MULTILINE | re.IGNORECASE)
    return status[1].decode("latin-1") if status else "200 OK", page.decode("utf-8", "replace")


def ask_program(connection: socket.socket, variables: Environ, errors: bytearray,
                deadline: float) -> tuple[str, str]:
    """Send a request without a body to a FastCGI program; return its status and page, and collect its errors.

    Raise ValueError if it speaks another protocol, reports a failure or sends no CGI response, and what
    recv_exactly raises.
    """
    pairs = [(name.encode(), os.fsencode(value)) for name, value in variables.items()]
    params = b"".join(  # a length is in four bytes if the highest bit is set
        struct.pack(">II", len(name) | 1 << 31, len(value) | 1 << 31) + name + value for name, value in pairs)
    begin = struct.pack(">HB5x", FCGI_RESPONDER, 0)  # role, flags, reserved
    connection.sendall(fastcgi_record(FCGI_BEGIN_REQUEST, begin) + fastcgi_record(FCGI_PARAMS, params)
                       + fastcgi_record(FCGI_PARAMS, b"") + fastcgi_record(FCGI_STDIN, b""))
    streams = {FCGI_STDOUT: bytearray(), FCGI_STDERR: errors}
    while True:
        header = recv_exactly(connection, FCGI_HEADER.size, deadline)
        version, record_type, request_id, length, padding = FCGI_HEADER.unpack(header)
        if (version, request_id) != (FCGI_VERSION_1, FCGI_REQUEST_ID):
            raise ValueError("the application does not speak FastCGI")
        content = recv_exactly(connection, length + padding, deadline)[:length]
        if record_type == FCGI_END_REQUEST:
            break
        if record_type in streams and len(streams[record_type]) < STREAM_SIZE:
            streams[record_type] += content
    if length != 8 or any(content[:5]):  # appStatus (4 bytes), protocolStatus, reserved (3)
        raise ValueError("the application reports over FastCGI that it failed")
    return cgi_response(streams[FCGI_STDOUT])


def timed(ask: Callable[[float], tuple[str, str]], timeout: float) -> Response:
    """Return the response to a request, without the log: ask(DEADLINE) returns its status and page.

    What `ask` raises is the problem: TimeoutError, OSError at a closed connection, ValueError with a reason.
    """
    import socket

    status, page, problem, started = "", "", "", time.monotonic()
    try:
        status, page = ask(started + timeout)
    except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on
        problem = f"the application gave no answer within {timeout:g} s"
    except OSError:
        problem = "the application ended without an answer"
    except ValueError as error:
        problem = str(error)
    return Response(status, problem, page, time.monotonic() - started)


REMOVE = ("sh", "-c", 'rm -rf "$1" || { chmod -R u+rwX "$1"; rm -rf "$1"; }', "sh")


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder and all that it holds, write-protected or not. Raise Failure if it stays."""
    if os.path.lexists(path):
        subprocess.run([*REMOVE, str(path)], stderr=subprocess.DEVNULL)
    if os.path.lexists(path):
        raise Failure(f"{path} cannot be removed", "See who owns what is in it.")


@contextlib.contextmanager
def temporary_folder(parent: str, prefix: str = "flaskflex-") -> Iterator[Path]:
    """Yield a new folder, which is gone afterwards, whatever a program made of it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        remove_tree(folder)


# Options of prctl(2), from Linux's include/uapi/linux/prctl.h.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 1, 36, 37


def linux_prctl(option: int, value: Any) -> None:
    """Set an attribute of this process on Linux, or get it into what `value` refers to; elsewhere nothing."""
    import ctypes

    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def read_proc(name: str) -> Iterator[tuple[int, bytes]]:
    """Yield each process and what a file of it in /proc says (see proc(5)); nothing without /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            yield int(entry.name), (entry / name).read_bytes()


def marked_processes(variable: str) -> set[int]:
    """Return the processes that have a variable (NAME=VALUE) in their environment; none without /proc."""
    return {pid for pid, environ in read_proc("environ")
            if os.fsencode(variable) in environ.split(b"\0")} - {os.getpid()}


def descendants(known: set[int]) -> set[int]:
    """Return the processes that descend from this one, but not the known ones; none if there is no /proc."""
    children: dict[int, set[int]] = {}
    for pid, facts in read_proc("stat"):
        state, parent = facts.rpartition(b")")[2].split()[:2]
        if state != b"Z" and pid not in known:  # Z: it has ended, and waits to be asked how
            children.setdefault(int(parent), set()).add(pid)
    return reachable([os.getpid()], children) - {os.getpid()}


def send_signal(pids: set[int], signum: int) -> bool:
    """Send a signal to those processes that are still there; return True if any is named."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)
    return bool(pids)


def repeat_until_gone(end_found: Callable[[], bool]) -> None:
    """Call what ends processes, and returns True if it found any, until none is left, for 5 seconds at most.

    None is left if two looks find none: one that forks and ends can escape a look.
    """
    deadline, looks_without = time.monotonic() + 5, 0
    while looks_without < 2 and time.monotonic() < deadline:
        if end_found():
            looks_without = 0
            time.sleep(0.002)
        else:
            looks_without += 1


def listed_children() -> set[int]:
    """Return the children of this process that Linux lists in one place; none if it does not (proc(5))."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_bytes().split()))
    return found


def end_descendants(process: Optional[Process], known: set[int], patience: float) -> None:
    """End a process and all that descends from this one but for the known ones: politely, then for good.

    All have `patience` seconds to end by themselves. Then the process has another one without the others:
    Apache waits for them before it removes the memory that it shares, which stays if Apache is killed.
    """
    def send(signum: int, spared: set[int]) -> bool:
        """Send a signal to all that is there; return True if something was."""
        children = listed_children() - known - spared
        send_signal(children, signum)  # at once: some fork and end, again and again
        pids = descendants(known) - spared
        send_signal(pids - children, signum)  # one each: a second signal makes Apache wait longer
        if process and not (pids or spared):  # without /proc, only those that stayed in its group are found
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signum)
        return bool(pids)

    def ended() -> bool:
        return process is None or process.poll() is not None

    send(signal.SIGTERM, set())
    wait_until(ended, patience)  # Popen.wait would look less and less often
    if process and not ended():
        send(signal.SIGKILL, {process.pid})
        wait_until(ended, 1)
    repeat_until_gone(lambda: send(signal.SIGKILL, set()))


@contextlib.contextmanager
def running(command: Sequence[str], *, patience: float = 1, **options: Any) -> Iterator[Process]:
    """Run a program while the block lasts; yield its process. `options` are those of subprocess.Popen.

    It ends with the block, and so does all that it started: on Linux however it has detached itself
    (orphans become our children), elsewhere what is still in its process group.
    """
    import ctypes

    known, subreaper = descendants(set()), ctypes.c_int()
    linux_prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(subreaper))
    linux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    process = None
    try:
        process = subprocess.Popen(command, start_new_session=True, **options)
        yield process
    finally:
        end_descendants(process, known, patience)
        linux_prctl(PR_SET_CHILD_SUBREAPER, subreaper.value)  # a hook of the host's wants them all


def prepare_child() -> None:
    """In a new process, before its program starts: let it fill no disk, and end when flaskflex is killed.

    It can write 1 GB into any one file, such as its log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = min(size for size in (soft, hard, 1 << 30) if size != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    linux_prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_of_log(log: BinaryIO) -> str:
    """Return the end of a log that is being written."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), LOG_SIZE, max(0, size - LOG_SIZE)).decode("utf-8", "backslashreplace")


def application_environ(virtualenv: Virtualenv, report: Report) -> dict[str, str]:
    """Return the environment of an application that runs in a virtualenv: as on a host, hardly any.

    It makes no __pycache__: check changes nothing, and "git add application" would take it along. flup comes
    from flaskflex's cache if the virtualenv has none.
    """
    path = f"{virtualenv.python.parent}:{os.defpath}"  # dispatch.fcgi begins with env python3
    environ = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    if not in_site_packages(virtualenv.path, "flup"):
        environ["PYTHONPATH"] = str(fetch("flup", FLUP_PINS, virtualenv, report))
    return environ


@contextlib.contextmanager
def listening_socket() -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """Yield a socket that listens, as mod_fcgid makes one for a program, and two connections that wait in it.

    Its name in the file system is gone by then: no program can put anything else in its place. It was not in
    the user's temporary folder, because the path of a socket can have 107 bytes at most.
    """
    import socket

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as connection, \
            socket.socket(socket.AF_UNIX) as another:
        with temporary_folder("/tmp") as folder:
            listener.bind(f"{folder}/socket")
            listener.listen()
            connection.connect(f"{folder}/socket")
            another.connect(f"{folder}/socket")
        yield listener, connection, another


def ask_over_fastcgi(script: Path, environ: Environ, timeout: float) -> Response:
    """Start a FastCGI program as mod_fcgid does, its standard input a listening socket, and ask it."""
    request, errors = cgi_environ(script), bytearray()
    with tempfile.TemporaryFile("a+b") as log, listening_socket() as (listener, connection, another), \
            running([str(script)], cwd=script.parent, env=environ, stdin=listener, stdout=log, stderr=log,
                    preexec_fn=prepare_child) as process:
        listener.close()  # only the program has it now, and the connections end when that does
        try:
            response = timed(lambda deadline: ask_program(connection, request, errors, deadline), timeout)
            lines = end_of_log(log) + errors.decode("utf-8", "backslashreplace")
            return response._replace(log=lines, way="over FastCGI")
        finally:
            process.terminate()
            connection.close()
            another.close()  # waiting for this one, flup ends at once; it would look up only once a second


# Where Apache lies on Debian (apache2) and elsewhere (httpd), and what a host has loaded.
APACHE_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
MODULE_FOLDERS = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules")
APACHE_MODULES = ("mpm_event", "unixd", "log_config", "authz_core", "alias", "dir", "mime", "setenvif", "env",
                  "rewrite", "headers", "fcgid")


def find_apache() -> Optional[tuple[str, Path]]:
    """Return this machine's Apache and the folder of its modules, None if it has none, or no mod_fcgid."""
    program = shutil.which("apache2", path=APACHE_PATH) or shutil.which("httpd", path=APACHE_PATH)
    modules = next((Path(folder) for folder in MODULE_FOLDERS if Path(folder, "mod_fcgid.so").exists()), None)
    return (program, modules) if program and modules else None


def load_modules(modules: Path) -> str:
    """Return the directives that load what a host has and this machine's own configuration does not load."""
    enabled = {path.stem for path in Path("/etc/apache2/mods-enabled").glob("*.load")}
    if any(name.startswith("mpm_") for name in enabled):
        enabled.add("mpm_event")  # there can be only one
    return "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in APACHE_MODULES
                   if name not in enabled and (modules / f"mod_{name}.so").exists())


def setpriv_command(root: Path) -> list[str]:
    """Return what to put before Apache's command, which root cannot run: it becomes the project's owner.

    In a container that owner may be root, too, and files may be for root alone: root's access to files stays.
    """
    if os.geteuid() != 0:
        return []
    owner = root.stat()
    kept = "+dac_override,+fowner"
    return ["/usr/bin/setpriv", f"--reuid={owner.st_uid or 65534}", f"--regid={owner.st_gid or 65534}",
            "--clear-groups", f"--inh-caps={kept}", f"--ambient-caps={kept}", "--pdeathsig=TERM"]


def try_lock(handle: int) -> bool:
    """Return True if an exclusive lock on an open file is ours now; it ends when the file is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, and yield its handle.

    Raise OSError if it is no folder, or a link to one, or if somebody else has the lock.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not try_lock(handle):
            raise BlockingIOError(f"{folder} is locked")
        yield handle
    finally:
        os.close(handle)


def clear_abandoned(folder: Path) -> None:
    """Remove a folder of a private Apache whose flaskflex was killed, and end what still runs of that.

    It is known by more than its name: it is ours, has an Apache's configuration, and no process has its lock.
    """
    with contextlib.suppress(OSError, Failure):
        if folder.lstat().st_uid != os.geteuid():
            return
        with open_regular(folder / "apache.conf") as configuration:
            if configuration.read(40) != APACHE_CONF[:40].encode():
                return
        with folder_lock(folder):
            send_signal(marked_processes(f"FLASKFLEX_FOLDER={folder}"), signal.SIGKILL)
            remove_tree(folder)


@contextlib.contextmanager
def reserved_port(port: int) -> Iterator[int]:
    """Yield a port of 127.0.0.1, any one for 0, kept from other programs. Raise Failure if it is taken."""
    import socket

    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # and so does Apache
        try:
            reservation.bind(("127.0.0.1", port))
        except OSError as error:
            other = port + 1 if 1024 <= port < 65535 else 8000
            raise Failure(f"port {port} cannot be used: {error.strerror}",
                          f"Name another: python flaskflex.py serve --port {other}") from None
        yield reservation.getsockname()[1]


def short_path(path: str, link: Path) -> str:
    """Return a PATH or PYTHONPATH that mod_fcgid takes whole: if it is long, the link leads to its first.

    Of a variable's value, mod_fcgid takes 127 bytes (INITENV_VAL_MAX).
    """
    if len(os.fsencode(path)) <= 127:
        return path
    first = path.partition(os.pathsep)[0]
    link.symlink_to(os.path.dirname(first))
    return f"{link}/{os.path.basename(first)}{path[len(first):]}"


@contextlib.contextmanager
def running_apache(root: Path, environ: Environ, log: int, *, port: int = 0) -> Iterator[int]:
    """Serve the project in the folder `root` by an Apache of its own; yield its port of 127.0.0.1.

    Errors go to the file descriptor `log`, and requests if a port is named. Raise Failure if there is no
    Apache, with Apache's own message if it does not start.
    """
    found = find_apache()
    if not found:
        raise Failure("Apache is not installed, or lacks its mod_fcgid",
                      "Install it (on Debian: sudo apt install apache2 libapache2-mod-fcgid).")
    program, modules = found
    for left in Path("/tmp").glob("flaskflex-apache-*"):
        clear_abandoned(left)
    with temporary_folder("/tmp", "flaskflex-apache-") as folder, folder_lock(folder), \
            reserved_port(port) as number, tempfile.TemporaryFile("a+b") as errors:
        (folder / "apache.conf").write_text(APACHE_CONF, encoding="utf-8")  # first: see clear_abandoned
        (folder / "modules.conf").write_text(load_modules(modules), encoding="utf-8")
        (folder / "public_html").symlink_to(os.path.realpath(root / "public_html"))
        (folder / "above").symlink_to(os.path.dirname(os.path.realpath(root)))
        command = [*setpriv_command(root), program, "-d", str(folder), "-f", "apache.conf",
                   "-D", "FOREGROUND", "-D", "REQUESTS" if port else "ERRORS"]
        paths = {name: short_path(environ.get(name, ""), folder / name) for name in ("PATH", "PYTHONPATH")}
        settings = {**environ, **paths, "FLASKFLEX_FOLDER": str(folder), "FLASKFLEX_PORT": str(number)}
        # Apache waits for flup, which looks up once a second: what was only asked is not waited for.
        with running(command, patience=2 if port else 0, cwd=folder, env=settings,
                     stdin=subprocess.DEVNULL, stdout=log, stderr=errors,
                     preexec_fn=prepare_child) as apache:
            started = folder / "apache.pid"
            wait_until(lambda: started.exists() or apache.poll() is not None, ANSWER_SECONDS)
            if not started.exists():
                raise Failure("Apache does not start", end_of_log(errors).strip())
            yield number


def http_response(port: int, deadline: float) -> tuple[str, str]:
    """Return the status and page of a server on 127.0.0.1 for GET /.

    Raise TimeoutError at the deadline, OSError if the connection ends before a status has come.
    """
    import socket

    request = "GET / HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
        for piece in iter(lambda: recv_some(connection, LOG_SIZE, deadline), b""):
            received += piece[:LOG_SIZE - len(received)]
    status = re.match(rb"HTTP/1\.\d (\d{3}[^\r\n]*)", received)
    if not status:
        raise ConnectionError("the connection was closed")
    return status[1].decode("latin-1"), received.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")


def plain_log(log: str, root: Path) -> str:
    """Return what Apache logged without its notices, the application's lines as it printed them."""
    log = re.sub(r"^\[\w+:notice\] .*\n", "", log, flags=re.MULTILINE)
    log = re.sub(r"^\[fcgid:warn\] mod_fcgid: stderr: ?", "", log, flags=re.MULTILINE)
    return re.sub(r"/tmp/flaskflex-apache-\w+/public_html", lambda _: str(root / "public_html"), log)


def missing_parts(root: Path) -> str:
    """Return what a project in the folder `root` lacks to be started, "" if it has all of it."""
    return " and ".join(path for path in ("public_html/dispatch.fcgi", entry_point(root))
                        if not (root / path).exists())


def execve_problem(script: Path, path: str) -> str:
    """Return why Linux would not start a script (execve(2)) with a PATH, "" if it would.

    Raise Failure if it is no file.
    """
    try:
        first_line = read_limited(script)[:256].partition(b"\n")[0].decode("utf-8", "backslashreplace")
    except OSError as error:
        return f"{script.name} cannot be read: {error.strerror}"
    if not os.access(script, os.X_OK):
        return f"{script.name} has no execute bit"
    if not first_line.startswith("#!"):
        return f"{script.name} does not begin with #! and a program"
    program, _, argument = re.sub("[ \t]+", " ", first_line[2:]).strip(" ").partition(" ")
    if os.path.basename(program) == "env" and not argument.startswith("-"):
        program = argument  # which env looks for in PATH
    found = shutil.which(program, path=path)
    return "" if found else f"{script.name} needs {ascii(program)}, which is not here"


def request_page(root: Path, environ: Environ, timeout: float, report: Report) -> Response:
    """Start the application of the project in the folder `root`, and ask it for its first page.

    `environ` is the environment of the application, with its python3 on PATH. It is asked through Apache if
    this machine has one with mod_fcgid, which tries .htaccess, too; otherwise over FastCGI. It has `timeout`
    seconds. Nothing that it started is left when this returns.
    """
    script = root / "public_html" / "dispatch.fcgi"
    problem = execve_problem(script, environ["PATH"])
    if problem:  # mod_fcgid would try again for half a minute
        return Response("", f"the application does not start: {problem}", "", 0)
    if not find_apache():
        return ask_over_fastcgi(script, environ, timeout)
    try:
        with tempfile.TemporaryFile("a+b") as log, running_apache(root, environ, log.fileno()) as port:
            response = timed(lambda deadline: http_response(port, deadline), timeout)
            return response._replace(log=plain_log(end_of_log(log), root), way="through Apache")
    except Failure as failure:
        report.warning(f"{failure}, so .htaccess is not tried: {failure.hint}")
        return ask_over_fastcgi(script, environ, timeout)


# --- check ---


LIVE_REF = "refs/flaskflex/live"  # the commit that a host serves: `flaskflex.py host` keeps it
HOST_SECONDS = 3.0  # how long check waits for a host to say so, when all else is done
HINT_PATHS = 100  # more of an application's own files make no command that can be pasted


def listed(paths: Sequence[str]) -> str:
    """Return the first five paths as a text, with the number of the others."""
    return ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")


def free_path(root: Path, candidates: Iterable[str], taken: set[str]) -> str:
    """Return the first path at which a folder has nothing and which is not taken: from now on it is."""
    free = next(path for path in candidates if path not in taken and not os.path.lexists(root / path))
    taken.add(free)
    return free


def commit_line(message: str, *paths: str) -> str:
    """Return the command that commits paths and nothing else, or all that is staged without any."""
    return shell_line("git", "commit", "-m", message, *(["--", *paths] if paths else []))


def pattern(path: str) -> str:
    """Return a pattern that names a path in .gitignore and .gitattributes, where ? is any character."""
    return "/" + re.sub(r"[\\*\[\]!#\s\"']", "?", path)


def ignore_line(patterns: Iterable[str]) -> str:
    """Return the command that adds patterns to .gitignore, and commits that with all that is staged."""
    return f"{append_line('.gitignore', patterns)} && {commit_line('Stop tracking local files')}"


def untrack_line(paths: Sequence[str], patterns: Iterable[str]) -> str:
    """Return the command that takes paths out of git for good, and leaves them where they are."""
    remove = shell_line("git", "rm", "-rfq", "--cached", "--ignore-unmatch", "--", *paths)
    return f"{remove} && {ignore_line(patterns)}"


def read_status(project: Project, *paths: str) -> dict[str, str]:
    """Return git's two letters for each path below some paths that is not as HEAD has it; "!!": ignored.

    A folder that is ignored as a whole stands for its files, and ends with a slash.
    """
    status = project.git("--no-optional-locks", "status", "--porcelain", "--no-renames",
                         "--untracked-files=all", "--ignored=matching", "-z", "--", *paths)
    return {entry[3:]: entry[:2] for entry in split_nul(status)}


def check_home(project: Project) -> Iterator[Finding]:
    """The project is not the user's whole home."""
    if os.path.realpath(project.root) == os.path.realpath(os.path.expanduser("~")):
        yield Finding("warn", "the repository is your home folder itself, with all that is private in it",
                      "Clone the project into a folder of its own, and run flaskflex there.")


def is_as_committed(project: Project, path: str, content: bytes, blob: Blob) -> bool:
    """Return True if a file is what HEAD holds once git's filters (line endings, LFS) are applied."""
    if normalize_newlines(content) == normalize_newlines(blob.content):
        return True
    return run_git(project.root, "hash-object", "--", path).stdout.decode().strip() == blob.id


def check_files(project: Project) -> Iterator[Finding]:
    """The four files are there, and as they were committed: what is committed is what deploys."""
    with WorkTree(project) as tree:
        contents = {path: tree.read(path).content for path in FILES}
    here = {path: content for path, content in contents.items() if content is not None}
    missing = [path for path in FILES if path not in project.blobs and path not in here]
    uncommitted = [path for path in here if path not in project.blobs]
    gone = [path for path in project.blobs if path not in here]
    changed = [path for path, blob in project.blobs.items()
               if path in here and not is_as_committed(project, path, here[path], blob)]
    for paths, level, text, hint in (
        (missing, "fail", "missing", "python flaskflex.py"),
        (uncommitted, "fail", "not committed", "python flaskflex.py"),
        (gone, "warn", "committed, but gone from the work tree",
         sparse_hint(project, gone) or shell_line("git", "checkout", "HEAD", "--", *gone)),
        (changed, "warn", "changed here, and would deploy as in the last commit",
         commit_line("Update the deployment files", *changed)),
    ):
        if paths:
            yield Finding(level, f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} {text}", hint)
    if not missing + uncommitted + gone + changed:
        yield Finding("ok", "the four files are there and committed")


def check_conflicts(project: Project) -> Iterator[Finding]:
    """No merge has left its markers in the files that mean a 500 for every visitor then."""
    for path in ("public_html/.htaccess", "public_html/dispatch.fcgi"):
        text = project.blobs[path].content.decode("utf-8", "replace") if path in project.blobs else ""
        for number, line in enumerate(text.split("\n"), 1):
            if CONFLICT_MARKER.match(line):
                yield Finding("fail", f"{path}, line {number}: a conflict marker that a merge left",
                              f"Edit it, and type:\n{commit_line('Finish a merge', path)}")


def check_dispatch(project: Project) -> Iterator[Finding]:
    """A server can start dispatch.fcgi as it is committed; if it cannot, all that it says is "500"."""
    path = "public_html/dispatch.fcgi"
    blob = project.blobs.get(path)
    if blob is None:
        return
    renew = f"{shell_line('mv', path, 'dispatch.fcgi.old')} && python flaskflex.py"
    first_line = blob.content[:100].split(b"\n")[0].decode("utf-8", "replace")
    if blob.mode != "100755":
        yield Finding("fail", "dispatch.fcgi is committed without its execute bit", "python flaskflex.py")
    elif b"\r" in blob.content:
        yield Finding("fail", "dispatch.fcgi is committed with CRLF line endings, which no server can start",
                      renew)
    elif not re.match(r"#! ?/", first_line):
        yield Finding("fail", "dispatch.fcgi does not begin with #! and a program", renew)
    elif not re.match(r"#! ?/(usr/)?bin/", first_line):
        yield Finding("warn", f"the server may not have the program that dispatch.fcgi names: {first_line}",
                      renew)
    else:
        yield Finding("ok", "dispatch.fcgi can be started")


def package_line(folder: Path, package: str, target: str) -> str:
    """Return the command that makes a module of what a package offers, as in Flask's own tutorial, or ""."""
    made = offered_name(read_text_or_empty(folder / "__init__.py"))
    return f"{shell_line('echo', f'from {package} import {made}')} > application/{target}" if made else ""


def missing_application_hint(root: Path) -> str:
    """Return what to type to get a module that is found, judging by what is there instead."""
    folder = root / "application"
    target = "wsgi.py" if (folder / "app" / "__init__.py").exists() else "app.py"  # which app/ would hide
    modules = sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py")
    made = package_line(folder, ".", target)
    if not made and not modules:
        made = package_line(folder / "app", "app", target)
    if made:
        return made
    if len(modules) == 1:
        return shell_line("mv", f"application/{modules[0]}", f"application/{target}")
    if modules:
        return f"Rename the module that makes the Flask object to {target}: one of {listed(modules)}"
    for module in ("application.py", "app.py", "public_html/app.py"):
        if (root / module).exists():  # and what Flask looks for beside it
            beside = [(root / module).with_name(name) for name in ("templates", "static", "instance")]
            folders = [str(path.relative_to(root)) for path in beside if path.is_dir()]
            moved = f" && {shell_line('mv', *folders, 'application/')}" if folders else ""
            return f"mkdir -p application && {shell_line('mv', module, 'application/app.py')}{moved}"
    return "cp -r YOURAPPLICATION application"


# What belongs to the place where an application runs: its data, and its settings and secrets.
DATABASE = re.compile(r"\.(db|db3|sqlite\d?)(-\w+)?$")
SETTINGS = re.compile(r"(^|/)(\.env(\.(?!example|sample|template|dist)\w+)?$"
                      r"|instance/(?!\.git)[^/]|[^/]*\.key$)")

# What is made again everywhere, and what only the developer has a use for.
LOCAL = re.compile(r"(^|/)(__pycache__|node_modules|\.(DS_Store|coverage|idea|vscode|[\w-]*cache))(/|$)"
                   r"|(\.egg-info/|\.py[co]|\.log|\.swp|\.bak|\.orig|~|/Thumbs\.db)$")


def is_data(path: str) -> bool:
    """Return True if a path is that of a database or of settings."""
    return bool(DATABASE.search(path) or SETTINGS.search(path))


# Dotfiles, source code and settings.
PRIVATE = re.compile(r"public_html/(.*/)?(\.(?!well-known/)|[^/]*\.(py|pyc|ini|cfg|toml|sql)$)")


def is_exposed(path: str) -> bool:
    """Return True if a path is that of something private, which Apache would show to everybody."""
    return bool(PRIVATE.match(path)) or path.startswith("public_html/") and is_data(path)


def without_data(*paths: str) -> list[str]:
    """Return the pathspecs that keep git add from the data in those paths that are folders.

    They begin with the folder: git 2.39 adds nothing of an ignored one if they begin with an asterisk.
    """
    kinds = ("*.db*", "*.sqlite*", "*.env*", "*.key", "*instance/*", "*__pycache__*")
    return [f":!{path}{kind}" for path in paths if path.endswith("/") for kind in kinds]


def check_changes(entry: str, tree: set[str], status: Mapping[str, str]) -> Finding:
    """The last commit has all of the application, apart from what is the host's own."""
    changes = sorted(path for path, state in status.items() if path.startswith("application/")
                     and state != "!!" and not LOCAL.search(path))
    changed = [path for path in changes if not is_data(path)]
    private = [f":!{path}" for path in changes if is_data(path)]
    hint = f"{shell_line('git', 'add', 'application', *private)} && {commit_line('Update the application')}"
    if entry not in tree:
        return Finding("fail", f"{entry} is not committed", hint)
    if changed:
        return Finding("warn", f"the last commit lacks changes in {listed(changed)}", hint)
    return Finding("ok", f"{entry} is there and committed")


def check_application(project: Project, tree: set[str], status: Mapping[str, str]) -> Iterator[Finding]:
    """The application is there, found and committed; if it is not, the likeliest reason is named."""
    root = project.root
    folder, entry = root / "application", entry_point(root, tree)
    if folder.is_symlink():
        yield Finding("fail", "application is a symbolic link, and a push does not carry what is behind it",
                      "rm application && " + shell_line("cp", "-r", os.path.realpath(folder), "application"))
    elif (folder / ".git").exists():
        yield Finding("fail", "application is a git repository of its own, and a push leaves its files out",
                      "mv application/.git ../application.git && "
                      "git rm -rfq --cached --ignore-unmatch application && "
                      + shell_line("git", "add", "application/", *without_data("application/")))
    elif not (root / entry).exists() and entry in tree:
        yield Finding("warn", f"{entry} is committed, but gone from the work tree",
                      sparse_hint(project, [entry]) or shell_line("git", "checkout", "HEAD", "--", entry))
    elif not (root / entry).exists():
        yield Finding("fail", f"{entry} is missing", missing_application_hint(root))
    elif entry == "application/app.py" and (folder / "app" / "__init__.py").exists():
        yield Finding("fail", f"{entry} never runs: Python takes the package application/app/ in its place",
                      shell_line("mv", entry, "application/wsgi.py"))
    elif "!!" in (status.get(entry), status.get("application/")):
        yield Finding("fail", f"{entry} is not committed, because git ignores it",
                      f"{shell_line('git', 'add', '--force', entry)} && {commit_line('Add the application')}")
    else:
        yield check_changes(entry, tree, status)


def ignored_paths(root: Path, status: Mapping[str, str]) -> list[str]:
    """Return what git ignores and an application may need, and of instance/ what is in there."""
    found = []
    for path in (path for path, state in status.items() if state == "!!" and path != "application/"):
        names = os.listdir(root / path) if f"/{path}".endswith("/instance/") else [""]
        found += [path + name for name in names]
    return sorted(path for path in found if path not in FILES and not LOCAL.search(path)
                  and not (path.startswith("public_html/") and is_data(path))  # no host needs it there
                  and not (root / path / "pyvenv.cfg").exists())


def check_ignored(project: Project, status: Mapping[str, str]) -> Iterator[Finding]:
    """The application has nothing here that .gitignore keeps from the host, where it may be missed."""
    ignored = ignored_paths(project.root, status)
    data = [path for path in ignored if DATABASE.search(path)]
    settings = [path for path in ignored if is_data(path) and not DATABASE.search(path)]
    code = [path for path in ignored if not is_data(path)]
    add = shell_line("git", "add", "--force", "--", *code[:5], *without_data(*code[:5]))
    for paths, hint in (
        (data, "The host has data of its own: let a line of [deploy] in .flx make the tables that it lacks."),
        (settings, "Copy them to the host once (scp): settings and secrets do not belong in git."),
        (code, f"If the application needs them, and no secret is in them:\n{add} && "
               f"{commit_line('Add files that .gitignore names')}"),
    ):
        if paths:
            them = "it" if len(paths) == 1 else "them"
            yield Finding("warn", f"the host will not have {listed(paths)}: git ignores {them}", hint)


def check_unwanted(tree: set[str], status: Mapping[str, str]) -> Iterator[Finding]:
    """Nothing is committed, or about to be, that must not come with a push."""
    venvs = {os.path.dirname(path) for path in tree if path == "pyvenv.cfg" or path.endswith("/pyvenv.cfg")}
    venvs |= {".venv" for path in tree if path == ".venv" or path.startswith(".venv/")}
    for venv in sorted(venvs):
        paths = [venv] if venv else ["bin", "include", "lib", "lib64", "pyvenv.cfg", "share"]
        yield Finding("warn", f"the virtualenv {venv or '.'} is committed, and the host makes one of its own",
                      untrack_line(paths, map(pattern, paths)))
    inside = tuple(f"{venv}/" for venv in venvs)
    data = sorted(path for path in tree if path.startswith(("application/", "instance/", ".env"))
                  and is_data(path) and not path.startswith(inside))
    if data:
        yield Finding("warn", f"{listed(data)}: committed, so a push would replace what the host has there",
                      untrack_line(data, map(pattern, data)))
    new = sorted(path for path, state in status.items()
                 if state == "??" and is_data(path) and not is_exposed(path))
    if new:
        yield Finding("warn", f"{listed(new)}: local data or settings, not to be committed",
                      ignore_line(map(pattern, new)))
    if any("__pycache__/" in path and not path.startswith(inside) for path in tree):
        yield Finding("warn", "__pycache__ is committed: Python makes it everywhere",
                      untrack_line(["*__pycache__/*"], ["__pycache__/"]))


def check_submodules(root: Path, paths: Iterable[str]) -> Iterator[Finding]:
    """The application has no git repositories in it: a push carries their names, and not their files."""
    for path in (path for path in paths if path.startswith(("application/", "public_html/"))):
        commands = [
            shell_line("mv", f"{path}/.git", f"../{Path(path).name}.git"),
            shell_line("git", "rm", "--quiet", "--cached", path),
            shell_line("git", "add", f"{path}/", *without_data(f"{path}/")),
            commit_line("Take the files of a submodule"),
        ]
        if not (root / path / ".git").exists():
            commands.insert(0, shell_line("git", "submodule", "update", "--init", path))
        yield Finding("warn", f"the host will not have {path}: it is a repository of its own (a submodule)",
                      f"To have its files in the project itself:\n{' && '.join(commands)}")


def check_pointers(project: Project, tree: set[str]) -> Iterator[Finding]:
    """No file would be served as the few lines that Git LFS stores in its place: a host has no LFS."""
    if project.commit is None or not any(path.endswith(".gitattributes") for path in tree):
        return
    search = ("grep", "--no-color", "-G", "-l", "-z", "-e", "^version https://git-lfs[.]")
    found = run_git(project.root, *search, project.commit, "--", "application", "public_html", *FILES)
    paths = [name.partition(":")[2] for name in split_nul(found.stdout)]
    if paths:
        pointers_here = run_git(project.root, *search, "--", *paths).stdout
        pull = "git lfs install --local && git lfs pull && " if pointers_here else ""
        rules = append_line(".gitattributes", (f"{pattern(path)} !filter !diff !merge" for path in paths))
        renew = shell_line("git", "add", "--renormalize", "--", *paths)
        yield Finding("fail", f"the host would get pointers of Git LFS, not the files: {listed(paths)}",
                      "Commit the files, and push them without LFS, once: GIT_LFS_SKIP_PUSH=1 git push\n"
                      f"{pull}{rules} && {renew} && {commit_line('Commit the files themselves')}")


def check_flx(project: Project, tree: set[str]) -> Iterator[Finding]:
    """The host will understand .flx as it is committed, and find the files that it names."""
    blob = project.blobs.get(".flx")
    if blob is None:
        return
    paths, understood = with_folders(tree), True
    for line in parse_flx(blob.content):
        error = flx_error(line)
        problem = error or flx_warning(line, paths)
        if problem:
            yield Finding("fail" if error else "warn", f".flx, line {line.number}: {problem}",
                          f"Fix that line ({line.text[:200]}), and type:\n{commit_line('Fix .flx', '.flx')}")
            understood = False
    if understood:
        yield Finding("ok", ".flx is understood")


def check_requirements(project: Project, virtualenv: Virtualenv, frozen: str,
                       report: Report) -> Iterator[Finding]:
    """A server can install req.txt as it is committed, and it agrees with the virtualenv."""
    blob = project.blobs.get("req.txt")
    if blob is None:
        return
    text = decode(blob.content)
    refused = refused_lines(text, project.root)
    if refused:
        yield Finding("fail", f"req.txt cannot be installed: {'; '.join(refused)}", NOT_INSTALLABLE)
        return
    user_lines = split_requirements(text)[2]
    plan = plan_freeze(frozen, virtualenv, project.root, user_lines)
    for warning in plan.warnings:
        report.warning(warning)
    held = by_name(parse_requirements(text), plan.requirements)
    wanted = {**dict.fromkeys(plan.refused, ""), **by_name(plan.requirements)}
    asked = {"flup": FLUP, **wanted, **by_name(parse_requirements(user_lines))}
    different = sorted(name for name in asked.keys() | held.keys() if asked.get(name) != held.get(name))
    if different:
        yield Finding("warn", f"req.txt and the virtualenv differ in {', '.join(different)}",
                      "python flaskflex.py")
    else:
        yield Finding("ok", f"req.txt agrees with the virtualenv ({plural(len(wanted), 'package')})")


# These keep connections or timers in memory, and a host has several processes that come and go.
ONE_PROCESS = {"apscheduler", "flask-apscheduler", "flask-sock", "flask-socketio", "flask-sockets",
               "python-socketio"}


def check_processes(frozen: Sequence[Requirement]) -> Iterator[Finding]:
    """Nothing is installed that works only if one process serves all requests."""
    found = sorted(requirement.name for requirement in frozen if canonical(requirement.name) in ONE_PROCESS)
    if found:
        yield Finding("warn", f"{', '.join(found)}: needs one process for all requests; a host has several",
                      "Expect wrong answers now and then; run that part as a service of its own.")


def check_public_html(root: Path, tree: set[str], status: Mapping[str, str]) -> Iterator[Finding]:
    """public_html holds nothing private, committed or about to be."""
    new = {path for path, state in status.items() if state == "??" and not LOCAL.search(path)}
    exposed = sorted(path for path in tree | new if path not in FILES and is_exposed(path))
    taken = set(tree)
    for path in exposed:
        names = itertools.chain([path.rpartition("/")[2]],
                                ("_" * count + path.replace("/", "_") for count in itertools.count()))
        target = free_path(root, (f"application/{name}" for name in names), taken)
        move = f"mkdir -p application && {shell_line('mv', path, target)}"
        commit = f"{shell_line('git', 'add', target)} && {commit_line('Move private files', path, target)}"
        if path in tree:
            move += f" && {untrack_line([path], [pattern(target)]) if is_data(path) else commit}"
        yield Finding("warn", f"{path} would be served to everybody", move)
    if not exposed:
        yield Finding("ok", "public_html holds no source code, no database and no dotfile")


def file_states(root: Path, *which: str) -> dict[str, tuple[int, int]]:
    """Return size and mtime (in nanoseconds) of the files below a folder that `git ls-files` names."""
    states = {}
    for path in split_nul(git_output(root, "ls-files", "-z", *which)):
        with contextlib.suppress(OSError):
            status = (root / path).lstat()
            states[path] = (status.st_size, status.st_mtime_ns)
    return states


def new_places(paths: Iterable[str], known: set[str]) -> list[str]:
    """Return new paths, for each folder that is new with all it holds only that folder, with a slash."""
    held = with_folders(known)
    places = {}
    for path in paths:
        folders = sorted(with_folders({path}) - {path} - held, key=len)
        places[f"{folders[0]}/" if folders else path] = True
    return list(places)


@contextlib.contextmanager
def fresh_checkout(project: Project, virtualenv: Virtualenv,
                   report: Report) -> Iterator[tuple[Path, Virtualenv]]:
    """Yield what a server makes of the last commit: a clone, and in it a virtualenv with what req.txt names.

    Raise Failure with pip's own message if that virtualenv cannot be made.
    """
    with temporary_folder(tempfile.gettempdir()) as folder:
        clone = folder / "clone"
        project.git("clone", "--quiet", "--shared", "--", str(project.root), str(clone))
        fresh = clone / ".venv"
        for command in ([str(virtualenv.python), "-I", "-m", "venv", str(fresh)],
                        [str(interpreter(fresh)), "-I", "-m", "pip", "install", "-r", "req.txt"]):
            with report.waiting("Making a new virtualenv from req.txt"), running(
                    command, cwd=clone, env={**os.environ, "TMPDIR": str(folder)}, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
                output = process.communicate()[0]
            if process.returncode:
                raise Failure("a new virtualenv cannot be made from req.txt", hide_urls(last_lines(output)))
        yield clone, read_virtualenv("--fresh", fresh)


def ask_and_compare(root: Path, virtualenv: Virtualenv, timeout: float, report: Report) -> Iterator[Finding]:
    """The application answers GET /, and leaves the files that git tracks as they are, and no new ones."""
    missing = missing_parts(root)
    if missing:
        yield Finding("fail", f"the application cannot be started without {missing}",
                      "Fix that first, as said above, and check again.")
        return
    others = ("--others", "--exclude-standard")
    tracked, untracked = file_states(root), file_states(root, *others)
    with report.waiting("Asking the application for its first page"):
        environ = application_environ(virtualenv, report)
        response = request_page(root, environ, timeout, report)
    yield finding_for(response, root)
    now = file_states(root)
    changed = sorted(path for path in tracked.keys() | now.keys() if tracked.get(path) != now.get(path))
    if changed:
        yield Finding("warn", f"the application changes files that git tracks: {listed(changed)}",
                      untrack_line(changed[:HINT_PATHS], map(pattern, changed[:HINT_PATHS])))
    made = sorted(file_states(root, *others).keys() - untracked.keys())
    if made:
        ignored = split_nul(git_output(root, "ls-files", "-z", "--ignored", "--directory", *others))
        places = new_places(made, {*tracked, *untracked, *ignored})
        yield Finding("warn", f"the application makes files while it runs: {listed(made)}",
                      ignore_line(map(pattern, places[:HINT_PATHS])))


def check_answer(project: Project, virtualenv: Virtualenv, options: argparse.Namespace,
                 report: Report) -> Iterator[Finding]:
    """The application answers GET / when it is started as Apache would start it."""
    here = contextlib.nullcontext((project.root, virtualenv))
    try:
        with fresh_checkout(project, virtualenv, report) if options.fresh else here as (root, chosen):
            yield from ask_and_compare(root, chosen, options.timeout, report)
    except Failure as failure:
        yield Finding("fail", str(failure), failure.hint)


def read_upstream(project: Project) -> tuple[str, str]:
    """Return the remote that this branch is pushed to, and the ref there; "" and "" if there is none."""
    branch = run_git(project.root, "symbolic-ref", "--quiet", "HEAD").stdout.decode().strip()
    form = "--format=%(upstream:remotename)%00%(upstream:remoteref)"
    found = os.fsdecode(run_git(project.root, "for-each-ref", form, branch).stdout) if branch else ""
    remote, _, ref = found.strip("\n").partition("\0")
    return remote, ref


def asking_host(project: Project, remote: str) -> ContextManager[Optional[Process]]:
    """Run git ls-remote while the caller does everything else. It asks the user nothing."""
    if remote in ("", "."):
        return contextlib.nullcontext()
    configured = os.fsdecode(run_git(project.root, "config", "core.sshCommand").stdout).strip()
    program = os.environ.get("GIT_SSH_COMMAND") or configured or shell_line(os.environ.get("GIT_SSH", "ssh"))
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never",
               "GCM_INTERACTIVE": "never", "GIT_SSH_COMMAND": f"{program} -o BatchMode=yes"}
    command = ["git", "-C", str(project.root), "ls-remote", "--symref", "--", remote, "HEAD", LIVE_REF]
    return in_background(command, env=environ, stderr=subprocess.DEVNULL)


def read_host_refs(process: Optional[Process]) -> tuple[str, str]:
    """Return the ref that a host deploys and the commit that it serves, "" for what is not known in time."""
    refs = {}
    with contextlib.suppress(subprocess.TimeoutExpired):
        output = process.communicate(timeout=HOST_SECONDS)[0] if process else b""
        for line in os.fsdecode(output).split("\n")[:-1]:  # a name may only end like what was asked for
            value, _, name = line.partition("\t")
            refs[name, value.startswith("ref: ")] = value
    return refs.get(("HEAD", True), "").removeprefix("ref: "), refs.get((LIVE_REF, False), "")


def unpushable(project: Project) -> Finding:
    """Return why HEAD is not pushed, and what to type to push it."""
    if project.branch is None:
        found = run_git(project.root, "branch", "--contains=HEAD", "--format=%(refname:short)")
        branches = [name for name in os.fsdecode(found.stdout).split("\n")[:-1] if name[0] != "("]
        return Finding("warn", "HEAD is on no branch that could be pushed",
                       shell_line("git", "switch", *(branches[:1] or ["-c", "deploy"])))
    remotes = os.fsdecode(project.git("remote")).split()
    push = ["git", "push", "-u", *remotes[:1], project.branch]
    return Finding("warn", f"branch {project.branch} is not pushed",
                   shell_line(*push) if remotes else "git remote add origin URL")


def check_live(project: Project, upstream: tuple[str, str], host_refs: tuple[str, str]) -> Finding:
    """The host serves the commit that was pushed, as far as it says so."""
    (remote, ref), (deployed, live) = upstream, host_refs
    if live != project.commit and deployed not in ("", ref):
        name = deployed.removeprefix("refs/heads/")
        return Finding("warn", f"branch {project.branch} is pushed, and the host deploys branch {name}",
                       shell_line("git", "push", remote, f"{project.branch}:{name}"))
    if live in ("", project.commit):
        return Finding("ok", f"branch {project.branch} is pushed")
    older = run_git(project.root, "merge-base", "--is-ancestor", live, "HEAD").returncode == 0
    again = shell_line("git", "commit", "--allow-empty", "-m", "Deploy again") + " && git push"
    return Finding("warn", f"branch {project.branch} is pushed, and the host serves "
                   f"{'an older' if older else 'another'} commit, {live[:7]}",
                   again if older else "git pull --rebase --autostash")


def check_pushed(project: Project, upstream: tuple[str, str], asked: Optional[Process]) -> Iterator[Finding]:
    """The host has all commits of this branch, and serves the last one as far as that is known."""
    if project.commit is None:
        return  # all four files are missing or not committed, and said to be so
    counts = run_git(project.root, "rev-list", "--left-right", "--count", "@{upstream}...HEAD")
    if project.branch is None or counts.returncode or upstream[0] == ".":  # that is this clone itself
        yield unpushable(project)
        return
    behind, ahead = map(int, counts.stdout.split())
    if behind:
        yield Finding("warn", f"the host has {plural(behind, 'commit')} more than {project.branch}",
                      "git pull --rebase --autostash && git push" if ahead else "git pull")
    elif ahead:
        are = "is" if ahead == 1 else "are"
        yield Finding("warn", f"{plural(ahead, 'commit')} of branch {project.branch} {are} not pushed",
                      "git push")
    else:
        yield check_live(project, upstream, read_host_refs(asked))


def check_committed(project: Project) -> Iterator[Finding]:
    """All that can be told by looking at the project and its last commit."""
    entries = split_nul(project.git("ls-tree", "-r", "-z", project.commit)) if project.commit else []
    tree = {entry.partition("\t")[2] for entry in entries}  # 100644 blob 1a2b3c... PATH
    submodules = [entry.partition("\t")[2] for entry in entries if entry.startswith(GITLINK)]
    status = read_status(project, "application", "public_html", "instance", ".env")
    yield from check_home(project)
    yield from check_files(project)
    yield from check_conflicts(project)
    yield from check_dispatch(project)
    yield from check_application(project, tree, status)
    yield from check_ignored(project, status)
    yield from check_unwanted(tree, status)
    yield from check_submodules(project.root, submodules)
    yield from check_pointers(project, tree)
    yield from check_flx(project, tree)
    yield from check_public_html(project.root, tree, status)


# --- host ---

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # to git, what a site holds before its first push
ABSENT = "000000"  # git's mode of a file that a commit lacks
HOST_MARKER = "FLASKFLEX_HOST"  # in the environment of what a push starts: which push that is
OUTPUT_LIMIT = 16 << 20  # bytes that one line of .flx may print
BACKLOG_LIMIT = 1 << 20  # bytes that may wait for a pusher who reads slowly

# Git on the site's files. Sizes and times tell what has changed: a copy has other inodes, and [permission]
# sets modes. The settings of the host's user do not count, and no hook runs.
CHECKOUT_SETTINGS = (
    "-c", "core.bare=false", "-c", "core.checkStat=minimal", "-c", "core.trustctime=false",
    "-c", "core.fileMode=false", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
    "-c", "core.attributesFile=/dev/null",
)
# What SQLite adds to the name of a database, for what is not yet in it, and while somebody has it open.
JOURNALS = ("-wal", "-shm", "-journal")
STAGE = ".flaskflex-new-"  # the folder in a site where files lie that are about to replace others


def read_if_there(path: Path) -> str:
    """Return the text of a file in whatever encoding, as os.fsdecode does; "" if there is no such file."""
    with contextlib.suppress(FileNotFoundError):
        return os.fsdecode(path.read_bytes())
    return ""


@contextlib.contextmanager
def starts_delayed(root: Path) -> Iterator[None]:
    """Let a process that starts meanwhile wait: dispatch.fcgi first takes a shared lock on the site's folder.

    One that never lets go of it delays a deploy no longer than an answer may take.
    """
    handle = os.open(root, os.O_RDONLY)
    try:
        wait_until(lambda: try_lock(handle), ANSWER_SECONDS)
        yield
    finally:
        os.close(handle)


def write_beside(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step, unless it has this content and mode already; raise OSError if that fails."""
    if not (path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode):
        beside = path.with_name(f".{path.name}.flaskflex-new")
        beside.write_bytes(content)
        beside.chmod(mode)
        os.replace(beside, path)


class Log:
    """What a push prints: kept in a file, and copied from there to the pusher, who is never waited for.

    They may be gone, or not read: standard error is written to only if it takes a piece at once.
    """

    def __init__(self, path: Path, *, shown: bool = True) -> None:
        path.touch()
        self.path = path
        self.position = path.stat().st_size  # what is written to the file from here on is shown
        self.shown = shown
        self.waiting = b""
        self.more = os.fsencode(f"... and more, in {path} on the host ...\n")

    def clear(self) -> None:
        """Forget what an earlier push of the same commit has printed; what was shown stays on the screen."""
        self.show()
        os.truncate(self.path, 0)
        self.position = 0

    def write(self, text: str) -> None:
        """Add lines, and show them; on a full disk they are only shown."""
        content = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            with open(self.path, "a+b") as file:
                size = file.tell()
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":  # what a command printed last
                    content = b"\n" + content
                file.write(content)
        except OSError:
            self.waiting += content
        self.show()

    def fact(self, label: str, text: str) -> None:
        """Add a line such as `Going live  1a2b3c4 A better application`."""
        self.write(f"{label:<12}{text}")

    def failure(self, label: str, failure: Exception) -> None:
        """Add why something failed, and how to go on."""
        self.fact(label, f"{failure}\n{getattr(failure, 'hint', '')}".rstrip())

    def show(self) -> bool:
        """Copy whole lines that are new in the file to standard error, as far as it takes them now.

        Return True if nothing waits any more.
        """
        if not self.shown:
            return True
        with open(self.path, "rb") as file:
            behind = os.fstat(file.fileno()).st_size - self.position
            if behind > BACKLOG_LIMIT:  # a flood: skip most of it, so that it is noticed and ended in time
                self.position += behind - BACKLOG_LIMIT // 16
                self.waiting += self.more
            file.seek(self.position)
            fresh = file.read(BACKLOG_LIMIT)
        fresh = fresh[:fresh.rfind(b"\n") + 1]
        self.position += len(fresh)
        lines = [line for line in fresh.splitlines(keepends=True)
                 if not line.startswith((b"Requirement already satisfied:", b"[notice]"))]
        self.waiting += printable(b"".join(lines).decode("utf-8", "backslashreplace")).encode()
        if len(self.waiting) > BACKLOG_LIMIT:  # skip some, so that the end, which says why, is seen in time
            rest = self.waiting[-BACKLOG_LIMIT // 16:].partition(b"\n")[2]
            self.waiting = b"\n" + self.more + rest
        try:
            while self.waiting and select.select([], [2], [], 0)[1]:
                self.waiting = self.waiting[os.write(2, self.waiting[:select.PIPE_BUF]):]
        except OSError:  # the pusher has gone
            self.waiting, self.shown = b"", False
        return not self.waiting

    def finish(self) -> None:
        """Show the rest to a pusher who goes on reading."""
        wait_until(self.show, 5)


class FilePlan(NamedTuple):
    """What becomes of the files in which two commits differ, by path."""

    written: set[str]  # put there as the second commit has them
    ours: set[str]  # if the second commit has them, the host has written what the site holds then
    removed: set[str]  # because the second commit lacks them
    in_the_way: set[str]  # not written: the site has files of its own there
    kept: set[str]  # left there, though the second commit lacks them


def is_real_folder(path: Path) -> bool:
    """Return True for a folder that is no link to one."""
    return path.is_dir() and not path.is_symlink()


def old_names(path: str) -> Iterator[str]:
    """Yield the names to which a file may be moved away: its own with .old, with .old.old ..."""
    return (path + ".old" * count for count in itertools.count(1))


def blockers(site: Path, path: str) -> list[str]:
    """Return the files and links at the places of a file's folders in a site, the outer ones first."""
    parts = path.split("/")
    folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return [folder for folder in folders
            if os.path.lexists(site / folder) and not is_real_folder(site / folder)]


def is_database(path: Path) -> bool:
    """Return True for a database of SQLite's, by its name or by its first bytes."""
    if DATABASE.search(path.name):
        return True
    with contextlib.suppress(OSError, Failure), open_regular(path, limit=sys.maxsize) as file:
        return file.read(16) == b"SQLite format 3\0"
    return False


def in_the_way_failure(site: Path, paths: Sequence[str]) -> Failure:
    """Return why a push is refused that would replace files of the site's own, and how to go on."""
    taken: set[str] = set()
    moves = [(path, free_path(site, old_names(path), taken))
             for path in dict.fromkeys([*blockers(site, path), path][0] for path in paths)]
    moves += [(path + end, free + end) for path, free in moves for end in JOURNALS
              if (site / f"{path}{end}").exists() and is_database(site / path)]
    return Failure("\n".join((
        f"the push would replace what the site made or changed itself: {', '.join(paths)}",
        "If it is the site's data, take it out of git, name it in .gitignore, and push again:",
        f"    {shell_line('git', 'rm', '-r', '--quiet', '--cached', '--', *paths)}",
        "    git commit -m 'The host has this file'",
        "To have the pushed one instead, move the other away on the host, and push again:",
    )), "\n".join("    " + shell_line("mv", str(site / path), str(site / free)) for path, free in moves))


class Checkout(NamedTuple):
    """The project's files in a folder, the site or a trial's copy of it.

    The index is the host's own. It has the files that the host wrote: others are the site's.
    """

    repository: Path
    root: Path
    index_file: Path

    def git(self, *args: str, stdin: bytes = b"") -> bytes:
        """Return what git prints about the files and the index; raise Failure with git's message."""
        folders = (f"--git-dir={self.repository}", f"--work-tree={self.root}")
        environ = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
                   "GIT_INDEX_FILE": str(self.index_file)}
        return git_output(self.root, *folders, *CHECKOUT_SETTINGS, *args, stdin=stdin, environ=environ)

    def update(self, old: str, new: str, *, keep: bool) -> set[str]:
        """Replace the files of one commit or tree by another's; return those that stay as the site has them.

        The rules are git's own (git-read-tree(1), "Two Tree Merge"): nothing is replaced that the site made
        or changed itself. But
        - a file may be as the new commit has it already, and stays the site's;
        - one that the site changed and the new commit lacks stays, untracked;
        - what the new commit lacks stays even if the site has not changed it, if it is a database or
          settings, or if the commit's .gitignore names it, and everybody would not see it in public_html;
        - one that the site has lost is written again, if it is no database and no settings.

        Raise Failure, with no file changed, if another file is in the way. With keep, for a push that is
        taken back, it stays, and .gitignore keeps nothing. Raise it also if a file was changed just now:
        others may be replaced by then.
        """
        known, changes = self.known_paths(old), self.changes(old, new)
        self.open_folders(known | changes.keys())
        held, coming = self.with_index(".old"), self.with_index(".new")
        self.git("read-tree", "-i", "-m", f"--index-output={held.index_file}", old)
        edited = held.edited() | {path for path in changes if self.has_journal(path)}
        changes.update(self.lost(edited - changes.keys(), new))
        stamps = {path: self.stamp(path) for path in changes}
        held.git("read-tree", "-i", "-m", f"--index-output={coming.index_file}", old, new)
        doubtful = {path for path, (old_mode, _) in changes.items()
                    if (path in edited or old_mode == ABSENT) and self.has_file(path)}
        lacking = {path for path, (_, new_mode) in changes.items() if new_mode == ABSENT}
        if lacking and not keep:  # what is taken back goes
            ignored = lacking & held.ignored(coming)
            known -= {path for path in ignored if not path.startswith("public_html/")}
        plan = self.plan(changes, doubtful, coming.edited() & doubtful if doubtful else set(), known)
        if plan.in_the_way and not keep:
            raise in_the_way_failure(self.repository.with_suffix(""), sorted(plan.in_the_way))
        self.require_writable([*plan.written, *filter(self.has_file, plan.removed)])
        self.replace(plan, coming, stamps)
        return {path for path in edited - changes.keys() if self.has_file(path)} | plan.kept

    def with_index(self, end: str) -> Checkout:
        """Return this folder with another index, which no killed git keeps locked."""
        other = self._replace(index_file=self.index_file.with_suffix(end))
        other.unlock()
        return other

    def unlock(self) -> None:
        """Remove the lock of the index that a killed git has left."""
        Path(f"{self.index_file}.lock").unlink(missing_ok=True)

    def paths(self) -> set[str]:
        """Return the paths that the index has; raise as git() does."""
        return set(split_nul(self.git("ls-files", "-z")))

    def known_paths(self, commit: str) -> set[str]:
        """Return the paths in the index; a commit's if it is lost, or damaged by a power cut perhaps."""
        self.unlock()
        with contextlib.suppress(Failure):
            if self.index_file.exists():
                return self.paths()
        self.index_file.unlink(missing_ok=True)
        return set(split_nul(self.git("ls-tree", "-r", "-z", "--name-only", commit)))

    def open_folders(self, paths: set[str]) -> None:
        """Let their owner into the folders of files again: a command of .flx may have set any modes."""
        for folder in sorted({"", *with_folders(paths)} - paths):
            place = self.root / folder
            with contextlib.suppress(OSError):  # it is gone, or another user's
                mode = stat.S_IMODE(os.lstat(place).st_mode)
                if mode & 0o700 != 0o700 and place.is_dir() and os.path.realpath(place) == str(place):
                    place.chmod(mode | 0o700)

    def ignored(self, rules: Checkout) -> set[str]:
        """Return the paths in this index that the .gitignore files in another index name; raise as git()."""
        folder = self.index_file.with_suffix(".rules")
        remove_tree(folder)
        folder.mkdir()
        names = [path for path in rules.paths() if path.rpartition("/")[2] == ".gitignore"]
        rules._replace(root=folder).git("checkout-index", "-q", "-z", "--stdin", stdin=join_nul(names))
        output = self._replace(root=folder).git("ls-files", "-z", "--cached", "--ignored",
                                                "--exclude-per-directory=.gitignore")
        remove_tree(folder)
        return set(split_nul(output))

    def plan(self, changes: Mapping[str, tuple[str, str]], doubtful: set[str], differing: set[str],
             known: set[str]) -> FilePlan:
        """Return what becomes of files by the rules of update(). Changes are the modes in two commits.

        Doubtful files are in the site and not as the old commit has them; some of them also differ from what
        the new one has. The host wrote those with known paths.
        """
        lacking = {path for path, (_, new_mode) in changes.items() if new_mode == ABSENT}
        kept = {path for path in lacking if path in doubtful
                or (is_data(path) or path not in known) and self.has_file(path)}
        removed = {path for path in lacking - kept if self.may_unlink(path)}
        same = doubtful - differing - lacking
        as_wanted = {path for path in same  # and can be executed, or not, as git's mode says
                     if os.lstat(self.root / path).st_mode & 0o100 == int(changes[path][1], 8) & 0o100}
        written = changes.keys() - lacking - as_wanted
        in_the_way = differing | {path for path in written if self.is_blocked(path, removed)}
        written -= in_the_way
        return FilePlan(written, known | (written - same), removed, in_the_way, kept)

    def edited(self) -> set[str]:
        """Return the paths of files that are not as the index has them; raise as git() does."""
        output = self.git("diff", "--name-only", "-z", "--no-ext-diff", "--no-renames",
                          "--ignore-submodules=all")
        return set(split_nul(output))

    def has_journal(self, path: str) -> bool:
        """Return True if a database of SQLite's is in use, or has changes beside it.

        See https://sqlite.org/tempfiles.html: in WAL mode, who has it open goes on to write beside its name.
        """
        files = [self.root / f"{path}{end}" for end in JOURNALS]
        return any(file.is_file() and file.stat().st_size for file in files) and is_database(self.root / path)

    def changes(self, old: str, new: str) -> dict[str, tuple[str, str]]:
        """Return the modes in two commits of each file in which they differ; raise as git() does.

        A submodule is no file: its mode is ABSENT, like that of a file that a commit lacks.
        """
        fields = split_nul(self.git("diff-tree", "-r", "-z", "--no-renames", old, new))
        changes = {}
        for facts, path in zip(fields[::2], fields[1::2]):  # :100644 100755 OLD NEW M
            old_mode, new_mode = facts[1:14].replace(GITLINK, ABSENT).split(" ")
            if (old_mode, new_mode) != (ABSENT, ABSENT):
                changes[path] = old_mode, new_mode
        return changes

    def lost(self, edited: set[str], new: str) -> dict[str, tuple[str, str]]:
        """Return the modes of edited files that are gone, as if the old commit lacked them; see changes().

        Data is not among them: the site may do without it. Nor is what cannot be written: no push may fail
        for a file that it does not change. Raise as git() does.
        """
        gone = {path for path in edited
                if self.may_unlink(path) and not os.path.lexists(self.root / path) and not is_data(path)
                and not self.is_blocked(path, set()) and not self.closed_folder(path)}
        every = self.changes(EMPTY_TREE, new) if gone else {}
        return {path: every[path] for path in gone}

    def may_unlink(self, path: str) -> bool:
        """Return True if there is no folder at a path, and no link on the way to it."""
        place = self.root / path
        return not is_real_folder(place) and os.path.realpath(place.parent) == str(place.parent)

    def has_file(self, path: str) -> bool:
        """Return True if there is a file or a link at a path, and no link on the way to it."""
        return os.path.lexists(self.root / path) and self.may_unlink(path)

    def is_blocked(self, path: str, removed: set[str]) -> bool:
        """Return True if no file can be at a path: a folder with files is there, or a file or link above."""
        place = self.root / path
        files = [self.root / blocker for blocker in blockers(self.root, path)]
        if is_real_folder(place):
            files += [found for found in place.rglob("*") if not is_real_folder(found)]
        return any(str(found.relative_to(self.root)) not in removed for found in files)

    def stamp(self, path: str) -> object:
        """Return what is another once a file has changed or another has its place, None for no file."""
        if not self.has_file(path):
            return None
        facts = os.lstat(self.root / path)
        return facts.st_ino, facts.st_size, facts.st_mtime_ns, self.has_journal(path)

    def unchanged(self, paths: Iterable[str], stamps: Mapping[str, object]) -> Iterator[str]:
        """Yield paths, each just after a look at its file; raise Failure if it is not as it was at first."""
        for path in paths:
            if self.stamp(path) != stamps[path]:
                raise in_the_way_failure(self.repository.with_suffix(""), [path])
            yield path

    def replace(self, plan: FilePlan, coming: Checkout, stamps: Mapping[str, object]) -> None:
        """Remove files, and write others from the index that is coming, which then is this folder's.

        They are written beside first, so that a full disk changes nothing. Each appears at once and whole:
        whoever opens one finds the old or the new. Raise as git() does, and OSError.
        """
        for old in self.root.glob(f"{STAGE}*"):  # of a run that was killed
            remove_tree(old)
        with temporary_folder(str(self.root), STAGE) as stage:
            # In a work tree of its own: in the site, git would go by the old .gitattributes.
            coming._replace(root=stage).git("checkout-index", "-q", "-z", "--stdin",
                                            stdin=join_nul(plan.written))
            others = coming.paths() - plan.ours
            if others:
                coming.git("update-index", "--force-remove", "-z", "--stdin", stdin=join_nul(others))
            self.remove(self.unchanged(plan.removed, stamps))
            os.replace(coming.index_file, self.index_file)  # not before: the rest would not be known then
            for path in self.unchanged(plan.written, stamps):
                place = self.root / path
                place.parent.mkdir(parents=True, exist_ok=True)
                for empty, _, _ in os.walk(place, topdown=False) if is_real_folder(place) else ():
                    os.rmdir(empty)  # there is no file in any of them: see is_blocked
                os.replace(stage / path, place)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a run that was killed did it
                (self.root / path).unlink()
            for folder in list(Path(path).parents)[:-1]:
                with contextlib.suppress(OSError):  # it is not empty
                    (self.root / folder).rmdir()

    def remove_all(self) -> None:
        """Remove the files that the index has, but no data that is not as it has it."""
        with contextlib.suppress(Failure):  # the index may be lost
            paths = self.paths()
            self.open_folders(paths)
            edited = self.edited()
            kept = {path for path in paths if path in edited and is_data(path) or self.has_journal(path)}
            self.remove(path for path in paths - kept if self.may_unlink(path))
        self.index_file.unlink(missing_ok=True)

    def closed_folder(self, path: str) -> str:
        """Return in which folder a file cannot be replaced, and why; "" if it can be."""
        folder = next(parent for parent in (self.root / path).parents if parent.is_dir())
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder}, which is not ours to write to"
        if folder.stat().st_dev != self.root.stat().st_dev:
            return f"{folder}, which is a disk of its own"
        return ""

    def require_writable(self, paths: Iterable[str]) -> None:
        """Raise Failure if files cannot be replaced: their folder is another user's, or a disk of its own."""
        for closed in filter(None, map(self.closed_folder, paths)):
            raise Failure(f"the push changes files in {closed}",
                          "Take these files out of git, or change that on the host.")


# --- host: what .flx says is carried out ---


def flx_failure(line: FlxLine, reason: str) -> Failure:
    """Return why a line of .flx was not carried out."""
    return Failure(f".flx, line {line.number}: {line.text}: {reason}",
                   "Fix that line, commit, and push again.")


def user_name() -> str:
    """Return the name of the user who runs this, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def command_environ(mark: str, root: Path) -> dict[str, str]:
    """Return the environment of commands, built anew: git's variables would point to the wrong repository.

    Nor is git to find the repository in which a trial lies: it looks for none above the folder `root`.
    For its hooks git puts the folder of its own programs in front of PATH. Who pushes to a folder of their
    own machine may have a virtualenv there: that is not the site's.
    """
    folders = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
               if not folder.endswith("/git-core")
               and not os.path.exists(os.path.join(os.path.dirname(folder), "pyvenv.cfg"))]
    return {
        "HOME": os.path.expanduser("~"), "USER": user_name(), "LOGNAME": user_name(),
        "LANG": os.environ.get("LANG", "C.UTF-8"), HOST_MARKER: mark, "PATH": os.pathsep.join(folders),
        "GIT_CEILING_DIRECTORIES": str(root.parent),
    }


def end_marked(mark: str) -> None:
    """End the processes that a push with this mark has started, and all that descends from us."""
    repeat_until_gone(lambda: send_signal(marked_processes(f"{HOST_MARKER}={mark}") | descendants(set()),
                                          signal.SIGKILL))


def check_lines(lines: Iterable[FlxLine], variables: Mapping[str, str], log: Log) -> None:
    """Log which lines of a .flx are left out; raise Failure for one that cannot be carried out."""
    for line in lines:
        if line.section not in FLX_SECTIONS:
            log.fact("Left out", f".flx, line {line.number}: {flx_warning(line, set())}")
        elif flx_error(line):
            raise flx_failure(line, flx_error(line))
        elif line.section == "replace" and line.fields[2] not in variables:
            raise flx_failure(line, f"this host has no {line.fields[2]} for the project")


def read_values(path: Path) -> dict[str, str]:
    """Return the values that a file of lines NAME=VALUE holds, none if there is no such file."""
    return dict(re.findall(r"^(\w+)=(.*)$", read_if_there(path), re.MULTILINE))


class FlxRun(NamedTuple):
    """Where commands and modes of a .flx are carried out: the folder, the mark of its processes, the log."""

    root: Path
    mark: str
    seconds: float  # for each line
    log: Log

    def carry_out(self, lines: Sequence[FlxLine]) -> None:
        """Run the commands, then set the modes; raise Failure if one fails."""
        for section, act in (("setup", self.run), ("deploy", self.run), ("permission", self.set_mode)):
            for line in lines:
                if line.section == section:
                    act(line)

    def set_mode(self, line: FlxLine) -> None:
        """Set the mode of a file or folder; raise Failure if nothing of the project is there."""
        path, mode = line.fields
        place = Path(os.path.realpath(self.root / path))
        if self.root not in (place, *place.parents) or not place.exists():
            raise flx_failure(line, f"{path} is not in the project")
        if place.is_dir() and mode[0] not in "57":
            raise flx_failure(line, "a folder needs a 7 or a 5 first, or its owner cannot enter it")
        place.chmod(int(mode, 8))

    def run(self, line: FlxLine) -> None:
        """Run a command in a shell of its own; raise Failure if it fails, or takes or prints too much."""
        self.log.write(f"$ {line.text}")
        limit, deadline = self.log.path.stat().st_size + OUTPUT_LIMIT, time.monotonic() + self.seconds
        command, reason = ["/bin/sh", "-c", line.text], ""
        with open(self.log.path, "ab") as output, \
                in_background(command, cwd=self.root, env=command_environ(self.mark, self.root),
                              stdout=output, stderr=output) as process:
            try:
                while process.poll() is None and not reason:
                    self.log.show()
                    if time.monotonic() > deadline:
                        reason = (f"takes longer than {self.seconds:g} s "
                                  "(git config flaskflex.timeout SECONDS)")
                    elif self.log.path.stat().st_size > limit:
                        reason = f"prints more than {OUTPUT_LIMIT >> 20} MB"
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.004)
            finally:
                if process.poll() is None:
                    end_marked(self.mark)
        self.log.show()
        if reason or process.returncode:
            raise flx_failure(line, reason or f"ended with {process.returncode}")


def needs_setup(root: Path, lines: Sequence[FlxLine]) -> bool:
    """Return True if the virtualenv of a site, which [setup] makes, is gone, or its Python is."""
    virtualenv = root / ".venv"
    if not os.path.lexists(virtualenv):
        return any(line.section == "setup" and ".venv" in line.text for line in lines)
    python = interpreter(virtualenv)
    if not python.exists():
        return python.is_symlink()
    version = re.fullmatch(r"python3\.\d+", python.resolve().name)  # of the system, upgraded perhaps
    return version is not None and not (virtualenv / "lib" / version[0]).is_dir()


# A line of [setup] that names .venv itself, and not a program in it; or that installs packages.
ABOUT_VIRTUALENV = re.compile(r"\.venv(?!/?[\w.-])|(?<![\w.-])(pip[\w.-]*|ensurepip|uv|poetry|pdm)(?![\w.-])")


def lines_to_run(root: Path, lines: Sequence[FlxLine], *, first: bool) -> list[FlxLine]:
    """Return the lines of .flx that a push carries out, those of [setup] only if it is the first one.

    If the site has lost its virtualenv, the lines that make it are run again. Others of [setup] are not: they
    may make tables anew, in which visitors have data by then.
    """
    again = needs_setup(root, lines)
    return [line for line in lines if line.section != "setup" or first
            or again and ABOUT_VIRTUALENV.search(line.text)]


# --- host: a trial's copy of the site ---


OLD_TRIAL = ".trial.flaskflex-old-"


def remove_unwaited(folder: Path) -> None:
    """Remove a trial, write-protected or not, by a program that nobody waits for; its name is free at once.

    The program has the folder's lock as long as it runs: see HostedProject.clear_up.
    """
    old = folder.with_name(OLD_TRIAL + os.urandom(8).hex())
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, old)
    with contextlib.suppress(OSError), folder_lock(old) as lock:
        subprocess.Popen([*REMOVE, str(old)], pass_fds=[lock], start_new_session=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def copy_folder(source: Path, target: Path, *, whole: bool) -> list[str]:
    """Copy a folder that is in use into another, with links, times and modes.

    If it need not be copied whole, what may not be read is left out: return what cp says of that. Raise
    Failure with cp's words if anything else is missing.
    """
    reflink = ["--reflink=auto"] if sys.platform == "linux" else []
    done = subprocess.run(["cp", "-af", *reflink, f"{source}/.", str(target)], stderr=subprocess.PIPE,
                          env={**os.environ, "LC_ALL": "C"})
    lines = [line for line in done.stderr.decode("utf-8", "backslashreplace").splitlines()
             if "No such file" not in line]  # it was there a moment ago
    if done.returncode < 0:
        lines.append(f"cp was killed by signal {-done.returncode}")
    if any(whole or "Permission denied" not in line for line in lines):
        raise Failure(f"{source} cannot be copied to {target}",
                      "\n".join([*lines[-20:], "Is the host's disk full? (df)"]))
    return lines


def adopt_links(site: bytes, copy: bytes, in_site: re.Pattern[bytes]) -> None:
    """Let each link in a copied site lead into the copy, or out of it to where it leads from the site.

    Folders of the copy are opened to its owner for that. `in_site` finds the site's own path at the beginning
    of another. Raise Failure if the links are not all found.
    """
    found = subprocess.run(["find", copy, "-type", "d", "!", "-perm", "-700", "-exec", "chmod", "u+rwx", "{}",
                            ";", "-o", "-type", "l", "-print0"], stdout=subprocess.PIPE)
    if found.returncode < 0:
        raise Failure(f"find was killed by signal {-found.returncode} in {os.fsdecode(copy)}", "Push again.")
    for link in found.stdout.split(b"\0")[:-1]:
        folder, target = os.path.dirname(link), os.readlink(link)
        place = os.path.normpath(os.path.join(site + folder[len(copy):], target))  # as seen from the site
        inside = in_site.match(place)
        rest = place[inside.end():] if inside else place
        wanted = copy + rest if inside and rest[:1] in (b"", b"/") else place
        if os.path.normpath(os.path.join(folder, target)) != wanted:
            os.unlink(link)
            os.symlink(wanted, link)


def adopt_copy(site: Path, names: Sequence[Path], copy: Path, settings: Iterable[Path]) -> None:
    """Make a copied site one of its own: what names the site by its path names the copy.

    That is done in links, in the virtualenv's programs and editable installs, and in those files of settings:
    they may name a database, which [deploy] changes.

    `names` are the paths by which the site is known. Raise Failure if its virtualenv is elsewhere, or as
    adopt_links does.
    """
    if (site / ".venv").is_symlink():
        raise Failure(f"{site}/.venv is a link, and a trial would change what it leads to",
                      f"On the host: {shell_line('rm', f'{site}/.venv')}\nThe next push makes a new one.")
    in_site = re.compile(b"(?<![\\w.-])(?:%b)(?![\\w.~-])"  # not a neighbour whose name begins alike
                         % b"|".join(re.escape(os.fsencode(name)) for name in names))
    adopt_links(os.fsencode(site), os.fsencode(copy), in_site)
    virtualenv = copy / ".venv"
    files = [*settings, *virtualenv.glob("bin/*"), virtualenv / "pyvenv.cfg"]
    for kind in ("*.pth", "*.egg-link", "__editable__*.py", "*.dist-info/direct_url.json"):
        files += virtualenv.glob(f"lib/*/site-packages/{kind}")
    for path in files:
        inside = copy in Path(os.path.realpath(path)).parents  # no link leads to somebody else's file
        if inside and path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
            if in_site.search(content) and b"\0" not in content:
                own = in_site.sub(lambda _: os.fsencode(copy), content)
                write_beside(path, own, stat.S_IMODE(path.stat().st_mode))


# --- host: a project on its host ---


def ask_site(root: Path, mark: str) -> Finding:
    """Start the application of a site, or of a trial, as Apache would, and ask it for its first page."""
    if not (root / "public_html" / "dispatch.fcgi").exists():
        return Finding("fail", "public_html/dispatch.fcgi is missing", "In the project: python flaskflex.py")
    # A short PATH, as Apache's own: dispatch.fcgi goes on in the site's virtualenv.
    environ = {"PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin", HOST_MARKER: mark,
               "GIT_CEILING_DIRECTORIES": str(root.parent)}
    silent = Report(quiet=True)  # what a hook prints goes through its log alone
    return finding_for(request_page(root, environ, ANSWER_SECONDS, silent), root)


def ask_url(url: str) -> Finding:
    """Ask for a page as a visitor would: an error, or no answer in time, fails; no server is a warning."""
    import http.client
    import socket
    import urllib.error
    import urllib.request

    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=ANSWER_SECONDS) as page:
            status = page.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on; a connection was made
        return Finding("fail", f"GET {url} got no answer within {ANSWER_SECONDS:g} s",
                       "See the site's error log.")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Finding("warn", f"{url} cannot be asked from here: {error}")
    return Finding("fail" if status >= 500 else "ok", f"GET {url} answers {status}",
                   "See the site's error log.")


def report_answer(finding: Finding, log: Log) -> None:
    """Log how the application answered; raise Failure if it does not run."""
    if finding.level == "fail":
        raise Failure(finding.text, finding.hint)
    log.fact("Note" if finding.level == "warn" else "Asked", finding.text)


def close_to_others(root: Path) -> None:
    """Take from other users, and from Apache, what lies beside public_html: an application runs as its owner.

    A link of a neighbour's may lead here, and Apache follows one that is called .htaccess. What a link in
    public_html leads to, such as static files of the application, is served, and stays open.
    """
    links = [os.path.realpath(path) for path in (root / "public_html").rglob("*") if path.is_symlink()]
    served = {"public_html", *(os.path.relpath(path, root).split(os.sep)[0] for path in links)}
    for place in (place for place in root.iterdir() if not place.is_symlink()):
        with contextlib.suppress(OSError):  # it has gone, or is not the owner's
            mode = stat.S_IMODE(place.stat().st_mode)
            opened = mode | (0o055 if place.is_dir() else 0o044)
            place.chmod(opened if place.name in served else mode & ~0o077)
    root.chmod(0o711)


class HostedProject:
    """A project on its host: the repository NAME.git, and the site NAME beside it."""

    def __init__(self, repository: Path) -> None:
        """Raise Failure if the repository has lost the end of its name, by which it is told from its site."""
        if repository.suffix != ".git":
            raise Failure(f"{repository} is not called NAME.git any more", "Give it its old name back.")
        self.repository = repository
        self.git_dir = f"--git-dir={repository}"  # said to git, because of its safe.bareRepository
        self.name = repository.with_suffix("").name
        self.site = repository.with_suffix("").resolve()  # its owner may have moved it to another disk
        self.state = repository / "flaskflex"  # the script that the hooks call, the lock, the logs
        self.checkout = Checkout(repository, self.site, self.state / "index")
        self.trial_note = self.state / "branch"  # which push was tried last: see last_trial()
        self.before = self.state / "before"  # what the site held before the first push, until that is live
        self.values = self.state / "values"  # those that [replace] has put into files of the site
        self.database_values = self.state / "variables"  # those that it knows beside the project's name
        self.mark = f"{os.getpid()}-{time.time_ns()}"  # by it, processes that this one starts are known

    def git(self, *args: str) -> str:
        """Return what git prints in the repository, without the last line break, or raise Failure."""
        return os.fsdecode(git_output(self.repository, self.git_dir, *args)).rstrip("\n")

    def branch(self) -> str:
        """Return the ref that deploys, such as refs/heads/main: the first one pushed became HEAD."""
        return os.fsdecode((self.repository / "HEAD").read_bytes()).partition(": ")[2].rstrip("\n")

    def commits(self) -> tuple[str, str]:
        """Return the commit that the branch names, and the live one, "" for none; raise as git() does."""
        branch = self.branch()
        listing = self.git("for-each-ref", "--format=%(objectname) %(refname)", "--", branch, LIVE_REF)
        found = {ref: commit for commit, ref in (line.split(" ", 1) for line in listing.splitlines())}
        return found.get(branch, ""), found.get(LIVE_REF, "")

    def last_trial(self) -> tuple[str, str, str]:
        """Return the ref to which a push was tried last, and its commits before and then, "" if unknown.

        No other ref goes live: one that HEAD names since was not tried.
        """
        ref, _, commits = read_if_there(self.trial_note).partition(" ")
        old, _, new = commits.partition(" ")
        return ref, old, new

    def setting(self, name: str) -> str:
        """Return what `git config NAME` says in the repository, "" if nothing."""
        return os.fsdecode(run_git(self.repository, self.git_dir, "config", name).stdout).strip()

    @functools.cache
    def log_entry(self, name: str) -> tuple[str, str]:
        """Return the commit that an object is or a tag leads to, "" for a folder; and its description.

        Raise Failure if the object is not in the repository.
        """
        log = ("log", "-1", "--no-show-signature", "--encoding=UTF-8", "--format=%H %h %s")
        commit, _, description = self.git(*log, name).partition(" ")
        return commit, description[:100]

    def describe(self, commit: str) -> str:
        """Return a commit's short name and subject, "nothing" for none; raise as log_entry() does."""
        return self.log_entry(commit)[1] if commit else "nothing"

    def flx(self, commit: str) -> list[FlxLine]:
        """Return the lines of a commit's .flx, none if it has no such file; raise as read_blobs() does."""
        blob = read_blobs(self.checkout.git, commit, [".flx"]).get(".flx")
        return parse_flx(blob.content) if blob else []

    def log_path(self, commit: str) -> Path:
        """Return where the log of a push is kept."""
        folder = self.state / "logs"
        folder.mkdir(exist_ok=True)
        return folder / f"{commit}.log"

    def logs(self) -> list[Path]:
        """Return the logs that are kept, the newest last."""
        return sorted(self.state.glob("logs/*.log"), key=lambda path: path.stat().st_mtime)

    @contextlib.contextmanager
    def locked(self, log: Log, holder: str) -> Iterator[None]:
        """Be the only one who works on this project; say for whom it waits until then.

        The lock ends with its process. One that was killed leaves its mark in the file: what it had started
        is ended.
        """
        with open(self.state / "lock", "a+b", buffering=0) as lock:  # it reads what is there now
            other = ""
            while not try_lock(lock.fileno()):
                if not other:  # it writes its name a moment after it has the lock
                    lock.seek(0)
                    other = lock.readline(200).decode("utf-8", "replace").strip()
                    if other not in ("", holder):  # of the two that see a push go live, one waits
                        log.fact("Waiting", f"for {other}")
                log.show()
                time.sleep(0.004)
            lock.seek(0)
            for mark in lock.read().decode("utf-8", "replace").split("\n")[1:]:
                end_marked(mark)
            lock.truncate(0)
            lock.write(f"{holder}\n{self.mark}".encode("utf-8", "backslashreplace"))
            os.environ[HOST_MARKER] = self.mark
            self.clear_up()
            log.path.touch()
            for old in [path for path in self.logs() if path != log.path][:-20]:
                old.unlink()
            try:
                yield
            finally:
                lock.truncate(0)

    def clear_up(self) -> None:
        """Remove what killed programs left: trials, and locks, which git has for milliseconds."""
        remove_unwaited(self.state / "trial")
        for old in self.state.glob(f"{OLD_TRIAL}*"):
            with contextlib.suppress(OSError, Failure), folder_lock(old):
                remove_tree(old)
        for name in ("HEAD", "config", self.branch(), LIVE_REF):
            path = self.repository / f"{name}.lock"
            with contextlib.suppress(FileNotFoundError):
                wait_until(lambda: time.time() - path.stat().st_mtime >= 3, 3)
                path.unlink()

    def deploy(self, tree: Checkout, old: str, new: str, log: Log, *, keep: bool = False) -> set[str]:
        """Let a folder that holds one commit run another; return the files that stay as the site has them.

        Raise Failure, with nothing changed, if files are in the way or .flx has mistakes; or if a line fails.
        """
        # Five parameters: a deploy is a folder and two commits, of a trial or the site, and each has its log.
        lines, values = self.flx(new), {"PROJECT_NAME": self.name, **read_values(self.database_values)}
        noted = read_values(self.values) or values
        if keep:  # a push is taken back: it had today's values, and what was served before has those noted
            noted, values = values, noted
        check_lines(lines, values, log)
        run = FlxRun(tree.root, self.mark, self.line_seconds(), log)
        held = self.with_values(old, self.flx(old), noted)
        coming = self.with_values(new, lines, values)
        with starts_delayed(tree.root):
            kept = tree.update(held, coming, keep=keep)
            if tree == self.checkout:
                text = "".join(f"{name}={value}\n" for name, value in values.items())
                write_beside(self.values, os.fsencode(text), 0o600)
            run.carry_out(lines_to_run(tree.root, lines, first=old == EMPTY_TREE))
            if self.setting("flaskflex.closed"):
                close_to_others(tree.root)
        return kept

    def with_values(self, commit: str, lines: Iterable[FlxLine], values: Mapping[str, str]) -> str:
        """Return the tree of a commit with the values that [replace], in lines of its .flx, puts into files.

        So these are files as all others: written in one step, and spared if the site has changed them. Raise
        Failure if one is not in the commit, or is a link.
        """
        files: dict[str, tuple[str, bytes]] = {}  # the mode and the content of each
        for line in (line for line in lines if line.section == "replace" and not flx_error(line)):
            path, token, name = line.fields
            mode, content = files.get(os.path.normpath(path)) or self.file_of(commit, line)
            if name in values:  # else it is a commit of earlier, when the host had it
                content = content.replace(os.fsencode(token), os.fsencode(values[name]))
            files[os.path.normpath(path)] = mode, content
        if not files:
            return commit
        index = self.checkout.with_index(".values")
        index.git("read-tree", commit)
        for path, (mode, content) in files.items():
            blob = index.git("hash-object", "-w", "--stdin", stdin=content).decode().strip()
            index.git("update-index", "--cacheinfo", f"{mode},{blob},{path}")
        return index.git("write-tree").decode().strip()

    def file_of(self, commit: str, line: FlxLine) -> tuple[str, bytes]:
        """Return the mode and the content of the file that a line of [replace] names, or raise Failure."""
        path = os.path.normpath(line.fields[0])
        ls_tree = ("--literal-pathspecs", "ls-tree", "-z", commit, "--", path)
        found = run_git(self.repository, self.git_dir, *ls_tree).stdout
        mode, _, blob = found.partition(b"\t")[0].decode().partition(" blob ")
        if path == "." or not mode.startswith("100"):
            reason = "a link" if mode.startswith("120") else "no file of the project"
            raise flx_failure(line, f"{path} is {reason}")
        return mode, git_output(self.repository, self.git_dir, "cat-file", "blob", blob)

    def line_seconds(self) -> float:
        """Return how long a line of .flx may take; raise Failure if the setting is no number above 0."""
        setting = self.setting("flaskflex.timeout") or "600"
        if not re.fullmatch(r"\d+(\.\d+)?", setting) or not float(setting):
            raise Failure(f"flaskflex.timeout is {setting!r}, which is not a number of seconds",
                          "On the host, in the repository: git config flaskflex.timeout 600")
        return float(setting)

    def untracked_settings(self, folder: Path, commits: Iterable[str]) -> list[Path]:
        """Return the files of settings in a folder that are in none of the commits; raise as git() does."""
        kinds = (".env*", "application/.env*", "instance/*", "application/instance/*")
        found = [path for kind in kinds for path in folder.glob(kind)]
        tracked = {name for commit in commits if found
                   for name in self.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0")}
        return [path for path in found if str(path.relative_to(folder)) not in tracked]

    def try_commit(self, old: str, new: str, log: Log) -> None:
        """Try a commit on a copy of the site, which stays as it is; raise Failure if it does not run."""
        log.fact("Trying", f"{self.describe(new)} (in a copy of the site)")
        trial = Checkout(self.repository, self.state / "trial", self.state / "trial-index")
        try:
            for line in copy_folder(self.site, trial.root, whole=False):
                log.write(line)
            adopt_copy(self.site, (self.site, self.repository.with_suffix("")), trial.root,
                       self.untracked_settings(trial.root, (old, new)))
            if self.checkout.index_file.exists():
                shutil.copy2(self.checkout.index_file, trial.index_file)  # git compares its time with files'
            kept = self.deploy(trial, old, new, log)
            if kept:
                log.fact("Note", f"stays as it is on the host: {listed(sorted(kept))}")
            report_answer(ask_site(trial.root, self.mark), log)
        except BaseException:
            end_marked(self.mark)
            with contextlib.suppress(Failure):  # the first one says more, and clear_up knows what to do
                remove_tree(trial.root)
            raise
        end_marked(self.mark)
        remove_unwaited(trial.root)

    def try_first(self, new: str, log: Log) -> None:
        """Try the first commit in the site itself: nothing is live that this could harm.

        Raise Failure if it does not run: the site holds again what it held before (a .env, perhaps).
        """
        log.fact("Trying", self.describe(new))
        self.trial_note.unlink(missing_ok=True)  # what ran in the site is no longer what it says
        self.restore_before(log)
        copy_folder(self.site, self.state / "trial", whole=True)
        os.rename(self.state / "trial", self.before)
        try:
            self.deploy(self.checkout, EMPTY_TREE, new, log)
            report_answer(ask_site(self.site, self.mark), log)
        except BaseException:
            end_marked(self.mark)
            self.restore_before(log)
            raise

    def set_aside_settings(self, log: Log) -> None:
        """Let settings stay as the site has them by now, and keep beside them what they held before.

        Their owner may have changed them since a first push was tried, or a line of its [setup].
        """
        names = [str(path.relative_to(self.before)) for path in self.before.rglob("*") if path.is_file()]
        taken = set(names)
        for name in filter(SETTINGS.search, names):
            before, now = self.before / name, self.site / name
            if DATABASE.search(name) or not now.is_file():
                continue
            if filecmp.cmp(before, now, shallow=False):
                before.unlink()
            else:
                kept = free_path(self.site, old_names(name), taken)
                log.fact("Note", f"{name} was changed; what it held before is in {kept}")
                shutil.move(before, self.site / kept)

    def restore_before(self, log: Log) -> None:
        """Let the site hold what it held before a first push that failed, or was cut off.

        What has come since and is not the push's stays: somebody may have copied a .env there, or changed it.
        """
        if self.before.exists():
            self.set_aside_settings(log)
            self.checkout.remove_all()
            if not (self.before / ".venv").exists():
                remove_tree(self.site / ".venv")
            copy_folder(self.before, self.site, whole=True)
            self.forget_before(log)

    def forget_before(self, log: Log) -> None:
        """Remove the copy of what the site held before the first push, but for settings that it has lost."""
        if self.before.exists():
            self.set_aside_settings(log)
            os.rename(self.before, self.state / "trial")
            remove_tree(self.state / "trial")

    def put_back(self, new: str, old: str, log: Log) -> None:
        """Serve the old commit again, and let the branch name it, so that the new one can be pushed again."""
        try:
            self.deploy(self.checkout, new, old, log, keep=True)
        except (Failure, OSError) as failure:  # the branch still names the new one: the next call tries again
            log.failure("Failed", failure)
            log.fact("To finish", f"push again, or on the host: python3 flaskflex.py host {self.name}")
            return
        _, before, tried = self.last_trial()
        back = before if tried == new else old
        if back != old:  # the live commit is another branch's: what this one names then was not tried
            write_beside(self.trial_note, LIVE_REF.encode(), 0o644)
        self.git("update-ref", "-m", "what was pushed did not run", self.branch(), back, new)
        log.fact("Served", self.describe(old))

    def replace_live(self, old: str, new: str, log: Log, *, tried_here: bool) -> bool:
        """Let the site serve a new commit; if that fails, put the old one back, and return False."""
        name, url = self.describe(new), self.setting("flaskflex.url")
        log.fact("Going live", name)
        try:
            if not tried_here:
                self.deploy(self.checkout, old or EMPTY_TREE, new, log)
            if url or not (old or tried_here):  # else it has answered in the trial
                answer = ask_url(url) if url else ask_site(self.site, self.mark)
                # What ran in the site itself can fail now by a setting of Apache's only.
                report_answer(answer._replace(level="warn") if tried_here else answer, log)
            self.git("update-ref", "--create-reflog", "-m", f"push: {name}", LIVE_REF, new)
        except (Failure, OSError) as failure:
            log.failure("Failed", failure)
            if old:
                self.put_back(new, old, log)
            return False
        self.forget_before(log)
        log.fact("Live", name)
        log.write(url or f"Its document root is {self.site / 'public_html'}")
        return True

    def held_commit(self, live: str) -> str:
        """Return the commit that the site holds: the live one, "" if nothing is left but a .env or keys.

        Raise Failure if a link leads to a site that was live, and nothing of that is there.
        """
        self.site.mkdir(exist_ok=True)
        if live and self.repository.with_suffix("").is_symlink():
            if not any(map(self.checkout.has_file, self.checkout.known_paths(live))):
                raise Failure(f"nothing is left in {self.site} of {self.describe(live)}, which was served",
                              "Is its disk mounted? If the site is to be made anew, remove the link to it.")
            return live
        left = (name for _, _, names in os.walk(self.site) for name in names)
        return live if any(not re.fullmatch(r"\.env.*|.*\.key", name) for name in left) else ""

    def go_live(self, log: Log) -> bool:
        """Let the site serve what the branch names, if it does not yet; return False if that fails.

        If this was cut off at any point, calling it again finishes.
        """
        new, live = self.commits()
        old = self.held_commit(live)
        # The trial of a first commit was in the site itself, if it was not another pusher's.
        tried_here = not old and self.before.exists() and self.last_trial()[2] == new != ""
        if old:
            self.forget_before(log)
        elif not tried_here:
            self.restore_before(log)
        if new in ("", old):
            return True
        if self.last_trial()[0] not in ("", self.branch()):
            log.fact("Waits", f"{self.describe(new)}; the next push to its branch is tried, and goes live")
            return True
        return self.replace_live(old, new, log, tried_here=tried_here)


# --- host: git's hooks ---


def try_push(hosted: HostedProject, log: Log, old: str, new: str) -> None:
    """Let what the branch names now go live, then try what is pushed to it; raise Failure to refuse that."""
    finished = hosted.go_live(Log(hosted.log_path(hosted.commits()[0] or "host"), shown=False))
    now, live = hosted.commits()
    if now == live and not finished:
        raise Failure("the last push was cut off, and does not run, as is known only now: "
                      f"{hosted.describe(now)} is served again",
                      f"Push again. Its log on the host says why: {hosted.log_path(now)}")
    if old != now:
        raise Failure("somebody else has pushed meanwhile", "git pull, and push again.")
    if new == live and finished:
        log.fact("Live", f"already: {hosted.describe(new)}")
    elif new == live:
        raise Failure("the last push can neither go live nor be taken back",
                      f"Its log on the host says why: {hosted.log_path(now)}")
    elif live:
        hosted.try_commit(live, new, log)
    else:
        hosted.try_first(new, log)


def take_push(hosted: HostedProject, log: Log, ref: str, old: str, new: str) -> None:
    """Judge a push of one ref, for the hook `update`; raise Failure to refuse it."""
    # Five parameters: the last three are what git calls the hook with.
    branch = hosted.branch()
    if ref.startswith("refs/heads/") and not any(hosted.commits()):
        branch = ref  # the first branch that is pushed
    if ref.startswith(("refs/flaskflex/", "refs/replace/")):
        raise Failure(f"{ref} is reserved for the host", "Push to a branch.")
    if not new.strip("0"):
        return  # git itself refuses to delete the branch that HEAD names
    if ref != branch:
        short = re.sub("^refs/(heads|tags)/", "", ref)
        log.fact("Stored", f"{short}; only {branch.removeprefix('refs/heads/')} is deployed")
        commit = short if ref.startswith("refs/heads/") else f"{short}^{{}}"
        if short != ref:  # a branch or a tag
            log.fact("To deploy", shell_line("git", "push", "origin", f"{commit}:{branch}"))
        return
    if hosted.log_entry(new)[0] != new:
        raise Failure("what is pushed to a branch is a tag, and not a commit",
                      shell_line("git", "push", "origin", f"TAG^{{}}:{branch}"))
    with hosted.locked(log, f"the push of {hosted.describe(new)}"):
        log.clear()
        try_push(hosted, log, old if old.strip("0") else "", new)
        if branch != hosted.branch():
            hosted.git("symbolic-ref", "HEAD", branch)
        write_beside(hosted.trial_note, os.fsencode(f"{branch} {old} {new}"), 0o644)


def run_hook(hook: str, args: Sequence[str]) -> int:
    """Do the work of a hook in the repository, which is the current folder; return the hook's exit status.

    What it prints goes through the log alone: a pusher who does not read must not stop it.
    """
    linux_prctl(PR_SET_CHILD_SUBREAPER, 1)  # so that end_marked finds what has detached itself
    hosted, status = HostedProject(Path.cwd()), 0
    log = Log(hosted.log_path(args[-1]))
    if hook == "watch":  # going live may have begun already
        log.position = log.path.read_bytes().rfind(b"\nGoing live  ") + 1 or log.position
    try:
        if hook == "update":
            take_push(hosted, log, *args)
        else:  # "live", a process of the host's own, and "watch": the first one does the work
            with hosted.locked(log, "a push that goes live"):
                hosted.go_live(log)
    except (Failure, OSError) as failure:
        log.failure("Refused", failure)
        log.fact("Served", hosted.describe(hosted.commits()[1]))
        status = 1
    log.finish()
    return status


# --- host: the command ---

NEXT = "python flaskflex.py in the clone, then git push"


def own_script() -> Path:
    """Return the path of this script; raise Failure if it is no file: it came through a pipe."""
    script = Path(__file__).resolve()
    if not script.is_file():
        raise Failure("flaskflex.py has to run again later, and is needed as a file",
                      f"Download it, and type: {shell_line('python3', 'flaskflex.py', *sys.argv[1:])}")
    return script


def make_repository(hosted: HostedProject) -> None:
    """Make the bare repository of a project: whole, or not at all. Raise Failure on foreign files."""
    found = re.search(r"(\d+)\.(\d+)", os.fsdecode(git_output(Path("/"), "version")))
    if found and (int(found[1]), int(found[2])) < (2, 28):  # the first with the hook reference-transaction
        raise Failure(f"git {found[0]} is too old to host a project", "Install git 2.28 or newer.")
    for place in (hosted.repository, hosted.repository.with_suffix("")):
        if os.path.lexists(place) and not (is_real_folder(place) and not any(place.iterdir())):
            raise Failure(f"{place} is there already, and flaskflex host did not make it",
                          "Choose another name for the project, or move that away.")
    fresh = hosted.repository.with_name(f".{hosted.repository.name}.flaskflex-new")
    remove_tree(fresh)
    os.environ["GIT_DEFAULT_REF_FORMAT"] = "files"  # HEAD is read as a file, here and by the hooks
    git_output(Path("/"), "init", "--quiet", "--bare", "--template=", "--object-format=sha1",
               "--initial-branch=main", str(fresh))
    (fresh / "flaskflex").mkdir()
    (fresh / "hooks").mkdir()
    os.rename(fresh, hosted.repository)


def renew_repository(hosted: HostedProject, *, url: Optional[str], closed: bool) -> None:
    """Make the settings, the hooks and the copy of this script as they have to be."""
    # A virtualenv may be gone tomorrow.
    python = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
    # A relative core.hooksPath is taken from the repository, whatever the user's own says. Without --atomic
    # each branch of a push is moved before the next one is judged: the first is known as what deploys.
    settings = {
        "core.hooksPath": "hooks", "core.logAllRefUpdates": "always",
        "receive.shallowUpdate": "true", "receive.advertiseAtomic": "false",
        "receive.denyDeleteCurrent": "refuse", "receive.denyNonFastForwards": "false",
        "flaskflex.python": python, "flaskflex.url": url or "", "flaskflex.closed": "true" if closed else "",
    }
    for name, value in settings.items():
        if value and hosted.setting(name) != value:
            hosted.git("config", name, value)
    write_beside(hosted.state / "flaskflex.py", own_script().read_bytes(), 0o644)
    for hook in ("update", "reference-transaction", "post-receive"):
        write_beside(hosted.repository / "hooks" / hook, HOOK.encode(), 0o755)


def list_project(hosted: HostedProject, report: Report) -> None:
    """Report what a project serves, since when, and how its last push ended; raise Failure or OSError."""
    live = "nothing is live yet"
    if hosted.commits()[1]:
        live = hosted.git("log", "-1", "--walk-reflogs", "--date=relative", "--encoding=UTF-8",
                          "--format=%h %s (%gd)", LIVE_REF)
    report.fact(f"{hosted.name} ", re.sub(r"\(\S+@\{(.*)\}\)$", r"(\1)", live))
    for path in reversed(hosted.logs()):  # one may be of a tag, which is only stored
        results = re.findall("^((?:Refused|Failed|Live) .*)", read_if_there(path), re.MULTILINE)
        if results:
            report.fact("", f"last push: {results[-1]}")
            break
    sizes = subprocess.run(["du", "-shc", str(hosted.site), str(hosted.repository)], capture_output=True)
    place = hosted.setting("flaskflex.url") or hosted.site
    report.fact("", f"{place}, size: {os.fsdecode(sizes.stdout).splitlines()[-1].split()[0]}")


def list_projects(folder: Path, report: Report) -> None:
    """Report each project that is hosted in a folder; then raise Failure if any cannot be read."""
    found = [HostedProject(path) for path in sorted(folder.glob("*.git")) if (path / "flaskflex").is_dir()]
    problems = {}
    for hosted in found:
        try:
            list_project(hosted, report)
        except (Failure, OSError) as error:
            problems[hosted.name] = f"{error}\n{getattr(error, 'hint', '')}".rstrip()
    if problems:
        raise Failure(f"{', '.join(problems)} cannot be read", "\n".join(problems.values()))
    if not found:
        report.fact("Nothing", f"is hosted in {folder} (flaskflex.py host NAME makes a project)")


def host_in_folder(options: argparse.Namespace, report: Report) -> None:
    """Make or renew a project in a folder, and finish what was cut off.

    Raise Failure if there can be no such project there, or what was pushed last does not run.
    """
    if not re.fullmatch(r"(?!.*\.(git|lock)$)[A-Za-z0-9][A-Za-z0-9._-]*", options.name):
        raise Failure(f"{options.name!r} is not a name for a project",
                      "Use letters, digits, dots, hyphens and underscores; for another folder: -C DIR")
    hosted = HostedProject(Path(options.directory).resolve() / f"{options.name}.git")
    own_script()  # without it nothing is begun
    if not hosted.state.is_dir():
        make_repository(hosted)
    if "public_html" in hosted.repository.parts:
        report.warning(f"if Apache serves {hosted.repository.parent}, it shows the project's repository, "
                       "source and .env to everybody: choose a folder outside of public_html")
    log = Log(hosted.log_path("host"), shown=not report.quiet)
    with hosted.locked(log, "flaskflex host"):
        renew_repository(hosted, url=options.url, closed=options.closed)
        serves = hosted.go_live(log)
        if options.closed:
            close_to_others(hosted.site)
    log.finish()
    report.fact("Repository", str(hosted.repository))
    report.fact("Site", f"{hosted.site}, with the document root {hosted.site / 'public_html'}")
    url = f"{user_name()}@{os.uname().nodename}:{hosted.repository}"
    report.fact("Clone", shell_line("git", "clone", url))
    if not serves:
        raise Failure("what was pushed last does not run", f"{log.path} says why. Push a commit that runs.")
    report.fact("Next", NEXT)


# --- host: a machine of one's own ---

# Root writes to these folders, which are root's alone. What lies in a home is the project's: it is read and
# written as the project's user, who could put a link to anywhere in its place at any moment. Whatever runs a
# program here raises Failure if that fails, as run_as does.
HOMES = Path("/var/www")  # below it, Debian's suexec runs programs
LOGS = Path("/var/log/flaskflex")
SITES = Path("/etc/apache2/sites-available")
SITES_ENABLED = Path("/etc/apache2/sites-enabled")
LOGROTATE_FILE = Path("/etc/logrotate.d/flaskflex")
ARCHIVES = Path("/var/backups/flaskflex")
CRONTABS = Path("/var/spool/cron/crontabs")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = ("git", "python3-venv", "openssh-server", "apache2", "apache2-suexec-pristine",
            "libapache2-mod-fcgid", "logrotate")

# A user and a DNS label; not what certbot would call the second file of another project's site.
PROJECT_NAME = r"(?!.*-le-ssl$)[a-z]([a-z0-9-]{0,30}[a-z0-9])?"
DOMAIN = r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*"
PUBLIC_KEY = r"[a-z0-9@.-]+ ([A-Za-z0-9+/]+={0,2})( [^\x00-\x1f\x7f]*)?"
USER_SECONDS = 60.0  # what a command of root's may take that runs as a project's user
VARIABLES = "{0}.git/flaskflex/variables"  # in a project's home: what [replace] knows
OTHER_NAME = "Choose another name for the project."
MADE_BY = "made by flaskflex host"  # a note at users and databases

# Groups that may come with other software, and hand out root's rights: a user has a group of the same name.
RESERVED = ("admin", "docker", "incus", "incus-admin", "libvirt", "libvirt-qemu", "lxd", "sudo", "wheel")


def run_as(user: str, *command: str, stdin: str = "") -> str:
    """Run a program as root or as a project's user; return what it prints, raise Failure if it fails.

    Its environment is built anew, and root's terminal is out of its reach. What runs as a project's user is
    ended after USER_SECONDS: a FIFO or a lock of theirs must not keep root waiting.
    """
    entry = pwd.getpwnam(user)
    environ = {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user, "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
    home = entry.pw_dir if os.path.isdir(entry.pw_dir) else "/"
    with in_background(command, stdin=subprocess.PIPE, cwd=home, env=environ, user=entry.pw_uid,
                       group=entry.pw_gid, extra_groups=[]) as process:
        try:
            output, errors = process.communicate(os.fsencode(stdin), None if user == "root" else USER_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"{command[0]} does not end (as {user})",
                          "A push may be at work: try again.") from None
    if process.returncode:
        raise Failure(f"{command[0]} failed (as {user})", last_lines(errors or output))
    return os.fsdecode(output)


def run_flaskflex(name: str, *args: str) -> str:
    """Run a copy of this script (it may lie in root's own home) as a user; return what it prints."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-", dir="/tmp") as folder:  # root's own may be closed
        os.chmod(folder, 0o755)
        script = Path(folder, "flaskflex.py")
        write_beside(script, own_script().read_bytes(), 0o644)
        return run_as(name, "/usr/bin/python3", "-I", str(script), "host", *args)


def read_in_home(name: str, path: str) -> str:
    """Return the text of a file in a project's home, "" without one; raise Failure if it is too large."""
    script = f'test ! -e "$1" || timeout 9 head -c {READ_LIMIT} "$1"'
    text = run_as(name, "sh", "-c", script, "sh", path)
    if len(os.fsencode(text)) == READ_LIMIT:
        raise Failure(f"{HOMES / name / path} is too large to be read", "Make it smaller, and try again.")
    return text


def write_in_home(name: str, path: str, text: str) -> None:
    """Write a file in a project's home that only its user can read."""
    script = 'umask 077; mkdir -p "${1%/*}"; cat >"$1.flaskflex-new"; mv -f "$1.flaskflex-new" "$1"'
    run_as(name, "sh", "-ec", script, "sh", path, stdin=text)


def project_users() -> list[str]:
    """Return the names of the projects of this machine."""
    return sorted(entry.pw_name for entry in pwd.getpwall()
                  if entry.pw_gecos.split(",")[0] == MADE_BY and entry.pw_dir == str(HOMES / entry.pw_name))


def require_free_name(name: str) -> None:
    """Raise Failure if a name is that of somebody else, of a folder, or of a group with power."""
    taken = {entry.pw_name for entry in pwd.getpwall()} | {group.gr_name for group in grp.getgrall()}
    if name in taken or name in RESERVED or os.path.lexists(HOMES / name):
        raise Failure(f"{name} is a user or group of this machine already, or {HOMES / name} a folder",
                      OTHER_NAME)


def make_user(name: str) -> None:
    """Make the user of a project, with a home that Apache may enter and other users may not.

    Its id is above all that projects have had: files of one that was removed may be left anywhere, and
    nobody else must become their owner.
    """
    home, highest_id = HOMES / name, ARCHIVES / "highest-user-id"
    highest = int(read_if_there(highest_id) or 999)
    if name not in project_users():
        run_as("root", "useradd", "--user-group", "--no-create-home", "--home-dir", str(home),
               "--key", f"UID_MIN={highest + 1}", "--key", f"GID_MIN={highest + 1}",
               "--comment", MADE_BY, "--shell", "/bin/bash",
               "--password", "*", name)  # none; a locked one would refuse keys too
    entry = pwd.getpwnam(name)
    write_beside(highest_id, f"{max(highest, entry.pw_uid, entry.pw_gid)}\n".encode(), 0o600)
    run_as("root", "install", "-d", "-m", "710", "-o", name, "-g", "www-data", str(home))
    run_as("root", "install", "-d", "-m", "755", str(LOGS))
    run_as("root", "install", "-d", "-m", "750", "-g", name, str(LOGS / name))


def read_keys(files: Iterable[str]) -> dict[str, str]:
    """Return the public keys in files: each line by the part that is the key.

    Raise Failure if a file holds anything else: sshd would obey options in front of a key.
    """
    keys = {}
    for file in files:
        with open(file, "rb") as opened:
            lines = opened.read(1 << 20).decode("utf-8", "replace").split("\n")
        lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        for line in lines or [""]:  # a file without a key is refused, too
            if "PRIVATE KEY" in line:
                raise Failure(f"{file} holds a private key", f"The public one is in {file}.pub.")
            match = re.fullmatch(PUBLIC_KEY, line)
            if not match or subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line.encode(),
                                           capture_output=True).returncode:
                raise Failure(f"{file} holds something that is not a public key: {line[:40]!r}",
                              "A public key is a line such as: ssh-ed25519 AAAA... name@machine\n"
                              "ssh-keygen makes one, in a file that ends in .pub.")
            keys[match[1]] = line
    return keys


def change_keys(name: str, added: Mapping[str, str], revoked: Mapping[str, str]) -> int:
    """Let keys into a project, each once, and take others away; return how many it has now."""
    path = ".ssh/authorized_keys"
    text = read_in_home(name, path)
    old = text.removesuffix("\n").split("\n") if text else []
    lines = [line for line in old if revoked.keys().isdisjoint(line.split())]
    known = {word for line in lines if not line.startswith("#") for word in line.split()}
    lines += [f"restrict,pty {line}" for key, line in added.items() if key not in known]
    if lines != old:
        write_in_home(name, path, "".join(f"{line}\n" for line in lines))
    return len([line for line in lines if line.strip() and not line.startswith("#")])


def run_sql(statements: str) -> str:
    """Run SQL as MariaDB's root, over its socket; return what it prints."""
    return run_as("root", "mariadb", "--batch", "--skip-column-names", stdin=statements)


def has_database(name: str) -> bool:
    """Return True if there is a database that was made for a project; raise Failure if MariaDB is stopped."""
    return bool(shutil.which("mariadbd", path=SYSTEM_PATH)) and MADE_BY in run_sql(
        f"SELECT SCHEMA_COMMENT FROM information_schema.SCHEMATA WHERE SCHEMA_NAME='{name}'")


def require_free_database(name: str) -> None:
    """Raise Failure if MariaDB does not run, or has something of that name that is not the project's."""
    if not has_database(name) and run_sql(f"SELECT 1 FROM mysql.user WHERE User='{name}'; "
                                          f"SHOW DATABASES LIKE '{name}'"):
        raise Failure(f"MariaDB has a database or a user {name}, which flaskflex host did not make",
                      OTHER_NAME)


def make_database(name: str) -> None:
    """Make a MariaDB database and its user, both named like the project, which gets to know the password."""
    import secrets

    variables = VARIABLES.format(name)
    known = re.search(r"^DB_PASSWORD=([a-zA-Z0-9_-]{32})$", read_in_home(name, variables), re.MULTILINE)
    password = known[1] if known else secrets.token_urlsafe(24)
    run_sql(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COMMENT '{MADE_BY}';"
            f"CREATE USER IF NOT EXISTS '{name}'@'localhost';"
            f"ALTER USER '{name}'@'localhost' IDENTIFIED BY '{password}';"
            f"GRANT ALL ON `{name}`.* TO '{name}'@'localhost';")
    write_in_home(name, variables, f"DB_HOST=localhost\nDB_USER={name}\nDB_PASSWORD={password}\n")


def site_files(name: str) -> list[Path]:
    """Return the files of a project's site: ours, and the one that certbot makes of it for https."""
    return [SITES / f"flaskflex-{name}.conf", SITES / f"flaskflex-{name}-le-ssl.conf"]


def served_domains(name: str) -> list[str]:
    """Return the domains of a project, as its site's file has them, which its owner may have edited."""
    text = read_if_there(site_files(name)[0])
    lines = re.findall(r"(?im)^[ \t]*Server(?:Name|Alias)[ \t]+(.+)$", text)
    return [domain for line in lines for domain in line.split()]


def asked_domains(name: str) -> list[str]:
    """Return those of a project's domains that --domain takes, in small letters: no wildcard, for example."""
    domains = [domain.lower() for domain in served_domains(name)]
    return [domain for domain in domains if re.fullmatch(DOMAIN, domain)]


def check_apache(name: str, domains: Sequence[str]) -> None:
    """Raise Failure if Apache's files are wrong or unsafe already, or another site has one of the domains."""
    file = ""
    for line in run_as("root", "apache2ctl", "-t", "-D", "DUMP_VHOSTS", "-D", "DUMP_MODULES").splitlines():
        # By one of these an .htaccess can act as Apache's own user, who may read what any project serves.
        unsafe = re.search(r"\b(php\d*|wsgi|perl|lua|proxy)_module\b", line)
        if unsafe:
            raise Failure(f"Apache has {unsafe[0]}, with which projects could read each other's files",
                          f"Host projects on a machine without it: sudo a2dismod --force '{unsafe[1]}*'")
        place = re.search(r" \((/\S+):\d+\)$", line)
        file = place[1] if place else file
        taken = {domain.lower() for domain in domains} & set(line.lower().split())
        if taken and Path(file).name not in (path.name for path in site_files(name)):
            raise Failure(f"{taken.pop()} is the name of another site: see {file}",
                          "Choose another domain, or take that site away (sudo a2dissite).")


def switch_sites(command: str, sites: Sequence[str]) -> None:
    """Enable or disable sites by a2ensite or a2dissite, and reload Apache, which goes on meanwhile."""
    if sites:
        run_as("root", command, "--quiet", *sites)
    if Path("/run/systemd/system").is_dir():
        run_as("root", "systemctl", "reload-or-restart", "apache2")
    else:
        run_as("root", "apache2ctl", "graceful")


def write_site(name: str, domains: Sequence[str]) -> None:
    """Let Apache serve a project, at other domains if any are named.

    Raise Failure if Apache refuses that, before a site is changed.
    """
    common, site = SITES / "000-flaskflex.conf", site_files(name)[0]
    old = {path: read_if_there(path) for path in (common, site)}
    new = {common: old[common] or APACHE_DEFAULT,
           site: old[site] or APACHE_SITE.replace("yourprojectname", name)}
    if domains and domains != asked_domains(name):  # else what its owner wrote, such as a wildcard, stays
        names = "".join(f"    ServerAlias {domain}\n" for domain in domains).replace("Alias", "Name", 1)
        new[site] = re.sub(r"(?im)(^[ \t]*Server(Name|Alias)[ \t].*\n)+", names, new[site], count=1)
    disabled = [path.stem for path in new if not (SITES_ENABLED / path.name).exists()]
    if new == old and not disabled:
        return
    run_as("root", "a2enmod", "--quiet", "suexec", "fcgid", "rewrite")
    with temporary_folder("/tmp") as folder:
        for path, text in new.items():  # Apache listens already to what a site that is enabled says
            text = re.sub(r"(?im)^([ \t]*)Listen[ \t]", r"\1#Listen ", text)
            write_beside(folder / path.name, os.fsencode(text), 0o644)
        try:
            run_as("root", "apache2ctl", "-t", "-c", f"Include {folder}/*.conf")
        except Failure as failure:
            raise Failure(str(failure), failure.hint.replace(str(folder), str(SITES))) from None
    for path, text in new.items():
        write_beside(path, os.fsencode(text), 0o644)
    switch_sites("a2ensite", disabled)


def erase_project(name: str, places: Sequence[str], *, database: bool) -> None:
    """Remove a project's user, and all that is in places, in temporary folders and in the database.

    If that fails, the next call goes on.
    """
    removed = HOMES / f".{name}.flaskflex-removed"
    if os.path.lexists(HOMES / name):  # at once: what is left if this is cut off is not archived again
        os.rename(HOMES / name, removed)
    run_as("root", "rm", "-rf", str(removed), *places)
    if database:
        run_sql(f"DROP DATABASE IF EXISTS `{name}`; DROP USER IF EXISTS '{name}'@'localhost';")
    with contextlib.suppress(Failure):  # other users may have files in its folders there
        run_as("root", "find", "/tmp", "/var/tmp", "/dev/shm", "-xdev", "-user", name, "-delete")
    run_as("root", "userdel", name)


def archive_holds(archive: str, place: Path) -> bool:
    """Return True if an archive of a removed project holds a file or folder."""
    with contextlib.suppress(Failure):
        return bool(run_as("root", "tar", "-tPzf", archive, "--occurrence=1", str(place)))
    return False


def find_lost_home(name: str, report: Report) -> tuple[str, bool]:
    """Report and return which archive holds the home of a project, "" if none; and if it holds a database."""
    archives = map(str, sorted(ARCHIVES.glob(f"{name}-????????-??????.tar.gz"), reverse=True))
    archive = next((archive for archive in archives if archive_holds(archive, HOMES / name)), "")
    where = f"it may be in {archive}, of a removal that was cut off" if archive else "no archive has it"
    report.fact("Its home", f"was gone already: {where}")
    return archive, bool(archive) and archive_holds(archive, ARCHIVES / f"{name}.sql")


def remove_project(name: str, report: Report) -> None:
    """Take a project off the machine: once nobody reaches it any more, all that it has goes to an archive.

    Raise Failure, with the project as it was, if there is none of that name or it cannot be archived.
    """
    if name not in project_users():
        raise Failure(f"there is no project {name} on this machine", "host without a NAME lists them.")
    archive, dump = ARCHIVES / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz", ARCHIVES / f"{name}.sql"
    domains = asked_domains(name)
    sites = [path.stem for path in site_files(name) if (SITES_ENABLED / path.name).exists()]
    try:
        switch_sites("a2dissite", sites)
        run_as("root", "usermod", "--expiredate", "1", name)  # no login, no cron
        run_as(name, "sh", "-c", "kill -KILL -1 2>/dev/null || true")  # but the shell itself
        database = has_database(name)
        if database:
            run_as("root", "mariadb-dump", "--single-transaction", "--routines", "--events",
                   f"--result-file={dump}", name)
        places = [HOMES / name, LOGS / name, *site_files(name), CRONTABS / name, dump]
        kept = [str(place) for place in places if os.path.lexists(place)]
        run_as("root", "tar", "-cSPzf", f"{archive}.part", "--files-from=/dev/null", *kept)
        os.rename(f"{archive}.part", archive)
    except BaseException:
        run_as("root", "rm", "-f", f"{archive}.part", str(dump))
        run_as("root", "usermod", "--expiredate", "", name)
        switch_sites("a2ensite", sites)
        raise
    erase_project(name, kept, database=database)
    report.fact("Removed", f"{name}; all that it had is in {archive}")
    restorable = str(archive)
    if str(HOMES / name) not in kept:
        restorable, database = find_lost_home(name, report)
    if restorable:
        report.fact("Restore", shell_line(
            "sudo", "python3", sys.argv[0], "host", name, *(f"--domain={domain}" for domain in domains),
            *(["--database"] if database else []), f"--restore={restorable}"))


def restore_home(name: str, archive: str) -> None:
    """Put what an archive holds of a project's home there, as its user: root only reads the archive."""
    script = 'runuser -u "$1" -- tar -xpPzf - "$2" <"$3"'
    run_as("root", "sh", "-ec", script, "sh", name, str(HOMES / name), archive)
    for place in (LOGS / name, CRONTABS / name, site_files(name)[0]):  # root's, written by root
        with contextlib.suppress(Failure):  # it had none
            run_as("root", "tar", "-xpPzf", archive, str(place))


def restore_database(name: str, archive: str) -> None:
    """Put what an archive holds of a project's database there, as its user: a dump may hold any statement."""
    as_user = 'MYSQL_PWD=$(sed -n s/^DB_PASSWORD=//p "$2") exec mariadb -u "$1" "$1"'
    script = 'tar -xPzf "$1" "$2"; trap \'rm "$2"\' EXIT; runuser -u "$3" -- sh -c "$5" sh "$3" "$4" <"$2"'
    run_as("root", "sh", "-ec", script, "sh", archive, str(ARCHIVES / f"{name}.sql"), name,
           str(HOMES / name / VARIABLES.format(name)), as_user)


def require_restorable(name: str, archive: str, *, database: bool) -> None:
    """Raise Failure if an archive does not hold a project of that name, or its database was forgotten."""
    run_as("root", "tar", "-tPzf", archive, "--occurrence=1", str(HOMES / name))
    held = archive_holds(archive, ARCHIVES / f"{name}.sql")
    if held and not database:
        raise Failure(f"{archive} holds a database, which is restored only with --database",
                      "Type the same with --database.")
    if database and not held:
        raise Failure(f"{archive} holds no database", "Restore the project without --database.")


def require_possible(options: argparse.Namespace, domains: Sequence[str]) -> None:
    """Raise Failure if what was asked for cannot be: now, when nothing has been changed."""
    name = options.name
    if not domains:
        raise Failure(f"no project {name} has a site on this machine", "Name its --domain to make it.")
    for domain in options.domain:
        if not re.fullmatch(DOMAIN, domain.lower()):
            raise Failure(f"{domain!r} is not a domain",
                          "It is like www.example.org, or xn--... if not ASCII.")
    if name not in project_users():
        require_free_name(name)
    elif options.restore:
        raise Failure(f"{name} is there already, and --restore is for a project that was removed",
                      "To remove it first: "
                      + shell_line("sudo", "python3", sys.argv[0], "host", name, "--remove"))
    if options.restore:
        require_restorable(name, os.path.abspath(options.restore), database=options.database)
    if options.database:
        require_free_database(name)
    check_apache(name, domains)


def make_project(options: argparse.Namespace, report: Report) -> None:
    """Make a project on this machine, or renew and change it; raise Failure if that cannot be."""
    name = options.name
    named = [domain.lower() for domain in options.domain]
    domains = named or served_domains(name)
    require_possible(options, domains)
    added, revoked = read_keys(options.key), read_keys(options.revoke)
    make_user(name)
    if options.restore:
        restore_home(name, os.path.abspath(options.restore))
    url = options.url or (f"http://{named[0]}/" if named and named[0] not in asked_domains(name) else "")
    try:
        run_flaskflex(name, name, "--closed", *(["--url", url] if url else []))
    except Failure as failure:  # a push may be at work, or the last one does not run: a new key may help
        report.warning(f"{failure}: {failure.hint}")
    run_as(name, "chmod", "700", f"{name}.git")
    run_as(name, "sh", "-c", 'ln -sT "$1" log 2>/dev/null || true', "sh", str(LOGS / name))
    keys = change_keys(name, added, revoked)
    if options.database:
        make_database(name)
        if options.restore:
            restore_database(name, os.path.abspath(options.restore))
    write_site(name, named)
    if not LOGROTATE_FILE.exists():
        write_beside(LOGROTATE_FILE, LOGROTATE.encode(), 0o644)
    report.fact("Project", f"{name}, a user with the home {HOMES / name}")
    report.fact("Site", ", ".join(f"http://{domain}/" for domain in served_domains(name)))
    report.fact("Keys", f"{keys} (more: --key FILE; fewer: --revoke FILE)")
    if options.database:
        report.fact("Database", f"{name}; [replace] in .flx knows DB_HOST, DB_USER and DB_PASSWORD")
    report.fact("Clone", f"git clone ssh://{name}@{domains[0]}/~/{name}.git")
    report.fact("Next", NEXT)


def list_machine(report: Report) -> None:
    """Report the projects of this machine: domains, what is live, the last push, size and processes."""
    owners = [re.findall(rb"\nUid:\t(\d+)", facts) for _, facts in read_proc("status")]
    for name in project_users():
        report.fact(f"{name} ", ", ".join(served_domains(name)))
        try:
            output = run_flaskflex(name, "-C", ".")
        except (Failure, OSError) as error:
            output = f"{error}: {getattr(error, 'hint', '')}"
        for line in last_lines(os.fsencode(output)).split("\n"):
            report.fact("", re.sub(f"^{name} +|^ +", "", line))
        report.fact("", f"processes: {owners.count([b'%d' % pwd.getpwnam(name).pw_uid])}")


def lock_machine(report: Report) -> None:
    """Wait until nobody else changes users and sites, and be the only one as long as this process runs."""
    run_as("root", "install", "-d", "-m", "700", str(ARCHIVES))  # no one but root can open, and so lock, it
    folder = os.open(ARCHIVES, os.O_RDONLY)
    if not try_lock(folder):
        report.fact("Waiting", "for another flaskflex host on this machine")
        fcntl.flock(folder, fcntl.LOCK_EX)


def require_packages(packages: Sequence[str]) -> None:
    """Raise Failure, with the line that installs them, if packages of Debian's are missing."""
    if not shutil.which("dpkg-query"):
        raise Failure("this machine does not run Debian", "Without --domain any folder can take pushes.")
    done = subprocess.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n",
                           *packages], capture_output=True, text=True)
    missing = [package for package in packages if f"installed {package}" not in done.stdout.splitlines()]
    if missing:
        raise Failure(f"not installed here: {', '.join(missing)}",
                      f"Type: {shell_line('sudo', 'apt-get', 'install', '--yes', *missing)}")


def host_on_machine(options: argparse.Namespace, report: Report) -> None:
    """Make, change or remove a project of this machine, as root; raise Failure if that cannot be."""
    if not options.remove:
        own_script()  # without it nothing is begun
    if os.geteuid() != 0:
        hint = f"Type: {shell_line('sudo', 'python3', *sys.argv)}"
        if options.remove and options.name:
            places = [os.path.join(options.directory, name) for name in (f"{options.name}.git", options.name)]
            hint += ("\nA project that you host in a folder of your own is these two, with its data: "
                     + shell_line("rm", "-rf", *places))
        raise Failure("users and sites are for root to make, on a machine of one's own", hint)
    if not re.fullmatch(PROJECT_NAME, options.name or ""):
        raise Failure(f"{options.name or ''!r} is not a name for a project of this machine",
                      "Use small letters, digits and hyphens, no more than 32, beginning with a letter.")
    require_packages([*PACKAGES, *(["mariadb-server"] if options.database else [])])
    lock_machine(report)
    if options.remove:
        remove_project(options.name, report)
    else:
        make_project(options, report)


def host(options: argparse.Namespace, report: Report) -> int:
    """Take pushes in a folder or on a machine of one's own, or list projects; return the exit status.

    Raise Failure if what was asked for cannot be.
    """
    os.umask(0o022)  # whatever the user's own is: Apache reads what is made here
    if options.hook:
        return run_hook(options.hook[0], options.hook[1:])
    if os.name == "nt":
        raise Failure("Windows cannot be a host", "Use a machine with Linux, or WSL.")
    # What can be asked for, and holds no password.
    url = r"https?://([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?(/[!-~]*)?"
    if options.url and not re.fullmatch(url, options.url):
        raise Failure(f"{options.url!r} is not the URL of a site", "It is like https://www.example.org/")
    # Root's projects of the machine have no folder of root's: what names one alone renews it.
    on_machine = project_users() if os.geteuid() == 0 and options.directory == "." else []
    if options.name in on_machine or any((options.domain, options.key, options.revoke, options.database,
                                          options.restore, options.remove)):
        host_on_machine(options, report)
        return 0
    require_git()
    if options.name is not None:
        host_in_folder(options, report)
    elif on_machine:
        list_machine(report)
    else:
        list_projects(Path(options.directory).resolve(), report)
    return 0


# --- the commands ---


@contextlib.contextmanager
def inspect(options: argparse.Namespace, report: Report) -> Iterator[tuple[Project, Virtualenv, Process]]:
    """Say which project and virtualenv are meant; yield both, with the pip freeze that runs meanwhile.

    Raise Failure if there are no such.
    """
    virtualenv = find_virtualenv(Path(options.directory).resolve(), options.venv, report)
    with freezing(virtualenv) as freeze:
        project = find_project(Path(options.directory))
        place = f"branch {project.branch}" if project.branch else f"detached at {(project.commit or '')[:7]}"
        report.fact("Project", f"{display_path(project.root)} ({place})")
        report.fact("Virtualenv", f"{display_path(virtualenv.path)} (Python {virtualenv.version})")
        yield project, virtualenv, freeze


def next_step(project: Project) -> str:
    """Return what is left to do until the project is deployed."""
    entry = entry_point(project.root)
    if not (project.root / entry).exists():
        return "copy your application to application/app.py, commit, and git push"
    if not (project.commit and project.git("ls-tree", project.commit, "--", entry)):
        return "git add application, commit, and git push"
    return "git push"


def report_changes(changes: Sequence[Change], committed: Sequence[str], project: Project,
                   report: Report) -> None:
    """Report what becomes of each file, and which of those that are committed now git would ignore."""
    asked = run_git(project.root, "check-ignore", "--", *committed) if committed else None
    ignored = os.fsdecode(asked.stdout).split("\n") if asked else []
    for change in changes:
        notes = [change.note] if change.note else []
        if change.path in ignored:
            notes.append(".gitignore names it; it is committed all the same")
        action = "commit" if change.path in committed and not change.needs_write else change.action
        if action != "unchanged":
            report.item(action, f"{change.path} ({'; '.join(notes)})" if notes else change.path)


def apply_changes(tree: WorkTree, changes: Sequence[Change], commit: Optional[Commit],
                  report: Report) -> None:
    """Write the files and commit what is pending, if there is anything to do; report it."""
    pending = [change for change in changes if change.pending] if commit else []
    project = tree.project
    if not pending and not any(change.needs_write for change in changes):
        report_changes(changes, [], project, report)
        report.fact("Nothing", "to do: the project is prepared already")
        return
    with index_locked(project) as folder:
        save_replaced(project, changes, report)
        write_files(tree, changes, folder)
        report_changes(changes, [change.path for change in pending], project, report)
        name = commit.make(pending, folder) if commit and pending else None
    if commit and name:
        report.fact("Committed", f"{name[:7]} {commit.message.splitlines()[0]}")


def prepare(options: argparse.Namespace, report: Report) -> int:
    """Prepare a project for deployment: inspect, plan, check, write, commit; return the exit status."""
    with inspect(options, report) as (project, virtualenv, freeze), WorkTree(project) as tree:
        require_checked_out(project)
        commit = None
        if not (options.dry_run or options.no_commit):
            require_committable(project)
            commit = Commit(project, open_repository(project, virtualenv, report), options.message)
            if not project.branch:
                report.warning("HEAD is detached: the commit will be on no branch (git switch NAME)")
        if not options.dry_run:
            recover_killed_runs(tree)
        frozen = frozen_text(freeze, virtualenv)
        plan = require_installable(frozen, virtualenv, tree, options.exclude)
        for warning in plan.warnings + lacking_packages(project, plan, virtualenv):
            report.warning(warning)
        changes = plan_files(tree, plan, force=options.force)
        if not options.dry_run:
            apply_changes(tree, changes, commit, report)
            report.fact("Next", next_step(project))
        else:
            changed = [change for change in changes if change.needs_write]
            for change in changed:
                report.patch(patch_of(change))
            if not changed:
                report.fact("Nothing", "would change")
    return 0


def check(options: argparse.Namespace, report: Report) -> int:
    """Tell whether the project would deploy, one line an item; return 1 if anything fails, else 0."""
    levels = []
    with inspect(options, report) as (project, virtualenv, freeze):
        upstream = read_upstream(project)
        with asking_host(project, upstream[0]) as asked:
            committed = list(check_committed(project))  # while pip freezes
            answered = list(check_answer(project, virtualenv, options, report))
            frozen = frozen_text(freeze, virtualenv)
            for finding in itertools.chain(
                committed,
                check_requirements(project, virtualenv, frozen, report),
                check_processes(parse_requirements(frozen)),
                answered,
                check_pushed(project, upstream, asked),
            ):
                report.item(*finding)
                levels.append(finding.level)
    if {*levels} != {"ok"} and not os.path.samefile(project.root, "."):
        report.fact("To type", f"what is shown, first: {shell_line('cd', os.path.relpath(project.root))}")
    report.fact("Not ready" if "fail" in levels else "Ready",
                f"{levels.count('ok')} ok, {plural(levels.count('warn'), 'warning')}, "
                f"{plural(levels.count('fail'), 'failure')}")
    return 1 if "fail" in levels else 0


def lines_from(log: io.FileIO) -> Iterator[str]:
    """Yield the lines that come from a pipe, without their ends, until all who write to it are gone.

    A line of more than LOG_SIZE bytes may come in pieces.
    """
    begun, ended = b"", False
    while not ended:
        # If a signal comes just before a call that waits, Python sees it when the call returns.
        while not select.select([log], [], [], 1)[0]:
            pass
        piece = log.read(LOG_SIZE)
        ended = not piece
        *lines, begun = (begun + piece).split(b"\n")
        if begun and (ended or len(begun) > LOG_SIZE):
            lines, begun = [*lines, begun], b""
        for line in lines:
            yield line.decode("utf-8", "backslashreplace")


def serve(options: argparse.Namespace, report: Report) -> int:
    """Serve the project by an Apache of its own until that is interrupted, and tell what it logs.

    Raise Failure if there is nothing to serve, or Apache does not start or ends.
    """
    virtualenv = find_virtualenv(Path(options.directory).resolve(), options.venv, report)
    project = find_project(Path(options.directory))
    missing = missing_parts(project.root)
    if missing:
        raise Failure(f"there is no {missing} to serve", "Prepare the project (python flaskflex.py) and copy "
                      "your application to application/app.py.")
    environ = application_environ(virtualenv, report)
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as log, \
            running_apache(project.root, environ, writer, port=options.port) as port:
        os.close(writer)
        report.fact("Serving", f"http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        for line in lines_from(log):
            line = plain_log(f"{line}\n", project.root)
            if line:
                report.line(line.rstrip("\n"))
    raise Failure("Apache has ended", "Start it again: python flaskflex.py serve")


HELLO_WORLD = '''\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello, world!"
'''


def echo_and_run(report: Report, folder: Optional[Path], *command: str) -> None:
    """Show a command as it would be typed, and run it; raise Failure if it fails."""
    report.line(f"$ {shell_line(*command)}")
    output = subprocess.PIPE if report.quiet else None
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
                          stderr=subprocess.STDOUT if report.quiet else None)
    if done.returncode:
        raise Failure(f"the demo stopped at: {shell_line(*command)}",
                      f"{last_lines(done.stdout or b'')}\nFix what it says (on Debian: apt install "
                      "python3-venv), remove the folder, and try again.".lstrip("\n"))


def demo(options: argparse.Namespace, report: Report) -> int:
    """Go the whole way with a small example: a host, a clone, a push, the page; return the exit status.

    Raise Failure if the folder is there already, or a step fails.
    """
    folder = Path(options.directory, options.demo_directory).absolute()
    if folder.exists():
        raise Failure(f"{folder} exists already",
                      "Name a folder that does not: python3 flaskflex.py demo DIR")
    require_git()
    script = own_script()
    hosted = HostedProject(folder / "host" / "yourprojectname.git")
    project, virtualenv = folder / "yourprojectname", folder / "env"
    python = str(interpreter(virtualenv))
    flaskflex = (python, str(script), "--venv", str(virtualenv))
    echo_and_run(report, None, "mkdir", "-p", str(folder / "host"))
    in_host = (str(script), "-C", str(folder / "host"))  # else root's could be a project of the machine
    echo_and_run(report, None, sys.executable, *in_host, "host", "yourprojectname")
    echo_and_run(report, folder, "git", "clone", "--quiet", str(hosted.repository))
    echo_and_run(report, folder, sys.executable, "-m", "venv", "env")
    pip_install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    echo_and_run(report, folder, python, *pip_install, "flask")
    (project / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    (project / "application").mkdir()
    (project / "application" / "app.py").write_text(HELLO_WORLD, encoding="utf-8")
    if run_git(project, "var", "GIT_COMMITTER_IDENT").returncode:
        echo_and_run(report, project, "git", "config", "user.name", "A Student")
        echo_and_run(report, project, "git", "config", "user.email", "student@example.org")
    echo_and_run(report, project, *flaskflex)
    echo_and_run(report, project, "git", "add", ".")
    echo_and_run(report, project, "git", "commit", "--quiet", "--message=initial deployment")
    echo_and_run(report, project, python, str(script), "check", "--venv", str(virtualenv))
    echo_and_run(report, project, "git", "push", "--quiet", "origin", "HEAD")
    environ = {"PATH": os.environ["PATH"]}
    report.fact("The page", request_page(hosted.site, environ, ANSWER_SECONDS, report).page.strip())
    report.fact("Look at", f"what was written: {shell_line('git', '-C', str(project), 'log', '--stat')}")
    serving = shell_line(python, str(script), "serve", "-C", str(project), "--venv", str(virtualenv))
    report.fact("See it run", serving if find_apache() else "apt install apache2 libapache2-mod-fcgid")
    report.fact("Next", "the same in the clone of your own project: python flaskflex.py")
    return 0


# --- the command line ---


def number_type(kind: type[float], most: int, what: str) -> Callable[[str], float]:
    """Return what reads a number above 0 from the command line; `what` says in an error what it is for."""
    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < kind(text) <= most:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}, {most} at most")
    return read


def add_project_options(parser: argparse.ArgumentParser, use: str) -> None:
    """Add the options that name the project and its virtualenv; `use` says what that is for."""
    parser.add_argument("-C", "--directory", metavar="DIR", default=argparse.SUPPRESS,
                        help="work as if started in DIR")
    parser.add_argument("--venv", metavar="DIR", default=argparse.SUPPRESS,
                        help=f"{use} this virtualenv instead of the active one")


def add_host_command(commands: Subparsers) -> None:
    """Add the command host."""
    parser = commands.add_parser("host", help="take pushes here: the other end of git push")
    parser.set_defaults(run=host)
    option = parser.add_argument
    option("name", metavar="NAME", nargs="?",
           help="the project: NAME.git takes its pushes, NAME is its site; without it: list the projects")
    option("-C", "--directory", metavar="DIR", default=argparse.SUPPRESS, help="work as if started in DIR")
    option("--url", metavar="URL", help="where visitors find the site: asked and shown after each push")
    option("--hook", nargs="+", help=argparse.SUPPRESS)  # a hook of git's calls, with its arguments
    option("--closed", action="store_true", help=argparse.SUPPRESS)  # on a machine of one's own: suexec
    option = parser.add_argument_group("on a machine of one's own (root, Debian)").add_argument
    option("--domain", metavar="NAME", action="append", default=[],
           help="make a user and an Apache site, for this domain (repeatable)")
    option("--key", metavar="FILE", action="append", default=[],
           help="let those who have the keys of a file push, and log in (repeatable)")
    option("--revoke", metavar="FILE", action="append", default=[],
           help="take the keys of a file away again")
    option("--database", action="store_true", help="make a MariaDB database (DB_HOST ... in [replace])")
    option("--restore", metavar="FILE", help="put what the archive of a removed project holds there")
    option("--remove", action="store_true", help="take the project off the machine, into an archive")


def add_commands(commands: Subparsers) -> None:
    """Add the commands, each with its own options."""
    parser = commands.add_parser("check", help="tell whether this project would deploy")
    parser.set_defaults(run=check)
    parser.add_argument("--timeout", metavar="SECONDS", default=ANSWER_SECONDS,
                        type=number_type(float, 86400, "a number of seconds"),
                        help="how long the application may take to answer (30)")
    parser.add_argument("--fresh", action="store_true",
                        help="ask in a new virtualenv made from req.txt, as the server would make it")
    add_project_options(parser, "compare with")
    parser = commands.add_parser("serve", help="serve this project on 127.0.0.1 as a host would")
    parser.set_defaults(run=serve)
    parser.add_argument("--port", metavar="PORT", default=8000,
                        type=number_type(int, 65535, "the number of a port"),
                        help="the port to listen on (8000)")
    add_project_options(parser, "run the application in")
    add_host_command(commands)
    parser = commands.add_parser("demo", help="build a small example and run all of this on it")
    parser.set_defaults(run=demo)
    parser.add_argument("demo_directory", metavar="DIR", nargs="?", default="flaskflex-demo",
                        help="the folder to build it in (flaskflex-demo); it must not exist yet")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: its help is the module's docstring, around the options."""
    description, title, epilog = (__doc__ or "").partition("Exit status:")
    parser = argparse.ArgumentParser(prog="flaskflex", description=description, epilog=title + epilog,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(run=prepare)
    option = parser.add_argument
    option("--version", action="version", version=f"flaskflex {__version__}")
    option("-C", "--directory", metavar="DIR", default=".", help="work as if started in DIR")
    option("--venv", metavar="DIR",
           help="freeze this virtualenv instead of the active one; with -n too its Python is run")
    option("--exclude", metavar="NAME", action="append", default=[],
           help="leave a package out of req.txt, and what only it needs (repeatable; remembered there)")
    option("-n", "--dry-run", action="store_true",
           help="show what would change, as a unified diff; write nothing, fetch nothing")
    option("-f", "--force", action="store_true",
           help="replace files that flaskflex would otherwise leave alone")
    option("--no-commit", action="store_true", help="write the files; leave staging and committing to you")
    option("-m", "--message", metavar="TEXT", default="Prepare for deployment with flaskflex",
           help="the commit's message")
    option("-q", "--quiet", action="store_true", help="say nothing but errors")
    add_commands(parser.add_subparsers(dest="command", metavar="[check|serve|host|demo]", title="commands"))
    return parser


def parse_arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the options that were given; raise SystemExit if they are wrong, or ask for a text only."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
        of_main = ["exclude", "dry_run", "force", "no_commit", "message"]  # argparse takes these anywhere
        if options.command not in ("check", "serve"):
            of_main.append("venv")
        for name in of_main if options.command else ():
            if getattr(options, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')} is no option of the command {options.command}")
        if not options.message.strip():
            parser.error("--message needs a text")
    except SystemExit:
        sys.stdout.flush()  # whoever was to read the help may be gone: main() deals with that
        raise
    return options


def prepare_process() -> None:
    """Make the process quick, and independent of what surrounds it: streams, PATH, the variables of git."""
    gc.disable()  # a run leaves hardly any garbage, and to look for it takes an eighth of its time
    atexit.register(gc.freeze)  # at its end, Python looks once more at all that is not frozen
    # A stream that was closed (>&-) is None: then what we print goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):  # by lines, so that facts and errors come in their order
        stream.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    for name in GIT_VARIABLES:
        os.environ.pop(name, None)
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)  # "." or "" would run a project's own git
    os.environ["PATH"] = os.pathsep.join(folder for folder in folders if os.path.isabs(folder))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run flaskflex with command-line arguments, those of the process by default; return the exit status."""
    prepare_process()
    report = Report()
    try:
        options = parse_arguments(argv)
        report.quiet = options.quiet
        catch_signals()
        status: int = options.run(options, report)
        sys.stdout.flush()
        return status
    except Failure as failure:
        report.error(str(failure), failure.hint)
        return 1
    except OSError as error:
        if error.filename is None:  # it is our own output that cannot be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else its reader has heard enough, as in `... -n | head`
            report.error(str(error), "Fix that, and run flaskflex again.")
        return 1
    except KeyboardInterrupt:
        print("flaskflex: interrupted", file=sys.stderr)
        return 130


# --- the templates: edit them in templates/, then run `cog -r flaskflex.py` ---

# [[[cog
# import pathlib
# import cog
#
# for constant, name in (("FLX", "flx"), ("HTACCESS", "htaccess"), ("DISPATCH_FCGI", "dispatch.fcgi"),
#                        ("APACHE_CONF", "apache.conf"), ("HOOK", "hook"),
#                        ("APACHE_SITE", "apache-site.conf"), ("APACHE_DEFAULT", "apache-default.conf"),
#                        ("LOGROTATE", "logrotate.conf")):
#     text = pathlib.Path("templates", name).read_bytes().decode("utf-8")
#     assert "'''" not in text and "\r" not in text and text.endswith("\n"), f"{name} cannot be embedded"
#     cog.out(f"{constant} = r'''{text}'''\n\n")
# ]]]
FLX = r'''# What the host does with this project after each push, from the top of the
# project. Written by flaskflex: change what you like, it keeps your changes.

[setup]
# On the first push: a virtualenv of the project's own.
python3 -m venv .venv

[deploy]
# On every push: install what req.txt names, then swap dispatch.fcgi for a copy
# of itself. Apache sees another file and starts it, and the new code is live.
.venv/bin/python -m pip install -r req.txt
cp -p public_html/dispatch.fcgi public_html/.dispatch.fcgi.new
mv -f public_html/.dispatch.fcgi.new public_html/dispatch.fcgi

[permission]
# Apache runs the script only if its owner alone may write it and its folder.
public_html 755
public_html/dispatch.fcgi 755
'''

HTACCESS = r'''# Hand every request that is not a file in this folder to dispatch.fcgi.
# Written by flaskflex: change what you like, it keeps your changes.

# Of all files only dispatch.fcgi may be a program, whatever the server's own
# settings say of names like photo.fcgi.jpg.
Options -ExecCGI
RemoveHandler .fcgi
<Files "dispatch.fcgi">
    Options +ExecCGI
</Files>

# Apache keeps passwords from programs; an application that has logins of its
# own needs to see this header.
SetEnvIf Authorization "(.+)" HTTP_AUTHORIZATION=$1

RewriteEngine On

# Nobody may read names that begin with a dot, such as .env or .git.
RewriteRule (^|/)\.(?!well-known(/|$)) - [F]

# Nobody may ask for a dispatch.fcgi by its name: only the last rule leads to
# the one in this folder, and then mod_fcgid starts it and talks to it.
RewriteCond %{ENV:REDIRECT_STATUS} ^$
RewriteCond %{REQUEST_FILENAME} -f
RewriteRule (^|/)dispatch\.fcgi(/|$) - [R=404,L]
RewriteRule ^dispatch\.fcgi/ - [H=fcgid-script,L]

# Whatever is not a file goes to dispatch.fcgi, and the path that was asked for
# goes with it, beside the URL, where nothing decodes it a second time.
RewriteCond %{REQUEST_FILENAME} !-f
RewriteRule ^ dispatch.fcgi/ [E=FLX_PATH:%{REQUEST_URI},L]
'''

DISPATCH_FCGI = r'''#!/usr/bin/env python3
"""Serve the Flask application in application/ to Apache, over FastCGI.

Written by flaskflex: change what you like, it keeps your changes.
"""
import errno
import fcntl
import os
import re
import signal
import socket
import sys
import traceback
from urllib.parse import unquote

HERE = os.path.abspath(__file__)
PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
APPLICATION = os.path.join(PROJECT, "application")
STARTED, ENVIRON = os.stat(HERE), dict(os.environ)

# Apache's mod_fcgid starts this file with a listening socket as standard input.
try:
    listener = socket.socket(fileno=os.dup(0))
    started_by_apache = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
except OSError:
    started_by_apache = False
if not started_by_apache:
    sys.exit("dispatch.fcgi is for Apache to start; by hand, type: flask --app application/app.py run")

# Wait while a deploy is under way: as long as it lasts, the host locks the project's folder.
try:
    lock = os.open(PROJECT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
except OSError:
    lock = None  # a file system without locks, or a folder that we may not read

# Go on in the project's own virtualenv, where the packages of req.txt are.
python = os.path.join(PROJECT, ".venv", "bin", "python")
if sys.prefix == sys.base_prefix and os.path.exists(python):
    os.execv(python, [python, HERE])
from flup.server.fcgi_single import WSGIServer  # noqa: E402 (the virtualenv has it)

# Read .env and .flaskenv and find the application, as "flask run" does in the folder application.
failure = b""
try:
    os.chdir(APPLICATION)
    sys.path.append(PROJECT)
    from flask.cli import ScriptInfo, load_dotenv
    os.environ["FLASK_DEBUG"] = "0"  # whatever .flaskenv says: visitors are no developers
    load_dotenv()
    os.chdir(APPLICATION)  # Flask 1.1 went to where .env is
    application = ScriptInfo("wsgi.py" if os.path.isfile("wsgi.py") else "app.py").load_app()
except BaseException:  # sys.exit() too
    failure = traceback.format_exc().encode(errors="backslashreplace")
if lock:
    fcntl.flock(lock, fcntl.LOCK_UN)


def answer(environ, start_response):
    """Call the application with the path that was asked for, which .htaccess passes on."""
    if failure:  # the reason goes to the error log, and the next request to a process that tries again
        listener.shutdown(socket.SHUT_RD)
        environ["wsgi.errors"].write(failure)
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"Internal Server Error\n"]
    path = environ.get("REDIRECT_FLX_PATH")
    if path:
        # Some servers leave %2F as it is, and only what was typed tells it from %252F.
        typed = unquote(re.sub("^[^/]+//[^/]*", "", environ["REQUEST_URI"].split("?")[0]), "latin-1")
        if re.sub("(?i)%2f", "/", typed) == re.sub("(?i)%2f", "/", path):
            path = typed
        environ["SCRIPT_NAME"] = environ["SCRIPT_NAME"].rpartition("/")[0]  # as Apache knows this folder
        environ["PATH_INFO"] = "/" + path.removeprefix(environ["SCRIPT_NAME"]).lstrip("/")
    return application(environ, start_response)


class Server(WSGIServer):
    """Make way for new code when this file is touched or replaced."""

    def _mainloopPeriodic(self):  # flup calls this after each request and every second
        try:
            now = os.stat(HERE)
        except OSError:
            return  # it is being replaced at this very moment
        if failure or (now.st_dev, now.st_ino) != (STARTED.st_dev, STARTED.st_ino):
            listener.shutdown(socket.SHUT_RD)  # serve who waits, and then end: Apache starts the new file
        elif now.st_mtime_ns != STARTED.st_mtime_ns:
            os.execve(sys.executable, [sys.executable, HERE], ENVIRON)  # touched: anew, on the same socket


try:
    Server(answer).run()
except OSError as error:
    if error.errno != errno.EINVAL:  # shut down, and nobody waits any more
        raise
signal.alarm(3)  # threads of the application that never end would keep this process
'''

APACHE_CONF = r'''# An Apache of one project's own, for the user who starts it: flaskflex serve and
# check run it. It listens on this machine only. All its files are in one folder,
# FLASKFLEX_FOLDER, where public_html leads to that of the project, so that
# nothing in here has to be quoted and mod_fcgid meets no path with a space.
ServerName localhost
ServerRoot "${FLASKFLEX_FOLDER}"
DefaultRuntimeDir "${FLASKFLEX_FOLDER}"
PidFile apache.pid
Mutex file:${FLASKFLEX_FOLDER} default
Listen 127.0.0.1:${FLASKFLEX_PORT}

# The modules that a host has, and those that are enabled on this machine.
Include modules.conf
IncludeOptional /etc/apache2/mods-enabled/*.load
TypesConfig /etc/mime.types
Suexec Off

# One line for each error and each request, to whoever started this Apache.
ErrorLog /dev/stdout
ErrorLogFormat "[%-m:%l] %E: %M"
LogLevel warn
<IfDefine REQUESTS>
    CustomLog /dev/stdout "%{%H:%M:%S}t %m %<U%<q %>s (%{ms}T ms)"
</IfDefine>

# The program dispatch.fcgi. It may take as long as it likes, and large uploads.
FcgidIPCDir "${FLASKFLEX_FOLDER}/fcgid"
FcgidProcessTableFile "${FLASKFLEX_FOLDER}/fcgid-processes"
FcgidIOTimeout 86400
FcgidBusyTimeout 86400
FcgidMaxRequestLen 1073741824
FcgidInitialEnv PATH "${PATH}"
FcgidInitialEnv PYTHONPATH "${PYTHONPATH}"
FcgidInitialEnv PYTHONDONTWRITEBYTECODE 1
FcgidInitialEnv FLASKFLEX_FOLDER "${FLASKFLEX_FOLDER}"
# Git finds no repository that only holds the folder of the project.
FcgidInitialEnv GIT_CEILING_DIRECTORIES "${FLASKFLEX_FOLDER}/above"

# The document root, with what a project's .htaccess may say on a host, and the
# path for the application as it was asked for: a%2Fb, a//b.
<Directory />
    Options FollowSymLinks
    AllowOverride None
    Require all denied
</Directory>
DocumentRoot "${FLASKFLEX_FOLDER}/public_html"
AllowEncodedSlashes NoDecode
MergeSlashes Off
<Directory "${FLASKFLEX_FOLDER}/public_html">
    Options SymLinksIfOwnerMatch
    AllowOverride FileInfo Options=ExecCGI,SymLinksIfOwnerMatch
    Require all granted
</Directory>
'''

HOOK = r'''#!/bin/sh
# Take what is pushed: git calls this script as update, reference-transaction
# and post-receive. Written by flaskflex host, and renewed by it.
#
# Git calls it in the repository, and often. Only if there is work is Python
# started, on the copy of flaskflex.py that lies here, with the standard library
# alone (-I -S): the packages of the host's Python take longer to set up.

umask 022  # whatever the pusher's own is: Python keeps what it has compiled
read -r _ branch <HEAD  # "ref: refs/heads/main"

flaskflex() {
    python=$(git config flaskflex.python)
    if ! command -v "$python" >/dev/null; then
        echo "flaskflex: error: the host has no $python any more" >&2
        echo "Run there: python3 flaskflex.py host $(basename "$PWD" .git)" >&2
        exit 1
    fi
    exec "$python" -I -S -c 'import sys
sys.path.insert(0, "flaskflex")
import flaskflex
sys.exit(flaskflex.main(["host", "--hook", *sys.argv[1:]]))' "$@"
}

case ${0##*/} in
update)  # called with a ref, its old and its new commit: may refuse the push
    flaskflex update "$@" ;;
reference-transaction)  # called with a state, and lines of OLD NEW REF: the branch has moved
    if test "$1" = committed; then
        while read -r _ new ref; do
            if test "$ref" = "$branch"; then
                trap '' HUP
                flaskflex live "$new" </dev/null >/dev/null 2>&1 &
            fi
        done
    fi ;;
post-receive)  # called with lines of OLD NEW REF, if the pusher is still there
    while read -r _ new ref; do
        if test "$ref" = "$branch"; then
            flaskflex watch "$new" </dev/null
        fi
    done ;;
esac
'''

APACHE_SITE = r'''# The site of one project, for Apache. Written by flaskflex host: change what you
# like, it keeps your changes, and with --domain replaces the names only.

<VirtualHost *:80>
    ServerName yourprojectname.example.org
    DocumentRoot /var/www/yourprojectname/yourprojectname/public_html

    # Root's folder, which the project can read and not write.
    ErrorLog /var/log/flaskflex/yourprojectname/error.log
    CustomLog /var/log/flaskflex/yourprojectname/access.log combined

    # Programs run as the project's own user. None runs while nobody visits.
    SuexecUserGroup yourprojectname yourprojectname
    FcgidMinProcessesPerClass 0
    FcgidMaxProcessesPerClass 8
    FcgidIdleTimeout 300
    FcgidIOTimeout 120
    FcgidMaxRequestLen 134217728

    # The application sees the path as it was asked for: a%2Fb, a//b.
    AllowEncodedSlashes NoDecode
    MergeSlashes Off

    # .htaccess may name programs and rewrite paths. No link leads to another
    # user's files, whatever it says.
    <Directory /var/www/yourprojectname>
        Options SymLinksIfOwnerMatch
        AllowOverride FileInfo Options=ExecCGI,SymLinksIfOwnerMatch
        Require all granted
    </Directory>

    <If "! -d '/var/www/yourprojectname/yourprojectname/public_html'">
        ErrorDocument 503 "This site waits for its first git push.\n"
        RedirectMatch 503 "^/(?!\.well-known/acme-challenge/)"
    </If>
</VirtualHost>
'''

APACHE_DEFAULT = r'''# What the sites of all projects have in common. Written by flaskflex host, once:
# change what you like.

# For names that no project has: Apache takes the first site that it reads.
<VirtualHost *:80>
    ServerName flaskflex.invalid
    ErrorDocument 404 "There is no site of this name here.\n"
    Redirect 404 /
</VirtualHost>

# The same for https, with the certificate that Debian's package ssl-cert makes.
<IfModule ssl_module>
    <IfFile "/etc/ssl/certs/ssl-cert-snakeoil.pem">
        <VirtualHost *:443>
            ServerName flaskflex.invalid
            SSLEngine On
            SSLCertificateFile /etc/ssl/certs/ssl-cert-snakeoil.pem
            SSLCertificateKeyFile /etc/ssl/private/ssl-cert-snakeoil.key
            ErrorDocument 404 "There is no site of this name here.\n"
            Redirect 404 /
        </VirtualHost>
    </IfFile>
</IfModule>

# How often idle programs are looked for, in seconds.
FcgidIdleScanInterval 30

# Any .htaccess can ask for the server's status: it tells no neighbour's requests.
<IfModule status_module>
    ExtendedStatus Off
</IfModule>
'''

LOGROTATE = r'''# The logs of all projects. Written by flaskflex host, once: change what you like.
/var/log/flaskflex/*/*.log {
    daily
    rotate 14
    missingok
    notifempty
    compress
    delaycompress
    sharedscripts
    postrotate
        /usr/sbin/apache2ctl graceful >/dev/null 2>&1 || true
    endscript
}
'''

# [[[end]]]

TEMPLATES = {
    ".flx": FLX,
    "public_html/.htaccess": HTACCESS,
    "public_html/dispatch.fcgi": DISPATCH_FCGI,
}

if __name__ == "__main__":
    raise SystemExit(main())
