"""The commit: our files, nothing else, and made as git makes it."""
from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Callable, List, Optional

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import FILES, add_hook, assert_prepared, assert_refused, untouched, write

DISPATCH = "public_html/dispatch.fcgi"


# --- nothing else ---


def busy(project: Path, git: Git) -> None:
    """Leave a change of every kind in the project: staged, modified, deleted, renamed, untracked."""
    for name in ("modified", "staged", "both", "deleted", "removed", "renamed", "moved"):
        write(project / name, f"{name}\n" * 5)
    git("add", "--all", ":!flaskflex.py")
    git("commit", "-q", "-m", "first")
    for name in ("modified", "staged", "both", "new"):
        write(project / name, "changed\n")
    git("add", "staged", "both", "new")
    write(project / "both", "changed again\n")
    git("rm", "-q", "--cached", "removed")
    git("mv", "renamed", "to")
    (project / "deleted").unlink()
    (project / "moved").rename(project / "from")
    write(project / "intended")
    git("add", "--intent-to-add", "intended")


def busy_without_a_commit(project: Path, git: Git) -> None:
    write(project / "new", "new\n")
    git("add", "new")
    write(project / "untracked")


def busy_with_our_own_files(project: Path, git: Git) -> None:
    """Stage edits of what is flaskflex's, among them one that it is going to replace."""
    busy(project, git)
    for path in FILES:
        write(project / path, "mine\n")
    git("add", ".flx", "req.txt")
    for path in FILES:
        (project / path).unlink()


