"""What becomes of the files that are there already, and that a dry run tells the truth about it."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import (
    FILES, assert_prepared, assert_refused, newer_script, output_bytes, snapshot, untouched, write,
)

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
HTACCESS = "public_html/.htaccess"
DISPATCH = "public_html/dispatch.fcgi"


def first_line(text: str) -> str:
    return "# a newer first line\n" + text


def last_line(text: str) -> str:
    return text + "# a newer last line\n"


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


# --- create, unchanged, update ---


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_absent_files_are_created_for_apache_to_read_and_the_owner_alone_to_write(
    mask: int, project: Path, flaskflex: Flaskflex
) -> None:
    with umask(mask):
        result = flaskflex("--no-commit")
    for path in FILES:
        assert f"\n   create   {path}" in result.out
    assert (project / ".flx").read_bytes() == (TEMPLATES / "flx").read_bytes()
    assert (project / HTACCESS).read_bytes() == (TEMPLATES / "htaccess").read_bytes()
    assert (project / DISPATCH).read_bytes() == (TEMPLATES / "dispatch.fcgi").read_bytes()
    assert [mode_of(project / path) for path in FILES] == [0o644, 0o644, 0o755, 0o644]
    assert mode_of(project / "public_html") == 0o755


def test_a_second_run_touches_nothing_and_says_so(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    flaskflex()
    with untouched(project):
        result = flaskflex()
    assert result.status == 0
    assert "Nothing " in result.out and "Committed" not in result.out


def test_a_newer_template_updates_an_unedited_file(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    result = flaskflex(script=newer_script(project / "flaskflex.py", "FLX", first_line))
    assert "   update   .flx" in result.out.splitlines()
    assert (project / ".flx").read_text() == first_line((TEMPLATES / "flx").read_text())
    assert git("show", "--format=", "--name-only", "HEAD") == ".flx\n"
    assert git("show", "HEAD:.flx") == (project / ".flx").read_text()


def test_an_older_base_in_the_history_does_not_count(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    """Put back to what the first of two versions wrote, a file is an edit of the user's."""
    flaskflex()
    newer = newer_script(project / "flaskflex.py", "FLX", first_line)
    flaskflex(script=newer)
    shutil.copy(TEMPLATES / "flx", project / ".flx")
    with untouched(project):
        result = flaskflex(script=newer)
    assert result.status == 0
    assert "     keep   .flx" in result.out


def test_a_commit_that_only_speaks_of_flaskflex_gives_no_base(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / ".flx", "mine\n")
    git("add", ".flx")
    git("commit", "-q", "-m", "Use flaskflex\n\nThe Flaskflex-Version: 1.0.0 is not used yet.")
    with untouched(project):
        assert_refused(flaskflex(), ".flx")


