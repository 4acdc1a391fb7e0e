"""The commit touches nothing else: all that is not flaskflex's is compared before and after."""
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import (
    FILES, add_hook, assert_prepared, assert_refused, load_flaskflex, snapshot, untouched, write,
)

pytestmark = pytest.mark.once

NOTE: str = load_flaskflex().FROZEN_NOTE  # in git's folder: what flaskflex wrote last

State = Dict[str, Any]
Situation = Callable[[Path, Git], Path]


def state_of_all_else(folder: Path, environ: Environ) -> State:
    """Whatever of a project a commit of our four files has no business with.

    Left out are only our files, our own note, and what each commit changes: the branch, its log, the index
    (compared entry by entry), new objects, and COMMIT_EDITMSG.
    """
    def git(*arguments: str) -> List[str]:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        lines = subprocess.run(command, env=environ, stdout=subprocess.PIPE).stdout.decode().splitlines()
        return [line for line in lines if not line.endswith(tuple(f"\t{path}" for path in FILES))]

    own, common = (
        Path(folder, *git("rev-parse", option)).resolve() for option in ("--git-dir", "--git-common-dir")
    )
    branch = "".join(git("symbolic-ref", "--quiet", "HEAD"))
    changing = {own / "index", own / "COMMIT_EDITMSG", common / branch if branch else own / "HEAD"}
    changing |= {own / NOTE, own / "logs/HEAD", common / "logs" / branch}
    changing |= {own / "logs", common / "logs", common / "logs/refs", common / "logs/refs/heads"}
    return {
        "work tree": {
            path: facts for path, facts in snapshot(folder).items()
            if path not in (*FILES, "public_html") and not path.startswith(".git/")
        },
        "index": git("ls-files", "--stage", "-v"),
        "index to HEAD": git("diff", "--cached", "--raw", "--no-abbrev", "--no-renames"),
        "work tree to index": git("diff", "--raw", "--no-abbrev", "--no-renames"),
        "stash": git("stash", "list"),
        "refs": [line for line in git("for-each-ref") if not line.endswith(f"\t{branch}")],
        "git's files": {
            str(path): (mode, content)
            for place in {own, common} for path, (mode, _, content) in snapshot(place).items()
            if place / path not in changing and not path.startswith(("objects/", "sharedindex."))
        },
        "home": snapshot(Path(environ["HOME"])),
    }


def all_of(folder: Path) -> State:
    """Each file of a folder; but git renews the times of its objects and of a shared index as it reads."""
    renewed = ("/objects/", "sharedindex.")
    return {
        path: facts[::2] if any(part in path for part in renewed) else facts
        for path, facts in snapshot(folder).items()
    }


def assert_same(after: State, before: State) -> None:
    """Fail with what differs, and with nothing else: a state is long."""
    for part, then in before.items():
        now = after[part]
        if isinstance(then, dict):
            paths = [path for path in {**then, **now} if then.get(path) != now.get(path)]
            then, now = ({path: facts.get(path) for path in paths} for facts in (then, now))
        assert now == then, part


def committed(project: Path, git: Git) -> None:
    """A first commit with files of all kinds, so that there is something to change."""
    write(project / "application" / "app.py", "app = 1\n")
    write(project / "run.sh", "#!/bin/sh\n", mode=0o755)
    write(project / "lines.txt", "".join(f"line {number}\n" for number in range(40)))
    write(project / "gone.txt", "going\n")
    (project / "link").symlink_to("lines.txt")
    git("add", ".")
    git("commit", "-q", "-m", "first")


# --- what the index can hold ---


def staged_changes(project: Path, git: Git) -> Path:
    committed(project, git)
    write(project / "new.py", "new = 1\n")
    write(project / "application" / "app.py", "app = 2\n")
    (project / "link").unlink()
    git("add", "new.py", "application", "link")
    git("rm", "-q", "gone.txt")
    git("update-index", "--chmod=-x", "run.sh")
    return project