@pytest.mark.parametrize("scenario", [busy, busy_without_a_commit, busy_with_our_own_files])
def test_what_else_is_staged_modified_or_untracked_stays_so(
    scenario: Callable[[Path, Git], None], project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    scenario(project, git)
    others = ["--", ".", *(f":!{path}" for path in FILES)]
    questions = [["status", "--porcelain"], ["diff", "--cached"], ["diff"], ["ls-files", "--stage"]]
    before = [git(*question, *others) for question in questions]
    assert flaskflex().status == 0
    assert [git(*question, *others) for question in questions] == before
    assert_prepared(project, environ)


def test_an_edit_of_the_users_that_is_staged_stays_staged(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    write(project / ".flx", (project / ".flx").read_text() + "# mine\n")
    git("add", ".flx")
    (project / "req.txt").unlink()
    git("commit", "-q", "-m", "no req.txt", "req.txt")
    staged = git("diff", "--cached")
    assert flaskflex().status == 0
    assert git("show", "--format=", "--name-only", "HEAD") == "req.txt\n"
    assert git("diff", "--cached") == staged
    assert git("status", "--porcelain") == "M  .flx\n?? flaskflex.py\n"


def test_a_first_commit_and_a_second_run(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    result = flaskflex()
    short = git("rev-parse", "--short", "HEAD").strip()
    assert f"Committed   {short} Prepare for deployment with flaskflex\n" in result.out
    assert git("log", "--format=%p %an <%ae> %D") == " A Student <student@example.org> HEAD -> main\n"
    with untouched(project):
        assert "Nothing " in flaskflex().out
    git("push", "-q", "origin", "main")
    assert git("show", "--format=", "--name-only", "main", cwd=project.parent / "host.git").split() == FILES


def test_without_a_commit_nothing_is_staged_and_the_next_run_commits(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    result = flaskflex("--no-commit")
    assert "Committed" not in result.out
    assert git("ls-files", "--stage") == ""
    assert git("rev-parse", "--quiet", "--verify", "HEAD", check=False) == ""
    assert "Committed" in flaskflex().out
    assert_prepared(project, environ)


# --- modes and line endings ---


@pytest.mark.parametrize("settings, attributes", [
    (["core.fileMode=false"], ""),
    (["core.autocrlf=true"], ""),
    (["core.autocrlf=true", "core.safecrlf=true"], ""),
    (["core.eol=crlf"], "* text=auto\n"),
    ([], "* text eol=crlf\n"),
])
def test_the_script_is_committed_executable_and_with_lf(
    settings: List[str], attributes: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    for setting in settings:
        git("config", *setting.split("="))
    write(project / ".gitattributes", attributes)
    result = flaskflex()
    assert result.status == 0, result
    assert_prepared(project, environ)
    assert "\r" not in git("show", *(f"HEAD:{path}" for path in FILES))


@pytest.mark.parametrize("settings", [["core.autocrlf=true"], ["core.fileMode=false"]], ids=" ".join)
def test_what_git_checks_out_in_its_own_way_is_unchanged(
    settings: List[str], project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    for setting in settings:
        git("config", *setting.split("="))
    flaskflex()
    for path in FILES:
        (project / path).unlink()
    git("checkout", "-q", "--", ".")
    assert (b"\r" in (project / ".flx").read_bytes()) == ("core.autocrlf=true" in settings)
    with untouched(project):
        assert flaskflex().status == 0


def test_a_script_that_was_committed_without_its_execute_bit_gets_it(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    git("update-index", "--chmod=-x", DISPATCH)
    git("commit", "-q", "-m", "lost the bit")
    assert flaskflex().status == 0
    assert git("show", "--format=", "--summary", "HEAD") == f" mode change 100644 => 100755 {DISPATCH}\n"
    assert git("status", "--porcelain") == "?? flaskflex.py\n"


def test_an_edited_script_gets_the_execute_bit_and_the_edit_stays_uncommitted(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    git("update-index", "--chmod=-x", DISPATCH)
    git("commit", "-q", "-m", "lost the bit")
    write(project / DISPATCH, (project / DISPATCH).read_text() + "# mine\n", 0o755)
    assert flaskflex().status == 0
    assert git("ls-tree", "HEAD", DISPATCH).startswith("100755 ")
    assert "mine" not in git("show", f"HEAD:{DISPATCH}")
    assert git("status", "--porcelain") == f" M {DISPATCH}\n?? flaskflex.py\n"


# --- hooks, signing, filters ---


def test_hooks_run_and_see_what_is_committed(
    project: Path, tmp_path: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "staged", "not for this commit\n")
    git("add", "staged")
    log = tmp_path / "log"
    add_hook(project, "pre-commit", f'echo pre-commit $(git diff --cached --name-only) >> "{log}"')
    add_hook(project, "prepare-commit-msg", f'echo prepare-commit-msg >> "{log}"')
    add_hook(project, "commit-msg", f'grep ^Flaskflex-Version "$1" >> "{log}"; echo Seen: yes >> "$1"')
    add_hook(project, "post-commit", f'echo post-commit $(git show --format= --name-only) >> "{log}"')
    assert flaskflex().status == 0
    names = " ".join(FILES)
    version = flaskflex("--version").out.split()[1]
    assert log.read_text().splitlines() == [
        f"pre-commit {names}", "prepare-commit-msg", f"Flaskflex-Version: {version}", f"post-commit {names}",
    ]
    assert git("log", "-1", "--format=%(trailers:key=Seen,valueonly)").strip() == "yes"


def test_what_a_hook_makes_of_a_file_is_committed_and_stays(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    add_hook(project, "pre-commit", "grep -q hook .flx || echo '# by the hook' >> .flx; git add .flx")
    assert flaskflex().status == 0
    assert git("show", "HEAD:.flx").endswith("# by the hook\n")
    assert git("status", "--porcelain") == "?? flaskflex.py\n"
    with untouched(project):
        assert flaskflex().status == 0


@pytest.mark.parametrize("others", [None, "another git's"])
def test_a_lock_that_the_user_took_away_meanwhile_is_not_missed_and_anothers_stays(
    others: Optional[str], project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    lock = project / ".git" / "index.lock"
    add_hook(project, "pre-commit", f"rm {lock}", f'printf "{others}" > {lock}' if others else "")
    result = flaskflex()
    assert (result.status, result.err) == (0, "")
    assert (lock.read_text() if lock.exists() else None) == others
    assert not list((project / ".git").glob(".flaskflex-*"))
    lock.unlink(missing_ok=True)
    assert_prepared(project, environ)


def refusing_hook(project: Path, git: Git) -> None:
    add_hook(project, "pre-commit", "echo not on a Friday; exit 1")


def refusing_message_hook(project: Path, git: Git) -> None:
    add_hook(project, "commit-msg", "echo not on a Friday >&2; exit 1")


def failing_signature(project: Path, git: Git) -> None:
    git("config", "commit.gpgSign", "true")
    git("config", "gpg.program", "false")


def failing_filter(project: Path, git: Git) -> None:
    write(project / ".gitattributes", "req.txt filter=demanding\n")
    git("config", "filter.demanding.clean", "echo not on a Friday >&2; false")
    git("config", "filter.demanding.required", "true")


def mend(project: Path, git: Git) -> None:
    shutil.rmtree(project / ".git" / "hooks", ignore_errors=True)
    (project / ".gitattributes").unlink(missing_ok=True)
    git("config", "commit.gpgSign", "false")


@pytest.mark.parametrize("refuse, first, words", [
    (refusing_hook, True, "not on a Friday"),
    (refusing_message_hook, False, "not on a Friday"),
    (failing_signature, True, "gpg failed to sign"),
    (failing_filter, False, "not on a Friday"),
])
def test_where_the_commit_fails_the_index_stays_and_the_next_run_finishes(
    refuse: Callable[[Path, Git], object], first: bool, words: str,
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex,
) -> None:
    if not first:
        git("commit", "-q", "--allow-empty", "-m", "first")
    write(project / "staged", "mine\n")
    git("add", "staged")
    refuse(project, git)
    index = (project / ".git" / "index").read_bytes()
    head = git("rev-parse", "--all")
    result = flaskflex()
    assert_refused(result, "did not commit", words)
    assert (project / ".git" / "index").read_bytes() == index
    assert git("rev-parse", "--all") == head
    assert not (project / ".git" / "index.lock").exists()
    assert all((project / path).exists() for path in FILES)
    mend(project, git)
    assert "Committed" in flaskflex().out
    assert_prepared(project, environ)
    assert git("diff", "--cached", "--name-only") == "staged\n"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen to make a key with")
def test_the_commit_is_signed_where_the_user_signs(
    project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key", cwd=tmp_path, env=environ)
    for setting in ("gpg.format=ssh", f"user.signingKey={tmp_path / 'key'}", "commit.gpgSign=true"):
        git("config", *setting.split("="))
    assert flaskflex().status == 0
    assert "gpgsig -----BEGIN SSH SIGNATURE-----" in git("cat-file", "commit", "HEAD")


def test_another_git_at_work_is_not_disturbed(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    lock = write(project / ".git" / "index.lock")
    with untouched(project / ".git"):
        assert_refused(flaskflex(), ".git/index.lock")
    lock.unlink()
    assert flaskflex().status == 0
    assert_prepared(project, environ)


# --- ignored files ---


@pytest.mark.parametrize("pattern, named", [
    ("req.txt", ["req.txt"]), ("*", FILES), ("public_html/", FILES[1:3]),
])
def test_ignored_files_are_committed_all_the_same_and_that_is_said(
    pattern: str, named: List[str], project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    write(project / ".gitignore", f"{pattern}\n")
    result = flaskflex()
    assert_prepared(project, environ)
    told = [line for line in result.out.splitlines() if ".gitignore" in line]
    assert [[path for path in FILES if path in line] for line in told] == [[path] for path in named]
    assert ".gitignore" not in flaskflex().out


# --- the message ---


@pytest.mark.parametrize("message", [
    "--amend", "#12: déployer", "Deploy\n\nWhy: because\n\nSigned-off-by: A Student",
])
def test_the_message_is_the_users_and_ends_with_the_trailer(
    message: str, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "first")
    result = flaskflex(f"--message={message}")
    assert result.status == 0, result
    version = flaskflex("--version").out.split()[1]
    body = git("log", "-1", "--format=%B")
    assert body.rstrip().endswith(f"\nFlaskflex-Version: {version}")
    assert re.sub(r"(?m)^Flaskflex-.*\n", "", body).split() == message.split()
    assert body.startswith(message.strip().splitlines()[0] + "\n")
    assert git("log", "-1", "--format=%(trailers:key=Flaskflex-Version,valueonly)").strip() == version
    assert git("rev-list", "--count", "HEAD") == "2\n"
    subject = re.escape(message.splitlines()[0])
    assert re.search(rf"^Committed   [0-9a-f]+ {subject}$", result.out, re.MULTILINE)


@pytest.mark.parametrize("settings", [
    [
        "commit.cleanup=scissors", "commit.verbose=true", "core.commentChar=P", "grep.patternType=perl",
        "color.ui=always", "i18n.commitEncoding=ISO-8859-1", "log.showSignature=true",
    ],
    [
        "commit.cleanup=verbatim", "commit.template=flaskflex.py", "grep.patternType=fixed",
        "status.short=true", "core.quotePath=false", "log.date=relative", "core.abbrev=40",
    ],
])
def test_the_users_settings_do_not_confuse_a_second_run(
    settings: List[str], project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    for setting in settings:
        git("config", "--global", *setting.split("="))
    assert flaskflex().status == 0
    assert_prepared(project, environ)
    write(project / ".flx", (project / ".flx").read_text() + "# mine\n")
    result = flaskflex()
    assert result.status == 0, result
    assert "     keep   .flx" in result.out


def test_quietly_it_says_nothing(project: Path, environ: Environ, git: Git, flaskflex: Flaskflex) -> None:
    git("checkout", "-q", "--orphan", "other")
    result = flaskflex("-q")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert_prepared(project, environ)


def test_a_quiet_failure_still_tells_why(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    add_hook(project, "pre-commit", "echo not on a Friday; exit 1")
    result = flaskflex("--quiet")
    assert_refused(result, "not on a Friday")
    assert result.out == ""


# --- a git that fails ---

# A git in front of the real one: each time that it is asked for the commit of HEAD counts, and one time it is
# killed, or finds no HEAD, as in the moment in which `git branch -m` has removed the old name of the branch.
FORGETFUL_GIT = """\
#!/bin/sh
case $* in *"HEAD^{{commit}}")
    echo >>{folder}/asked
    [ "$(wc -l <{folder}/asked)" != {time} ] || {failing} ;;
esac
exec {git} "$@"
"""


@pytest.mark.parametrize("failing", ["kill -KILL $$", "exit 1"])
@pytest.mark.parametrize("time", [2, 3, 4])
def test_a_commit_that_cannot_be_told_is_not_taken_for_none(
    time: int, failing: str, tmp_path: Path, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    busy(project, git)
    before = git("ls-tree", "-r", "HEAD").splitlines()
    real = shutil.which("git", path=environ["PATH"])
    text = FORGETFUL_GIT.format(folder=tmp_path, time=time, failing=failing, git=real)
    write(tmp_path / "bin" / "git", text, mode=0o755)
    result = flaskflex(env={**environ, "PATH": f"{tmp_path / 'bin'}:{environ['PATH']}"})
    assert len((tmp_path / "asked").read_text()) >= time
    assert set(before) <= set(git("ls-tree", "-r", "HEAD").splitlines()), result
    assert flaskflex().status == 0
    assert set(before) <= set(git("ls-tree", "-r", "HEAD").splitlines())
    assert git("status", "--porcelain", "--", *FILES) == ""
