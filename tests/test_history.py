"""Running it again: whatever the history, an edit of the user's is kept, merged, or not touched."""
from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from conftest import Environ, Flaskflex, Git, Result, run
from helpers import FILES, assert_refused, newer_script, output_bytes, untouched, write

pytestmark = pytest.mark.once

MINE = "# mine\n"
HEADING = "# of a newer flaskflex\n"

History = Callable[[Path, Git, Flaskflex], Path]


def prepared(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    """A project that flaskflex has prepared, in which its user has gone on since."""
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert flaskflex().status == 0
    write(project / "application" / "app.py", "app = 1\n")
    git("add", "application")
    git("commit", "-q", "-m", "my application")


def edit(project: Path) -> None:
    with (project / ".flx").open("a") as file:
        file.write(MINE)


# --- histories: each gives the folder to run in ---


def not_edited(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    return project


def edited_and_committed(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    edit(project)
    git("commit", "-q", "-a", "-m", "my own")
    return project


def edited_and_not_committed(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    edit(project)
    return project


def edited_and_staged(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    edit(project)
    git("add", ".flx")
    return project


def edited_on_another_branch_and_merged(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    git("switch", "-q", "-c", "topic")
    edit(project)
    git("commit", "-q", "-a", "-m", "topical")
    git("switch", "-q", "main")
    write(project / "application" / "app.py", "app = 2\n")
    git("commit", "-q", "-a", "-m", "meanwhile")
    git("merge", "-q", "--no-ff", "--no-edit", "topic")
    return project


def prepared_on_another_branch_and_merged_after_an_edit(
    project: Path, git: Git, flaskflex: Flaskflex
) -> Path:
    """The merge simplifies to the one side for git log, and the base lies on the other."""
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("switch", "-q", "-c", "topic")
    prepared(project, git, flaskflex)
    edit(project)
    git("commit", "-q", "-a", "-m", "my own")
    git("switch", "-q", "main")
    git("commit", "-q", "--allow-empty", "-m", "meanwhile")
    git("merge", "-q", "--no-ff", "--no-edit", "topic")
    return project


def edited_and_rebased(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    git("commit", "-q", "--allow-empty", "-m", "root")
    edited_and_committed(project, git, flaskflex)
    git("switch", "-q", "-c", "upstream", "main~4")
    git("commit", "-q", "--allow-empty", "-m", "meanwhile")
    git("rebase", "-q", "upstream", "main")
    return project


def edited_and_amended(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    """The edit is in flaskflex's own commit, which touched the file first."""
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert flaskflex().status == 0
    edit(project)
    git("commit", "-q", "-a", "--amend", "--no-edit")
    return project


def base_squashed_away(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    edited_and_committed(project, git, flaskflex)
    git("reset", "-q", "--soft", "HEAD~3")
    git("commit", "-q", "-m", "all in one")
    return project


def base_on_another_branch_only(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    edited_and_committed(project, git, flaskflex)
    git("switch", "-q", "-c", "other", "HEAD~3")
    git("checkout", "main", "--", *FILES)
    git("commit", "-q", "-m", "copied")
    return project


def shallow_clone(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    edited_and_committed(project, git, flaskflex)
    git("push", "-q", "origin", "main")
    return clone_of_depth_1(project, git)


def shallow_clone_that_begins_with_a_commit_of_flaskflexs(
    project: Path, git: Git, flaskflex: Flaskflex
) -> Path:
    """That commit seems to bring all files, the edit among them; in truth it has only changed req.txt."""
    edited_and_committed(project, git, flaskflex)
    git("rm", "-q", "req.txt")
    git("commit", "-q", "-m", "deleted")
    assert flaskflex().status == 0
    assert git("show", "--format=", "--name-only", "HEAD") == "req.txt\n"
    git("push", "-q", "origin", "main")
    return clone_of_depth_1(project, git)


def edited_in_a_shallow_clone_that_begins_with_the_base(
    project: Path, git: Git, flaskflex: Flaskflex
) -> Path:
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert flaskflex().status == 0
    git("push", "-q", "origin", "main")
    clone = clone_of_depth_1(project, git)
    edit(clone)
    return clone


def clone_of_depth_1(project: Path, git: Git) -> Path:
    git("clone", "-q", "--depth=1", (project.parent / "host.git").as_uri(), "../shallow")
    assert git("rev-list", "--count", "HEAD", cwd=project.parent / "shallow") == "1\n"
    return project.parent / "shallow"


def deleted(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    (project / ".flx").unlink()
    return project


def deleted_and_committed(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    git("rm", "-q", ".flx")
    git("commit", "-q", "-m", "deleted")
    return project


def reverted(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    git("revert", "--no-edit", "HEAD~1")
    assert not (project / ".flx").exists()
    return project


def a_link_once_and_gone(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    a_link_to_a_file(project, git, flaskflex)
    git("rm", "-q", ".flx")
    git("commit", "-q", "-m", "deleted")
    return project


def a_folder(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    (project / ".flx").unlink()
    write(project / ".flx" / "setup", "mine\n")
    git("add", "--all", ".flx")
    git("commit", "-q", "-m", "a folder")
    return project


def a_link_to_a_file(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    (project / ".flx").rename(project / "flx.conf")
    (project / ".flx").symlink_to("flx.conf")
    git("add", "--all", ".flx", "flx.conf")
    git("commit", "-q", "-m", "a link")
    return project


def a_link_to_a_file_that_is_not_committed(project: Path, git: Git, flaskflex: Flaskflex) -> Path:
    prepared(project, git, flaskflex)
    (project / ".flx").rename(project / "flx.conf")
    (project / ".flx").symlink_to("flx.conf")
    return project


# --- what becomes of .flx: by the flaskflex that wrote it, and by a newer one ---


@pytest.mark.parametrize("history, again, newer", [
    (not_edited, "unchanged", "update"),
    (edited_and_committed, "keep", "merge"),
    (edited_and_not_committed, "keep", "merge"),
    (edited_and_staged, "keep", "merge"),
    (edited_on_another_branch_and_merged, "keep", "merge"),
    (prepared_on_another_branch_and_merged_after_an_edit, "keep", "merge"),
    (edited_and_rebased, "keep", "merge"),
    (edited_and_amended, "keep", "refuse"),
    (base_squashed_away, "refuse", "refuse"),
    (base_on_another_branch_only, "refuse", "refuse"),
    (shallow_clone, "refuse", "refuse"),
    (shallow_clone_that_begins_with_a_commit_of_flaskflexs, "keep or refuse", "refuse"),
    (edited_in_a_shallow_clone_that_begins_with_the_base, "keep", "merge"),
    (deleted, "create", "create"),
    (deleted_and_committed, "create", "create"),
    (reverted, "create", "create"),
    (a_link_once_and_gone, "create", "create"),
])
def test_a_file_fares_by_its_history(
    history: History, again: str, newer: str,
    project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex,
) -> None:
    folder = history(project, git, flaskflex)
    before = (folder / ".flx").read_text() if (folder / ".flx").exists() else ""
    same = Path(shutil.copytree(folder, tmp_path / "same", symlinks=True))
    expected = Path(shutil.copytree(folder, tmp_path / "expected", symlinks=True))
    result = flaskflex(cwd=same, script=project / "flaskflex.py")
    assert verb_of(result) in again.split(" or "), result
    after = (same / ".flx").read_text()
    assert again == "create" or after == before and git("status", "--porcelain", "req.txt", cwd=same) == ""

    script = newer_script(project / "flaskflex.py", "FLX", with_heading)
    with untouched(tmp_path):
        dry = flaskflex("--dry-run", cwd=folder, script=script)
    if "\ndiff --git" in dry.out:
        subprocess.run(["git", "apply", "-"], cwd=expected, env=environ, input=dry.out.encode(), check=True)
    result = flaskflex(cwd=folder, script=script)
    assert (result.status, result.err) == (dry.status, dry.err)
    assert verb_of(result) in newer.split(" or "), result
    assert [text_of(folder / path) for path in FILES] == [text_of(expected / path) for path in FILES]
    after = text_of(folder / ".flx")
    assert ("mine" in after, HEADING in after) == ("mine" in before, verb_of(result) != "refuse")


def test_an_update_is_one_though_another_file_of_its_commit_was_amended(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert flaskflex().status == 0
    (project / "public_html" / ".htaccess").write_text(MINE)
    git("commit", "-q", "-a", "--amend", "--no-edit")
    result = flaskflex(script=newer_script(project / "flaskflex.py", "FLX", with_heading))
    assert verb_of(result) == "update", result
    assert (project / "public_html" / ".htaccess").read_text() == MINE


def with_heading(template: str) -> str:
    """What a newer flaskflex has for a template."""
    return HEADING + template


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else "not there"


def verb_of(result: Result) -> str:
    """What a run says of .flx; what it does not mention is unchanged."""
    if result.status:
        assert_refused(result, ".flx")
        return "refuse"
    found = re.search(r"^ +(\w+) +\.flx( |$)", result.out, re.MULTILINE)
    return found[1] if found else "unchanged"


def test_a_shallow_clone_merges_once_it_has_the_whole_history(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    folder = shallow_clone_that_begins_with_a_commit_of_flaskflexs(project, git, flaskflex)
    newer = newer_script(project / "flaskflex.py", "FLX", with_heading)
    hint = flaskflex(cwd=folder, script=newer).err.splitlines()[1]
    git(*hint.partition(": git ")[2].split(), cwd=folder)
    result = flaskflex(cwd=folder, script=newer)
    assert result.status == 0, result
    text = (folder / ".flx").read_text()
    assert text.startswith(HEADING) and text.endswith(MINE)


@pytest.mark.parametrize("history", [a_folder, a_link_to_a_file, a_link_to_a_file_that_is_not_committed])
def test_what_the_user_put_in_the_place_of_a_file_is_left_alone(
    history: History, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    history(project, git, flaskflex)
    with untouched(project):
        assert_refused(flaskflex(), str(project / ".flx"))
        assert_refused(flaskflex("--force"), str(project / ".flx"))


# --- template after template ---


def test_edits_between_versions_are_merged_each_time_and_all_stay(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    prepared(project, git, flaskflex)
    template = (project / ".flx").read_text()
    edit(project)
    second = newer_script(project / "flaskflex.py", "FLX", with_heading)
    second = second.rename(project / "second.py")
    assert verb_of(flaskflex(script=second)) == "merge"
    # An edit in the middle, on top of what was merged.
    middle = template.index("\n[deploy]")
    text = (project / ".flx").read_text()
    assert text == HEADING + template + MINE
    write(project / ".flx", text.replace("\n[deploy]", "# mine, in the middle\n\n[deploy]"))
    git("commit", "-q", "-a", "-m", "my own")
    third = newer_script(second, "FLX", lambda text: text.replace("[setup]", "# of the newest\n[setup]"))
    assert verb_of(flaskflex(script=third)) == "merge"
    merged = f"{HEADING}{template[:middle]}# mine, in the middle\n{template[middle:]}{MINE}"
    merged = merged.replace("[setup]", "# of the newest\n[setup]")
    assert (project / ".flx").read_text() == git("show", "HEAD:.flx") == merged
    with untouched(project):
        assert flaskflex(script=third).status == 0


def test_an_edit_in_a_commit_that_mends_a_mode_is_an_edit_still(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    """That commit is flaskflex's, and yet its content is the user's."""
    path = "public_html/dispatch.fcgi"
    prepared(project, git, flaskflex)
    with (project / path).open("a") as file:
        file.write(MINE)
    (project / path).chmod(0o644)
    git("commit", "-q", "-a", "-m", "my own")
    assert flaskflex().status == 0
    assert "mode change 100644 => 100755" in git("show", "--summary", "HEAD")
    result = flaskflex(script=newer_script(project / "flaskflex.py", "DISPATCH_FCGI", with_second_line))
    assert result.status == 0, result
    text = (project / path).read_text()
    assert text.splitlines(keepends=True)[1] == HEADING and text.endswith(MINE)


def with_second_line(template: str) -> str:
    return template.replace("\n", f"\n{HEADING}", 1)


def test_an_edit_that_is_in_the_newer_template_too_is_merged_into_one(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    prepared(project, git, flaskflex)
    template = (project / ".flx").read_text()
    write(project / ".flx", HEADING + template)
    git("commit", "-q", "-a", "-m", "my own")
    newer = newer_script(project / "flaskflex.py", "FLX", with_heading)
    result = flaskflex(script=newer)
    assert result.status == 0 and verb_of(result) == "unchanged", result
    assert (project / ".flx").read_text() == HEADING + template


def test_a_conflict_changes_nothing_and_force_keeps_the_edit_where_its_command_shows_it(
    project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    """Three kinds of edits at once; two of them conflict, and all of these are named."""
    prepared(project, git, flaskflex)
    edits = {}
    for path in (".flx", "public_html/.htaccess"):
        edits[path] = (project / path).read_bytes().replace(b"\n", b"\r\n")[:-2] + "# żółć".encode()
        (project / path).write_bytes(edits[path])
    git("commit", "-q", "-m", "my own", ".flx")
    newer = newer_script(project / "flaskflex.py", "FLX", lambda text: text[:-2] + "its end\n")
    newer = newer_script(newer.rename(project / "one.py"), "HTACCESS", lambda text: text[:-2] + "its end\n")
    with untouched(project):
        assert_refused(flaskflex(script=newer), *edits)
    result = flaskflex("--force", script=newer)
    assert result.status == 0, result
    git("gc", "-q")
    for path, content in edits.items():
        command = re.search(rf"the old {re.escape(path)}: (git .+)", result.out)
        assert command, result
        assert output_bytes(["sh", "-c", command[1]], project, environ) == content
        assert (project / path).read_text().endswith("its end\n")
        assert run("git", "diff", "HEAD", "--", path, cwd=project, env=environ) == ""


def test_an_older_flaskflex_brings_its_own_templates_back_and_keeps_edits(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "first")
    newer = newer_script(project / "flaskflex.py", "FLX", with_heading)
    assert flaskflex(script=newer).status == 0
    edit(project)
    assert verb_of(flaskflex()) == "merge"
    text = (project / ".flx").read_text()
    assert HEADING not in text and text.endswith(MINE)


@pytest.mark.parametrize("form", ["--cone", "--no-cone"])
def test_an_edited_file_that_a_sparse_checkout_leaves_out_is_not_made_anew(
    form: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    prepared(project, git, flaskflex)
    for path in (".flx", "public_html/.htaccess", "req.txt"):
        (project / path).write_text((project / path).read_text() + MINE)
    git("commit", "-q", "-a", "-m", "my own")
    git("sparse-checkout", "set", form, "documentation")
    assert not (project / "public_html").exists()
    with untouched(project):
        for args in ([], ["--dry-run"], ["--no-commit"], ["--force"]):
            result = flaskflex(*args)
            assert_refused(result, "leaves out ", "public_html/.htaccess", "git sparse-checkout add ")
        told = flaskflex("check").out
    hints = re.findall("^ +(git sparse-checkout add .*)$", told, re.MULTILINE)
    assert len(hints) == 2 and "git checkout" not in told
    for hint in hints:
        run("sh", "-c", hint, cwd=project, env=environ)
    assert "Nothing" in flaskflex().out and "gone from" not in flaskflex("check").out
    assert (project / "public_html" / ".htaccess").read_text().endswith(MINE)