def partly_staged_files(project: Path, git: Git) -> Path:
    """As `git add -p` leaves them: HEAD, the index and the work tree hold three different texts."""
    committed(project, git)
    lines = (project / "lines.txt").read_text()
    write(project / "lines.txt", lines.replace("line 3\n", "staged\n"))
    git("add", "lines.txt")
    write(project / "lines.txt", lines.replace("line 3\n", "staged\n").replace("line 33\n", "not staged\n"))
    return project


def before_the_first_commit(project: Path, git: Git) -> Path:
    write(project / "application" / "app.py", "app = 1\n")
    git("add", "application", "flaskflex.py")
    write(project / "application" / "app.py", "app = 1 + 1\n")
    return project


def intent_to_add(project: Path, git: Git) -> Path:
    committed(project, git)
    write(project / "later.py", "later = 1\n")
    git("add", "--intent-to-add", "later.py")
    return project


def unmerged_paths(project: Path, git: Git) -> Path:
    """A `git stash pop` that conflicts leaves these, and no MERGE_HEAD."""
    committed(project, git)
    write(project / "lines.txt", "mine\n")
    git("stash")
    write(project / "lines.txt", "theirs\n")
    git("commit", "-q", "-a", "-m", "second")
    git("stash", "pop", check=False)
    assert "UU lines.txt" in git("status", "--porcelain")
    return project


def flags_of_the_index(project: Path, git: Git) -> Path:
    committed(project, git)
    git("update-index", "--assume-unchanged", "run.sh")
    git("update-index", "--skip-worktree", "lines.txt")
    write(project / "lines.txt", "on this machine only\n")
    return project


def stashes_tags_and_branches(project: Path, git: Git) -> Path:
    committed(project, git)
    for text in ("one", "two"):
        write(project / "lines.txt", f"{text}\n")
        git("stash")
    git("tag", "-a", "-m", "tagged", "v1")
    git("branch", "topic")
    git("notes", "add", "-m", "noted")
    git("push", "-q", "origin", "main")
    git("pack-refs", "--all")
    return project


# --- other forms of the work tree, and of the repository ---


def sparse_cone(project: Path, git: Git) -> Path:
    committed(project, git)
    write(project / "documentation" / "index.rst", "text\n")
    git("add", "documentation")
    git("commit", "-q", "-m", "second")
    git("sparse-checkout", "set", "--cone", "application")
    assert not (project / "documentation").exists()
    return project


def sparse_index(project: Path, git: Git) -> Path:
    sparse_cone(project, git)
    git("sparse-checkout", "reapply", "--sparse-index")
    assert "\tdocumentation/\n" in git("ls-files", "--stage", "--sparse")
    return project


def sparse_without_a_cone(project: Path, git: Git) -> Path:
    committed(project, git)
    git("sparse-checkout", "set", "--no-cone", "/*", "!/lines.txt")
    assert not (project / "lines.txt").exists()
    return project


def with_a_submodule(project: Path, git: Git) -> Path:
    committed(project, git)
    git("clone", "-q", "--bare", ".", "../library.git")
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../library.git", "library")
    git("commit", "-q", "-m", "second")
    write(project / "library" / "lines.txt", "changed in the submodule\n")
    git("commit", "-q", "--allow-empty", "-m", "ahead", cwd=project / "library")
    assert git("diff", "--submodule=short")
    return project


def as_a_submodule(project: Path, git: Git) -> Path:
    committed(project, git)
    whole = project.parent / "whole"
    git("init", "-q", "-b", "main", whole)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", project, "part", cwd=whole)
    write(whole / "part" / "lines.txt", "changed\n")
    return whole / "part"


def a_linked_worktree(project: Path, git: Git) -> Path:
    staged_changes(project, git)
    linked = project.parent / "linked"
    git("worktree", "add", "-q", "-b", "other", linked)
    write(linked / "lines.txt", "staged in the linked one\n")
    git("add", "lines.txt", cwd=linked)
    return linked


