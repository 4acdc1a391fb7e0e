#!/usr/bin/env python3
"""Prepare a Flask project for deployment by git push, in one run of one file.

    python flaskflex.py [options]          prepare this project for deployment
    python flaskflex.py demo [DIR]         build a small example in DIR and prepare it

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

# A project may hold a git.py or a typing.py: nothing is imported from the folder this file lies in.
if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Mapping, NamedTuple, NoReturn, Optional, Sequence
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import git

__version__ = "1.0.0"

Environ = Mapping[str, str]

# The pinned distributions are what was tested; releases before the floor have known security faults.
GITPYTHON_FLOOR = (3, 1, 60)
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


class Report:
    """Tells on standard output what a run does, one line a fact, with the words lined up."""

    def __init__(self, *, quiet: bool, colour: bool) -> None:
        self.quiet = quiet
        self.colour = colour

    def fact(self, label: str, text: str) -> None:
        """A line such as `Project     /home/me/yourprojectname (branch main)`."""
        self._print(f"{label:<12}{text}")

    def file(self, verb: str, text: str) -> None:
        """A line such as `   create   .flx`."""
        shown = f"{verb:>9}"
        if self.colour:
            shown = f"\033[32m{shown}\033[0m"
        self._print(f"{shown}   {text}")

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


# --- the project ---

# Git sets these for its hooks; left alone they would lead away from the project that was asked for.
GIT_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)

NO_GIT = ("git is not installed", "Install it (on Debian: apt install git), and run flaskflex again.")

# What is under way while one of these exists in git's folder, and the command that ends it.
UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
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


class Head(NamedTuple):
    """Where the project stands: its branch (None: detached), its commit (None: not one yet), our files."""

    branch: Optional[str]
    commit: Optional[str]
    blobs: dict[str, Blob]


def ask_git(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with `given` on its standard input; the caller looks at how it ended."""
    return subprocess.run(["git", "-C", str(folder), *arguments], input=given, capture_output=True)


