#!/usr/bin/env python3
"""Prepare a Flask project for deployment by git push, in one run of one file.

    python flaskflex.py [options]          prepare this project for deployment
    python flaskflex.py check [options]    tell whether this project would deploy
    python flaskflex.py host [NAME]        take pushes here: the other end of git push
    python flaskflex.py demo [DIR]         build a small example in DIR and run all of the above on it

Run it inside the git clone of a project, with the application's virtualenv active. It writes four
files, commits exactly these, and touches nothing else:

    .flx                        what the host runs when the project is pushed
    public_html/.htaccess       hands every request that is not a file to dispatch.fcgi
    public_html/dispatch.fcgi   serves application/app.py over FastCGI
    req.txt                     the virtualenv, frozen

Run it again whenever the virtualenv has changed. What you edit in the first three files is kept,
and so is what you write at the end of req.txt. Where flaskflex cannot go on without losing something
of yours it changes nothing, and says what to do.

Staging and committing are done with GitPython. Where that is not installed, flaskflex fetches it into
a cache of its own, and your virtualenv stays as it is.

Exit status: 0 done, or nothing to do; 1 it could not; 2 wrong usage; 130 interrupted.
"""
from __future__ import annotations  # flaskflex needs Python 3.9 or newer

import sys

OLDEST_PYTHON: tuple[int, int] = (3, 9)  # flaskflex needs Python 3.9 or newer
if sys.version_info < OLDEST_PYTHON:
    sys.exit("flaskflex: error: Python 3.9 or newer is needed, and this is %d.%d" % sys.version_info[:2])

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
import errno
import itertools
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import (TYPE_CHECKING, Callable, Iterable, Iterator, Mapping, NamedTuple, NoReturn, Optional,
                    Sequence)
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import socket

    import git

__version__ = "1.0.0"

Environ = Mapping[str, str]

# The pinned distributions are what was tested; releases before the floor have known security faults.
GITPYTHON_MIN = (3, 1, 60)
GITPYTHON_PINS = """\
GitPython==3.2.1 --hash=sha256:d66b0832aa8755c1a84892937282df0befb16c97e5a64aeebd68be9c5e323f53
gitdb==4.0.12 --hash=sha256:67073e15955400952c6565cc3e707c554a4eea2e428946f7a4c162fab9bd9bcf
smmap==5.0.3 --hash=sha256:c106e05d5a61449cf6ba9a1e650227ecfb141590d2a98412103ff35d89fc7b2f
typing_extensions==4.16.0 --hash=sha256:481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8
"""


# --- failure and report ---


class Failure(Exception):
    """What went wrong and how to go on: the one exception that reaches the user, caught in main()."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Refused(Exception):
    """Why one file or requirement will not do; all such reasons are gathered into one Failure."""


class Report:
    """Tells on standard output what a run does, one line a fact, with the words lined up."""

    COLOURS = {"warn": 33, "fail": 31}  # yellow and red; all else is green

    def __init__(self, *, quiet: bool, colour: bool) -> None:
        self.quiet = quiet
        self.colour = colour

    def fact(self, label: str, text: str) -> None:
        """A line such as `Project     /home/me/yourprojectname (branch main)`."""
        self._print(f"{label:<12}{text}")

    def item(self, verb: str, text: str, hint: str = "") -> None:
        """A line such as `   create   .flx` or `     fail   .flx is missing`, and its hint below."""
        shown = f"{verb:>9}"
        if self.colour:
            shown = f"\033[{self.COLOURS.get(verb, 32)}m{shown}\033[0m"
        self._print(f"{shown}   {text}")
        for line in hint.split("\n") if hint else ():
            self._print(f"{'':<12}  {line}")

    def warning(self, text: str) -> None:
        """A line on standard error: something is odd, and the run goes on."""
        if not self.quiet:
            print(f"flaskflex: warning: {text}", file=sys.stderr)

    def _print(self, line: str) -> None:
        if not self.quiet:
            print(line)


def plural(count: int, noun: str) -> str:
    """`1 package`, `7 packages`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def shell_line(*args: str) -> str:
    """Return a command as it can be pasted into a POSIX shell: every hint that shows one is built here.

    A name from the project (a branch, a file, a folder) may hold anything that a shell would obey.
    """
    return shlex.join(args)


# --- the virtualenv ---

# One of these is in each virtualenv: of venv, virtualenv and uv; of virtualenv before 20; of conda.
VIRTUALENV_MARKERS = ("pyvenv.cfg", "bin/activate", "Scripts/activate", "conda-meta")


class Virtualenv(NamedTuple):
    """A virtualenv: its folder, its interpreter, that one's version such as "3.11.7", who named it."""

    path: Path
    python: Path
    version: str
    source: str


def find_virtualenv(options: argparse.Namespace, environ: Environ, report: Report) -> Virtualenv:
    """The application's virtualenv: the one named by --venv, else the active one, else our interpreter's.

    Raises Failure where there is none, or where the one that was named is not a virtualenv.
    """
    folder = Path(options.directory).resolve()
    found = list(virtualenv_candidates(folder / options.venv if options.venv else None, environ))
    if not found:
        raise Failure("no virtualenv is active", activation_hint(folder))
    source, path = found[0]
    virtualenv = read_virtualenv(source, path)
    if re.search(r"^include-system-site-packages\s*=\s*true", read_pyvenv_cfg(path), re.MULTILINE):
        report.warning(f"{path} also sees the packages of the whole machine: req.txt leaves these out")
    for other_source, other in found[1:]:
        if not options.venv and other.resolve() != path.resolve():
            report.warning(f"taking the virtualenv of {source}, {path}, not that of {other_source}, {other}")
    return virtualenv


def virtualenv_candidates(named: Optional[Path], environ: Environ) -> Iterator[tuple[str, Path]]:
    """Where to look for the virtualenv, in the order of precedence: (who says so, folder)."""
    if named is not None:
        yield "--venv", named
    if environ.get("VIRTUAL_ENV"):
        yield "VIRTUAL_ENV", Path(environ["VIRTUAL_ENV"]).absolute()
    # Installed by pipx or uv, flaskflex has a virtualenv of its own, which is not the application's.
    own = Path(sys.prefix)
    installed = any((folder / "flaskflex.py").exists() for folder in site_packages(own))
    if sys.prefix != sys.base_prefix and not installed:
        yield "the Python that runs flaskflex", own
    if environ.get("CONDA_PREFIX") and environ.get("CONDA_DEFAULT_ENV") != "base":
        yield "CONDA_PREFIX", Path(environ["CONDA_PREFIX"]).absolute()


def read_virtualenv(source: str, path: Path) -> Virtualenv:
    """The facts of the virtualenv in a folder; Failure where it is not one, or has lost its Python."""
    again = "Activate your application's virtualenv, or name it with --venv."
    if not path.is_dir():
        raise Failure(f"{source} names {path}, which is not there", again)
    if not any((path / sign).exists() for sign in VIRTUALENV_MARKERS):
        raise Failure(f"{source} names {path}, which is not a virtualenv", again)
    python = interpreter(path)
    if not python.exists():
        raise Failure(f"the virtualenv {path} has lost its Python",
                      f"Make it anew: python3 -m venv --clear {path}")
    return Virtualenv(path, python, python_version(path, python), source)


def interpreter(path: Path, windows: bool = os.name == "nt") -> Path:
    """Where the interpreter of the virtualenv in a folder lies."""
    if windows:
        conda = path / "python.exe"
        return conda if conda.exists() else path / "Scripts" / "python.exe"
    return path / "bin" / "python"


def site_packages(path: Path) -> list[Path]:
    """The folders that hold the distributions of the virtualenv in a folder."""
    return [*path.glob("lib/*/site-packages"), *path.glob("Lib/site-packages")]


def python_version(path: Path, python: Path) -> str:
    """The version of a virtualenv's Python: venv, virtualenv and uv note it in pyvenv.cfg, conda does not."""
    noted = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", read_pyvenv_cfg(path), re.MULTILINE)
    if noted:
        return noted[1]
    answer = subprocess.run([str(python), "-I", "-c", "import platform; print(platform.python_version())"],
                            capture_output=True)
    if answer.returncode:
        raise Failure(f"the Python of the virtualenv {path} does not run", error_text(answer.stderr))
    return answer.stdout.decode().strip()


def read_pyvenv_cfg(path: Path) -> str:
    """The text of a virtualenv's pyvenv.cfg, "" without one."""
    try:
        return (path / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def activation_hint(folder: Path, windows: bool = os.name == "nt") -> str:
    """How to activate a virtualenv: the one that the project around a folder holds, if it does."""
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)
    for place in (root / ".venv", root / "venv", root / "env"):
        if (place / "pyvenv.cfg").exists():
            command = str(place / "Scripts" / "activate")
            if not windows:
                command = f"source {shlex.quote(str(place / 'bin' / 'activate'))}"
            return f"Your project holds one; activate it: {command}"
    return ("Activate the one you use for your application (source PATH/bin/activate), or name it: "
            "python flaskflex.py --venv PATH")


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


def freeze_command(virtualenv: Virtualenv) -> list[str]:
    """The command that freezes a virtualenv, by its own pip if it has one: uv makes virtualenvs without."""
    isolated, freeze = ["-I", "-X", "utf8"], ["freeze", "--local"]
    if has_pip(virtualenv):
        return [str(virtualenv.python), *isolated, "-c", QUICK_PIP, *freeze]
    uv = shutil.which("uv")
    if uv:
        return [uv, "--no-config", "--no-cache", "pip", "freeze", "--python", str(virtualenv.python)]
    if installed_version("pip") >= (22, 3):  # the first that has --python
        return [sys.executable, *isolated, "-m", "pip", "--python", str(virtualenv.python), *freeze]
    return [str(virtualenv.python), *isolated, str(bundled_pip(virtualenv)), *freeze]


def has_pip(virtualenv: Virtualenv) -> bool:
    """True if pip is installed in a virtualenv."""
    return any((folder / "pip" / "__main__.py").exists() for folder in site_packages(virtualenv.path))


def installed_version(name: str) -> tuple[int, ...]:
    """The version of a distribution that this interpreter can import, such as (3, 2, 1); () without one."""
    from importlib import metadata

    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def bundled_pip(virtualenv: Virtualenv) -> Path:
    """The pip inside the wheel that Python keeps for ensurepip, which runs from there uninstalled."""
    with contextlib.suppress(ImportError):
        import ensurepip

        for folder in (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")):
            for wheel in folder.glob("pip-*.whl"):
                return wheel / "pip"
    raise Failure(f"there is no pip in {virtualenv.path}, and neither uv nor another pip to freeze it",
                  f"Install pip there: {virtualenv.python} -m ensurepip")


@contextlib.contextmanager
def freezing(virtualenv: Virtualenv) -> Iterator[subprocess.Popen[bytes]]:
    """Run pip freeze while the caller does everything else: it takes longer than all the rest.

    It is isolated (-I) from the project's files, and from the user's settings for pip, uv and Python, of
    which none is of use here. It ends with the block, whatever happens there.
    """
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith(("PIP_", "UV_", "PYTHON"))}
    environ["PIP_CONFIG_FILE"] = os.devnull
    with subprocess.Popen(freeze_command(virtualenv), env=environ, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing to a process that has ended


def frozen_lines(freeze: subprocess.Popen[bytes], virtualenv: Virtualenv) -> list[str]:
    """Wait for pip freeze, and give back the lines that it printed."""
    output, errors = freeze.communicate()
    if freeze.returncode:
        words = error_text(errors).rpartition("\n")[2]  # before these comes a traceback of pip's
        raise Failure(f"pip freeze failed in {virtualenv.path}", re.sub(r"://\S*", "://...", words))
    return output.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")


# --- the project ---

# Git sets these for its hooks; left alone they would lead away from the project that was asked for.
GIT_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)

NO_GIT = ("git is not installed", "Install it (on Debian: apt install git), and run flaskflex again.")

# What is under way while one of these exists in git's folder, and the command that ends it.
IN_PROGRESS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
}


class Project(NamedTuple):
    """A git work tree: its root, and where git keeps its index and its files."""

    root: Path
    index_file: Path


class Blob(NamedTuple):
    """A file as a commit holds it: mode such as "100644", object name, content."""

    mode: str
    id: str
    content: bytes


class Base(NamedTuple):
    """What flaskflex committed last: its template's fingerprint, and that text (None: it is not there)."""

    template: str
    content: Optional[bytes]


class Head(NamedTuple):
    """Where the project stands: its branch (None: detached), its commit (None: not one yet), our files.

    ignored are those of our paths that git does not have yet and that a .gitignore, or the like, names.
    """

    branch: Optional[str]
    commit: Optional[str]
    blobs: dict[str, Blob]
    ignored: set[str]