def beside_a_linked_worktree(project: Path, git: Git) -> Path:
    a_linked_worktree(project, git)
    return project


def a_split_index(project: Path, git: Git) -> Path:
    git("config", "core.splitIndex", "true")
    partly_staged_files(project, git)
    git("update-index", "--split-index")
    write(project / "after.py", "after = 1\n")
    git("add", "after.py")
    assert list((project / ".git").glob("sharedindex.*"))
    return project


def an_index_of_version_4(project: Path, git: Git) -> Path:
    git("config", "feature.manyFiles", "true")
    partly_staged_files(project, git)
    assert (project / ".git" / "index").read_bytes()[:8] == b"DIRC\0\0\0\4"
    return project


def a_sha256_repository(project: Path, git: Git) -> Path:
    other = project.parent / "sha256"
    git("init", "-q", "--object-format=sha256", other)
    write(other / "lines.txt", "one\n")
    git("add", "lines.txt", cwd=other)
    git("commit", "-q", "-m", "first", cwd=other)
    write(other / "lines.txt", "two\n")
    git("add", "lines.txt", cwd=other)
    write(other / "lines.txt", "three\n")
    return other


def a_squash_under_way(project: Path, git: Git) -> Path:
    """`git merge --squash` leaves staged changes, and the message for the commit to come."""
    committed(project, git)
    git("switch", "-q", "-c", "topic")
    write(project / "lines.txt", "from the topic\n")
    git("commit", "-q", "-a", "-m", "topical")
    git("switch", "-q", "main")
    git("merge", "--squash", "topic")
    assert "topical" in (project / ".git" / "SQUASH_MSG").read_text()
    return project


def a_pick_without_a_commit(project: Path, git: Git) -> Path:
    """`git cherry-pick --no-commit` leaves the same in another file."""
    a_squash_under_way(project, git)
    git("reset", "-q", "--hard")
    git("cherry-pick", "--no-commit", "topic")
    assert "topical" in (project / ".git" / "MERGE_MSG").read_text()
    return project


def a_bisection(project: Path, git: Git) -> Path:
    committed(project, git)
    for number in range(4):
        git("commit", "-q", "--allow-empty", "-m", str(number))
    git("bisect", "start", "HEAD", "HEAD~4")
    return project


# --- settings ---


def line_endings_of_windows(project: Path, git: Git) -> Path:
    git("config", "core.autocrlf", "true")
    committed(project, git)
    (project / "lines.txt").unlink()
    git("checkout", "lines.txt")
    assert b"\r\n" in (project / "lines.txt").read_bytes()
    return project


def a_file_system_without_modes(project: Path, git: Git) -> Path:
    git("config", "core.fileMode", "false")
    committed(project, git)
    (project / "run.sh").chmod(0o644)
    return project


def a_template_for_messages(project: Path, git: Git) -> Path:
    committed(project, git)
    write(project.parent / "template", "Ticket: \n\n# what the team wants to read\n")
    git("config", "commit.template", project.parent / "template")
    git("config", "commit.verbose", "true")
    git("config", "commit.cleanup", "verbatim")
    git("config", "commit.status", "true")
    return project