def git_output(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git prints in answer to a question, or a Failure with git's own words."""
    answer = ask_git(folder, *arguments, given=given)
    if answer.returncode:
        raise Failure(f"git {arguments[0]} failed in {folder}", git_words(answer.stderr))
    return answer.stdout


def git_words(stderr: bytes) -> str:
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
    answer = ask_git(folder, *project_questions())
    lines = os.fsdecode(answer.stdout).split("\n")
    if lines[0] == "true":
        raise Failure(f"{folder} is a bare repository, without files to prepare",
                      "Clone it, and run flaskflex in the clone.")
    if answer.returncode:
        refuse_folder(folder, answer.stderr)
    _, index, *signs = lines[:2 + len(UNDER_WAY)]
    root = "\n".join(lines[2 + len(UNDER_WAY):-1])  # comes last: a path may hold a line break
    for sign, activity in zip(signs, UNDER_WAY.values()):
        if (folder / sign).exists():
            raise Failure(f"a {activity} is under way in {root}",
                          f"Finish it (git {activity} --continue) or give it up (git {activity} --abort), "
                          "and run flaskflex again.")
    return Project(Path(root), folder / index)


def project_questions() -> list[str]:
    """The one call of git that tells all that find_project needs."""
    questions = ["rev-parse", "--is-bare-repository", "--git-path", "index"]
    for name in UNDER_WAY:
        questions += ["--git-path", name]
    return questions + ["--show-toplevel"]


def refuse_folder(folder: Path, stderr: bytes) -> NoReturn:
    """Say why git finds no work tree at a folder: there is none, or git will not open it."""
    absolute = folder.resolve()
    if any((parent / ".git").exists() for parent in (absolute, *absolute.parents)):
        raise Failure(f"git does not open the repository of {absolute}", git_words(stderr))
    raise Failure(f"{absolute} is not in a git repository",
                  "Clone your project, and run flaskflex in the clone. (git init makes a new repository.)")


def check_identity(project: Project) -> None:
    """Raise Failure where git does not know as whom to commit, before anything is written."""
    for variable in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        answer = ask_git(project.root, "var", variable)
        if answer.returncode:
            raise Failure("git does not know who you are, so it cannot commit", git_words(answer.stderr))


def read_head(project: Project, paths: Sequence[str]) -> Head:
    """Where HEAD stands, and how it holds the files at `paths`."""
    branch = ask_git(project.root, "symbolic-ref", "--quiet", "--short", "HEAD")
    commit = ask_git(project.root, "rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    name = os.fsdecode(branch.stdout).rstrip("\n") or None
    if commit.returncode:
        return Head(name, None, {})
    head = commit.stdout.decode().strip()
    return Head(name, head, read_blobs(project, head, paths))


def read_blobs(project: Project, commit: str, paths: Sequence[str]) -> dict[str, Blob]:
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


def find_base(project: Project, head: Head, path: str) -> Optional[bytes]:
    """What flaskflex itself committed last at a path: git is its memory. None where it never did.

    Every commit of flaskflex's ends with the trailer Flaskflex-Version; the newest that is in the history
    of HEAD and touched the path counts.
    """
    if head.commit is None:
        return None
    commit = git_output(project.root, "rev-list", "--max-count=1", "--full-history",
                        f"--grep=^{TRAILER}: [0-9]", head.commit, "--", path).decode().strip()
    blob = read_blobs(project, commit, [path]).get(path) if commit else None
    return blob.content if blob else None


# --- the virtualenv ---


class Virtualenv(NamedTuple):
    """A virtualenv: its folder, its interpreter, that one's version such as "3.11.7", who named it."""

    path: Path
    python: Path
    version: str
    source: str


def find_virtualenv(named: Optional[str], environ: Environ, project: Project, report: Report) -> Virtualenv:
    """The application's virtualenv: the one named by --venv, else the active one, else our interpreter's.

    Raises Failure where there is none, or where the one that was named is not a virtualenv.
    """
    found = list(virtualenv_candidates(named, environ))
    if not found:
        raise Failure("no virtualenv is active", activation_hint(project.root))
    source, path = found[0]
    virtualenv = read_virtualenv(source, path)
    for other_source, other in found[1:]:
        if not named and other.resolve() != path.resolve():
            report.warning(f"taking the virtualenv of {source}, {path}, not that of {other_source}, {other}")
    return virtualenv


def virtualenv_candidates(named: Optional[str], environ: Environ) -> Iterator[tuple[str, Path]]:
    """Where to look for the virtualenv, in the order of precedence: (who says so, folder)."""
    if named is not None:
        yield "--venv", Path(named).absolute()
    if environ.get("VIRTUAL_ENV"):
        yield "VIRTUAL_ENV", Path(environ["VIRTUAL_ENV"])
    # Installed by pipx or uv, flaskflex has a virtualenv of its own, which is not the application's.
    installed = Path(__file__).resolve().parent.name in ("site-packages", "dist-packages")
    if sys.prefix != sys.base_prefix and not installed:
        yield "the Python that runs flaskflex", Path(sys.prefix)


def read_virtualenv(source: str, path: Path) -> Virtualenv:
    """The facts of the virtualenv in a folder; Failure where it is not one, or has lost its Python."""
    again = "Activate your application's virtualenv, or name it with --venv."
    if not path.is_dir():
        raise Failure(f"{source} names {path}, which is not there", again)
    if not any((path / sign).exists() for sign in ("pyvenv.cfg", "bin/activate", "Scripts/activate")):
        raise Failure(f"{source} names {path}, which is not a virtualenv", again)
    python = interpreter(path)
    if not python.exists():
        raise Failure(f"the virtualenv {path} has lost its Python",
                      f"Make it anew: python3 -m venv --clear {path}")
    return Virtualenv(path, python, python_version(path, python), source)


def interpreter(path: Path, windows: bool = os.name == "nt") -> Path:
    """Where the interpreter of the virtualenv in a folder lies."""
    return path / "Scripts" / "python.exe" if windows else path / "bin" / "python"


def python_version(path: Path, python: Path) -> str:
    """The version of a virtualenv's Python, which venv, virtualenv and uv note in pyvenv.cfg."""
    with contextlib.suppress(OSError):
        noted = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)",
                          (path / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if noted:
            return noted[1]
    asked = [str(python), "-I", "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout.decode().strip()


def activation_hint(root: Path) -> str:
    """How to activate a virtualenv: the project's own, where it holds one."""
    for name in (".venv", "venv", "env"):
        if (root / name / "pyvenv.cfg").exists():
            return f"Your project holds one: source {root / name / 'bin' / 'activate'}"
    return ("Activate the one you use for your application (source PATH/bin/activate), or name it: "
            "python flaskflex.py --venv PATH")


@contextlib.contextmanager
def freezing(virtualenv: Virtualenv) -> Iterator[subprocess.Popen[bytes]]:
    """Run pip freeze while the caller does everything else: it takes longer than all the rest.

    It is isolated (-I) from the project's files and PYTHONPATH, and from the user's settings for pip, of
    which none is of use here. It ends with the block, whatever happens there.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ["PIP_CONFIG_FILE"] = os.devnull
    command = [str(virtualenv.python), "-I", "-X", "utf8", "-m", "pip", "freeze", "--local"]
    with subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing to a process that has ended


def frozen_lines(freeze: subprocess.Popen[bytes], virtualenv: Virtualenv) -> list[str]:
    """Wait for pip freeze, and give back the lines that it printed."""
    output, errors = freeze.communicate()
    if freeze.returncode:
        raise Failure(f"pip freeze failed in {virtualenv.path}", git_words(errors))
    return output.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")


# --- req.txt ---

FLUP = "flup==1.0.3"  # what dispatch.fcgi imports to speak FastCGI

# The last line of the frozen part. The fingerprint tells whether somebody edited what stands above it.
MARKER = "# --- frozen above ({fingerprint}); your own lines go below, and stay ---\n"
MARKER_LINE = re.compile(r"^# --- frozen above \(([0-9a-f]{12})\).*\n?", re.MULTILINE)


class Requirement(NamedTuple):
    """One line of req.txt, and the name of the distribution that it asks for."""

    name: str
    line: str


class OldRequirements(NamedTuple):
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
    for line in lines:
        if line.startswith("#"):
            remark = re.search(r"\(([\w.-]+)==", line)
            commented = remark[1] if remark else commented
        elif line.strip():
            named = re.match(r"([\w.-]+)\s*(?:@|==)", line) or re.search(r"[#&]egg=([\w.-]+)", line)
            requirements.append(Requirement(named[1] if named else commented, line.strip()))
            commented = ""
    return requirements


def deployable(requirements: Sequence[Requirement], virtualenv: Virtualenv, project: Project,
               excluded: Sequence[str], report: Report) -> list[Requirement]:
    """The requirements as the server can install them, sorted as pip sorts them.

    Raises Failure with all those that it could not install, or that would give a secret away.
    """
    left_out = {canonical(name) for name in excluded}
    for name in sorted(left_out - {canonical(requirement.name) for requirement in requirements}):
        report.warning(f"--exclude {name}: {virtualenv.path} holds no such package")
    kept, refused = [], []
    for requirement in requirements:
        if canonical(requirement.name) in left_out:
            continue
        if requirement.line == "pkg-resources==0.0.0":  # pip issue 4022
            report.warning("pkg-resources==0.0.0 is left out: it is Debian's, and installs nowhere")
            continue
        try:
            kept.append(deployable_requirement(requirement, virtualenv, project))
        except ValueError as reason:
            refused.append(f"{requirement.name} {reason}")
    if refused:
        raise Failure("req.txt would not do on the server: " + "; ".join(refused),
                      "Publish such a package, copy it into the project, or leave it out with --exclude NAME.")
    if "flask" not in map(canonical, (requirement.name for requirement in kept)):
        report.warning(f"there is no Flask in {virtualenv.path}: is this the right virtualenv?")
    return sorted(kept, key=lambda requirement: requirement.name.lower())


def deployable_requirement(requirement: Requirement, virtualenv: Virtualenv,
                           project: Project) -> Requirement:
    """A requirement as the server can install it, with a path that is relative to the project's root.

    Raises ValueError, with the reason as its text, where the server could not, or must not be told.
    """
    folder = install_folder(requirement, virtualenv)
    if folder is None:
        if carries_secret(requirement.line):
            raise ValueError("is installed from an address that holds a password or a token")
        return requirement
    if virtualenv.path in folder.parents:  # pip install -e git+… keeps its clone in the virtualenv
        return requirement
    if project.root.resolve() not in folder.parents:
        raise ValueError(f"is installed from {folder}, outside the project")
    path = f"./{folder.relative_to(project.root.resolve()).as_posix()}"
    return requirement._replace(line=f"-e {path}" if requirement.line.startswith("-e") else path)


def install_folder(requirement: Requirement, virtualenv: Virtualenv) -> Optional[Path]:
    """The folder or file of this machine that a requirement was installed from, None for all others.

    In a clone with an origin, pip freeze hides a local editable install behind the origin's address; only
    the distribution's direct_url.json (PEP 610) tells where it lies.
    """
    where = requirement.line[3:].strip() if requirement.line.startswith("-e ") else ""
    if where and "://" not in where:
        return Path(where).resolve()
    address = direct_url(requirement.name, virtualenv) if where else requirement.line.partition(" @ ")[2]
    return Path(unquote(urlsplit(address).path)).resolve() if address.startswith("file:") else None


def direct_url(name: str, virtualenv: Virtualenv) -> str:
    """The address that a distribution was installed from, as its direct_url.json tells; "" without one."""
    import json
    from importlib import metadata

    folders = [str(folder) for folder in virtualenv.path.glob("[Ll]ib/**/site-packages")]
    for distribution in metadata.distributions(name=name, path=folders):
        return str(json.loads(distribution.read_text("direct_url.json") or "{}").get("url", ""))
    return ""


def carries_secret(line: str) -> bool:
    """True if a requirement's address holds what looks like a password or a token.

    A user name alone is none over ssh (git@host); over https it may be a token, and so may any query.
    """
    address = urlsplit(re.sub(r"^(-e |.* @ )", "", line).strip())
    if "://" not in line:
        return False
    user, at, _ = address.netloc.rpartition("@")
    return bool(address.query or ":" in user or (at and not address.scheme.endswith("ssh")))


def split_requirements(text: str) -> Optional[OldRequirements]:
    """The parts of a req.txt that flaskflex wrote, or None where its marker line is not there."""
    marker = MARKER_LINE.search(text)
    if marker is None:
        return None
    frozen = text[:marker.start()]
    return OldRequirements(frozen, marker[1] == fingerprint(frozen), text[marker.end():])


def render_requirements(requirements: Sequence[Requirement], version: str, own: str) -> bytes:
    """The text of req.txt: the frozen requirements, the marker line, the user's own lines."""
    lines = [f"# The application's virtualenv (Python {version}), frozen by flaskflex: edit nothing here.\n"]
    lines += [f"{requirement.line}\n" for requirement in requirements]
    frozen = "".join(lines)
    return (frozen + MARKER.format(fingerprint=fingerprint(frozen)) + own).encode("utf-8", "surrogateescape")


def fingerprint(text: str) -> str:
    """Twelve hexadecimal digits that change when the text does."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def with_flup(requirements: Sequence[Requirement], own: str) -> list[Requirement]:
    """The requirements and flup, unless the virtualenv or the user's own lines have it already."""
    users = parse_requirements(own.split("\n"))
    named = {canonical(requirement.name) for requirement in (*requirements, *users)}
    flup = [] if "flup" in named else [Requirement("flup", FLUP)]
    return sorted([*requirements, *flup], key=lambda requirement: requirement.name.lower())


def count_changes(old: str, new: Sequence[Requirement]) -> str:
    """What a new freeze changes, such as `+2 -1 ~3`: requirements added, removed, changed."""
    before, after = ({canonical(requirement.name): requirement.line for requirement in requirements}
                     for requirements in (parse_requirements(old.split("\n")), new))
    changed = sum(before[name] != after[name] for name in before.keys() & after.keys())
    return f"+{len(after.keys() - before.keys())} -{len(before.keys() - after.keys())} ~{changed}"


# --- the files ---


class Found(NamedTuple):
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
    new_mode: int
    note: str = ""

    @property
    def writes(self) -> bool:
        """True if the file is to be written."""
        return self.verb not in ("keep", "unchanged") or self.mode != self.new_mode


class Conflict(Exception):
    """A file that only --force would replace; the text is why."""


def find_file(root: Path, path: str) -> Found:
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
        return Found((root / path).read_bytes(), (root / path).stat().st_mode & 0o7777)
    except FileNotFoundError:
        return Found(None, 0)


def plan_files(project: Project, head: Head, requirements: Sequence[Requirement], version: str,
               *, force: bool) -> list[Change]:
    """What is to become of each of the four files.

    Raises Failure with all those that are not flaskflex's to change, unless `force`.
    """
    changes, refused = [], []
    for path in FILES:
        found = find_file(project.root, path)
        try:
            if path == "req.txt":
                change = plan_requirements(found, head.blobs.get(path), requirements, version, force=force)
            else:
                change = plan_template(path, found, project, head, force=force)
        except Conflict as reason:
            refused.append(f"{path} {reason}")
        else:
            changes.append(change)
    if refused:
        raise Failure("; ".join(refused),
                      "Nothing was changed. Rename such a file to keep it, or let --force replace it: "
                      "git then keeps its text, and flaskflex says where.")
    return changes


def plan_template(path: str, found: Found, project: Project, head: Head, *, force: bool) -> Change:
    """What is to become of a file that is made from a template, by the rules of a three-way merge.

    The base is what flaskflex committed last, the one side is the file, the other is the template.
    """
    template = TEMPLATES[path].encode()
    change = Change(path, "create", found.content, template, found.mode, new_mode(path, found))
    if found.content is None:
        return change
    text = with_lf(found.content)
    if text == template:
        committed = head.blobs.get(path)
        # Git may have put CRLF into the work tree (core.autocrlf): what it holds itself counts.
        intact = found.content == template or (committed and committed.content == template)
        return change._replace(verb="unchanged" if intact else "update")
    base = find_base(project, head, path)
    if base == text:
        return change._replace(verb="update")
    merged = None
    if base is not None and base != template:
        merged = merge(text, base, template)
    if merged is not None:
        return change._replace(verb="merge", after=merged)
    if force:
        return change._replace(verb="replace")
    if base is None:
        raise Conflict("is not flaskflex's, and differs from what flaskflex would write")
    if base == template:
        return change._replace(verb="keep", after=found.content, note="with your changes")
    raise Conflict("has changes of yours that do not go together with this flaskflex's")


def plan_requirements(found: Found, committed: Optional[Blob], requirements: Sequence[Requirement],
                      version: str, *, force: bool) -> Change:
    """What is to become of req.txt: frozen anew above the marker line, left alone below it."""
    text = decode(found.content or b"").replace("\r\n", "\n")
    old = split_requirements(text)
    own = old.own if old else ""
    new = with_flup(requirements, own)
    after = render_requirements(new, version, own)
    added = ", and flup to serve them" if len(new) > len(requirements) else ""
    change = Change("req.txt", "create", found.content, after, found.mode, new_mode("req.txt", found),
                    plural(len(requirements), "package") + added)
    if found.content is None:
        return change
    if text.encode("utf-8", "surrogateescape") == after:
        return change._replace(verb="unchanged", note="")
    change = change._replace(note=count_changes(old.frozen if old else text, new))
    if old and (old.intact or (committed and with_lf(committed.content) == with_lf(found.content))):
        return change._replace(verb="update")
    if force:
        return change._replace(verb="replace")
    if old:
        raise Conflict("was edited above its marker line, and no commit holds that edit")
    raise Conflict("is not flaskflex's, and differs from what flaskflex would write")


def new_mode(path: str, found: Found) -> int:
    """A file's permission bits: those it has, executable where it must be, never writable for others.

    Apache's suexec refuses a script that group or others may write.
    """
    mode = (0o644 if found.content is None else found.mode) & ~0o022
    return mode | 0o111 if path in EXECUTABLE else mode


def with_lf(content: bytes) -> bytes:
    """A text with the line endings that every file of flaskflex's has."""
    return content.replace(b"\r\n", b"\n")


def decode(content: bytes) -> str:
    """A requirements file's text, whichever encoding it is in: PowerShell's `>` writes UTF-16."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return content.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")


def merge(ours: bytes, base: bytes, theirs: bytes) -> Optional[bytes]:
    """The text with both sides' changes to the base, by git merge-file; None where they conflict."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        names = ["ours", "base", "theirs"]
        for name, content in zip(names, (ours, base, theirs)):
            Path(folder, name).write_bytes(content)
        answer = ask_git(Path(folder), "merge-file", "-p", *names)
    return None if answer.returncode else answer.stdout


def show_diff(changes: Sequence[Change]) -> Iterator[str]:
    """The lines of a unified diff of what would change, in git's own form."""
    import difflib

    for change in changes:
        if not change.writes:
            continue
        yield f"diff --git a/{change.path} b/{change.path}"
        if change.before is None:
            yield f"new file mode 100{change.new_mode:o}"
        elif change.mode != change.new_mode:
            yield f"old mode 100{change.mode:o}"
            yield f"new mode 100{change.new_mode:o}"
        before, after = (text.decode("utf-8", "surrogateescape").splitlines(keepends=True)
                         for text in (change.before or b"", change.after))
        source = "/dev/null" if change.before is None else f"a/{change.path}"
        for line in difflib.unified_diff(before, after, source, f"b/{change.path}"):
            yield line.rstrip("\n") if line.endswith("\n") else f"{line}\n\\ No newline at end of file"


def keep_replaced(project: Project, changes: Sequence[Change], report: Report) -> None:
    """Store what --force replaces in git's object store, and say how to see it again."""
    for change in changes:
        if change.verb == "replace" and change.before is not None:
            name = git_output(project.root, "hash-object", "-w", "--stdin", given=change.before)
            report.fact("Kept", f"the old {change.path}: git cat-file -p {name.decode().strip()}")


def write_files(root: Path, changes: Sequence[Change]) -> None:
    """Write the files: each beside its place first, and only when all are whole, each into its place."""
    with contextlib.ExitStack() as undo:
        ready = []
        for change in changes:
            if change.writes:
                target = root / change.path
                make_folder(target.parent)
                ready.append((write_beside(target, change), target))
                undo.callback(ready[-1][0].unlink, missing_ok=True)
        for written, target in ready:
            os.replace(written, target)


def make_folder(folder: Path) -> None:
    """Make a folder as Apache's suexec wants it: writable for its owner alone."""
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(0o755)


def write_beside(target: Path, change: Change) -> Path:
    """Write a file's new content and permission bits to a new file in the same folder; gives its path."""
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".flaskflex-")
    with open(descriptor, "wb") as file:
        file.write(change.after)
    os.chmod(name, change.new_mode)
    return Path(name)


# --- GitPython ---


def import_gitpython(virtualenv: Virtualenv, report: Report) -> None:
    """Make `import git` work in this process: with the GitPython that is there, else with one of our own."""
    if installed_gitpython() < GITPYTHON_FLOOR:
        sys.path.insert(0, str(fetch("GitPython", GITPYTHON_PINS, virtualenv, report)))
    import git  # noqa: F401 (slow, so it is done while pip freeze runs)


def installed_gitpython() -> tuple[int, ...]:
    """The version of the GitPython that this interpreter would import, () without one."""
    from importlib import metadata

    try:
        version = metadata.version("GitPython")
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


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
    cache.mkdir(parents=True, exist_ok=True)
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
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "flaskflex")


def install_pinned(name: str, pins: str, target: Path, virtualenv: Virtualenv) -> None:
    """Install pinned, hashed wheels into a folder with pip; Failure with pip's words where it cannot."""
    requirements = target.with_suffix(".txt")
    requirements.write_text(pins, encoding="utf-8")
    # PIP_USER forbids --target, and PIP_REQUIRE_VIRTUALENV may; all other settings are the user's to make.
    environ = {"PIP_RETRIES": "2", **os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    command = [str(virtualenv.python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--require-hashes", "--only-binary", ":all:", "--no-deps", "--target", str(target),
               "--requirement", str(requirements)]
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        words = done.stdout.decode("utf-8", "backslashreplace").strip()
        raise Failure(f"{name} is not installed here, and could not be fetched",
                      f"{words}\nRun flaskflex again when the package index can be reached, or install "
                      f"{name} for the Python that runs flaskflex, or leave the commit to you (--no-commit).")


# --- the commit ---

TRAILER = "Flaskflex-Version"

IndexEntries = dict[str, tuple[str, str]]  # path to (mode, object name)


def commit_files(project: Project, head: Head, changes: Sequence[Change], message: str) -> Optional[str]:
    """Commit the files, and nothing else that is staged or modified.

    Gives the commit's short name, or None where HEAD holds the files already. Hooks, signing, filters and
    identity are git's own. Raises Failure with git's words where the commit fails; the user's index is then
    as it was.
    """
    import git

    repo = git.Repo(project.root)
    entries = new_entries(repo, head, changes)
    if not entries:
        return None
    with index_locked(project.index_file) as lock, tempfile.TemporaryDirectory(prefix="flaskflex-") as folder:
        index = Path(folder, "index")
        if project.index_file.exists():
            shutil.copyfile(project.index_file, index)  # for what it knows of the files that did not change
        with repo.git.custom_environment(GIT_INDEX_FILE=str(index)):
            if head.commit:
                repo.git.read_tree("--reset", head.commit)
            else:
                repo.git.read_tree("--empty")
            add_entries(repo, entries)
            make_commit(repo, message)
        update_index(repo, project.index_file, Path(folder, "next-index"), lock, list(entries))
    return str(repo.git.rev_parse("--short", "HEAD"))


def new_entries(repo: git.Repo, head: Head, changes: Sequence[Change]) -> IndexEntries:
    """The index entries of the files that HEAD does not hold as they should be.

    The mode of dispatch.fcgi is what the server needs, whether or not this file system can express it.
    """
    entries, to_store = {}, []
    for change in changes:
        mode = "100755" if change.path in EXECUTABLE else "100644"
        blob = head.blobs.get(change.path)
        if change.verb == "keep":
            if blob and blob.mode != mode:
                entries[change.path] = (mode, blob.id)
        elif blob is None or blob.content != change.after or blob.mode != mode:
            to_store.append((change.path, mode))
    if to_store:
        names = repo.git.hash_object("-w", "--", *(path for path, _ in to_store)).split()
        for (path, mode), name in zip(to_store, names):
            held = head.blobs.get(path)
            if held is None or (held.mode, held.id) != (mode, name):
                entries[path] = (mode, name)
    return entries


def add_entries(repo: git.Repo, entries: IndexEntries) -> None:
    """Put entries into the index that GIT_INDEX_FILE names."""
    words = []
    for path, (mode, name) in entries.items():
        words += ["--cacheinfo", f"{mode},{name},{path}"]
    repo.git.update_index("--add", *words)


def make_commit(repo: git.Repo, message: str) -> None:
    """Commit the index that GIT_INDEX_FILE names; Failure with git's words where git or a hook refuses."""
    status, out, errors = repo.git.commit("--quiet", f"--message={message}\n\n{TRAILER}: {__version__}",
                                          with_extended_output=True, with_exceptions=False)
    if status:
        raise Failure("the files are written, but git did not commit them",
                      f"{out}\n{errors}".strip() + "\nMend that, and run flaskflex again to commit them.")


@contextlib.contextmanager
def index_locked(index: Path) -> Iterator[Path]:
    """Hold git's own lock on the index, as git commit does, so that no other git changes it meanwhile.

    Gives the lock file, which may be renamed over the index: that is how git writes it.
    """
    lock = index.with_name(index.name + ".lock")
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        raise Failure(f"the files are written, but another git command is at work here: {lock} exists",
                      "Run flaskflex again when it has ended. If none runs, remove that file.") from None
    try:
        yield lock
    finally:
        lock.unlink(missing_ok=True)


def update_index(repo: git.Repo, index: Path, copy: Path, lock: Path, paths: Sequence[str]) -> None:
    """Make the user's index agree with the new HEAD at `paths`, where a hook may have had the last word."""
    if index.exists():
        shutil.copyfile(index, copy)
    listing = repo.git.ls_tree("-z", "HEAD", "--", *paths, strip_newline_in_stdout=False)
    with repo.git.custom_environment(GIT_INDEX_FILE=str(copy)):
        add_entries(repo, read_tree(os.fsencode(listing)))
    lock.write_bytes(copy.read_bytes())
    os.replace(lock, index)


# --- the run ---


def prepare(options: argparse.Namespace, report: Report) -> None:
    """Prepare a project for deployment: inspect, plan, check, write, commit."""
    project = find_project(Path(options.directory))
    virtualenv = find_virtualenv(options.venv, os.environ, project, report)
    commits = not (options.dry_run or options.no_commit)
    with freezing(virtualenv) as freeze:
        if commits:
            check_identity(project)
        head = read_head(project, list(FILES))
        tell_where(project, head, virtualenv, report)
        if commits:
            import_gitpython(virtualenv, report)
        frozen = parse_requirements(frozen_lines(freeze, virtualenv))
    requirements = deployable(frozen, virtualenv, project, options.exclude, report)
    changes = plan_files(project, head, requirements, virtualenv.version, force=options.force)
    if options.dry_run:
        print(*show_diff(changes), sep="\n")
        return
    keep_replaced(project, changes, report)
    write_files(project.root, changes)
    tell_changes(changes, report)
    made = commit_files(project, head, changes, options.message) if commits else None
    tell_end(project, changes, made, options, report)


def tell_where(project: Project, head: Head, virtualenv: Virtualenv, report: Report) -> None:
    """Report which project and which virtualenv this run is about."""
    place = f"branch {head.branch}" if head.branch else f"detached at {(head.commit or '')[:7]}"
    report.fact("Project", f"{project.root} ({place})")
    report.fact("Virtualenv", f"{virtualenv.path} (Python {virtualenv.version})")
    if not head.branch:
        report.warning("HEAD is detached: the commit will be on no branch (git switch NAME goes to one)")


def tell_changes(changes: Sequence[Change], report: Report) -> None:
    """Report what became of each file."""
    for change in changes:
        if change.writes or change.verb == "keep":
            report.file(change.verb, f"{change.path} ({change.note})" if change.note else change.path)


def tell_end(project: Project, changes: Sequence[Change], made: Optional[str],
             options: argparse.Namespace, report: Report) -> None:
    """Report the commit, and what is left for the user to do."""
    if made:
        report.fact("Committed", f"{made} {options.message}")
    elif not any(change.writes for change in changes):
        report.fact("Nothing", "to do: the project is prepared already")
    ready = (project.root / "application" / "app.py").exists()
    report.fact("Next", "git push" if ready else
                "copy your application to application/app.py, commit, and git push")


# --- demo ---

HELLO_WORLD = '''\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello, world!"
'''


def demo(options: argparse.Namespace) -> None:
    """Build a small project as a newcomer would, prepare it, and say what to look at."""
    project = Path(options.demo_directory).absolute()
    if project.exists():
        raise Failure(f"{project} exists already",
                      "Name a folder that does not: python flaskflex.py demo DIR")
    if not shutil.which("git"):
        raise Failure(*NO_GIT)
    virtualenv = project / ".venv"
    python = interpreter(virtualenv)
    show(None, "git", "init", "--quiet", str(project))
    show(None, sys.executable, "-m", "venv", str(virtualenv))
    show(project, str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "flask")
    (project / ".gitignore").write_text("/.venv/\n__pycache__/\n", encoding="utf-8")
    (project / "application").mkdir()
    (project / "application" / "app.py").write_text(HELLO_WORLD, encoding="utf-8")
    if ask_git(project, "var", "GIT_COMMITTER_IDENT").returncode:
        show(project, "git", "config", "user.name", "A Student")
        show(project, "git", "config", "user.email", "student@example.org")
    show(project, str(python), str(Path(__file__).resolve()), "--venv", str(virtualenv))
    show(project, "git", "add", ".")
    show(project, "git", "commit", "--quiet", "--message=initial deployment")
    print(f"\nLook at what is in it:      git -C {project} log --stat"
          f"\nSee the application run:    {python} -m flask --app {project / 'application' / 'app.py'} run"
          f"\nDo the same with your own:  cd yourprojectname && python {Path(__file__).name}")


def show(folder: Optional[Path], *command: str) -> None:
    """Show a command as it would be typed, and run it; Failure where it fails."""
    import shlex

    print(f"$ {shlex.join(command)}", flush=True)
    if subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL).returncode:
        raise Failure(f"the demo stopped at: {shlex.join(command)}",
                      "Mend what it says above (on Debian: apt install python3-venv), remove the folder, "
                      "and try again.")


# --- the command line ---


def build_parser() -> argparse.ArgumentParser:
    """The command line, as the module's docstring describes it."""
    parser = argparse.ArgumentParser(prog="flaskflex", description=__doc__, add_help=True,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
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
    commands = parser.add_subparsers(dest="command", metavar="[demo]", title="commands")
    demo_parser = commands.add_parser("demo", help="build a small example and prepare it")
    demo_parser.add_argument("demo_directory", metavar="DIR", nargs="?", default="flaskflex-demo",
                             help="the folder to build it in (flaskflex-demo); it must not exist yet")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run flaskflex with command-line arguments, those of the process by default; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    parser = build_parser()
    options = parser.parse_args(argv)
    if not options.message.strip():
        parser.error("--message needs a text")
    for name in GIT_VARIABLES:
        os.environ.pop(name, None)
    report = Report(quiet=options.quiet, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    try:
        if options.command == "demo":
            demo(options)
        else:
            prepare(options, report)
        sys.stdout.flush()
    except Failure as failure:
        print(f"flaskflex: error: {failure}\n{failure.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has heard enough, as in `flaskflex.py -n | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"flaskflex: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flaskflex: interrupted", file=sys.stderr)
        return 130
    return 0


# --- the templates: edit them in templates/, then run `cog -r flaskflex.py` ---

# [[[cog
# import pathlib
# import cog
#
# for constant, name in (("FLX", "flx"), ("HTACCESS", "htaccess"), ("DISPATCH_FCGI", "dispatch.fcgi")):
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
import os
import select
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
            if not select.select([0], [], [], 0)[0]:
                self._exit()  # replaced: nobody waits here, and Apache starts the new file
        elif now.st_mtime_ns != STARTED.st_mtime_ns:
            os.execv(sys.executable, [sys.executable, HERE])  # touched: start again, on the same socket


Server(with_path).run()
'''

# [[[end]]] (sum: 7gop1w14Pj)

TEMPLATES = {
    ".flx": FLX,
    "public_html/.htaccess": HTACCESS,
    "public_html/dispatch.fcgi": DISPATCH_FCGI,
}
EXECUTABLE = ("public_html/dispatch.fcgi",)
FILES = (*TEMPLATES, "req.txt")

if __name__ == "__main__":
    raise SystemExit(main())