def test_an_edited_mode_or_a_lost_one_is_mended(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    flaskflex()
    for path, mode in zip(FILES, (0o600, 0o666, 0o644, 0o664)):
        (project / path).chmod(mode)
    assert flaskflex().status == 0
    assert [mode_of(project / path) for path in FILES] == [0o600, 0o644, 0o755, 0o644]
    assert git("rev-list", "--count", "HEAD") == "1\n"


def test_mending_a_mode_is_not_writing_the_file(project: Path, flaskflex: Flaskflex) -> None:
    flaskflex()
    before = (project / HTACCESS).stat()
    (project / HTACCESS).chmod(0o664)
    flaskflex()
    after = (project / HTACCESS).stat()
    assert mode_of(project / HTACCESS) == 0o644
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_line_endings_are_made_lf_again(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    flaskflex()
    for path in FILES:
        (project / path).write_bytes((project / path).read_bytes().replace(b"\n", b"\r\n"))
    git("commit", "-q", "-a", "-m", "saved by another editor")
    assert flaskflex().status == 0
    assert [path for path in FILES if b"\r" in (project / path).read_bytes()] == []
    assert "\r" not in git("show", *(f"HEAD:{path}" for path in FILES))


# --- edited files ---


def test_an_edit_is_kept_and_not_committed(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    flaskflex()
    edited = (project / HTACCESS).read_text() + "# mine\n"
    write(project / HTACCESS, edited)
    with untouched(project):
        result = flaskflex()
    assert result.status == 0
    assert re.search(rf"^ +keep   {HTACCESS} ", result.out, re.MULTILINE)
    assert git("rev-list", "--count", "HEAD") == "1\n"


@pytest.mark.parametrize("committed", [False, True])
def test_an_edit_and_a_newer_template_are_merged(
    committed: bool, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    write(project / ".flx", (project / ".flx").read_text() + "# mine\n")
    if committed:
        git("commit", "-q", "-m", "my own", ".flx")
    result = flaskflex(script=newer_script(project / "flaskflex.py", "FLX", first_line))
    assert "    merge   .flx" in result.out
    merged = first_line((TEMPLATES / "flx").read_text()) + "# mine\n"
    assert (project / ".flx").read_text() == git("show", "HEAD:.flx") == merged
    with untouched(project):  # what was merged is an edit of the newer template from now on
        assert flaskflex(script=project / "newer.py").status == 0


def test_an_edit_that_conflicts_with_a_newer_template_is_refused(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    edited = (project / ".flx").read_bytes() + b"# mine\n"
    (project / ".flx").write_bytes(edited)
    newer = newer_script(project / "flaskflex.py", "FLX", last_line)
    with untouched(project):
        result = flaskflex(script=newer)
    assert_refused(result, ".flx", "--force")
    assert_kept(edited, ".flx", flaskflex("--force", script=newer).out, git)
    assert (project / ".flx").read_text() == last_line((TEMPLATES / "flx").read_text())


def assert_kept(content: bytes, path: str, report: str, git: Git) -> None:
    """The command in the report shows the replaced content."""
    command = re.search(rf"old {re.escape(path)}: git (.+)", report)
    assert command, report
    assert git(*command[1].split()).encode() == content


# --- files that are not flaskflex's ---


@pytest.mark.parametrize("path", [".flx", HTACCESS, DISPATCH])
def test_a_foreign_file_is_refused_before_anything_is_written_and_force_replaces_it(
    path: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    foreign = "# mine: żółć, CRLF\r\nno newline at the end".encode()
    write(project / path).write_bytes(foreign)
    with untouched(project):
        assert_refused(flaskflex(), path, "--force")
    result = flaskflex("--force")
    assert f"  replace   {path}" in result.out
    assert_kept(foreign, path, result.out, git)
    assert_prepared(project, environ)


def test_all_foreign_files_are_named_at_once(project: Path, flaskflex: Flaskflex) -> None:
    for path in FILES:
        write(project / path, "mine\n")
    with untouched(project):
        assert_refused(flaskflex("-n"), *FILES)


def test_a_file_that_is_as_it_would_be_written_is_taken_over(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    write(project / "public_html" / ".htaccess").write_bytes((TEMPLATES / "htaccess").read_bytes())
    before = (project / HTACCESS).stat().st_mtime_ns
    assert flaskflex().status == 0
    assert (project / HTACCESS).stat().st_mtime_ns == before
    assert_prepared(project, environ)


# --- what is in the way ---


def link_to_outside(path: Path, outside: Path) -> None:
    path.symlink_to(write(outside / "text", "outside\n"))


def dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nothing")


def link_to_inside(path: Path, outside: Path) -> None:
    path.symlink_to("flaskflex.py")


def link_to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside, target_is_directory=True)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def plain_file(path: Path, outside: Path) -> None:
    write(path, "a file\n")


@pytest.mark.parametrize("path, obstacle", [
    (HTACCESS, link_to_outside), (DISPATCH, dangling_link), (".flx", link_to_inside),
    ("public_html", link_to_folder), ("public_html", dangling_link), ("public_html", plain_file),
    ("public_html", fifo), (HTACCESS, folder), ("req.txt", link_to_outside), (".flx", fifo),
])
def test_what_is_in_the_way_is_refused_even_with_force(
    path: str, obstacle: Callable[[Path, Path], None], project: Path, tmp_path: Path, flaskflex: Flaskflex
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (project / path).parent.mkdir(exist_ok=True)
    obstacle(project / path, outside)
    with untouched(project, outside):
        assert_refused(flaskflex("--force", "--no-commit"), path)


@pytest.mark.real_pip
@pytest.mark.parametrize("protected", [".", "public_html"])
def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_half_done(
    protected: str, project: Path, virtualenv: Path, environ: Environ
) -> None:
    (project / "public_html").mkdir()
    (project / protected).chmod(0o555)
    # Root may write everywhere, until it gives that up.
    prefix = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    with untouched(project):
        done = subprocess.run(
            [*prefix, str(virtualenv / "bin" / "python"), "flaskflex.py", "--no-commit"],
            cwd=project, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"flaskflex: error: ") and b"Permission denied" in done.stderr
    (project / protected).chmod(0o755)


# --- the dry run ---


def fresh(project: Path, git: Git) -> List[str]:
    return []


def awkward(project: Path, git: Git) -> List[str]:
    """Foreign files with all that a line of a diff may stumble over."""
    (project / "public_html").mkdir()
    (project / HTACCESS).write_bytes(b"latin: \xe9\xff\r\nlone\rreturn\r\n\x0cfeed\n-- \n+++ b/x\nno newline")
    (project / DISPATCH).write_bytes(b"")
    (project / DISPATCH).chmod(0o600)
    (project / ".flx").write_bytes("żółć \u2028 \x85 \x1c\n".encode())
    (project / "req.txt").write_bytes("one==1\r\n".encode("utf-16"))
    git("add", "--all")
    return ["--force"]


def edited_req_txt(project: Path, git: Git) -> List[str]:
    """One of flaskflex's own that is to be updated, with lines of the user's own."""
    git("add", "--all")
    own = "own \u2028 line\n\x0c\n# żółć, and no newline"
    write(project / "req.txt", f"old==1\nflup==1.0.2\n# --- frozen above ({'0' * 12}): x ---\n{own}", 0o664)
    return ["--force"]


@pytest.mark.parametrize("scenario", [fresh, awkward, edited_req_txt])
def test_the_diff_of_a_dry_run_makes_what_the_run_makes(
    scenario: Callable[[Path, Git], List[str]],
    tmp_path: Path, project: Path, virtualenv: Path, environ: Environ, git: Git, flaskflex: Flaskflex,
) -> None:
    options = scenario(project, git)
    other = Path(shutil.copytree(project, tmp_path / "other"))
    command = [virtualenv / "bin" / "python", "flaskflex.py", *options]
    diff = output_bytes([*command, "--dry-run"], project, environ)
    subprocess.run(["git", "apply", "-"], cwd=other, env=environ, input=diff, check=True)
    assert flaskflex(*options, "--no-commit").status == 0
    trees = []
    for folder in (project, other):
        git("add", "--all", cwd=folder)
        trees.append(git("write-tree", cwd=folder))
        trees.append(git("ls-tree", "-r", trees[-1].strip(), cwd=folder))
    assert trees[2:] == trees[:2]
    assert all(path in trees[1] for path in FILES)


def test_a_dry_run_tells_of_a_merge_what_the_run_makes(
    project: Path, tmp_path: Path, virtualenv: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    write(project / ".flx", (project / ".flx").read_text() + "# mine\n")
    (project / DISPATCH).chmod(0o644)
    newer = newer_script(project / "flaskflex.py", "FLX", first_line)
    with untouched(tmp_path):
        diff = output_bytes([virtualenv / "bin" / "python", newer, "-n"], project, environ)
    other = Path(shutil.copytree(project, tmp_path / "other"))
    subprocess.run(["git", "apply", "-"], cwd=other, env=environ, input=diff, check=True)
    flaskflex("--no-commit", script=newer)
    for path in FILES:
        assert (other / path).read_bytes() == (project / path).read_bytes()
        assert mode_of(other / path) & 0o100 == mode_of(project / path) & 0o100


@pytest.mark.parametrize("prepared", [False, True])
def test_a_dry_run_changes_not_one_byte(
    prepared: bool, project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    environ["XDG_CACHE_HOME"] = str(shutil.copytree(environ["XDG_CACHE_HOME"], tmp_path / "cache"))
    if prepared:
        flaskflex()
        write(project / ".flx", "foreign\n")
        os.utime(project / HTACCESS, (0, 0))  # git would like to note in its index that this is unchanged
    with untouched(tmp_path):
        result = flaskflex("-n", "--force")
    assert result.status == 0
    assert re.findall("^diff --git a/(.+) b/", result.out, re.MULTILINE) == ([".flx"] if prepared else FILES)


def test_a_dry_run_with_nothing_to_do_prints_no_diff(project: Path, flaskflex: Flaskflex) -> None:
    flaskflex()
    result = flaskflex("-n", "-q")
    assert (result.status, result.out.strip(), result.err) == (0, "", "")


def test_no_temporary_file_is_left(project: Path, environ: Environ, flaskflex: Flaskflex) -> None:
    temporary = Path(environ["TMPDIR"])
    assert flaskflex().status == 0
    assert snapshot(temporary) == {}
    assert run("git", "status", "--porcelain", cwd=project, env=environ) == "?? flaskflex.py\n"