def run_git(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with `given` on its standard input; the caller looks at how it ended."""
    return subprocess.run(["git", "-C", str(folder), *arguments], input=stdin, capture_output=True)


def git_output(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """What git prints in answer to a question, or a Failure with git's own words."""
    answer = run_git(folder, *arguments, stdin=stdin)
    if answer.returncode:
        raise Failure(f"git {arguments[0]} failed in {folder}", error_text(answer.stderr))
    return answer.stdout


def error_text(stderr: bytes) -> str:
    """Git's own message, for the user to read."""
    return stderr.decode("utf-8", "backslashreplace").strip() or "git gave no reason"


def find_project(folder: Path) -> Project:
    """The git project that holds a folder, once it is known that flaskflex can commit there.

    Raises Failure where there is none, or where a commit made now would be a wrong one: during a merge
    git would record our files as the merge's result.
    """
    if not shutil.which("git"):
        raise Failure(*NO_GIT)
    if not folder.is_dir():
        raise Failure(f"{folder} is not a folder", "Name the clone of your project after -C.")
    answer = run_git(folder, *project_questions())
    lines = os.fsdecode(answer.stdout).split("\n")
    if lines[0] == "true":
        raise Failure(f"{folder} is a bare repository, without files to prepare",
                      "Clone it, and run flaskflex in the clone.")
    if answer.returncode:
        fail_no_work_tree(folder, answer.stderr)
    _, index, *signs = lines[:2 + len(IN_PROGRESS)]
    root = "\n".join(lines[2 + len(IN_PROGRESS):-1])  # comes last: a path may hold a line break
    for sign, activity in zip(signs, IN_PROGRESS.values()):
        if (folder / sign).exists():
            raise Failure(f"a {activity} is under way in {root}",
                          f"Finish it (git {activity} --continue) or give it up (git {activity} --abort), "
                          "and run flaskflex again.")
    return Project(Path(root), Path(os.path.abspath(folder / index)))


def project_questions() -> list[str]:
    """The one call of git that tells all that find_project needs."""
    questions = ["rev-parse", "--is-bare-repository", "--git-path", "index"]
    for name in IN_PROGRESS:
        questions += ["--git-path", name]
    return questions + ["--show-toplevel"]


def fail_no_work_tree(folder: Path, stderr: bytes) -> NoReturn:
    """Say why git finds no work tree at a folder: there is none, or git will not open it."""
    absolute = folder.resolve()
    if any((parent / ".git").exists() for parent in (absolute, *absolute.parents)):
        raise Failure(f"git does not open the repository of {absolute}", error_text(stderr))
    raise Failure(f"{absolute} is not in a git repository",
                  "Clone your project, and run flaskflex in the clone. (git init makes a new repository.)")


def check_identity(project: Project) -> None:
    """Raise Failure where git does not know as whom to commit, before anything is written."""
    for variable in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        answer = run_git(project.root, "var", variable)
        if answer.returncode:
            raise Failure("git does not know who you are, so it cannot commit", error_text(answer.stderr))


def head_commit(project: Project) -> str:
    """The object name of the commit that HEAD is at, "" where there is none yet."""
    answer = run_git(project.root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    return answer.stdout.decode().strip()


def read_head(project: Project) -> Head:
    """Where HEAD stands, and how it holds our files."""
    branch = os.fsdecode(run_git(project.root, "symbolic-ref", "--quiet", "--short", "HEAD").stdout)
    commit = head_commit(project)
    blobs = read_blobs(project, commit, FILES) if commit else {}
    ignored = os.fsdecode(run_git(project.root, "check-ignore", "--", *FILES).stdout).splitlines()
    return Head(branch.rstrip("\n") or None, commit or None, blobs, set(ignored))


def read_blobs(project: Project, commit: str, paths: Iterable[str]) -> dict[str, Blob]:
    """The files among `paths` that a commit holds."""
    blobs = {}
    listing = git_output(project.root, "ls-tree", "-z", commit, "--", *paths)
    for path, (mode, name) in read_tree(listing).items():
        if mode.startswith("100"):  # a file, not a folder, a symbolic link or a submodule
            blobs[path] = Blob(mode, name, git_output(project.root, "cat-file", "blob", name))
    return blobs


def read_tree(listing: bytes) -> dict[str, tuple[str, str]]:
    """Path to (mode, object name), from what `git ls-tree -z` prints."""
    entries = {}
    for entry in os.fsdecode(listing).split("\0")[:-1]:
        facts, path = entry.split("\t", 1)
        mode, _, name = facts.split(" ")
        entries[path] = (mode, name)
    return entries


def head_has_path(path: str, project: Project, head: Head) -> bool:
    """True if HEAD has a file or folder at a path, which must not lead out of the project."""
    normal = os.path.normpath(path)
    if head.commit is None or os.path.isabs(normal) or normal.startswith(".."):
        return False
    return normal == "." or bool(git_output(project.root, "ls-tree", head.commit, "--", normal))


def find_base(project: Project, head: Head, path: str) -> Optional[Base]:
    """What flaskflex itself committed last at a path: git is its memory. None where it never did.

    The newest commit of flaskflex's that is in the history of HEAD and touched the path tells the template.
    It may hold a merge with the user's edits, or have been amended: then an older one gives the content.
    """
    template = ""
    for commit, message in flaskflex_commits(project, head, path):
        told = re.findall(rf"^{TEMPLATE_TRAILER}: {re.escape(path)} (\w+)$", message, re.MULTILINE)
        if not told:
            continue
        template = template or told[-1]
        blob = read_blobs(project, commit, [path]).get(path)
        if blob and fingerprint(blob.content.decode("utf-8", "surrogateescape")) == told[-1]:
            return Base(template, blob.content)
    return Base(template, None) if template else None


def flaskflex_commits(project: Project, head: Head, path: str) -> Iterator[tuple[str, str]]:
    """The commits of flaskflex's that touched a path, the newest first: (object name, message)."""
    if head.commit is None:
        return
    found = git_output(project.root, "rev-list", "--full-history", "--format=%B%x00",
                       f"--grep=^{VERSION_TRAILER}: [0-9]",
                       head.commit, "--", path).decode("utf-8", "replace")
    shallow = project.index_file.with_name("shallow")
    cut = shallow.read_text() if shallow.exists() else ""
    for heading, _, message in (entry.strip().partition("\n") for entry in found.split("\0")[:-1]):
        commit = heading.split()[1]  # `commit 0123abc...`
        if commit in cut:  # where a shallow clone begins: there a commit seems to touch all files
            return
        yield commit, message


# --- req.txt ---

FLUP = "flup==1.0.3"  # what dispatch.fcgi imports to speak FastCGI
FLUP_PINS = f"{FLUP} --hash=sha256:ca9fd78e1cc0431da1236f73fafd1c01db684675b4d369460d5f5c62e6f0b8d6\n"

# The last line of the frozen part. The fingerprint tells whether somebody edited what stands above it.
MARKER = "# --- frozen above ({fingerprint}); your own lines go below, and stay ---\n"
MARKER_LINE = re.compile(r"^# --- frozen above \(([0-9a-f]{12})\).*\n?", re.MULTILINE)

# What pip freeze prints for a distribution. A damaged or hostile one could put anything else in its place.
REQUIREMENT_LINE = re.compile(r"(?:[A-Za-z0-9][\w.-]*(?:===?[\w.!+-]+| @ [a-z][!-~]*)|-e [^\x00-\x1f]+)")
EDITABLE_LINE = re.compile(r"-e [a-z+]+://[!-~]+#egg=[A-Za-z0-9][\w.-]*(?:&subdirectory=[!-~]+)?")

# How a requirement begins that is not an address or an option: with a name (PEP 508).
NAME = re.compile(r"([A-Za-z0-9][\w.-]*)\s*([@<>=!~;\[( ]|$)")

NOT_DEPLOYABLE = "Publish such a package, copy it into the project, or leave it out (--exclude NAME)."


class Requirement(NamedTuple):
    """One line of req.txt, and the name of the distribution that it asks for."""

    name: str
    line: str


class Refusal(NamedTuple):
    """What req.txt must not hold: a distribution's canonical name, and what to tell the user of it."""

    name: str
    words: str


class RequirementsFile(NamedTuple):
    """A req.txt of flaskflex's: the frozen part, whether nobody edited that, and the user's own lines."""

    frozen: str
    intact: bool
    own: str


def canonical(name: str) -> str:
    """A distribution's name as the package index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirements(lines: Iterable[str]) -> list[Requirement]:
    """The requirements among the lines of a pip freeze or a req.txt.

    pip freeze names an editable install without version control only in the comment above it.
    """
    requirements = []
    commented = ""
    for line in map(str.strip, lines):
        if line.startswith("#"):
            remark = re.search(r"\(([\w.-]+)==", line)
            commented = remark[1] if remark else commented
        elif line:
            named = NAME.match(line) or re.search(r"[#&]egg=([\w.-]+)", line)
            requirements.append(Requirement(named[1] if named else commented, line))
            commented = ""
    return requirements


def require_installable(requirements: Sequence[Requirement], virtualenv: Virtualenv, project: Project,
                        excluded: Sequence[str], report: Report) -> list[Requirement]:
    """The requirements as the server can install them.

    Raises Failure with all those that it could not install, or that would give a secret away.
    """
    names = set(by_name(requirements))
    left_out = {canonical(name) for name in excluded}
    for name in sorted(left_out - names):
        report.warning(f"--exclude {name}: {virtualenv.path} holds no such package")
    kept, refused = split_installable(requirements, virtualenv, project, left_out, report)
    if refused:
        reasons = "; ".join(refusal.words for refusal in refused)
        raise Failure(f"req.txt would not do on the server: {reasons}", NOT_DEPLOYABLE)
    return kept


def split_installable(requirements: Sequence[Requirement], virtualenv: Virtualenv, project: Project,
                      left_out: set[str], report: Report) -> tuple[list[Requirement], list[Refusal]]:
    """What the server can install, and what it cannot."""
    left_out = left_out | auto_excluded(requirements, virtualenv, report)
    kept, refused = [], []
    for requirement in requirements:
        name = canonical(requirement.name)
        if name in left_out:
            continue
        try:
            kept.append(resolve_requirement(requirement, virtualenv, project))
        except (Refused, ValueError) as error:
            unreadable = "is installed from an address that cannot be read"
            reason = error if isinstance(error, Refused) else unreadable
            refused.append(Refusal(name, f"{display_name(requirement)} {reason}"))
    if "flask" not in by_name(kept):
        report.warning(f"there is no Flask in {virtualenv.path}: is this the right virtualenv?")
    return kept, refused


def display_name(requirement: Requirement) -> str:
    """A requirement's name, or else of its line what holds no secret."""
    return requirement.name or ascii(requirement.line.split("://")[0])


# flaskflex, and what it brings with it: the requirements of its own distribution, all the way down.
FLASKFLEX_NEEDS = ("flaskflex", "gitpython", "gitdb", "smmap", "typing-extensions")


def auto_excluded(requirements: Sequence[Requirement], virtualenv: Virtualenv,
                  report: Report) -> set[str]:
    """The canonical names of what never belongs into req.txt, each of which the report tells."""
    lines = by_name(requirements)
    unwanted = needed_only_by_flaskflex(virtualenv) & lines.keys() if "flaskflex" in lines else set()
    if lines.get("pkg-resources", "").endswith("==0.0.0"):  # pip issue 4022
        unwanted.add("pkg-resources")
    if unwanted:
        report.warning(f"left out of req.txt, not the application's: {', '.join(sorted(unwanted))}")
    return unwanted


def needed_only_by_flaskflex(virtualenv: Virtualenv) -> set[str]:
    """The canonical names of flaskflex and of what is in a virtualenv for its sake alone.

    What the user installed by name (pip notes that as REQUESTED) is not, nor what anything else may need.
    """
    from importlib import metadata

    needs: dict[str, set[str]] = {}
    requested = set()
    folders = [str(folder) for folder in site_packages(virtualenv.path)]
    for distribution in metadata.distributions(path=folders):
        name = canonical(distribution.metadata["Name"] or "")
        needs[name] = {canonical(re.split(r"[^\w.-]", need)[0]) for need in distribution.requires or ()}
        if distribution.read_text("REQUESTED") is not None:
            requested.add(name)
    brought = set(FLASKFLEX_NEEDS)
    others = (needs.keys() - brought) | (requested - {"flaskflex"})
    return brought - transitive_dependencies(others, needs)


def transitive_dependencies(names: Iterable[str], needs: Mapping[str, set[str]]) -> set[str]:
    """The names, all that these need, all that those need, and so on."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += needs.get(name, ())
    return found


def resolve_requirement(requirement: Requirement, virtualenv: Virtualenv,
                        project: Project) -> Requirement:
    """A requirement as the server can install it, with a path that is relative to the project's root.

    Raises Refused where the server could not, or must not be told.
    """
    if not REQUIREMENT_LINE.fullmatch(requirement.line):
        raise Refused("is not a requirement that pip would read again")
    folder = local_source_path(requirement, virtualenv)
    # What pip install -e git+... has cloned into the virtualenv is asked for by its address, as before.
    if folder is None or virtualenv.path.resolve() in folder.parents:
        if has_credentials(requirement.line):
            raise Refused("is installed from an address that holds a password or a token")
        if requirement.line.startswith("-e ") and not EDITABLE_LINE.fullmatch(requirement.line):
            raise Refused("is not a requirement that pip would read again")
        return requirement
    if project.root.resolve() not in folder.parents:
        place = str(folder) if str(folder).isprintable() else ascii(str(folder))
        raise Refused(f"is installed from {place}, outside the project")
    path = f"./{folder.relative_to(project.root.resolve()).as_posix()}"
    return requirement._replace(line=f"-e {shlex.quote(path)}" if requirement.line.startswith("-e") else path)


def local_source_path(requirement: Requirement, virtualenv: Virtualenv) -> Optional[Path]:
    """The folder or file of this machine that a requirement was installed from, None for all others.

    In a clone with an origin, pip freeze hides a local editable install behind the origin's address; only
    the distribution's direct_url.json (PEP 610) tells where it lies.
    """
    editable = requirement.line.startswith("-e ")
    address = requirement.line[3:] if editable else requirement.line.partition(" @ ")[2]
    if editable and "://" not in address:
        return local_path(address)
    if editable and not address.startswith("file:"):
        address = editable_source_url(requirement.name, virtualenv)
    if not address.startswith("file:"):
        return None
    return local_path(unquote(urlsplit(address).path, errors="surrogateescape"))


def local_path(text: str) -> Path:
    """The file that a text in UTF-8 names, whatever the locale makes of it."""
    return Path(os.path.realpath(os.fsdecode(text.encode("utf-8", "surrogateescape"))))


def editable_source_url(name: str, virtualenv: Virtualenv) -> str:
    """The file: address of an editable install, "" where nothing tells it.

    setup.py develop, which older pips used, leaves an .egg-link in the place of a direct_url.json.
    """
    import json
    from importlib import metadata

    folders = site_packages(virtualenv.path)
    for distribution in metadata.distributions(name=name, path=[str(folder) for folder in folders]):
        origin = distribution.read_text("direct_url.json")
        if origin:
            return str(json.loads(origin).get("url", ""))
    for link in (link for folder in folders for link in folder.glob("*.egg-link")):
        if canonical(link.stem) == canonical(name):
            return Path(link.read_text(encoding="utf-8").split("\n")[0]).as_uri()
    return ""


def has_credentials(line: str) -> bool:
    """True if a requirement's address holds what looks like a password or a token.

    A user name alone is none over ssh (git@host); over https it may be a token, and so may any query.
    """
    found = re.search(r"[A-Za-z][\w+.-]*://\S*", line)
    if found is None:
        return False
    address = urlsplit(found[0])
    user, at, _ = address.netloc.rpartition("@")
    return bool(address.query or ":" in user or (at and not address.scheme.endswith("ssh")))


def split_requirements(text: str) -> Optional[RequirementsFile]:
    """The parts of a req.txt that flaskflex wrote, or None where its marker line is not there."""
    marker = MARKER_LINE.search(text)
    if marker is None:
        return None
    frozen = text[:marker.start()]
    return RequirementsFile(frozen, marker[1] == fingerprint(frozen), text[marker.end():])


def render_requirements(requirements: Sequence[Requirement], version: str, own: str) -> bytes:
    """The text of req.txt: the frozen requirements, the marker line, the user's own lines."""
    lines = [f"# The application's virtualenv (Python {version}), frozen by flaskflex: edit nothing here.\n"]
    lines += [f"{requirement.line}\n" for requirement in requirements]
    frozen = "".join(lines)
    return (frozen + MARKER.format(fingerprint=fingerprint(frozen)) + own).encode("utf-8", "surrogateescape")


def fingerprint(text: str) -> str:
    """Twelve hexadecimal digits that change when the text does."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def add_flup(requirements: Sequence[Requirement], own: str) -> list[Requirement]:
    """The requirements, sorted as pip sorts them, and flup unless they or the user's own lines have it."""
    named = by_name([*requirements, *parse_requirements(own.split("\n"))])
    flup = [] if "flup" in named else [Requirement("flup", FLUP)]
    return sorted([*requirements, *flup], key=lambda requirement: requirement.name.lower())


def by_name(requirements: Iterable[Requirement]) -> dict[str, str]:
    """The lines of requirements by the canonical names of the distributions that they ask for."""
    return {canonical(requirement.name): requirement.line for requirement in requirements}


def count_changes(old: str, new: Sequence[Requirement]) -> str:
    """What a new freeze changes, such as `+2 -1 ~3`: requirements added, removed, changed."""
    before, after = by_name(parse_requirements(old.split("\n"))), by_name(new)
    changed = sum(before[name] != after[name] for name in before.keys() & after.keys())
    return f"+{len(after.keys() - before.keys())} -{len(before.keys() - after.keys())} ~{changed}"


# --- the files ---


class WorkTreeFile(NamedTuple):
    """A file as the work tree has it: content (None: no file) and permission bits."""

    content: Optional[bytes]
    mode: int


class Change(NamedTuple):
    """What is to become of one file.

    verb is create, update, merge, replace, keep or unchanged; before (None: no file) and after are its
    content, mode and new_mode its permission bits; note is for the report.
    """

    path: str
    verb: str
    before: Optional[bytes]
    after: bytes
    mode: int
    note: str = ""
    new_mode: int = 0

    @property
    def writes(self) -> bool:
        """True if the file is to be written."""
        return self.verb != "unchanged" and (self.before, self.mode) != (self.after, self.new_mode)


def read_work_tree_file(root: Path, path: str) -> WorkTreeFile:
    """How the work tree has the file at a path; Failure where something else is in its way.

    A symbolic link on the way is refused, since it may lead out of the work tree, git commits nothing
    behind one, and Apache's suexec starts no script through one.
    """
    for part in (root / path, *(root / path).parents):
        if part == root:
            break
        if part.is_symlink():
            raise Failure(f"{part} is a symbolic link, and flaskflex writes through none",
                          f"Put a real {'file' if part == root / path else 'folder'} in its place, "
                          "and run flaskflex again.")
        if part.exists() and not (part.is_file() if part == root / path else part.is_dir()):
            raise Failure(f"{part} is in the way: {path} is to be a file",
                          "Move it elsewhere, and run flaskflex again.")
    try:
        return WorkTreeFile((root / path).read_bytes(), (root / path).stat().st_mode & 0o7777)
    except FileNotFoundError:
        return WorkTreeFile(None, 0)


def plan_files(project: Project, head: Head, requirements: Sequence[Requirement], version: str,
               *, force: bool) -> list[Change]:
    """What is to become of each of the four files.

    Raises Failure with all those that are not flaskflex's to change, unless `force`.
    """
    changes, refused = [], []
    for path in FILES:
        found = read_work_tree_file(project.root, path)
        try:
            if path == "req.txt":
                change = plan_requirements(found, head.blobs.get(path), requirements, version, force=force)
            else:
                change = plan_template(path, found, project, head, force=force)
        except Refused as reason:
            refused.append(f"{path} {reason}")
        else:
            changes.append(with_target_mode(change))
    if refused:
        raise Failure("; ".join(refused),
                      "Nothing was changed. Rename such a file to keep it, or let --force replace it: "
                      "git then keeps its text, and flaskflex says where.")
    return changes


def plan_template(path: str, found: WorkTreeFile, project: Project, head: Head, *, force: bool) -> Change:
    """What is to become of a file that is made from a template, by the rules of a three-way merge.

    The base is what flaskflex committed last, the one side is the file, the other is the template.
    """
    template = TEMPLATES[path].encode()
    change = Change(path, "create", found.content, template, found.mode)
    if found.content is None:
        return change
    if is_up_to_date(found.content, template, head.blobs.get(path)):
        return change._replace(verb="unchanged")
    text = normalize_newlines(found.content)
    if text == template:
        return change._replace(verb="update", note="its line endings")
    base = find_base(project, head, path)
    newer = base is not None and base.template != fingerprint(TEMPLATES[path])
    if base and newer and base.content is not None:
        merged = template if text == base.content else merge_file(text, base.content, template)
        if merged is not None:
            return change._replace(verb="update" if merged == template else "merge", after=merged)
    if force:
        return change._replace(verb="replace")
    if base is None:
        raise Refused("is not flaskflex's, and differs from what flaskflex would write")
    if newer:
        raise Refused("has changes of yours that do not go together with this flaskflex's")
    return change._replace(verb="keep", after=found.content, note="with your changes")


def plan_requirements(found: WorkTreeFile, committed: Optional[Blob], requirements: Sequence[Requirement],
                      version: str, *, force: bool) -> Change:
    """What is to become of req.txt: frozen anew above the marker line, left alone below it."""
    text = decode(found.content or b"").replace("\r\n", "\n")
    old = split_requirements(text)
    own = old.own if old else ""
    new = add_flup(requirements, own)
    after = render_requirements(new, version, own)
    added = ", and flup to serve them" if len(new) > len(requirements) else ""
    change = Change("req.txt", "create", found.content, after, found.mode,
                    plural(len(requirements), "package") + added)
    if found.content is None:
        return change
    if is_up_to_date(found.content, after, committed):
        return change._replace(verb="unchanged", note="")
    change = change._replace(note=count_changes(old.frozen if old else text, new))
    content = normalize_newlines(found.content)
    if old and (old.intact or (committed and normalize_newlines(committed.content) == content)):
        return change._replace(verb="update")
    if force:
        return change._replace(verb="replace")
    if old:
        raise Refused("was edited above its marker line, and no commit holds that edit")
    raise Refused("is not flaskflex's, and differs from what flaskflex would write")


def with_target_mode(change: Change) -> Change:
    """A change with the file's new permission bits: as before, but executable where it must be.

    Nobody but the owner may write: Apache's suexec refuses a script otherwise. Windows has no such bits.
    """
    mode = (0o644 if change.before is None else change.mode) & ~0o022
    if change.path in EXECUTABLE:
        mode |= 0o111
    if change.verb == "unchanged" and mode != change.mode and os.name != "nt":
        return change._replace(verb="update", new_mode=mode, note="its permissions")
    return change._replace(new_mode=mode)


def is_up_to_date(content: bytes, wanted: bytes, committed: Optional[Blob]) -> bool:
    """True if a file needs no writing: git may have given it CRLF (core.autocrlf), and holds it with LF."""
    return content == wanted or (normalize_newlines(content) == wanted and committed is not None
                                 and committed.content == wanted)


def normalize_newlines(content: bytes) -> bytes:
    """A text with the line endings that every file of flaskflex's has."""
    return content.replace(b"\r\n", b"\n")


def decode(content: bytes) -> str:
    """A requirements file's text, whichever encoding it is in: PowerShell's `>` writes UTF-16."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return content.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")


def merge_file(ours: bytes, base: bytes, theirs: bytes) -> Optional[bytes]:
    """The text with both sides' changes to the base, by git merge-file; None where they conflict."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        names = ["ours", "base", "theirs"]
        for name, content in zip(names, (ours, base, theirs)):
            Path(folder, name).write_bytes(content)
        answer = run_git(Path(folder), "merge-file", "-p", *names)
    return None if answer.returncode else answer.stdout


def show_diff(changes: Sequence[Change]) -> None:
    """Print what would change as a unified diff in git's own form, which `git apply` takes."""
    import difflib

    for change in changes:
        if not change.writes:
            continue
        print(f"diff --git a/{change.path} b/{change.path}")
        if change.before is None:
            print(f"new file mode 100{change.new_mode:o}")
        elif change.mode != change.new_mode:
            print(f"old mode 100{change.mode:o}\nnew mode 100{change.new_mode:o}")
        # As bytes: a file may be in any encoding, and hold characters that only look like ends of lines.
        before, after = (re.findall(rb"[^\n]*\n|[^\n]+", text)
                         for text in (change.before or b"", change.after))
        source = "/dev/null" if change.before is None else f"a/{change.path}"
        sys.stdout.flush()
        for line in difflib.diff_bytes(difflib.unified_diff, before, after, source.encode(),
                                       f"b/{change.path}".encode()):
            end = b"" if line.endswith(b"\n") else b"\n\\ No newline at end of file\n"
            sys.stdout.buffer.write(line + end)
        sys.stdout.buffer.flush()


def save_replaced(project: Project, changes: Sequence[Change], report: Report) -> None:
    """Store what --force replaces in git's object store, and say how to see it again."""
    for change in changes:
        if change.verb == "replace" and change.before is not None:
            name = git_output(project.root, "hash-object", "-w", "--stdin", stdin=change.before)
            report.fact("Kept", f"the old {change.path}: git cat-file -p {name.decode().strip()}")


TEMP_PREFIX = ".flaskflex-"  # how the names of files begin that are still being written


def write_files(root: Path, changes: Sequence[Change]) -> None:
    """Write the files: each beside its place first, and only when all are whole, each into its place."""
    with contextlib.ExitStack() as undo:
        ready = []
        for change in changes:
            target = root / change.path
            if change.writes and change.before == change.after:
                target.chmod(change.new_mode)
            elif change.writes:
                make_folder(target.parent)
                unfinished = target.with_name(f"{TEMP_PREFIX}{os.getpid()}-{target.name}")
                undo.callback(unfinished.unlink, missing_ok=True)  # first: ^C may come at any moment
                unfinished.write_bytes(change.after)
                unfinished.chmod(change.new_mode)
                ready.append((unfinished, target))
        for unfinished, target in ready:
            os.replace(unfinished, target)


def make_folder(folder: Path) -> None:
    """Make a folder as Apache's suexec wants it: writable for its owner alone."""
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(0o755)


# --- GitPython ---


def open_repository(project: Project, virtualenv: Virtualenv, report: Report) -> git.Repo:
    """The project, ready to commit in, for the GitPython that is installed or for one of flaskflex's own."""
    check_identity(project)
    recover_killed_runs(project)
    with signals_deferred():
        installed = installed_version("GitPython")
    if installed < GITPYTHON_MIN:
        sys.path.insert(0, str(fetch("GitPython", GITPYTHON_PINS, virtualenv, report)))
    os.environ.pop("GIT_PYTHON_GIT_EXECUTABLE", None)  # GitPython is to run the git that we run
    with signals_deferred():
        import git

    return git.Repo(project.root, expand_vars=False)


def fetch(name: str, pins: str, virtualenv: Virtualenv, report: Report) -> Path:
    """A folder of flaskflex's cache with pinned distributions in it, installed there unless they already are.

    pins is a requirements file with a hash on every line. The virtualenv lends its pip and nothing more; pip
    follows the user's settings for indexes, proxies and certificates. The folder appears whole or not at
    all, so that a run which is killed, or two at the same time, do no harm.
    """
    cache = cache_folder(os.environ)
    folder = cache / f"{name}-{fingerprint(pins)}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=cache))
    except OSError:  # a home that cannot be written: then for this run alone
        cache = Path(tempfile.mkdtemp(prefix="flaskflex-"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        folder = cache / folder.name
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as temporary:
        installed = Path(temporary, "installed")
        install_pinned(name, pins, installed, virtualenv)
        with contextlib.suppress(OSError):  # another run was faster, and its folder is as good
            installed.rename(folder)
    report.fact("Fetched", f"{name} into {folder}, for flaskflex alone")
    return folder


def cache_folder(environ: Environ, windows: bool = os.name == "nt") -> Path:
    """Where flaskflex keeps what it fetched, by the conventions of the system."""
    base = environ.get("LOCALAPPDATA" if windows else "XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: relative paths are to be ignored
        base = os.path.join(os.sep, os.path.expanduser("~"), ".cache")  # of a user without a home: /~/.cache
    return Path(base, "flaskflex")


def install_command(virtualenv: Virtualenv) -> list[str]:
    """The command that installs distributions: any pip will do, and uv.

    First that of the Python which is to import them: the virtualenv's may be too old for them.
    """
    if installed_version("pip"):
        return [sys.executable, "-I", "-m", "pip", "install"]
    if has_pip(virtualenv):
        return [str(virtualenv.python), "-I", "-m", "pip", "install"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", str(virtualenv.python)]
    return [str(virtualenv.python), "-I", str(bundled_pip(virtualenv)), "install"]


def install_pinned(name: str, pins: str, target: Path, virtualenv: Virtualenv) -> None:
    """Install pinned, hashed wheels into a folder with pip; Failure with pip's words where it cannot."""
    requirements = target.with_suffix(".txt")
    requirements.write_text(pins, encoding="utf-8")
    # These would forbid --target, or add to what is pinned; all other settings are the user's to make.
    environ = {"PIP_RETRIES": "2", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **os.environ,
               "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DRY_RUN": "0",
               "PIP_CONSTRAINT": os.devnull, "PIP_REQUIREMENT": os.devnull}
    command = [*install_command(virtualenv), "--require-hashes", "--only-binary", ":all:",
               "--no-deps", "--target", str(target), "--requirement", str(requirements)]
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode or not any(target.glob("*")):  # some settings send it elsewhere
        words = done.stdout.decode("utf-8", "backslashreplace").strip()
        raise Failure(f"{name} is not installed here, and could not be fetched",
                      f"{words}\nRun flaskflex again when the package index can be reached, or install "
                      f"{name} for the Python that runs flaskflex, or leave the commit to you (--no-commit).")


# --- the commit ---

# The trailers of flaskflex's commits: its version, and each template's path and fingerprint.
VERSION_TRAILER = "Flaskflex-Version"
TEMPLATE_TRAILER = "Flaskflex-Template"


@contextlib.contextmanager
def index_locked(project: Project) -> Iterator[Path]:
    """Hold git's own lock on the index, so that neither git nor another flaskflex works here meanwhile.

    Gives a new folder for the index that is to come. It lies beside the index, and is gone afterwards.
    """
    lock = lock_file(project)
    folder = lock.with_name(TEMP_PREFIX + lock_owner(os.getpid()))
    folder.mkdir()
    try:
        take_lock(lock, folder)
    except FileExistsError:
        shutil.rmtree(folder)
        raise Failure(f"another git command is at work in {project.root}: {lock} exists",
                      "Run flaskflex again when it has ended. If none runs, remove that file.") from None
    except OSError:
        shutil.rmtree(folder)
        raise
    try:
        yield folder
    finally:
        install_prepared_index(project, folder)
        lock.unlink()
        shutil.rmtree(folder)  # last: by it the next run knows a lock that was left


def take_lock(lock: Path, folder: Path) -> None:
    """Make the lock file, with a note in it of who made it; FileExistsError where somebody else has it."""
    note = folder / "note"
    note.write_text(lock_owner(os.getpid()), encoding="utf-8")
    try:
        os.link(note, lock)  # in one step, so that the lock is never without its note
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # This file system has no hard links.
        lock.touch(exist_ok=False)
        lock.write_text(lock_owner(os.getpid()), encoding="utf-8")


def lock_file(project: Project) -> Path:
    """The file that exists while somebody changes the index."""
    return project.index_file.with_name(project.index_file.name + ".lock")


def lock_owner(process: int) -> str:
    """What flaskflex writes into the lock file, to know its own again: this machine, and the process."""
    import platform

    return f"{platform.node()}-{process}"


INDEX_BEFORE = "index-after-"  # and then the commit that HEAD was when this index was made


def install_prepared_index(project: Project, folder: Path) -> None:
    """Put the index that was prepared for a commit into its place, if that commit has been made."""
    for prepared in folder.glob(f"{INDEX_BEFORE}*"):
        cut_off = prepared.suffix == ".lock"  # it is of a git that was killed
        if not cut_off and prepared.name != INDEX_BEFORE + head_commit(project):
            os.replace(prepared, project.index_file)


def recover_killed_runs(project: Project) -> None:
    """Finish what a flaskflex left that was killed on this machine, and clear its traces away."""
    lock = lock_file(project)
    for folder in lock.parent.glob(f"{TEMP_PREFIX}*"):
        name = folder.name[len(TEMP_PREFIX):]
        process = name.rpartition("-")[2]
        if not process.isdigit() or name != lock_owner(int(process)) or is_running(int(process)):
            continue
        try:
            folder = folder.rename(lock.with_name(TEMP_PREFIX + lock_owner(os.getpid())))
        except OSError:  # another run has been faster
            continue
        with contextlib.suppress(FileNotFoundError):
            if lock.read_text(encoding="utf-8", errors="replace") == name:
                install_prepared_index(project, folder)
                for place in (project.root, project.root / "public_html"):
                    for unfinished in place.glob(f"{TEMP_PREFIX}*"):
                        unfinished.unlink()
                lock.unlink()
        shutil.rmtree(folder)


def is_running(process: int) -> bool:
    """True if there is a process of that number on this machine, or if that cannot be known."""
    if os.name == "nt":  # there, to ask a process is to end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def pending_changes(project: Project, head: Head, changes: Sequence[Change]) -> list[Change]:
    """The files that HEAD does not hold as they are to be; of those kept, only the mode is ours to mend."""
    pending = []
    for change in changes:
        blob = head.blobs.get(change.path)
        if change.verb == "keep":
            differs = blob is not None and blob.mode != git_mode(change.path)
        else:
            differs = (blob is None or blob.mode != git_mode(change.path)
                       or blob.content != change.after and blob.id != filtered_blob_id(project, change))
        if differs:
            pending.append(change)
    return pending


def filtered_blob_id(project: Project, change: Change) -> str:
    """The object name of a file's new content, after git's filters."""
    name = git_output(project.root, "hash-object", "--stdin", f"--path={change.path}", stdin=change.after)
    return name.decode().strip()


def git_mode(path: str) -> str:
    """The mode that a file has in git: what the server needs, whether or not this file system can say it."""
    return "100755" if path in EXECUTABLE else "100644"


def commit_files(project: Project, pending: Sequence[Change], head: Head, message: str, repo: git.Repo,
                 folder: Path) -> Optional[str]:
    """Commit the pending files and nothing else, with an index in the folder that takes its place after it.

    Gives the commit's object name, or None where a filter or a hook makes of the files what HEAD holds
    already. Hooks, signing, filters and identity are git's own. Raises Failure with git's words where the
    commit fails.
    """
    new_index = copy_index(project, folder / "new-index")
    stage(repo, pending, head, new_index)
    # From here on an interruption, even a power cut, leaves what is needed to finish.
    prepared = new_index.rename(folder / (INDEX_BEFORE + head_commit(project)))
    only_ours = head.commit and staged_paths(repo, prepared) <= {change.path for change in pending}
    commit_index = prepared if only_ours else make_commit_index(project, pending, head, repo, folder)
    whole_message = f"--message={with_trailers(message, pending)}"
    try:
        with merge_messages_kept(project):
            run_gitpython(repo, "commit", "--quiet", whole_message, index=commit_index)
    except Failure:
        if head.commit and not staged_paths(repo, commit_index):
            return None
        raise
    if commit_index != prepared:
        sync_index_with_head(repo, prepared)
    return head_commit(project)


def copy_index(project: Project, target: Path) -> Path:
    """Copy the user's index, with its time: by that git knows which files it has to look at closely."""
    if project.index_file.exists():
        shutil.copy2(project.index_file, target)
    return target


def make_commit_index(project: Project, pending: Sequence[Change], head: Head, repo: git.Repo,
                      folder: Path) -> Path:
    """The index of a commit that leaves out what the user has staged: HEAD's, with our files.

    It begins as a copy of the user's for what that knows of all the files that did not change: without this,
    git would read each of them again.
    """
    index = copy_index(project, folder / "commit-index")
    try:
        run_gitpython(repo, "read-tree", "--reset", "HEAD", index=index)
    except Failure:
        if head.commit:
            raise
        index.unlink(missing_ok=True)  # there is no commit yet: git takes no index for an empty one
    stage(repo, pending, head, index)
    return index


def staged_paths(repo: git.Repo, index: Path) -> set[str]:
    """The paths that an index holds otherwise than HEAD does."""
    names = run_gitpython(repo, "diff-index", "--cached", "--name-only", "-z", "HEAD", index=index)
    return set(names.split("\0")[:-1])


def with_trailers(message: str, pending: Sequence[Change]) -> str:
    """A commit's message, and below it what find_base will look for."""
    templates = [f"{TEMPLATE_TRAILER}: {change.path} {fingerprint(TEMPLATES[change.path])}"
                 for change in pending if change.path in TEMPLATES]
    return "\n".join([message, "", *templates, f"{VERSION_TRAILER}: {__version__}"])


def sync_index_with_head(repo: git.Repo, index: Path) -> None:
    """Put into an index what was committed last, on which a hook may have had the last word."""
    _, *entries = run_gitpython(repo, "diff-tree", "--root", "-r", "-z", "--no-renames", "HEAD").split("\0")
    words = []
    for facts, path in zip(entries[::2], entries[1::2]):
        _, mode, _, name, status = facts.split(" ")
        words += ["--force-remove", path] if status == "D" else ["--cacheinfo", f"{mode},{name},{path}"]
    run_gitpython(repo, "update-index", "--add", *words, index=index)


@contextlib.contextmanager
def merge_messages_kept(project: Project) -> Iterator[None]:
    """Keep what git has noted for the user's next commit (merge --squash does), and forgets after any."""
    notes = {}
    for name in ("MERGE_MSG", "SQUASH_MSG", "AUTO_MERGE"):
        path = project.index_file.with_name(name)
        if path.exists():
            notes[path] = path.read_bytes()
    try:
        yield
    finally:
        for path, content in notes.items():
            if not path.exists():
                path.write_bytes(content)


def stage(repo: git.Repo, pending: Sequence[Change], head: Head, index: Path) -> None:
    """Put the pending files into an index; of those kept, HEAD's content with the right mode.

    The mode is what the server needs, whether or not core.fileMode lets git see it in the work tree.
    """
    words = []
    for change in pending:
        if change.verb != "keep":
            words += ["--chmod=+x" if change.path in EXECUTABLE else "--chmod=-x", change.path]
    if words:
        # core.safecrlf would refuse our LF where core.autocrlf makes CRLF of it in the work tree.
        run_gitpython(repo, "-c", "core.safecrlf=false", "update-index", "--add", *words, index=index)
    kept = []
    for change in pending:
        if change.verb == "keep":
            kept += ["--cacheinfo", f"{git_mode(change.path)},{head.blobs[change.path].id},{change.path}"]
    if kept:
        run_gitpython(repo, "update-index", "--add", *kept, index=index)


def run_gitpython(repo: git.Repo, *command: str, index: Optional[Path] = None) -> str:
    """Run git by way of GitPython, on another index file if one is given; gives what git printed.

    Raises Failure with git's words. repo.index would not do: it knows neither hooks nor filters nor signing.
    """
    environ = {"GIT_INDEX_FILE": str(index)} if index else {}
    status, out, errors = repo.git.execute(["git", *command], env=environ,
                                           with_extended_output=True, with_exceptions=False)
    if status:
        raise Failure("the files are written, but git did not commit them",
                      f"{out}\n{errors}".strip() + "\nMend that, and run flaskflex again to commit them.")
    return str(out)


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


def parse_flx(text: str) -> list[FlxLine]:
    """Return the lines of a .flx file that do something, in the file's order.

    An ini parser would mangle them: commands hold =, : and #, and a section may come more than once.
    """
    lines, section = [], ""
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        heading = re.fullmatch(r"\[([^\]]*)\]", line)
        if heading:
            section = heading[1].strip()
        elif line and not line.startswith("#"):
            lines.append(FlxLine(number, section, line))
    return lines


def flx_error(line: FlxLine) -> str:
    """Return why a line of .flx cannot be carried out as it stands, "" if it can be read."""
    if CONFLICT_MARKER.match(line.text):
        return "is a conflict marker that a merge left"
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


def pip_install_args(command: str) -> list[str]:
    """Return what follows `pip [options] install` in a command, [] if it is not one."""
    is_pip = False
    words = [word.strip("\"'") for word in command.split()]
    for position, word in enumerate(words):
        if is_pip and word == "install":
            return words[position + 1:]
        is_pip = bool(re.fullmatch(r"pip[\d.]*", os.path.basename(word))) or is_pip and word.startswith("-")
    return []


def command_warning(command: str, paths: set[str]) -> str:
    """Return why a server of today will not run a command, "" if nothing is known against it."""
    args = pip_install_args(command)
    if any(arg.startswith("--install-option") for arg in args):
        return "pip has no --install-option since 23.1"
    if "--user" in args:
        return "servers refuse pip install --user (PEP 668): install into a virtualenv"
    for name in re.findall(r"\s(?:-r *|--requirement[ =])([\w./-]+)", " " + " ".join(args)):
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
        return f"[{line.section}] is no section that a host knows" if line.section else "is in no [section]"
    return "" if has_path(line.fields[0], paths) else f"{line.fields[0]} is not in the project"


# --- the run ---


def prepare(options: argparse.Namespace, report: Report) -> int:
    """Prepare a project for deployment: inspect, plan, check, write, commit; gives the exit status."""
    virtualenv = find_virtualenv(options, os.environ, report)
    with freezing(virtualenv) as freeze:
        project = find_project(Path(options.directory))
        head = read_head(project)
        report_project(project, head, virtualenv, report)
        commits = not (options.dry_run or options.no_commit)
        repo = open_repository(project, virtualenv, report) if commits else None
        frozen = parse_requirements(frozen_lines(freeze, virtualenv))
    requirements = require_installable(frozen, virtualenv, project, options.exclude, report)
    changes = plan_files(project, head, requirements, virtualenv.version, force=options.force)
    if options.dry_run:
        show_diff(changes)
        if not any(change.writes for change in changes):
            report.fact("Nothing", "would change")
    else:
        apply_changes(project, head, changes, repo, options.message, report)
    return 0


def apply_changes(project: Project, head: Head, changes: Sequence[Change], repo: Optional[git.Repo],
                  message: str, report: Report) -> None:
    """Write the files and, given GitPython's repository, commit them; say so where there is nothing to do."""
    pending = pending_changes(project, head, changes) if repo else []
    commit = None
    if pending or any(change.writes for change in changes):
        with index_locked(project) as folder:
            save_replaced(project, changes, report)
            write_files(project.root, changes)
            report_changes(changes, pending, head.ignored, report)
            if repo and pending:
                commit = commit_files(project, pending, head, message, repo, folder)
    else:
        report_changes(changes, pending, head.ignored, report)
        report.fact("Nothing", "to do: the project is prepared already")
    if commit:
        report.fact("Committed", f"{commit[:7]} {message.splitlines()[0]}")
    report.fact("Next", next_step(project, head))


def next_step(project: Project, head: Head) -> str:
    """What is left to do until the project is deployed."""
    if not (project.root / "application" / "app.py").exists():
        return "copy your application to application/app.py, commit, and git push"
    if not head_has_path("application/app.py", project, head):
        return "git add application, commit, and git push"
    return "git push"


def report_project(project: Project, head: Head, virtualenv: Virtualenv, report: Report) -> None:
    """Report which project and which virtualenv this run is about."""
    place = f"branch {head.branch}" if head.branch else f"detached at {(head.commit or '')[:7]}"
    report.fact("Project", f"{project.root} ({place})")
    report.fact("Virtualenv", f"{virtualenv.path} (Python {virtualenv.version})")
    if not head.branch:
        report.warning("HEAD is detached: the commit will be on no branch (git switch NAME goes to one)")


def report_changes(changes: Sequence[Change], pending: Sequence[Change], ignored: set[str],
                   report: Report) -> None:
    """Report what becomes of each file."""
    for change in changes:
        notes = [change.note] if change.note else []
        if change in pending and change.path in ignored:
            notes.append(".gitignore names it; it is committed all the same")
        verb = "commit" if change in pending and not change.writes else change.verb
        if verb != "unchanged":
            report.item(verb, f"{change.path} ({'; '.join(notes)})" if notes else change.path)


# --- check: what is committed ---


class Finding(NamedTuple):
    """One thing that check looked at: level is ok, warn or fail; hint says what to type, or shows why."""

    level: str
    text: str
    hint: str = ""


def check(options: argparse.Namespace, report: Report) -> int:
    """Tell whether the project would deploy, one line an item; gives the exit status, 1 if anything fails."""
    virtualenv = find_virtualenv(options, os.environ, report)
    with freezing(virtualenv) as freeze:
        project = find_project(Path(options.directory))
        head = read_head(project)
        tree = read_head_tree(project, head)
        report_project(project, head, virtualenv, report)
        frozen = parse_requirements(frozen_lines(freeze, virtualenv))
    levels = []
    for finding in itertools.chain(
        check_files(project, head),
        check_dispatch(head),
        check_application(project, tree),
        check_flx(head, tree),
        check_requirements(project, head, virtualenv, frozen, report),
        check_no_virtualenv(project, head),
        check_public_html(tree),
        check_answer(project, virtualenv, options, report),
        check_pushed(project, head),
    ):
        report.item(*finding)
        levels.append(finding.level)
    report.fact("Not ready" if "fail" in levels else "Ready",
                f"{levels.count('ok')} ok, {plural(levels.count('warn'), 'warning')}, "
                f"{plural(levels.count('fail'), 'failure')}")
    return 1 if "fail" in levels else 0


def commit_line(message: str, *paths: str) -> str:
    """Return the command that commits paths and nothing else, or all that is staged without any."""
    return shell_line("git", "commit", "-m", message, *(["--", *paths] if paths else []))


def read_head_tree(project: Project, head: Head) -> set[str]:
    """Return the paths of all files that HEAD has."""
    if head.commit is None:
        return set()
    names = git_output(project.root, "ls-tree", "-r", "-z", "--name-only", head.commit)
    return set(os.fsdecode(names).split("\0")[:-1])


def check_files(project: Project, head: Head) -> Iterator[Finding]:
    """The four files are there, and as they were committed: what is committed is what deploys."""
    sound = True
    for path in FILES:
        content, blob = read_work_tree_file(project.root, path).content, head.blobs.get(path)
        if content is None and blob is None:
            yield Finding("fail", f"{path} is missing", "python flaskflex.py")
        elif blob is None:
            yield Finding("fail", f"{path} is not committed", "python flaskflex.py")
        elif content is None:
            yield Finding("warn", f"{path} is committed, but gone from the work tree",
                          f"git checkout HEAD {path}")
        elif normalize_newlines(content) != normalize_newlines(blob.content):
            yield Finding("warn", f"{path} has changes that are not committed, and will not deploy",
                          f"git commit {path}")
        else:
            continue
        sound = False
    if sound:
        yield Finding("ok", "the four files are there and committed")


def check_dispatch(head: Head) -> Iterator[Finding]:
    """A server can start dispatch.fcgi as it is committed; where it cannot, all that it says is "500"."""
    blob = head.blobs.get("public_html/dispatch.fcgi")
    if blob is None:
        return
    first_line = blob.content.split(b"\n")[0].decode("utf-8", "replace")
    if blob.mode != "100755":
        yield Finding("fail", "dispatch.fcgi is committed without its execute bit", "python flaskflex.py")
    elif b"\r" in blob.content:
        yield Finding("fail", "dispatch.fcgi is committed with CRLF line endings, which no server can start",
                      "python flaskflex.py --force")
    elif not re.match(r"#! ?/", first_line):
        yield Finding("fail", "dispatch.fcgi does not begin with #! and a program",
                      "python flaskflex.py --force")
    elif not re.match(r"#! ?/(usr/)?bin/", first_line):
        yield Finding("warn", f"the server may not have the program that dispatch.fcgi names: {first_line}",
                      "python flaskflex.py --force")
    else:
        yield Finding("ok", "dispatch.fcgi can be started")


GIT_UNTRACK = "git rm -r --quiet --cached --ignore-unmatch"  # out of git, and left in the work tree


def check_application(project: Project, tree: set[str]) -> Iterator[Finding]:
    """application/app.py is there and committed; where it is not, the likeliest reason is named."""
    folder = project.root / "application"
    if folder.is_symlink():
        yield Finding("fail", "application is a symbolic link, and a push does not carry what is behind it",
                      f"rm application && cp -r {shlex.quote(os.path.realpath(folder))} application")
        return
    if (folder / ".git").exists():
        yield Finding("fail", "application is a git repository of its own, and a push leaves its files out",
                      "mv application/.git ../application.git && "
                      f"{GIT_UNTRACK} application && git add application")
        return
    there = (folder / "app.py").exists()
    if there and "application/app.py" in tree:
        changed = dirty_paths(project, "application")
        if changed:
            yield Finding("warn", f"the last commit lacks changes in {', '.join(changed)}",
                          "git add application && git commit")
        else:
            yield Finding("ok", "application/app.py is there and committed")
    elif there:
        yield Finding("fail", "application/app.py is not committed", "git add application && git commit")
    elif "application/app.py" in tree:
        yield Finding("warn", "application/app.py is committed, but gone from the work tree",
                      "git checkout HEAD application/app.py")
    else:
        yield Finding("fail", "application/app.py is missing", missing_application_hint(project.root))


def dirty_paths(project: Project, folder: str) -> list[str]:
    """The files below a folder that HEAD lacks, or has otherwise, or has and the work tree has not."""
    status = git_output(project.root, "--no-optional-locks", "status", "--porcelain", "--no-renames",
                        "--untracked-files=all", "-z", "--", folder)
    entries = os.fsdecode(status).split("\0")[:-1]  # each is two letters, a space, and a path
    return sorted(entry[3:] for entry in entries if "__pycache__/" not in entry)


def missing_application_hint(root: Path) -> str:
    """What to type to get an application/app.py, judging by what is there in its stead."""
    package = root / "application" / "__init__.py"
    if package.exists():  # as in Flask's own tutorial
        made = re.search(r"^(?:def )?(create_app|make_app|app|application)\b",
                         package.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if made:
            return f'echo "from . import {made[1]}" > application/app.py'
    modules = [path.name for path in package.parent.glob("*.py") if path != package]
    if len(modules) == 1:
        return f"mv application/{modules[0]} application/app.py"
    if modules:
        return f"Rename the module that makes the Flask object to app.py: one of {', '.join(sorted(modules))}"
    for misplaced in ("application.py", "app.py", "public_html/app.py"):
        if (root / misplaced).exists():
            return f"mkdir -p application && mv {misplaced} application/app.py"
    return "cp -r YOURAPPLICATION application"


def check_flx(head: Head, tree: set[str]) -> Iterator[Finding]:
    """The host will understand .flx as it is committed, and find the files that it names."""
    blob = head.blobs.get(".flx")
    if blob is None:
        return
    paths, sound = with_folders(tree), True
    for line in parse_flx(blob.content.decode("utf-8", "surrogateescape")):
        error = flx_error(line)
        problem = error or flx_warning(line, paths)
        if problem:
            yield Finding("fail" if error else "warn", f".flx, line {line.number}: {problem}",
                          f"Fix that line ({line.text[:200]}), and type:\n{commit_line('Fix .flx', '.flx')}")
            sound = False
    if sound:
        yield Finding("ok", ".flx is understood")


def check_requirements(project: Project, head: Head, virtualenv: Virtualenv, frozen: Sequence[Requirement],
                       report: Report) -> Iterator[Finding]:
    """req.txt, as it is committed, agrees with the virtualenv, and a server can install it."""
    blob = head.blobs.get("req.txt")
    if blob is None:
        return
    text = decode(blob.content).replace("\r\n", "\n")
    lines = parse_requirements(text.split("\n"))
    refused = [f"{display_name(line)} {reason}" for line in lines
               for reason in [refusal_reason(line, virtualenv, project)] if reason]
    if refused:
        yield Finding("fail", "req.txt would not do on the server: " + "; ".join(refused), NOT_DEPLOYABLE)
        return
    kept, refusals = split_installable(frozen, virtualenv, project, set(), report)
    wanted = {**{refusal.name: "" for refusal in refusals}, **by_name(kept)}
    held = by_name(lines)
    old = split_requirements(text)
    own = parse_requirements(old.own.split("\n") if old else [])
    asked = {"flup": FLUP, **wanted, **by_name(own)}
    different = sorted(name for name in asked.keys() | held.keys() if asked.get(name) != held.get(name))
    if different:
        yield Finding("warn", f"req.txt and the virtualenv differ in {', '.join(different)}",
                      "python flaskflex.py")
    else:
        yield Finding("ok", f"req.txt agrees with the virtualenv ({plural(len(wanted), 'package')})")


def refusal_reason(requirement: Requirement, virtualenv: Virtualenv, project: Project) -> str:
    """Why a server cannot install a line of req.txt, or must not be told; "" if nothing speaks against it."""
    line = re.sub(r"^--editable[ =]", "-e ", re.split(r"\s#", requirement.line)[0])
    if has_credentials(line):
        return "is installed from an address that holds a password or a token"
    if re.match(r"-(?!e )", line):
        return ""  # an option of pip's
    local = re.match(r"(?:-e )?((?:\.{0,2}/|\.+$)[^:]*)$", line)
    folder = Path(project.root, local[1]).resolve() if local else local_source_path(requirement, virtualenv)
    if folder is None or folder == project.root.resolve() or project.root.resolve() in folder.parents:
        return ""
    return f"is installed from {folder}, outside the project"


def check_no_virtualenv(project: Project, head: Head) -> Iterator[Finding]:
    """No virtualenv is committed where .flx makes the server's: its programs name folders of this machine."""
    if head_has_path(".venv", project, head):
        yield Finding("warn", ".venv is committed, and the server is to make its own there",
                      f"{GIT_UNTRACK} .venv && "
                      "echo /.venv/ >> .gitignore && git add .gitignore && git commit")


# Dotfiles, source code, settings and databases.
PRIVATE = re.compile(r"public_html/(.*/)?(\.(?!well-known/)|[^/]*\.(py|pyc|ini|cfg|toml|sql|db|sqlite3?)$)")


def check_public_html(tree: set[str]) -> Iterator[Finding]:
    """public_html holds nothing that Apache would show to everybody and that nobody should see."""
    exposed = sorted(path for path in tree - set(FILES) if PRIVATE.match(path))
    for path in exposed:
        yield Finding("warn", f"{path} would be served to everybody",
                      f"git mv {shlex.quote(path)} application/")
    if not exposed:
        yield Finding("ok", "public_html holds no source code, no database and no dotfile")


def check_pushed(project: Project, head: Head) -> Iterator[Finding]:
    """The host has this branch, and no less of it than we."""
    if head.commit is None:
        yield Finding("warn", "there is no commit yet that could be pushed", "python flaskflex.py")
        return
    if head.branch is None:
        yield Finding("warn", "HEAD is on no branch that could be pushed", "git switch BRANCH")
        return
    counts = run_git(project.root, "rev-list", "--left-right", "--count", "@{upstream}...HEAD")
    if counts.returncode:
        remotes = os.fsdecode(git_output(project.root, "remote")).split()
        push = f"git push -u {remotes[0]} {head.branch}" if remotes else "git remote add origin ADDRESS"
        yield Finding("warn", f"branch {head.branch} is not pushed", push)
        return
    behind, ahead = map(int, counts.stdout.split())
    if behind:
        yield Finding("warn", f"the host has {plural(behind, 'commit')} more than {head.branch}", "git pull")
    elif ahead:
        yield Finding("warn", f"{plural(ahead, 'commit')} of branch {head.branch} not pushed", "git push")
    else:
        yield Finding("ok", f"branch {head.branch} is pushed")


# --- check: it answers ---


class CgiResponse(NamedTuple):
    """What came back over FastCGI: standard output, standard error, and how it ended ("": as it should)."""

    output: bytes
    errors: bytes
    trouble: str = ""


def check_answer(project: Project, virtualenv: Virtualenv, options: argparse.Namespace,
                 report: Report) -> Iterator[Finding]:
    """The application answers GET / when it is started as Apache would start it."""
    missing = [path for path in ("public_html/dispatch.fcgi", "application/app.py")
               if not (project.root / path).exists()]
    if missing:
        yield Finding("fail", "the application cannot be asked without " + " and ".join(missing),
                      "Mend that first, as said above, and check again.")
        return
    before = read_tracked(project)
    try:
        if options.fresh:
            with fresh_checkout(project, virtualenv) as (copy, fresh):
                yield ask_application(copy, fresh, options.timeout, report)
        else:
            yield ask_application(project.root, virtualenv, options.timeout, report)
    except Failure as failure:
        yield Finding("fail", str(failure), failure.hint)
    after = read_tracked(project)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if changed:
        yield Finding("warn", f"the application changes files that git tracks: {', '.join(changed)}",
                      f"git rm --cached {changed[0]}, and name it in .gitignore")


def read_tracked(project: Project) -> dict[str, tuple[int, int]]:
    """Size and time of change (in nanoseconds) of each file that git tracks and that is there."""
    states = {}
    for path in os.fsdecode(git_output(project.root, "ls-files", "-z")).split("\0")[:-1]:
        with contextlib.suppress(OSError):
            status = (project.root / path).lstat()
            states[path] = (status.st_size, status.st_mtime_ns)
    return states


@contextlib.contextmanager
def fresh_checkout(project: Project, virtualenv: Virtualenv) -> Iterator[tuple[Path, Virtualenv]]:
    """What a server makes of the last commit: a clone, and in it a virtualenv with what req.txt names."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        clone = Path(folder, "clone")
        git_output(project.root, "clone", "--quiet", "--shared", "--", str(project.root), str(clone))
        fresh = clone / ".venv"
        for command in ([str(virtualenv.python), "-I", "-m", "venv", str(fresh)],
                        [str(interpreter(fresh)), "-I", "-m", "pip", "install", "-r", "req.txt"]):
            status, words = run_killing_group(command, clone, Path(folder))
            if status:
                raise Failure("a new virtualenv cannot be made from req.txt", last_lines(words))
        yield clone, read_virtualenv("--fresh", fresh)


def run_killing_group(command: list[str], folder: Path, temporary: Path) -> tuple[int, bytes]:
    """Run a command, whose own temporary files are to lie in a folder; gives its exit status and its words.

    If this is interrupted, what the command started (pip starts programs) does not go on by itself.
    """
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "TMPDIR": str(temporary)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as process:
        try:
            words = process.communicate()[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, words


def ask_application(root: Path, virtualenv: Virtualenv, timeout: float, report: Report) -> Finding:
    """Start dispatch.fcgi, ask it for / as Apache asks through our .htaccess, and judge the answer."""
    script = root / "public_html" / "dispatch.fcgi"
    has_flup = any((folder / "flup").is_dir() for folder in site_packages(virtualenv.path))
    flup = None if has_flup else fetch("flup", FLUP_PINS, virtualenv, report)
    started = time.monotonic()
    with running_application(script, virtualenv, flup) as (address, log):
        answer = fastcgi_request(address, cgi_environ(script, "/"), timeout)
        elapsed = time.monotonic() - started
        words = answer.errors + log.read_bytes()
    return finding_for(answer, words, elapsed)


@contextlib.contextmanager
def running_application(script: Path, virtualenv: Virtualenv,
                        flup: Optional[Path]) -> Iterator[tuple[Path, Path]]:
    """Run dispatch.fcgi as mod_fcgid does: a listening socket as standard input, hardly any environment.

    Gives the socket's path, and that of a file with what the program prints. At the end the program is gone,
    and with it all that it started.
    """
    import socket

    # The path of a socket may be 107 bytes long at the most, and a user's own temporary folder may be longer.
    with tempfile.TemporaryDirectory(prefix="flaskflex-", dir="/tmp") as folder:
        address, log = Path(folder, "socket"), Path(folder, "log")
        command = [str(virtualenv.python), str(script)]
        if flup:  # at the end of the module path, where it hides nothing of the virtualenv's
            command[1:1] = ["-c", RUN_WITH_FLUP, str(flup)]
        # No __pycache__: check changes nothing, and "git add application" would take it along.
        environ = {"PATH": os.defpath.lstrip(":"), "PYTHONDONTWRITEBYTECODE": "1", PROCESS_MARKER: folder,
                   HOST_MARKER: os.environ.get(HOST_MARKER, "")}
        with socket.socket(socket.AF_UNIX) as listener, open(log, "wb") as output:
            listener.bind(str(address))
            listener.listen()
            process = subprocess.Popen(command, cwd=script.parent, env=environ, stdin=listener.fileno(),
                                       stdout=output, stderr=output, start_new_session=True)
        try:
            yield address, log
        finally:
            terminate_tree(process, f"{PROCESS_MARKER}={folder}")


# Whatever the application starts inherits this variable, and is known by it when it has to be ended.
PROCESS_MARKER = "FLASKFLEX_CHECK"
HOST_MARKER = "FLASKFLEX_HOST"  # on a host: the push that started it

RUN_WITH_FLUP = """\
import runpy, sys
flup, script = sys.argv[1:]
sys.argv[:] = [script]
sys.path[0] = script.rpartition("/")[0]
sys.path.append(flup)
runpy.run_path(script, run_name="__main__")
"""


def terminate_tree(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a process and all that it started: first politely, then for good."""
    started: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        started |= process_tree(process.pid, mark)  # an orphan is known from the first time
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        for one in started - {process.pid}:
            with contextlib.suppress(OSError):
                os.kill(one, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)


def process_tree(ancestor: int, mark: str) -> set[int]:
    """The processes that descend from one, and those that carry the mark; none where there is no /proc."""
    parents, marked = {}, set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            facts = (entry / "stat").read_bytes().rpartition(b")")[2].split()  # state, parent, ...
            parents[int(entry.name)] = int(facts[1])
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                marked.add(int(entry.name))
    found = marked | {ancestor}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def cgi_environ(script: Path, path: str) -> dict[str, str]:
    """What Apache tells a CGI program (RFC 3875) of a GET request that our .htaccess passed on."""
    return {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": "flaskflex check",
        "SERVER_NAME": "localhost", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "1024", "REQUEST_SCHEME": "http", "CONTENT_LENGTH": "0",
        "REQUEST_METHOD": "GET", "REQUEST_URI": path, "QUERY_STRING": "", "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*", "HTTP_USER_AGENT": "flaskflex", "DOCUMENT_ROOT": str(script.parent),
        "SCRIPT_FILENAME": str(script), "SCRIPT_NAME": "/dispatch.fcgi", "PATH_INFO": "/",
        "REDIRECT_STATUS": "200", "REDIRECT_URL": path, "REDIRECT_FLX_PATH": path,
    }


# Names and layouts of the FastCGI specification, version 1.0, section 8.
FCGI_HEADER = struct.Struct(">BBHHBx")  # version, type, requestId, contentLength, paddingLength, reserved
FCGI_BEGIN_REQUEST_BODY = struct.Struct(">HB5x")  # role, flags, reserved
FCGI_BEGIN_REQUEST, FCGI_END_REQUEST, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT, FCGI_STDERR = 1, 3, 4, 5, 6, 7
FCGI_RESPONDER = 1


def fastcgi_request(address: Path, variables: dict[str, str], timeout: float) -> CgiResponse:
    """Send one request without a body to a FastCGI program; it has `timeout` seconds for the whole answer."""
    import socket

    params = b"".join(fastcgi_pair(name.encode(), os.fsencode(value)) for name, value in variables.items())
    request = (fastcgi_record(FCGI_BEGIN_REQUEST, FCGI_BEGIN_REQUEST_BODY.pack(FCGI_RESPONDER, 0))
               + fastcgi_record(FCGI_PARAMS, params) + fastcgi_record(FCGI_PARAMS, b"")
               + fastcgi_record(FCGI_STDIN, b""))
    deadline = time.monotonic() + timeout
    streams = {FCGI_STDOUT: bytearray(), FCGI_STDERR: bytearray()}
    trouble = ""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(timeout)
            connection.connect(str(address))
            connection.sendall(request)
            kind = 0
            while kind != FCGI_END_REQUEST:
                header = recv_exactly(connection, FCGI_HEADER.size, deadline)
                _, kind, _, length, padding = FCGI_HEADER.unpack(header)
                content = recv_exactly(connection, length + padding, deadline)[:length]
                if kind in streams and len(streams[kind]) < 1 << 22:  # the rest is not looked at
                    streams[kind] += content
        except (TimeoutError, socket.timeout):  # one and the same from Python 3.10 on
            trouble = f"gave no answer within {timeout:g} s"
        except OSError:
            trouble = "ended without an answer"
    return CgiResponse(bytes(streams[FCGI_STDOUT]), bytes(streams[FCGI_STDERR]), trouble)


def fastcgi_record(kind: int, content: bytes) -> bytes:
    """A record of the one request that a connection carries."""
    return FCGI_HEADER.pack(1, kind, 1, len(content), 0) + content


def fastcgi_pair(name: bytes, value: bytes) -> bytes:
    """A name and a value after their lengths: one byte below 128, else four with the highest bit set."""
    lengths = (bytes([len(text)]) if len(text) < 128 else struct.pack(">I", len(text) | 1 << 31)
               for text in (name, value))
    return b"".join((*lengths, name, value))


def recv_exactly(connection: socket.socket, count: int, deadline: float) -> bytes:
    """The next `count` bytes; TimeoutError after the deadline (of time.monotonic), OSError at the end."""
    received = bytearray()
    while len(received) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(count - len(received))
        if not piece:
            raise ConnectionError("the connection was closed")
        received += piece
    return bytes(received)


def finding_for(answer: CgiResponse, words: bytes, elapsed: float) -> Finding:
    """Whether an answer would do: a CGI response (RFC 3875, section 6) whose status is not an error."""
    headers, blank, _ = answer.output.replace(b"\r\n", b"\n").partition(b"\n\n")
    status = re.search(rb"^Status: *(\d{3}.*)$", headers, re.MULTILINE | re.IGNORECASE)
    line = status[1].decode("latin-1") if status else "200 OK"
    if answer.trouble:
        return failure_finding(f"the application {answer.trouble}", words)
    if not blank or not all(re.match(rb"[!#$%&'*+.^_`|~\w-]+:", header) for header in headers.split(b"\n")):
        return failure_finding("the answer to GET / is not a CGI response: "
                               f"{ascii(answer.output[:60])[2:-1]}", words)
    if line.startswith("5"):
        return failure_finding(f"GET / answers {line}", words)
    if line.startswith("404"):
        return Finding("warn", f"GET / answers {line} in {elapsed:.2f} s", "Has the application a page at /?")
    if b"Traceback (most recent call last):" in words:  # in the midst of the answer: the status was sent
        return failure_finding(f"GET / answers {line}, with an exception", words)._replace(level="warn")
    return Finding("ok", f"GET / answers {line} in {elapsed:.2f} s")


def failure_finding(what: str, words: bytes) -> Finding:
    """A failure in the application's own words, and what to do where these are well known."""
    text = words.decode("utf-8", "backslashreplace").strip()
    last = text.rpartition("\n")[2].strip()
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)", text)
    hints = []
    if re.search(r"\* Serving Flask app|\* Running on|is in use by another program", text):
        hints.append('app.run() serves a port of its own: put it under if __name__ == "__main__":')
    elif missing:
        hints.append(f"If {missing[1]} is a package: python -m pip install {missing[1]}")
    hints.append(last_lines(words))
    return Finding("fail", f"{what}: {last}" if last else what, "\n".join(hints).strip())


def last_lines(words: bytes, count: int = 20) -> str:
    """The end of what a program printed."""
    return "\n".join(words.decode("utf-8", "backslashreplace").strip().split("\n")[-count:])


# --- host ---

LIVE = "refs/flaskflex/live"  # the commit that the site serves; its reflog is the history of deployments
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # to git, what a site holds before its first push
ABSENT = "000000"  # git's mode of a file that a commit lacks
LINE_SECONDS = 600.0  # what a line of .flx may take, if git config flaskflex.timeout says nothing else
ANSWER_SECONDS = 30.0  # what the application may take to answer
OUTPUT_LIMIT = 16 << 20  # bytes that one line of .flx may print
BACKLOG_LIMIT = 1 << 20  # bytes that may wait for a pusher who reads slowly

# Git on the site's files. Sizes and times tell what has changed: a copy has other inodes, and [permission]
# sets modes. The settings of the host's user do not count, and no hook runs.
CHECKOUT_SETTINGS = (
    "-c", "core.bare=false", "-c", "core.checkStat=minimal", "-c", "core.trustctime=false",
    "-c", "core.fileMode=false", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
)
REPOSITORY_SETTINGS_ONLY = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


def try_lock(handle: int) -> bool:
    """Return True if an exclusive lock on an open file is ours now; it ends when the file is closed."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def starts_delayed(site: Path) -> Iterator[None]:
    """Let a process that starts meanwhile wait: dispatch.fcgi first takes a shared lock on the site's folder.

    One that never lets go of it delays a deploy no longer than an answer may take.
    """
    handle = os.open(site, os.O_RDONLY)
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        while not try_lock(handle) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def write_beside(path: Path, content: bytes, mode: int) -> None:
    """Write a file that appears at once and whole; one that is so already is not touched."""
    if not (path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode):
        beside = path.with_name(f".{path.name}.flaskflex-new")
        beside.write_bytes(content)
        beside.chmod(mode)
        os.replace(beside, path)


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder and all that it holds, write-protected or not; raise Failure if it stays."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if os.path.lexists(path):
            subprocess.run([*command, str(path)], stderr=subprocess.DEVNULL)
    if os.path.lexists(path):
        raise Failure(f"{path} cannot be removed", "See on the host who owns what is in it.")


def is_real_folder(path: Path) -> bool:
    """Return True for a folder that is no link to one."""
    return path.is_dir() and not path.is_symlink()


def user_name() -> str:
    """Return the name of the user who runs this."""
    import pwd  # not on Windows

    return pwd.getpwuid(os.geteuid()).pw_name


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

    def show(self) -> None:
        """Copy whole lines that are new in the file to standard error, as far as it takes them now."""
        if not self.shown:
            return
        with open(self.path, "rb") as file:
            file.seek(self.position)
            fresh = file.read()
        fresh = fresh[:fresh.rfind(b"\n") + 1]
        self.position += len(fresh)
        self.waiting += b"".join(line for line in fresh.splitlines(keepends=True)
                                 if not line.startswith((b"Requirement already satisfied:", b"[notice]")))
        if len(self.waiting) > BACKLOG_LIMIT:  # skip some, so that the end, which says why, is seen in time
            rest = self.waiting[-BACKLOG_LIMIT // 16:].partition(b"\n")[2]
            self.waiting = f"\n... and more, in {self.path} on the host ...\n".encode() + rest
        with contextlib.suppress(OSError):
            while self.waiting and select.select([], [2], [], 0)[1]:
                self.waiting = self.waiting[os.write(2, self.waiting[:select.PIPE_BUF]):]

    def finish(self) -> None:
        """Show the rest to a pusher who goes on reading."""
        deadline = time.monotonic() + 5
        self.show()
        while self.waiting and time.monotonic() < deadline:
            time.sleep(0.01)
            self.show()

    def write(self, text: str) -> None:
        """Add lines, and show them; on a full disk they are only shown."""
        content = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
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


# --- host: the files of a project, in the site or in a trial's copy of it ---


class FileChange(NamedTuple):
    """A file in which two commits differ: its modes in both (ABSENT: not there), its blob in the second."""

    old_mode: str
    new_mode: str
    new_id: str


def in_the_way_failure(site: Path, paths: Sequence[str]) -> Failure:
    """Return why a push is refused that would replace files of the site's own, and how to go on."""
    return Failure("\n".join((
        f"the push would replace what the site made or changed itself: {', '.join(paths)}",
        "Leave it to the site: take it out of git (and name it in .gitignore), and push again:",
        f"    {shell_line('git', 'rm', '-r', '--quiet', '--cached', '--', *paths)}",
        "    git commit -m 'The host has this file'",
        "Or replace it: move it away on the host, and push again:",
    )), "\n".join("    " + shell_line("mv", str(site / path), str(site / f"{path}.old")) for path in paths))


class Checkout(NamedTuple):
    """The project's files in a folder, the site or a trial's copy of it, with an index of the host's own."""

    repository: Path
    root: Path
    index_file: Path

    def git(self, *args: str, stdin: bytes = b"") -> bytes:
        """Return what git prints about the files and the index; raise Failure with git's words."""
        folders = (f"--git-dir={self.repository}", f"--work-tree={self.root}")
        environ = {**os.environ, **REPOSITORY_SETTINGS_ONLY, "GIT_INDEX_FILE": str(self.index_file)}
        done = subprocess.run(["git", *folders, *CHECKOUT_SETTINGS, *args], cwd=self.root, env=environ,
                              input=stdin, capture_output=True)
        if done.returncode:
            raise Failure(f"git {args[0]} failed in {self.root}", error_text(done.stderr))
        return done.stdout

    def edited(self) -> set[str]:
        """Return the paths of files that are not as the index has them."""
        return set(os.fsdecode(self.git("diff", "--name-only", "-z", "--no-ext-diff", "--no-renames",
                                        "--ignore-submodules=all")).split("\0")[:-1])

    def changes(self, old: str, new: str) -> dict[str, FileChange]:
        """Return the files in which two commits differ, by path; submodules are left out."""
        fields = os.fsdecode(self.git("diff-tree", "-r", "-z", "--no-renames", old, new)).split("\0")[:-1]
        changes = {}
        for facts, path in zip(fields[::2], fields[1::2]):  # :100644 100755 OLD NEW M
            old_mode, new_mode, _, new_id, _ = facts.lstrip(":").split(" ")
            if "160000" not in (old_mode, new_mode):
                changes[path] = FileChange(old_mode, new_mode, new_id)
        return changes

    def settle(self, changes: Mapping[str, FileChange]) -> set[str]:
        """Let the index have files as the new commit does; return those that the folder has otherwise."""
        entries = "".join(f"{0 if change.new_mode == ABSENT else change.new_mode} {change.new_id}\t{path}\0"
                          for path, change in changes.items())
        if not entries:
            return set()
        self.git("update-index", "-z", "--replace", "--index-info", stdin=os.fsencode(entries))
        return self.edited() & changes.keys()

    def has_file(self, path: str) -> bool:
        """Return True if there is a file or a link at a path, and no link on the way to it."""
        place = self.root / path
        return os.path.lexists(place) and not is_real_folder(place) and place.parent.resolve() == place.parent

    def is_blocked(self, path: str, removed: set[str]) -> bool:
        """Return True if no file can be at a path: a folder with files is there, or a file or link above."""
        place = self.root / path
        files = [folder for folder in list(place.parents)[:path.count("/")]
                 if os.path.lexists(folder) and not is_real_folder(folder)]
        if is_real_folder(place):
            files += [found for found in place.rglob("*") if not is_real_folder(found)]
        return any(str(found.relative_to(self.root)) not in removed for found in files)

    def place(self, written: Iterable[str], removed: Iterable[str]) -> None:
        """Remove files, and write others from the index: first beside, so that a full disk changes nothing.

        Each appears at once and whole: whoever opens one finds the old or the new.
        """
        stage = ".flaskflex-new"
        remove_tree(self.root / stage)
        self.git("checkout-index", "-q", "-z", "--stdin", f"--prefix={stage}/",
                 stdin=b"".join(os.fsencode(path) + b"\0" for path in written))
        for place in (self.root / path for path in removed):
            place.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # up to the first folder that is not empty
                for folder in place.relative_to(self.root).parents[:-1]:
                    (self.root / folder).rmdir()
        for path in written:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.root / stage / path, self.root / path)
        shutil.rmtree(self.root / stage, ignore_errors=True)

    def update(self, old: str, new: str, ours: set[str], *, keep: bool) -> set[str]:
        """Replace the files of one commit by another's; return those that the site has changed and keeps.

        What may be replaced is what git's two-tree rules allow (git-read-tree(1), "Two Tree Merge"): nothing
        that the site made or changed itself. More than by git is allowed: a file may be as the new commit has
        it already, one that the site changed and the new commit lacks stays, untracked, and files in which
        [replace] works (ours) are the host's. Raise Failure, with nothing changed, if another file is in the
        way; with keep it stays.
        """
        self.index_file.with_name(f"{self.index_file.name}.lock").unlink(missing_ok=True)  # of a killed git
        self.git("read-tree", "-i", "-m", old)
        changes, edited = self.changes(old, new), self.edited()
        doubtful = {path for path, change in changes.items() if path in ours
                    or self.has_file(path) and (path in edited or change.old_mode == ABSENT)}
        gone = {path for path, change in changes.items() if change.new_mode == ABSENT}
        removed, written = gone - (doubtful - ours), changes.keys() - gone
        in_the_way = self.settle({path: changes[path] for path in doubtful}) - ours
        in_the_way |= {path for path in written if self.is_blocked(path, removed)}
        if in_the_way and not keep:
            raise in_the_way_failure(self.repository.with_suffix(""), sorted(in_the_way))
        self.git("read-tree", "-i", "-m", old, new)
        self.place(written - in_the_way, removed)
        return (edited - changes.keys() | doubtful & gone) - ours


def copy_site(site: Path, copy: Path, log: Log) -> None:
    """Copy a site that is in use, with links, times and modes; what may not be read is left out and told."""
    remove_tree(copy)
    reflink = ["--reflink=auto"] if sys.platform == "linux" else []
    done = subprocess.run(["cp", "-a", *reflink, f"{site}/.", str(copy)], stderr=subprocess.PIPE,
                          env={**os.environ, "LC_ALL": "C"})
    lines = [line for line in done.stderr.decode("utf-8", "backslashreplace").splitlines()
             if "No such file" not in line]  # it was there a moment ago
    for line in lines:
        log.write(line)
    if any("Permission denied" not in line for line in lines):
        raise Failure("the site cannot be copied for a trial", "See above, and df on the host.")


def adopt_copy(site: Path, copy: Path) -> None:
    """Make a copied site one of its own: links, the virtualenv's programs and editable installs name it."""
    old, new = os.fsencode(site), os.fsencode(copy)
    pattern = re.compile(re.escape(old) + rb"(?![\w.-])")  # not a neighbour whose name begins alike
    virtualenv = copy / ".venv"
    files = [*virtualenv.glob("bin/*"), virtualenv / "pyvenv.cfg"]
    for kind in ("*.pth", "*.egg-link", "__editable__*.py", "*.dist-info/direct_url.json"):
        files += virtualenv.glob(f"lib/*/site-packages/{kind}")
    for path in files:
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
            if pattern.search(content) and b"\0" not in content:
                path.write_bytes(pattern.sub(lambda _: new, content))
    links = subprocess.run(["find", str(copy), "-type", "l", "-print0"], stdout=subprocess.PIPE).stdout
    for link in links.split(b"\0")[:-1]:
        target = os.readlink(link)
        if pattern.match(target):
            os.unlink(link)
            os.symlink(new + target[len(old):], link)


# --- host: what .flx says is carried out ---


def has_lost_python(root: Path) -> bool:
    """Return True if the system, upgraded perhaps, has no more the Python of a site's virtualenv."""
    python = interpreter(root / ".venv")
    version = re.fullmatch(r"python3\.\d+", python.resolve().name)
    return os.path.lexists(python) and not (
        python.exists() and (version is None or (root / ".venv" / "lib" / version[0]).is_dir()))


def command_environ(mark: str) -> dict[str, str]:
    """Return the environment of commands, built anew: nothing of git's, which would lead their git astray.

    For its hooks git puts the folder of its own programs in front of PATH.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return {
        "HOME": os.path.expanduser("~"), "USER": user_name(), "LOGNAME": user_name(),
        "LANG": os.environ.get("LANG", "C.UTF-8"), HOST_MARKER: mark,
        "PATH": os.pathsep.join(folder for folder in folders if not folder.endswith("/git-core")),
    }


def end_marked(mark: str) -> None:
    """End the processes that carry a mark, and what they start meanwhile."""
    for _ in range(10):
        pids = process_tree(os.getpid(), f"{HOST_MARKER}={mark}") - {os.getpid()}
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def flx_failure(line: FlxLine, reason: str) -> Failure:
    """Return why a line of .flx was not carried out."""
    return Failure(f".flx, line {line.number}: {line.text}: {reason}",
                   "Fix that line, commit, and push again.")


class FlxRun(NamedTuple):
    """Where .flx is carried out: the folder, the values for [replace], the mark of its processes, the log."""

    root: Path
    variables: Mapping[str, str]
    mark: str
    seconds: float  # for each line
    log: Log

    def inside(self, line: FlxLine, path: str) -> Path:
        """Return the place of a path that a line names; raise Failure if nothing of the project is there."""
        place = (self.root / path).resolve()
        if self.root not in (place, *place.parents) or not place.exists():
            raise flx_failure(line, f"{path} is not in the project")
        return place

    def replace(self, lines: Sequence[FlxLine], pushed: Callable[[str], bytes]) -> None:
        """Put values into files, always into what was pushed: a value may hold the token that it replaces."""
        contents: dict[Path, bytes] = {}
        for line in lines:
            path, token, name = line.fields
            place = self.inside(line, path)
            if name not in self.variables:
                raise flx_failure(line, f"this host has no {name} for the project")
            content = contents.get(place) or pushed(os.path.normpath(path))
            contents[place] = content.replace(os.fsencode(token), os.fsencode(self.variables[name]))
        for place, content in contents.items():
            write_beside(place, content, place.stat().st_mode & 0o777)

    def set_mode(self, line: FlxLine) -> None:
        """Set the mode of a file or folder."""
        path, mode = line.fields
        self.inside(line, path).chmod(int(mode, 8))

    def run(self, line: FlxLine) -> None:
        """Run a command in a shell of its own; raise Failure if it fails, or takes or prints too much."""
        self.log.write(f"$ {line.text}")
        with open(self.log.path, "ab") as output:
            limit, deadline = output.tell() + OUTPUT_LIMIT, time.monotonic() + self.seconds
            process = subprocess.Popen(["/bin/sh", "-c", line.text], cwd=self.root, start_new_session=True,
                                       env=command_environ(self.mark), stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output)
        reason, pause = "", 0.001
        try:
            while process.poll() is None and not reason:
                self.log.show()
                if time.monotonic() > deadline:
                    reason = f"takes longer than {self.seconds:g} s (git config flaskflex.timeout SECONDS)"
                elif self.log.path.stat().st_size > limit:
                    reason = f"prints more than {OUTPUT_LIMIT >> 20} MB"
                time.sleep(pause)
                pause = min(2 * pause, 0.01)
        finally:
            if process.poll() is None:
                end_marked(self.mark)
                process.wait()
        self.log.show()
        if reason or process.returncode:
            raise flx_failure(line, reason or f"ended with {process.returncode}")

    def carry_out(self, lines: Sequence[FlxLine], pushed: Callable[[str], bytes], *, setup: bool) -> None:
        """Do what the lines say; pushed returns a file as the commit has it. Raise Failure if one fails."""
        actions: dict[str, Callable[[FlxLine], None]] = {
            "setup": self.run, "deploy": self.run, "permission": self.set_mode}
        for line in lines:
            if line.section not in FLX_SECTIONS:
                self.log.fact("Left out", f".flx, line {line.number}: {flx_warning(line, set())}")
            elif flx_error(line):
                raise flx_failure(line, flx_error(line))
        self.replace([line for line in lines if line.section == "replace"], pushed)
        for section, action in actions.items():
            for line in lines:
                if line.section == section and (setup or section != "setup"):
                    action(line)


# --- host: the application is asked ---


def site_virtualenv(root: Path) -> Virtualenv:
    """Return the virtualenv of a site; our own Python stands in for it if [setup] makes none."""
    python = interpreter(root / ".venv")
    return Virtualenv(root / ".venv", python if python.exists() else Path(sys.executable), "", ".flx")


def ask_site(root: Path) -> Finding:
    """Start the application of a site, or of a trial, as Apache would, and ask it for its first page."""
    script = root / "public_html" / "dispatch.fcgi"
    if not script.exists():
        return Finding("fail", "public_html/dispatch.fcgi is missing", "In the project: python flaskflex.py")
    started = time.monotonic()
    with running_application(script, site_virtualenv(root), None) as (address, log):
        answer = fastcgi_request(address, cgi_environ(script, "/"), ANSWER_SECONDS)
        return finding_for(answer, answer.errors + log.read_bytes(), time.monotonic() - started)


def ask_url(url: str) -> Finding:
    """Ask for a page as a visitor would: an error of the server's is a failure, no server a warning."""
    import urllib.error
    import urllib.request

    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=ANSWER_SECONDS) as page:
            status = page.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:
        return Finding("warn", f"{url} cannot be asked from here: {error}")
    return Finding("fail" if status >= 500 else "ok", f"GET {url} answers {status}",
                   "See the site's error log.")


def report_answer(finding: Finding, log: Log) -> None:
    """Log how the application answered; raise Failure if it does not run."""
    if finding.level == "fail":
        raise Failure(finding.text, finding.hint)
    log.fact("Asked", finding.text)


# --- host: a project on its host ---


class HostedProject:
    """A project on its host: the repository NAME.git, and the site NAME beside it."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.site = repository.with_suffix("")
        self.state = repository / "flaskflex"  # the script that the hooks call, the lock, the logs
        self.checkout = Checkout(repository, self.site, self.state / "index")
        self.before = self.state / "before"  # what the site held before the first push, until that is live
        self.mark = f"{os.getpid()}-{time.time_ns()}"  # by it, processes that this one starts are known
        self.described: dict[str, str] = {}

    def git(self, *args: str) -> str:
        """Return what git prints in the repository, without the last line break, or raise Failure."""
        return os.fsdecode(git_output(self.repository, *args)).rstrip("\n")

    def branch(self) -> str:
        """Return the ref that deploys, such as refs/heads/main: the first one pushed became HEAD."""
        return os.fsdecode((self.repository / "HEAD").read_bytes()).partition(": ")[2].rstrip("\n")

    def commits(self) -> tuple[str, str]:
        """Return the commit that the branch names, and the one that is live; "" if there is none."""
        branch = self.branch()
        listing = self.git("for-each-ref", "--format=%(objectname) %(refname)", "--", branch, LIVE)
        found = {ref: commit for commit, ref in (line.split(" ", 1) for line in listing.splitlines())}
        return found.get(branch, ""), found.get(LIVE, "")

    def setting(self, name: str) -> str:
        """Return what `git config NAME` says in the repository, "" if nothing."""
        return os.fsdecode(run_git(self.repository, "config", name).stdout).strip()

    def describe(self, commit: str) -> str:
        """Return a commit's short name and subject."""
        if commit and commit not in self.described:
            shown = self.git("log", "-1", "--no-show-signature", "--format=%h %s", commit)
            self.described[commit] = shown[:100]
        return self.described.get(commit, "nothing")

    def log_path(self, commit: str) -> Path:
        """Return where the log of a push is kept; only the newest logs stay."""
        folder = self.state / "logs"
        folder.mkdir(exist_ok=True)
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-20]:
            old.unlink(missing_ok=True)
        return folder / f"{commit}.log"

    def remove_stale_locks(self) -> None:
        """Remove the locks of a git that was killed: one that runs keeps them for some milliseconds."""
        for name in ("HEAD", "config", self.branch(), LIVE):
            path = self.repository / f"{name}.lock"
            with contextlib.suppress(FileNotFoundError):
                while time.time() - path.stat().st_mtime < 3:
                    time.sleep(0.05)
                path.unlink()

    @contextlib.contextmanager
    def locked(self, log: Log, holder: str) -> Iterator[None]:
        """Be the only one who works on this project; say for whom it waits until then.

        The lock ends with its process. One that was killed leaves its marks in the file: what it had started
        is ended.
        """
        with open(self.state / "lock", "a+b") as lock:
            if not try_lock(lock.fileno()):
                lock.seek(0)
                log.fact("Waiting", f"for {lock.readline(200).decode('utf-8', 'replace').strip()}")
                while not try_lock(lock.fileno()):
                    log.show()
                    time.sleep(0.01)
            lock.seek(0)
            for mark in lock.read().decode().split("\n")[1:]:
                end_marked(mark)
            lock.truncate(0)
            lock.write(f"{holder}\n{self.mark}\n{self.mark}-live".encode())
            lock.flush()
            os.environ[HOST_MARKER] = self.mark
            self.remove_stale_locks()
            try:
                yield
            finally:
                lock.truncate(0)

    def flx(self, commit: str) -> list[FlxLine]:
        """Return the lines of a commit's .flx, none if it has no such file."""
        content = run_git(self.repository, "cat-file", "blob", f"{commit}:.flx").stdout
        return parse_flx(content.decode("utf-8", "surrogateescape"))

    def variables(self) -> dict[str, str]:
        """Return the values for [replace]; those of a project's database are in a file of its own."""
        variables = {"PROJECT_NAME": self.site.name}
        with contextlib.suppress(FileNotFoundError):
            text = (self.state / "variables").read_text(encoding="utf-8")
            variables.update(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        return variables

    def line_seconds(self) -> float:
        """Return how long a line of .flx may take; raise Failure if the setting is no number."""
        setting = self.setting("flaskflex.timeout") or f"{LINE_SECONDS}"
        if not re.fullmatch(r"\d+(\.\d+)?", setting):
            raise Failure(f"flaskflex.timeout is {setting!r}, and no number of seconds",
                          "On the host, in the repository: git config flaskflex.timeout 600")
        return float(setting)

    def deploy(self, tree: Checkout, old: str, new: str, log: Log, *, keep: bool = False) -> set[str]:
        """Let a folder that holds one commit run another; return files that the site changed and keeps."""
        lines = self.flx(new)
        ours = {os.path.normpath(line.fields[0]) for line in (*self.flx(old), *lines)
                if line.section == "replace"}
        kept = tree.update(old, new, ours, keep=keep)
        mark = f"{self.mark}-live" if tree.root == self.site else self.mark
        run = FlxRun(tree.root, self.variables(), mark, self.line_seconds(), log)
        run.carry_out(lines, lambda path: tree.git("cat-file", "--filters", f"{new}:{path}"),
                      setup=old == EMPTY_TREE or has_lost_python(tree.root))
        return kept

    def try_commit(self, old: str, new: str, log: Log) -> None:
        """Try a commit on a copy of the site, which stays as it is; raise Failure if it does not run."""
        log.fact("Trying", f"{self.describe(new)} (in a copy of the site)")
        trial = Checkout(self.repository, self.state / "trial", self.state / "trial-index")
        try:
            copy_site(self.site, trial.root, log)
            adopt_copy(self.site, trial.root)
            shutil.copyfile(self.checkout.index_file, trial.index_file)
            for path in sorted(self.deploy(trial, old, new, log)):
                log.fact("Note", f"{path} was changed on the host, and stays as it is there")
            report_answer(ask_site(trial.root), log)
        finally:
            end_marked(self.mark)
            remove_tree(trial.root)

    def forget_before(self) -> None:
        """Remove the copy of what the site held before the first push: all of it, or nothing."""
        if self.before.exists():
            remove_tree(self.state / "trial")
            os.rename(self.before, self.state / "trial")
            remove_tree(self.state / "trial")

    def restore_before(self) -> None:
        """Let the site hold what it held before a first push that failed, or was cut off."""
        if self.before.exists():
            for path in self.site.iterdir():
                remove_tree(path)
            if subprocess.run(["cp", "-a", f"{self.before}/.", str(self.site)]).returncode:
                raise Failure(f"{self.before} cannot be copied back to {self.site}", "See df on the host.")
            self.forget_before()

    def try_first(self, new: str, log: Log) -> None:
        """Try the first commit in the site itself: nothing is live that this could harm.

        If it fails, the site holds again what it held before (a .env, perhaps).
        """
        log.fact("Trying", self.describe(new))
        self.restore_before()
        copy_site(self.site, self.state / "trial", log)
        os.rename(self.state / "trial", self.before)
        try:
            with starts_delayed(self.site):
                self.deploy(self.checkout, EMPTY_TREE, new, log)
            report_answer(ask_site(self.site), log)
        except BaseException:
            end_marked(f"{self.mark}-live")
            self.restore_before()
            raise

    def ask_live(self, log: Log, tried_here: bool) -> None:
        """Ask the site for its first page, at its URL if that is known; raise Failure if it does not run."""
        url = self.setting("flaskflex.url")
        if url:
            finding = ask_url(url)
            if tried_here and finding.level == "fail":  # it ran: what fails is Apache's setting
                finding = finding._replace(level="warn")
            report_answer(finding, log)
        elif not tried_here:
            report_answer(ask_site(self.site), log)

    def put_back(self, new: str, old: str, log: Log) -> None:
        """Serve the old commit again, and let the branch name it, so that the new one can be pushed again."""
        try:
            with starts_delayed(self.site):
                self.deploy(self.checkout, new, old, log, keep=True)
        except (Failure, OSError) as failure:
            log.failure("Failed", failure)
        self.git("update-ref", "-m", "what was pushed did not run", self.branch(), old, new)
        log.fact("Served", self.describe(old))

    def go_live(self, log: Log) -> None:
        """Let the site serve what the branch names, if it does not yet; if that fails, put the old back.

        If this was cut off, be it anywhere, calling it again finishes.
        """
        new, old = self.commits()
        if not new:
            self.restore_before()
        if new == old:
            return
        log.fact("Going live", self.describe(new))
        tried_here = not old and self.before.exists()
        try:
            if not tried_here:
                with starts_delayed(self.site):
                    self.deploy(self.checkout, old or EMPTY_TREE, new, log)
            self.ask_live(log, tried_here)
            self.git("update-ref", "--create-reflog", "-m", f"push: {self.describe(new)}", LIVE, new)
        except (Failure, OSError) as failure:
            log.failure("Failed", failure)
            if old:
                self.put_back(new, old, log)
            return
        self.forget_before()
        log.fact("Live", self.describe(new))
        log.write(self.setting("flaskflex.url") or f"Its document root is {self.site / 'public_html'}")


# --- host: git's hooks ---


def try_push(hosted: HostedProject, log: Log, old: str, new: str) -> None:
    """Try a push to the branch that deploys, once what that names now is live; raise Failure to refuse."""
    hosted.go_live(Log(hosted.log_path(hosted.commits()[0] or "host"), shown=False))
    now, live = hosted.commits()
    if old != now:
        raise Failure("somebody else has pushed meanwhile", "git pull, and push again.")
    if new == live:
        log.fact("Live", f"already: {hosted.describe(new)}")
    elif live:
        hosted.try_commit(live, new, log)
    else:
        hosted.try_first(new, log)


def take_push(hosted: HostedProject, log: Log, ref: str, old: str, new: str) -> None:
    """Judge a push of one ref, for the hook `update`; raise Failure to refuse it."""
    branch = hosted.branch()
    if ref.startswith("refs/heads/") and not any(hosted.commits()):
        branch = ref  # the first branch that is pushed
    if ref.startswith("refs/flaskflex/"):
        raise Failure(f"{ref} is the host's own", "Push to a branch.")
    if not new.strip("0"):
        return  # git itself refuses to delete the branch that HEAD names
    if ref != branch:
        short = re.sub("^refs/(heads|tags)/", "", ref)
        log.fact("Stored", f"{short}, which does not deploy: that is {branch[len('refs/heads/'):]}")
        log.fact("To deploy", shell_line("git", "push", "origin", f"{short}^{{}}:{branch}"))
        return
    with hosted.locked(log, f"the push of {hosted.describe(new)}"):
        try_push(hosted, log, old if old.strip("0") else "", new)
        if branch != hosted.branch():
            hosted.git("symbolic-ref", "HEAD", branch)


def finish_push(hosted: HostedProject, log: Log) -> None:
    """Let the branch go live, or see it go live.

    The pusher's last hook and a process of the host's own both do this: the first one does the work, and
    nothing is left to do for the other.
    """
    with hosted.locked(log, "a push that goes live"):
        hosted.go_live(log)


def run_hook(hook: str, args: Sequence[str]) -> int:
    """Do the work of a hook in the repository, which is the current folder; return the hook's exit status.

    What it prints goes through the log alone: a pusher who does not read must not stop it.
    """
    os.umask(0o022)
    hosted, status = HostedProject(Path.cwd()), 0
    path = hosted.log_path(args[-1])
    if hook == "update":
        path.unlink(missing_ok=True)
    log = Log(path)
    if hook == "watch":  # going live may have begun already
        log.position = max(path.read_bytes().rfind(b"\nGoing live  ") + 1, 0) or log.position
    try:
        if hook == "update":
            take_push(hosted, log, *args)
        else:
            finish_push(hosted, log)
    except (Failure, OSError) as failure:
        log.failure("Refused", failure)
        log.fact("Served", hosted.describe(hosted.commits()[1]))
        status = 1
    log.finish()
    return status


# --- host: the command ---

OLDEST_GIT = (2, 28)  # the first that has the hook reference-transaction

# A relative core.hooksPath is taken from the repository, whatever the user's own says. Without --atomic each
# branch of a push is moved before the next one is judged: the first is known as the one that deploys.
HOST_SETTINGS = {
    "core.hooksPath": "hooks", "core.logAllRefUpdates": "always",
    "receive.shallowUpdate": "true", "receive.advertiseAtomic": "false",
}


def make_repository(hosted: HostedProject) -> None:
    """Make the bare repository of a project: whole, or not at all. Raise Failure on foreign files."""
    found = re.search(r"(\d+)\.(\d+)", os.fsdecode(git_output(Path("/"), "version")))
    if found and (int(found[1]), int(found[2])) < OLDEST_GIT:
        raise Failure(f"git {found[0]} is too old to host a project", "It takes git 2.28 or newer.")
    for place in (hosted.repository, hosted.site):
        if os.path.lexists(place) and not (is_real_folder(place) and not any(place.iterdir())):
            raise Failure(f"{place} is there already, and flaskflex host did not make it",
                          "Choose another name for the project, or move that away.")
    fresh = hosted.repository.with_name(f".{hosted.repository.name}.flaskflex-new")
    remove_tree(fresh)
    git_output(Path("/"), "init", "--quiet", "--bare", "--template=", "--object-format=sha1",
               "--initial-branch=main", str(fresh))
    (fresh / "flaskflex").mkdir()
    (fresh / "hooks").mkdir()
    os.rename(fresh, hosted.repository)


def renew_repository(hosted: HostedProject, url: Optional[str]) -> None:
    """Make the site, the settings, the hooks and the copy of this script as they have to be."""
    hosted.site.mkdir(exist_ok=True)
    # A virtualenv may be gone tomorrow.
    python = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
    settings = {**HOST_SETTINGS, "flaskflex.python": python, "flaskflex.url": url or ""}
    for name, value in settings.items():
        if value and hosted.setting(name) != value:
            hosted.git("config", name, value)
    write_beside(hosted.state / "flaskflex.py", Path(__file__).read_bytes(), 0o644)
    for hook in ("update", "reference-transaction", "post-receive"):
        write_beside(hosted.repository / "hooks" / hook, HOOK.encode(), 0o755)


def list_projects(folder: Path, report: Report) -> None:
    """Report each project that is hosted in a folder: what it serves, since when, how its last push ended."""
    found = [HostedProject(path) for path in sorted(folder.glob("*.git")) if (path / "flaskflex").is_dir()]
    for hosted in found:
        live = "nothing is live yet"
        if hosted.commits()[1]:
            live = hosted.git("log", "-1", "--walk-reflogs", "--date=relative", "--format=%h %s (%gd)", LIVE)
        report.fact(f"{hosted.site.name} ", re.sub(r"\(\S+@\{(.*)\}\)$", r"(\1)", live))
        logs = sorted(hosted.state.glob("logs/*.log"), key=lambda path: path.stat().st_mtime)
        text = logs[-1].read_text("utf-8", "replace") if logs else ""
        for result in re.findall("^((?:Refused|Failed|Live) .*)", text, re.MULTILINE)[-1:]:
            report.fact("", f"last push: {result}")
    if not found:
        report.fact("Nothing", f"is hosted in {folder} (flaskflex.py host NAME makes a project)")


def host(options: argparse.Namespace, report: Report) -> int:
    """Take pushes of a project in a folder, or list the projects there; return the exit status."""
    if options.hook:
        return run_hook(options.hook[0], options.hook[1:])
    folder = Path(options.directory).resolve()
    if not shutil.which("git"):
        raise Failure(*NO_GIT)
    if options.name is None:
        list_projects(folder, report)
        return 0
    if not re.fullmatch(r"(?!.*\.(git|lock)$)[A-Za-z0-9][A-Za-z0-9._-]*", options.name):
        raise Failure(f"{options.name!r} is no name for a project",
                      "Take letters, digits, dots and hyphens; for another folder: -C DIR")
    hosted = HostedProject(folder / f"{options.name}.git")
    if not hosted.state.is_dir():
        make_repository(hosted)
    log = Log(hosted.log_path("host"))
    with hosted.locked(log, "flaskflex host"):
        renew_repository(hosted, options.url)
        hosted.go_live(log)
    log.finish()
    report.fact("Repository", str(hosted.repository))
    report.fact("Site", f"{hosted.site}, with the document root {hosted.site / 'public_html'}")
    url = f"{user_name()}@{os.uname().nodename}:{hosted.repository}"
    report.fact("Clone", shell_line("git", "clone", url))
    report.fact("Next", "python flaskflex.py in the clone, then git push")
    return 0


# --- host: a machine of one's own ---

# Root writes to these folders, which are root's alone. What lies in a home is the project's: it is read and
# written as the project's user, who could put a link to anywhere in its place at any moment.
HOMES = Path("/var/www")  # below it, Debian's suexec runs programs
LOGS = Path("/var/log/flaskflex")
SITES = Path("/etc/apache2/sites-available")
SITES_ENABLED = Path("/etc/apache2/sites-enabled")
LOGROTATE_FILE = Path("/etc/logrotate.d/flaskflex")
ARCHIVES = Path("/var/backups/flaskflex")

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_PYTHON = "/usr/bin/python3"  # every user of the machine can run it
PACKAGES = ("git", "python3-venv", "openssh-server", "apache2", "apache2-suexec-pristine",
            "libapache2-mod-fcgid", "logrotate")
MACHINE_OPTIONS = ("domain", "key", "revoke", "database", "restore", "remove")

# With one of these an .htaccess can act as Apache's own user, who may read what any project serves.
UNSAFE_MODULES = r"\b(php\d*|wsgi|perl|lua|proxy)_module\b"

# A user and a DNS label; not what certbot would call the second file of another project's site.
PROJECT_NAME = r"(?!.*-le-ssl$)[a-z]([a-z0-9-]{0,30}[a-z0-9])?"
DOMAIN = r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*"
PUBLIC_KEY = r"[a-z0-9@.-]+ ([A-Za-z0-9+/]+={0,2})( [^\x00-\x1f\x7f]*)?"
VARIABLES = "{0}.git/flaskflex/variables"  # in a project's home: what [replace] knows
DATABASE_COMMENT = "made by flaskflex host"


def run_as(user: str, *command: str, stdin: str = "") -> str:
    """Run a program as root or as a project's user; return what it prints, raise Failure if it fails.

    Its environment is built anew, and root's terminal is out of its reach.
    """
    import pwd

    entry = pwd.getpwnam(user)
    environ = {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user, "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
    done = subprocess.run(command, input=os.fsencode(stdin), capture_output=True, cwd=entry.pw_dir,
                          env=environ, umask=0o022, start_new_session=True,
                          user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    if done.returncode:
        raise Failure(f"{command[0]} failed (as {user})", printable(done.stderr or done.stdout))
    return os.fsdecode(done.stdout)


def printable(output: bytes) -> str:
    """Return the end of what a project's programs print, without what would control root's terminal."""
    lines = output.decode("utf-8", "replace").strip().split("\n")[-50:]
    return "\n".join("".join(char if char.isprintable() else "?" for char in line[:500]) for line in lines)


def run_flaskflex(name: str, *args: str) -> str:
    """Run a copy of this script (it may lie in root's own home) as a user; return what it prints."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        os.chmod(folder, 0o755)
        script = Path(folder, "flaskflex.py")
        write_beside(script, Path(__file__).read_bytes(), 0o644)
        return run_as(name, SYSTEM_PYTHON, "-I", str(script), "host", *args)


def read_in_home(name: str, path: str) -> str:
    """Return the text of a file in a project's home, "" without one."""
    return run_as(name, "sh", "-c", 'timeout 9 head -c 1000000 "$1" 2>/dev/null || true', "sh", path)


def write_in_home(name: str, path: str, text: str) -> None:
    """Write a file in a project's home that only its user can read."""
    script = 'umask 077; mkdir -p "${1%/*}"; cat >"$1.flaskflex-new"; mv -f "$1.flaskflex-new" "$1"'
    run_as(name, "sh", "-ec", script, "sh", path, stdin=text)


def project_users() -> list[str]:
    """Return the names of the projects of this machine."""
    import pwd

    return sorted(entry.pw_name for entry in pwd.getpwall()
                  if entry.pw_uid >= 1000 and entry.pw_dir == str(HOMES / entry.pw_name))


def make_user(name: str) -> None:
    """Make the user of a project, with a home that Apache may enter and other users may not."""
    import pwd

    home = HOMES / name
    if name not in project_users():
        if os.path.lexists(home) or name in (entry.pw_name for entry in pwd.getpwall()):
            raise Failure(f"{name} is a user of this machine already, or {home} a folder",
                          "Choose another name for the project.")
        run_as("root", "useradd", "--user-group", "--no-create-home", "--home-dir", str(home),
               "--shell", "/bin/bash", "--password", "*", name)  # none; a locked one would refuse keys too
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
            lines = opened.read(1 << 20).decode("utf-8", "replace").splitlines()
        for line in [line.strip() for line in lines if line.strip() and not line.startswith("#")] or [""]:
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
    old = read_in_home(name, path).splitlines()
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
    """Return True if there is a database that was made for a project."""
    return bool(shutil.which("mariadb", path=SYSTEM_PATH)) and DATABASE_COMMENT in run_sql(
        f"SELECT SCHEMA_COMMENT FROM information_schema.SCHEMATA WHERE SCHEMA_NAME='{name}'")


def make_database(name: str) -> None:
    """Make a MariaDB database and its user, both named like the project, which gets to know the password."""
    import secrets

    if not has_database(name) and run_sql(f"SELECT 1 FROM mysql.user WHERE User='{name}'; "
                                          f"SHOW DATABASES LIKE '{name}'"):
        raise Failure(f"MariaDB has a database or a user {name}, which flaskflex host did not make",
                      "Choose another name for the project.")
    variables = VARIABLES.format(name)
    known = re.search(r"^DB_PASSWORD=([a-zA-Z0-9_-]{32})$", read_in_home(name, variables), re.MULTILINE)
    password = known[1] if known else secrets.token_urlsafe(24)
    run_sql(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COMMENT '{DATABASE_COMMENT}';"
            f"CREATE USER IF NOT EXISTS '{name}'@'localhost';"
            f"ALTER USER '{name}'@'localhost' IDENTIFIED BY '{password}';"
            f"GRANT ALL ON `{name}`.* TO '{name}'@'localhost';")
    write_in_home(name, variables,
                  f"DB_HOST=localhost\nDB_NAME={name}\nDB_USER={name}\nDB_PASSWORD={password}\n")


def site_files(name: str) -> list[Path]:
    """Return the files of a project's site: ours, and the one that certbot makes of it for https."""
    return [SITES / f"flaskflex-{name}.conf", SITES / f"flaskflex-{name}-le-ssl.conf"]


def served_domains(name: str) -> list[str]:
    """Return the domains of a project, as its site's file has them."""
    site = site_files(name)[0]
    text = site.read_text() if site.exists() else ""
    return re.findall(r"^ *Server(?:Name|Alias) (\S+)", text, re.MULTILINE)


def check_apache(name: str, domains: Sequence[str]) -> None:
    """Raise Failure if Apache's files are wrong or unsafe already, or another site has one of the domains."""
    file = ""
    for line in run_as("root", "apache2ctl", "-t", "-D", "DUMP_VHOSTS", "-D", "DUMP_MODULES").splitlines():
        unsafe = re.search(UNSAFE_MODULES, line)
        if unsafe:
            raise Failure(f"Apache has {unsafe[0]}, with which projects could read each other's files",
                          f"Host projects on a machine without it: sudo a2dismod {unsafe[1]}")
        place = re.search(r" \((/\S+):\d+\)$", line)
        file = place[1] if place else file
        taken = set(domains) & set(line.split())
        if taken and Path(file).name not in (path.name for path in site_files(name)):
            raise Failure(f"{taken.pop()} is the name of another site: see {file}",
                          "Choose another domain, or take that site away (sudo a2dissite).")


def switch_sites(command: str, sites: Sequence[str]) -> None:
    """Enable or disable sites of Apache's, by a2ensite or a2dissite."""
    if sites:
        run_as("root", command, "--quiet", *sites)


def reload_apache() -> None:
    """Let Apache read its files again; it goes on with the requests that it has."""
    if Path("/run/systemd/system").is_dir():
        run_as("root", "systemctl", "reload-or-restart", "apache2")
    else:
        run_as("root", "apache2ctl", "graceful")


def write_site(name: str, domains: Sequence[str]) -> None:
    """Let Apache serve a project at its domains; raise Failure, with all as it was, if that is refused."""
    common, site = SITES / "000-flaskflex.conf", site_files(name)[0]
    old = {path: path.read_text() for path in (common, site) if path.exists()}
    names = "".join(f"    ServerAlias {domain}\n" for domain in domains).replace("Alias", "Name", 1)
    new = {common: old.get(common, APACHE_CONF),
           site: re.sub(r"(?m)^ *ServerName .*\n(?: *ServerAlias .*\n)*", names,
                        old.get(site, APACHE_SITE.replace("yourprojectname", name)), count=1)}
    disabled = [path.stem for path in new if not (SITES_ENABLED / path.name).exists()]
    if new == old and not disabled:
        return
    run_as("root", "a2enmod", "--quiet", "suexec", "fcgid", "rewrite")
    try:
        for path, text in new.items():
            write_beside(path, text.encode(), 0o644)
        switch_sites("a2ensite", disabled)
        run_as("root", "apache2ctl", "configtest")
    except BaseException:
        switch_sites("a2dissite", disabled)
        for path in new:
            if path in old:
                write_beside(path, old[path].encode(), 0o644)
            else:
                path.unlink(missing_ok=True)
        raise
    reload_apache()


def remove_project(name: str, report: Report) -> None:
    """Take a project off the machine: once nobody reaches it any more, all that it has goes to an archive."""
    if name not in project_users():
        raise Failure(f"there is no project {name} on this machine", "host without a NAME lists them.")
    archive, dump = ARCHIVES / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz", ARCHIVES / f"{name}.sql"
    domains = served_domains(name)
    sites = [path.stem for path in site_files(name) if (SITES_ENABLED / path.name).exists()]
    try:
        switch_sites("a2dissite", sites)
        reload_apache()
        run_as("root", "usermod", "--expiredate", "1", name)  # no login, no cron
        run_as(name, "sh", "-c", "kill -KILL -1 2>/dev/null || true")  # but the shell itself
        database = has_database(name)
        if database:
            run_as("root", "mariadb-dump", "--single-transaction", "--routines", f"--result-file={dump}",
                   name)
        places = [HOMES / name, LOGS / name, *site_files(name), Path("/var/spool/cron/crontabs", name), dump]
        kept = [str(place) for place in places if os.path.lexists(place)]
        run_as("root", "tar", "-cPzf", f"{archive}.part", *kept)
        os.rename(f"{archive}.part", archive)
    except BaseException:
        run_as("root", "rm", "-f", f"{archive}.part", str(dump))
        run_as("root", "usermod", "--expiredate", "", name)
        switch_sites("a2ensite", sites)
        reload_apache()
        raise
    if database:
        run_sql(f"DROP DATABASE IF EXISTS `{name}`; DROP USER IF EXISTS '{name}'@'localhost';")
    run_as("root", "rm", "-rf", *kept)
    with contextlib.suppress(Failure):  # other users may have files in its folders there
        run_as("root", "find", "/tmp", "/var/tmp", "/dev/shm", "-xdev", "-user", name, "-delete")
    run_as("root", "userdel", name)
    report.fact("Removed", f"{name}; all that it had is in {archive}")
    report.fact("Restore", shell_line(
        "sudo", "python3", sys.argv[0], "host", name, *(f"--domain={domain}" for domain in domains),
        *(["--database"] if database else []), f"--restore={archive}"))


def restore_home(name: str, archive: str) -> None:
    """Put what an archive holds of a project's home there, as its user: root only reads the archive."""
    script = 'runuser -u "$1" -- tar -xPzf - "$2" <"$3"'
    run_as("root", "sh", "-ec", script, "sh", name, str(HOMES / name), archive)


def restore_database(name: str, archive: str) -> None:
    """Put what an archive holds of a project's database there."""
    dump = str(ARCHIVES / f"{name}.sql")
    run_as("root", "sh", "-ec", 'tar -xPzf "$1" "$2"; mariadb "$3" <"$2"; rm "$2"', "sh", archive, dump, name)


def host_on_machine(options: argparse.Namespace, report: Report) -> None:
    """Make a project on this machine, or renew and change it; raise Failure before anything is changed."""
    name = options.name
    domains = [domain.lower() for domain in options.domain] or served_domains(name)
    if not domains:
        raise Failure(f"no project {name} has a site on this machine", "Name its --domain to make it.")
    for domain in domains:
        if not re.fullmatch(DOMAIN, domain):
            raise Failure(f"{domain!r} is not a domain", "It is like www.example.org (or xn--...).")
    if options.restore and name in project_users():
        raise Failure(f"{name} is there already", "Restore a project that was removed: host NAME --remove")
    added, revoked = read_keys(options.key), read_keys(options.revoke)
    check_apache(name, domains)
    make_user(name)
    if options.restore:
        restore_home(name, os.path.abspath(options.restore))
    run_flaskflex(name, name, "--url", options.url or f"http://{domains[0]}/")
    run_as(name, "chmod", "700", f"{name}.git")
    run_as(name, "sh", "-c", 'ln -sT "$1" log 2>/dev/null || true', "sh", str(LOGS / name))
    keys = change_keys(name, added, revoked)
    if options.database:
        make_database(name)
        if options.restore:
            restore_database(name, os.path.abspath(options.restore))
    write_site(name, domains)
    if not LOGROTATE_FILE.exists():
        write_beside(LOGROTATE_FILE, LOGROTATE.encode(), 0o644)
    report.fact("Project", f"{name}, a user with the home {HOMES / name}")
    report.fact("Site", ", ".join(f"http://{domain}/" for domain in domains))
    report.fact("Keys", f"{keys} (more: --key FILE; fewer: --revoke FILE)")
    report.fact("Clone", f"git clone ssh://{name}@{domains[0]}/~/{name}.git")
    report.fact("Next", "python flaskflex.py in the clone, then git push")


def list_machine(report: Report) -> None:
    """Report the projects of this machine: domains, what is live, the last push, size and processes."""
    for name in project_users():
        report.fact(f"{name} ", ", ".join(served_domains(name)))
        try:
            listed = run_flaskflex(name, "-C", ".")
            size = run_as(name, "du", "-sh", ".").split()[0]
        except Failure as failure:
            listed, size = f"{failure}: {failure.hint}", "unknown"
        for line in printable(os.fsencode(listed)).split("\n"):
            report.fact("", re.sub(f"^{name} +|^ +", "", line))
        processes = run_as("root", "find", "/proc", "-maxdepth", "1", "-name", "[0-9]*",
                           "-user", name).split()
        report.fact("", f"size: {size}, processes: {len(processes)}")


def lock_machine() -> None:
    """Wait until nobody else changes users and sites, and be the only one as long as this process runs."""
    import fcntl

    run_as("root", "install", "-d", "-m", "700", str(ARCHIVES))  # no one but root can open, and so lock, it
    fcntl.flock(os.open(ARCHIVES, os.O_RDONLY), fcntl.LOCK_EX)


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


def run_host(options: argparse.Namespace, report: Report) -> int:
    """Take pushes in a folder, or on a machine of one's own if an option asks; return the exit status."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    asked = [f"--{option}" for option in MACHINE_OPTIONS if getattr(options, option)]
    if not asked:
        if is_root and not options.name and not options.hook and project_users():
            list_machine(report)
            return 0
        return host(options, report)
    if not is_root:
        raise Failure(f"{asked[0]} is for root, on a machine of one's own",
                      f"Type: {shell_line('sudo', 'python3', *sys.argv)}")
    if not re.fullmatch(PROJECT_NAME, options.name or ""):
        raise Failure(f"{options.name or ''!r} is not a name for a project of this machine",
                      "Take small letters, digits and hyphens, no more than 32, beginning with a letter.")
    require_packages([*PACKAGES, *(["mariadb-server"] if options.database else [])])
    lock_machine()
    if options.remove:
        remove_project(options.name, report)
    else:
        host_on_machine(options, report)
    return 0


# --- demo ---


HELLO_WORLD = '''\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello, world!"
'''


def echo_and_run(folder: Optional[Path], *command: str) -> None:
    """Show a command as it would be typed, and run it; Failure where it fails."""
    print(f"$ {shell_line(*command)}", flush=True)
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode:
        raise Failure(f"the demo stopped at: {shell_line(*command)}",
                      "Mend what it says above (on Debian: apt install python3-venv), remove the folder, "
                      "and try again.")


def page_of(site: Path) -> str:
    """Return the first page that a site serves."""
    script = site / "public_html" / "dispatch.fcgi"
    with running_application(script, site_virtualenv(site), None) as (address, _):
        answer = fastcgi_request(address, cgi_environ(script, "/"), ANSWER_SECONDS)
    return answer.output.replace(b"\r\n", b"\n").partition(b"\n\n")[2].decode("utf-8", "replace")


def demo(options: argparse.Namespace, report: Report) -> int:
    """Go the whole way with a small example: a host, a clone, a push, the page; return the exit status."""
    folder = Path(options.directory, options.demo_directory).absolute()
    if folder.exists():
        raise Failure(f"{folder} exists already",
                      "Name a folder that does not: python flaskflex.py demo DIR")
    if not shutil.which("git"):
        raise Failure(*NO_GIT)
    script = Path(__file__).resolve()
    if not script.exists():  # it came through a pipe
        raise Failure("the demo runs flaskflex.py several times, and needs it as a file",
                      "Download it, and type: python3 flaskflex.py demo")
    hosted = HostedProject(folder / "host" / "yourprojectname.git")
    project, virtualenv = folder / "yourprojectname", folder / "env"
    python = str(interpreter(virtualenv))
    flaskflex = (python, str(script), "--venv", str(virtualenv))
    echo_and_run(None, "mkdir", "-p", str(folder / "host"))
    echo_and_run(folder / "host", sys.executable, str(script), "host", "yourprojectname")
    echo_and_run(folder, "git", "clone", "--quiet", str(hosted.repository))
    echo_and_run(folder, sys.executable, "-m", "venv", "env")
    echo_and_run(folder, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "flask")
    (project / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    (project / "application").mkdir()
    (project / "application" / "app.py").write_text(HELLO_WORLD, encoding="utf-8")
    if run_git(project, "var", "GIT_COMMITTER_IDENT").returncode:
        echo_and_run(project, "git", "config", "user.name", "A Student")
        echo_and_run(project, "git", "config", "user.email", "student@example.org")
    echo_and_run(project, *flaskflex)
    echo_and_run(project, "git", "add", ".")
    echo_and_run(project, "git", "commit", "--quiet", "--message=initial deployment")
    echo_and_run(project, python, str(script), "check", "--venv", str(virtualenv))
    echo_and_run(project, "git", "push", "--quiet", "origin", "HEAD")
    report.fact("The page", page_of(hosted.site))
    report.fact("Look at", f"what was written: {shell_line('git', '-C', str(project), 'log', '--stat')}")
    application = str(project / "application" / "app.py")
    report.fact("See it run", shell_line(python, "-m", "flask", "--app", application, "run"))
    report.fact("Next", "the same in the clone of your own project: python flaskflex.py")
    return 0


# --- the command line ---


def build_parser() -> argparse.ArgumentParser:
    """The command line, as the module's docstring describes it."""
    parser = argparse.ArgumentParser(prog="flaskflex", description=__doc__, add_help=True,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    parser.set_defaults(run=prepare)
    option("--version", action="version", version=f"flaskflex {__version__}")
    option("-C", "--directory", metavar="DIR", default=".", help="work as if started in DIR")
    option("--venv", metavar="DIR", help="freeze this virtualenv instead of the active one")
    option("--exclude", metavar="NAME", action="append", default=[],
           help="leave a package out of req.txt (repeatable)")
    option("-n", "--dry-run", action="store_true",
           help="show what would change, as a unified diff; write nothing, fetch nothing")
    option("-f", "--force", action="store_true",
           help="replace files that flaskflex would otherwise leave alone")
    option("--no-commit", action="store_true", help="write the files; leave staging and committing to you")
    option("-m", "--message", metavar="TEXT", default="Prepare for deployment with flaskflex",
           help="the commit's message")
    option("-q", "--quiet", action="store_true", help="say nothing but errors")
    commands = parser.add_subparsers(dest="command", metavar="[check|host|demo]", title="commands")
    check_parser = commands.add_parser("check", help="tell whether this project would deploy")
    option = check_parser.add_argument
    option("-C", "--directory", metavar="DIR", default=argparse.SUPPRESS, help="work as if started in DIR")
    option("--venv", metavar="DIR", default=argparse.SUPPRESS,
           help="compare with this virtualenv instead of the active one")
    option("--timeout", metavar="SECONDS", type=timeout_seconds, default=30.0,
           help="how long the application may take to answer (30)")
    check_parser.set_defaults(run=check)
    option("--fresh", action="store_true",
           help="ask in a new virtualenv made from req.txt, as the server would make it")
    host_parser = commands.add_parser("host", help="take pushes here: the other end of git push")
    option = host_parser.add_argument
    host_parser.set_defaults(run=run_host)
    option("name", metavar="NAME", nargs="?",
           help="the project: NAME.git takes its pushes, NAME is its site; without it: list the projects")
    option("-C", "--directory", metavar="DIR", default=argparse.SUPPRESS, help="work as if started in DIR")
    option("--url", metavar="URL", help="where visitors find the site: asked and shown after each push")
    machine = host_parser.add_argument_group("on a machine of one's own (root, Debian)")
    option = machine.add_argument
    option("--domain", metavar="NAME", action="append", default=[],
           help="make a user and an Apache site, for this domain (repeatable)")
    option("--key", metavar="FILE", action="append", default=[],
           help="let those who have the keys of a file push, and log in (repeatable)")
    option("--revoke", metavar="FILE", action="append", default=[], help="take the keys of a file away again")
    option("--database", action="store_true", help="make a MariaDB database (DB_NAME ... in [replace])")
    option("--restore", metavar="FILE", help="put what the archive of a removed project holds there")
    option("--remove", action="store_true", help="take the project off the machine, into an archive")
    option = host_parser.add_argument
    option("--hook", nargs="+", help=argparse.SUPPRESS)  # a hook of git's calls, with its arguments
    demo_parser = commands.add_parser("demo", help="build a small example and prepare it")
    demo_parser.set_defaults(run=demo)
    demo_parser.add_argument("demo_directory", metavar="DIR", nargs="?", default="flaskflex-demo",
                             help="the folder to build it in (flaskflex-demo); it must not exist yet")
    return parser


def parse_arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The options that were given; SystemExit where these are wrong, or ask for no more than a text."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
        if not options.message.strip():
            parser.error("--message needs a text")
    except SystemExit:
        sys.stdout.flush()  # whoever was to read the help may be gone: main() deals with that
        raise
    return options


TERMINATION_SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))


def catch_interruptions() -> None:
    """Let SIGTERM and a lost terminal end flaskflex like ^C."""
    for number in TERMINATION_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and a shell's &, have their reasons
            signal.signal(number, handle_signal)


def handle_signal(number: int, frame: object) -> NoReturn:
    """End as ^C does, with everything put in order, which a second ^C must not cut short."""
    for further in TERMINATION_SIGNALS:
        signal.signal(further, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Let an interruption wait for the end of an import, which may swallow it or make an error of it."""
    waiting: list[int] = []
    caught = [number for number in TERMINATION_SIGNALS if signal.getsignal(number) is handle_signal]
    for number in caught:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, handle_signal)
    if waiting:
        handle_signal(waiting[0], None)


def timeout_seconds(text: str) -> float:
    """A time to wait, from the command line: more than nothing, and no more than a day."""
    count = float(text)
    if not 0 < count <= 86400:
        raise ValueError(text)  # argparse says how flaskflex is used
    return count


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run flaskflex with command-line arguments, those of the process by default; gives the exit status."""
    # A stream that was closed (>&-) is None: then what we print goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for name in GIT_VARIABLES:
        os.environ.pop(name, None)
    try:
        options = parse_arguments(argv)
        catch_interruptions()
        status: int = options.run(options, Report(quiet=options.quiet, colour=wants_colour()))
        sys.stdout.flush()
        return status
    except Failure as failure:
        print(f"flaskflex: error: {failure}\n{failure.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has heard enough, as in `flaskflex.py -n | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:  # it is our own output that cannot be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"flaskflex: error: {error}\nMend that, and run flaskflex again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flaskflex: interrupted", file=sys.stderr)
        return 130


def wants_colour() -> bool:
    """True on a terminal, unless its user has set NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


# --- the templates: edit them in templates/, then run `cog -r flaskflex.py` ---

# [[[cog
# import pathlib
# import cog
#
# for constant, name in (("FLX", "flx"), ("HTACCESS", "htaccess"), ("DISPATCH_FCGI", "dispatch.fcgi"),
#                        ("HOOK", "hook"), ("APACHE_SITE", "apache-site.conf"),
#                        ("APACHE_CONF", "apache.conf"), ("LOGROTATE", "logrotate.conf")):
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

# Files ending in .fcgi are programs, which mod_fcgid starts and talks to.
Options +ExecCGI
AddHandler fcgid-script .fcgi

# Apache keeps passwords from programs; an application that has logins of its
# own needs to see this header.
SetEnvIf Authorization "(.+)" HTTP_AUTHORIZATION=$1

RewriteEngine On

# Nobody may read names that begin with a dot, such as .env or .git.
RewriteRule (^|/)\.(?!well-known(/|$)) - [F]

# Nobody may ask for dispatch.fcgi by its name.
RewriteCond %{ENV:REDIRECT_STATUS} ^$
RewriteRule ^dispatch\.fcgi(/|$) - [R=404,L]

# Whatever is not a file goes to dispatch.fcgi, and the path that was asked for
# goes with it, beside the address, where nothing decodes it a second time.
RewriteCond %{REQUEST_FILENAME} !-f
RewriteRule ^(.*)$ dispatch.fcgi/ [E=FLX_PATH:/$1,L]
'''

DISPATCH_FCGI = r'''#!/usr/bin/env python3
"""Serve the Flask application in application/app.py to Apache, over FastCGI.

Written by flaskflex: change what you like, it keeps your changes.
"""
import errno
import os
import re
import socket
import sys
from urllib.parse import unquote

HERE = os.path.abspath(__file__)
PROJECT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
STARTED = os.stat(HERE)

# Apache's mod_fcgid starts this file with a listening socket as standard input.
try:
    listener = socket.socket(fileno=os.dup(0))
    started_by_apache = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
except OSError:
    started_by_apache = False
if not started_by_apache:
    sys.exit("dispatch.fcgi is for Apache to start; by hand, type: flask --app application/app.py run")

# Go on in the project's own virtualenv, where the packages of req.txt are.
python = os.path.join(PROJECT, ".venv", "bin", "python")
if sys.prefix == sys.base_prefix and os.path.exists(python):
    os.execv(python, [python, HERE])

# Find the application as "flask --app application/app.py run" finds it.
os.chdir(os.path.join(PROJECT, "application"))
sys.path.append(PROJECT)
from flask.cli import ScriptInfo  # noqa: E402 (the virtualenv has it)
from flup.server.fcgi_single import WSGIServer  # noqa: E402

application = ScriptInfo("app.py").load_app()


def with_path(environ, start_response):
    """Call the application with the path that was asked for, which .htaccess passes on."""
    path = environ.get("REDIRECT_FLX_PATH")
    if path:
        asked = unquote(environ["REQUEST_URI"].split("?")[0], "latin-1")
        asked = re.sub("^[^/]+//[^/]*|/(?=/)", "", asked)  # without a host, and with single slashes
        environ["SCRIPT_NAME"] = asked[:-len(path)] if asked.endswith(path) else ""
        environ["PATH_INFO"] = path
    return application(environ, start_response)


class Server(WSGIServer):
    """Make way for new code when this file is touched or replaced."""

    def _mainloopPeriodic(self):  # flup calls this after each request and every second
        try:
            now = os.stat(HERE)
        except OSError:
            return  # it is being replaced at this very moment
        if (now.st_dev, now.st_ino) != (STARTED.st_dev, STARTED.st_ino):
            listener.shutdown(socket.SHUT_RD)  # replaced: serve who waits, and Apache starts the new file
        elif now.st_mtime_ns != STARTED.st_mtime_ns:
            os.execv(sys.executable, [sys.executable, HERE])  # touched: start again, on the same socket


try:
    Server(with_path).run()
except OSError as error:
    if error.errno != errno.EINVAL:  # replaced, and nobody waits any more
        raise
'''

HOOK = r'''#!/bin/sh
# Take what is pushed: git calls this script as update, reference-transaction
# and post-receive. Written by flaskflex host, and renewed by it.
#
# Git calls it in the repository, and often. Only if there is work is Python
# started, on the copy of flaskflex.py that lies here.

read -r _ branch <HEAD  # "ref: refs/heads/main"

flaskflex() {
    python=$(git config flaskflex.python)
    if ! command -v "$python" >/dev/null; then
        echo "flaskflex: error: the host has no $python any more" >&2
        echo "Run there: python3 flaskflex.py host $(basename "$PWD" .git)" >&2
        exit 1
    fi
    exec "$python" -I -c 'import sys
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

APACHE_CONF = r'''# What the sites of all projects have in common. Written by flaskflex host, once:
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
EXECUTABLE = ("public_html/dispatch.fcgi",)
FILES = (*TEMPLATES, "req.txt")

if __name__ == "__main__":
    raise SystemExit(main())