SITUATIONS = [
    staged_changes, partly_staged_files, before_the_first_commit, intent_to_add, unmerged_paths,
    flags_of_the_index, stashes_tags_and_branches, sparse_cone, sparse_index, sparse_without_a_cone,
    with_a_submodule, as_a_submodule, a_linked_worktree, beside_a_linked_worktree, a_split_index,
    an_index_of_version_4, a_sha256_repository, a_squash_under_way, a_pick_without_a_commit, a_bisection,
    line_endings_of_windows, a_file_system_without_modes, a_template_for_messages,
]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_commit_holds_our_files_and_all_else_stays(
    situation: Situation, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    folder = situation(project, git)
    before = state_of_all_else(folder, environ)
    others = [other for other in (project, project.parent / "whole") if other.exists() and other != folder]
    staged = [git("diff", "--cached", cwd=other) for other in others]
    result = flaskflex(cwd=folder)
    assert result.status == 0, result
    assert_same(state_of_all_else(folder, environ), before)
    assert [git("diff", "--cached", cwd=other) for other in others] == staged
    assert_prepared(folder, environ)
    message = git("log", "-1", "--format=%B", cwd=folder)
    assert message.startswith("Prepare for deployment with flaskflex\n\nFlaskflex-Template: .flx ")
    everything = all_of(project.parent)
    result = flaskflex(cwd=folder)
    assert result.status == 0 and "Nothing" in result.out, result
    assert_same(all_of(project.parent), everything)


def test_an_edit_that_only_its_content_tells_stays_an_edit(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    """Git looks into a file of unchanged size and time only if its index is not younger than that time."""
    git("config", "core.trustCTime", "false")
    committed(project, git)
    moment = (project / "gone.txt").stat().st_mtime_ns
    write(project / "gone.txt", "leave\n")
    for path in ("gone.txt", ".git/index"):
        os.utime(project / path, ns=(moment, moment))
    assert git("--no-optional-locks", "diff", "--name-only") == "gone.txt\n"
    assert flaskflex().status == 0
    assert git("diff", "--name-only") == "gone.txt\n"


@pytest.mark.parametrize("situation", [partly_staged_files, unmerged_paths, intent_to_add, a_split_index])
def test_without_a_commit_not_one_byte_of_git_changes_but_our_note(
    situation: Situation, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    situation(project, git)
    before = all_of(project / ".git")
    assert flaskflex("--no-commit").status == 0
    after = all_of(project / ".git")
    assert after.pop(NOTE)  # by which the next run knows what this one wrote
    assert after == before


# --- signing ---


@pytest.fixture
def gpg_home() -> Iterator[Path]:
    """A folder for gpg's keys. Its path is short, as that of a socket must be, and its agent is ended."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": folder}, check=True)


@pytest.fixture
def gpg_key(gpg_home: Path, project: Path, environ: Environ, git: Git) -> Callable[[], None]:
    """Git is told to sign with gpg; calling this makes the key for it."""
    environ["GNUPGHOME"] = str(gpg_home)
    git("config", "commit.gpgSign", "true")

    def make_key() -> None:
        identity = "A Student <student@example.org>"
        options = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        run("gpg", *options, "--quick-generate-key", identity, "ed25519", "sign", cwd=project, env=environ)
    return make_key


@pytest.fixture
def ssh_key(tmp_path: Path, project: Path, environ: Environ, git: Git) -> Callable[[], None]:
    """The same with ssh."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not installed")
    key, trusted = tmp_path / "key", tmp_path / "trusted"
    for name, value in [("commit.gpgSign", "true"), ("gpg.format", "ssh"), ("user.signingKey", f"{key}.pub"),
                        ("gpg.ssh.allowedSignersFile", trusted)]:
        git("config", name, value)

    def make_key() -> None:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, cwd=project, env=environ)
        write(trusted, f"student@example.org {Path(f'{key}.pub').read_text()}")
    return make_key


@pytest.mark.parametrize("kind", ["gpg_key", "ssh_key"])
def test_a_commit_is_signed_where_git_is_told_to_sign(
    kind: str, request: pytest.FixtureRequest, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    make_key = request.getfixturevalue(kind)
    write(project / "mine.py", "mine = 1\n")
    git("add", "mine.py")
    before = state_of_all_else(project, environ)
    refused = flaskflex()
    assert_refused(refused, "git did not commit", "sign")
    assert_same(state_of_all_else(project, environ), before)
    assert git("rev-parse", "--quiet", "--verify", "HEAD", check=False) == ""
    make_key()
    assert flaskflex().status == 0
    assert_same(state_of_all_else(project, environ), before)
    assert_prepared(project, environ)
    assert git("log", "-1", "--format=%G? %GS").startswith("G ")


# --- hooks ---


@pytest.mark.parametrize("place", [".git/hooks", "team/hooks"])
def test_hooks_run_as_for_any_commit(
    place: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    staged_changes(project, git)
    if place != ".git/hooks":
        git("config", "core.hooksPath", place)
    log = project.parent / "hooks.log"
    for name in ("prepare-commit-msg", "post-commit"):
        add_hook(project, name, f'echo "{name} $(pwd)" >> {log}', place=place)
    staged = "$(git diff --cached --name-only)"
    add_hook(project, "pre-commit", f'echo "pre-commit $(pwd) {staged}" >> {log}', place=place)
    told = f'echo "commit-msg $(pwd)" >> {log}'
    add_hook(project, "commit-msg", told, 'echo "Reviewed-by: me" >> "$1"', place=place)
    before = state_of_all_else(project, environ)
    assert flaskflex().status == 0
    assert_same(state_of_all_else(project, environ), before)
    assert_prepared(project, environ)
    assert log.read_text().splitlines() == [
        f"pre-commit {project} {FILES[0]}", *FILES[1:],
        *(f"{name} {project}" for name in ("prepare-commit-msg", "commit-msg", "post-commit")),
    ]
    message = git("log", "-1", "--format=%B").splitlines()
    assert message[2].startswith("Flaskflex-Template: .flx ") and "Reviewed-by: me" in message


@pytest.mark.parametrize("name", ["pre-commit", "prepare-commit-msg"])
def test_a_hook_that_refuses_leaves_the_files_and_the_next_run_finishes(
    name: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    partly_staged_files(project, git)
    refusing = add_hook(project, name, "echo 'not on a Friday' >&2", "exit 1")
    before = state_of_all_else(project, environ)
    with untouched(project / ".git" / "refs", project / ".git" / "logs"):
        result = flaskflex()
    assert_refused(result, "git did not commit", "not on a Friday")
    assert all((project / path).is_file() for path in FILES)
    assert git("ls-files", "--", *FILES) == ""
    assert_same(state_of_all_else(project, environ), before)
    refusing.unlink()
    result = flaskflex()
    assert result.status == 0 and "commit   .flx" in result.out, result
    assert_prepared(project, environ)
    del before["git's files"]  # the hook is gone from these
    assert_same(state_of_all_else(project, environ), before)


def test_what_a_hook_adds_to_the_commit_is_not_left_staged_as_deleted(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    """A hook may write down the version or a list of files with each commit."""
    partly_staged_files(project, git)
    add_hook(project, "pre-commit", "git write-tree > tree.txt", "git add tree.txt")
    assert flaskflex().status == 0
    assert git("show", "--format=", "--name-only", "HEAD").split() == sorted([*FILES, "tree.txt"])
    assert git("diff", "--cached", "--name-only") == "lines.txt\n"
    assert git("status", "--porcelain", "tree.txt") == ""


def test_a_hook_after_the_commit_may_fail(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    partly_staged_files(project, git)
    log = project.parent / "hooks.log"
    add_hook(project, "post-commit", f"git rev-parse HEAD > {log}", "exit 1")
    before = state_of_all_else(project, environ)
    assert flaskflex().status == 0
    assert_prepared(project, environ)
    assert log.read_text() == git("rev-parse", "HEAD")
    assert_same(state_of_all_else(project, environ), before)


# --- attributes, and what is ignored ---


def test_filters_make_what_is_committed(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / ".gitattributes", "*.fcgi filter=shout\n*.txt filter=shout\n")
    git("config", "filter.shout.clean", "sed s/the/THE/g")
    git("config", "filter.shout.smudge", "sed s/THE/the/g")
    partly_staged_files(project, git)
    before = state_of_all_else(project, environ)
    assert flaskflex().status == 0
    assert_same(state_of_all_else(project, environ), before)
    assert_prepared(project, environ)
    written = (project / "public_html" / "dispatch.fcgi").read_text()
    assert " the " in written
    assert git("show", "HEAD:public_html/dispatch.fcgi") == written.replace("the", "THE")
    with untouched(project):
        result = flaskflex()
    assert result.status == 0 and "Nothing" in result.out and "commit " not in result.out, result


@pytest.mark.parametrize("place", ["global", ".git/info/exclude"])
@pytest.mark.parametrize("ignored", [".*\n", "*.fcgi\n*.txt\n"])
def test_ignored_files_are_committed_all_the_same_and_that_is_said(
    place: str, ignored: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    write(Path(environ["HOME"]) / "ignored" if place == "global" else project / place, ignored)
    if place == "global":
        git("config", "--global", "core.excludesFile", "~/ignored")
    write(project / "ignored.txt", "stays\n")
    before = state_of_all_else(project, environ)
    result = flaskflex()
    assert result.status == 0, result
    assert_same(state_of_all_else(project, environ), before)
    assert_prepared(project, environ)
    names = [line.split()[1] for line in result.out.splitlines() if "names it" in line]
    assert names == git("check-ignore", "--no-index", "--", *FILES).split()


# --- what cannot be written ---


def without_the_powers_of_root() -> List[str]:
    """The beginning of a command that file permissions hold for, even where root runs the tests."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root runs the tests, and setpriv is not installed")
    powers = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]


@pytest.mark.real_pip
@pytest.mark.parametrize("place, status", [
    (".git", "nothing is written"), (".git/objects", "not committed"), (".git/refs/heads", "not committed"),
    (".", "nothing is written"), ("public_html", "nothing is written"),
])
def test_what_cannot_be_written_is_told_and_left_as_it_was(
    place: str, status: str, project: Path, environ: Environ, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    partly_staged_files(project, git)
    write(project / "public_html" / "index.html", "<p>mine</p>\n")
    before, files = state_of_all_else(project, environ), snapshot(project)
    folders = [folder for folder in [project / place, *(project / place).rglob("*")] if folder.is_dir()]
    folders = folders if place == ".git/objects" else folders[:1]
    modes = {folder: folder.stat().st_mode for folder in folders}
    for folder in folders:
        folder.chmod(0o555)
    command = [*without_the_powers_of_root(), str(virtualenv / "bin" / "python"), "flaskflex.py"]
    done = subprocess.run(command, cwd=project, env=environ, stdin=subprocess.DEVNULL, capture_output=True)
    for folder, mode in modes.items():
        folder.chmod(mode)
    assert done.returncode == 1, done
    assert done.stderr.startswith(b"flaskflex: error: ") and b"Traceback" not in done.stderr, done
    assert str(project / place).encode() in done.stderr or b"insufficient permission" in done.stderr \
        or b"Permission denied" in done.stderr, done
    if status == "nothing is written":
        assert snapshot(project) == files
    assert_same(state_of_all_else(project, environ), before)
    assert git("log", "--format=%s") == "first\n"
    assert flaskflex().status == 0
    assert state_of_all_else(project, environ)["index"] == before["index"]
    assert_prepared(project, environ)


@pytest.mark.parametrize("options", [["--force"], ["--no-commit"]], ids=" ".join)
def test_a_lock_that_git_holds_is_named_and_nothing_is_changed(
    options: List[str], project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    partly_staged_files(project, git)
    lock = write(project / ".git" / "index.lock", "of another process\n")
    with untouched(project):
        result = flaskflex(*options)
    assert_refused(result, ".git/index.lock")
    lock.unlink()
    assert flaskflex().status == 0
    assert_prepared(project, environ)


@pytest.mark.parametrize("lock", [".git/HEAD.lock", ".git/refs/heads/main.lock"])
def test_a_lock_on_the_branch_is_named_and_the_next_run_finishes(
    lock: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    partly_staged_files(project, git)
    before = state_of_all_else(project, environ)
    held = write(project / lock)
    assert_refused(flaskflex(), "git did not commit", str(held))
    held.unlink()
    assert_same(state_of_all_else(project, environ), before)
    assert flaskflex().status == 0
    assert_prepared(project, environ)
