"""Branches, tags, and pushes that go back: which commit a host serves, and what it tells."""
from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from apache import eventually
from conftest import run
from helpers import untouched, write
from hosting import FLX, NAME, Hosted, processes_of

pytest_plugins = ["hosting_fixtures"]

pytestmark = pytest.mark.once


@pytest.mark.parametrize("path, order", [("number.txt", 1), ("number.txt", -1), ("another.txt", -1)])
def test_of_two_first_pushes_the_one_that_moved_the_branch_is_served(
    path: str, order: int, new: Hosted
) -> None:
    """The host judges the second one before git has moved the branch for the first one."""
    commits = [new.commit("number.txt", "1"), new.commit(path, "2")][::order]
    new.git("fetch", "-q", new.clone, "HEAD", cwd=new.repository)
    for commit in commits:
        run("hooks/update", "refs/heads/main", "0" * 40, commit, cwd=new.repository, env=new.environ)
    new.git("update-ref", "refs/heads/main", commits[0], cwd=new.repository)
    assert eventually(lambda: new.ref("refs/flaskflex/live"))
    assert new.served() == commits[0]


def test_the_first_branch_deploys_and_others_are_stored(new: Hosted) -> None:
    new.push("origin", "HEAD:refs/heads/master")
    assert new.git("symbolic-ref", "HEAD", cwd=new.repository) == "refs/heads/master"
    served = new.ref("refs/flaskflex/live")
    assert served == new.ref("master")
    other = new.commit()
    new.git("tag", "v1;$(x)")
    for ref in ("refs/heads/o'ther;x", "refs/tags/v1;$(x)"):
        source = ref if "tags" in ref else "HEAD"
        out = new.push("origin", f"{source}:{ref}")
        assert new.ref(ref) == other and new.ref("refs/flaskflex/live") == served
        typed, = re.findall("^To deploy +(git push .*)$", out, re.MULTILINE)
        assert "master" in typed
    new.git("fetch", "-q")
    run("sh", "-ec", typed, cwd=new.clone, env=new.environ)
    assert new.ref("refs/flaskflex/live") == new.ref("master") == other


def test_the_branch_that_deploys_stays_and_so_does_the_record_of_what_is_live(live: Hosted) -> None:
    served = live.served()
    with untouched(live.site):
        assert "deletion of the current branch prohibited" in live.push("origin", ":main", status=1)
        live.commit()
        for ref in ("flaskflex/live", f"replace/{served}"):
            assert "reserved for the host" in live.push("origin", f"+HEAD:refs/{ref}", status=1)
        live.push("origin", ":refs/flaskflex/live", status=1)
    assert live.served() == served
    live.push("origin", "HEAD:refs/heads/other")
    live.push("origin", ":other")
    assert live.ref("other") == ""


def test_going_back_and_force_pushes_and_shallow_clones_work(live: Hosted, tmp_path: Path) -> None:
    first = live.served()
    live.commit("new.txt", "new")
    live.push()
    live.push("-f", "origin", f"{first}:main")
    assert live.served() == first and not (live.site / "new.txt").exists()
    run("git", "clone", "-q", "--depth=1", f"file://{live.repository}", tmp_path / "shallow",
        cwd=tmp_path, env=live.environ)
    shallow = tmp_path / "shallow"
    run("git", "remote", "set-url", "origin", live.git("remote", "get-url", "origin"), cwd=shallow,
        env=live.environ)
    write(shallow / "a.txt", "a")
    for command in (("add", "a.txt"), ("commit", "-qm", "a"), ("push", "-q", "origin", "HEAD:main")):
        run("git", *command, cwd=shallow, env=live.environ)
    assert live.served() == run("git", "rev-parse", "HEAD", cwd=shallow, env=live.environ).strip()


def test_git_is_asked_once_in_each_process_what_is_pushed(live: Hosted) -> None:
    live.commit()
    trace = live.folder / "trace"
    traced = live._replace(environ={**live.environ, "GIT_TRACE": str(trace)})
    traced.push(live.repository, "HEAD:main")
    live.served()
    asked = re.findall("(?:built-in|exec): git .*?(log -1|cat-file -t)", trace.read_text())
    assert asked == ["log -1"] * 2  # in the trial, and when it goes live


def test_several_branches_at_once_deploy_one(new: Hosted) -> None:
    new.git("branch", "develop")
    new.push("origin", "HEAD:refs/heads/main", "develop")
    assert new.ref("develop") and new.served() == new.ref("main")
    assert "atomic" in new.push("--atomic", "origin", "develop", status=128)


# --- what goes live and fails there ---

FAILS_WHEN_LIVE = "[deploy]\ncase $PWD in */trial) ;; *) exit 7 ;; esac\n"


def test_what_can_neither_go_live_nor_be_taken_back_is_finished_later(live: Hosted) -> None:
    live.commit(".flx", f"{FLX}[deploy]\ntest ! -e {live.folder}/down\n")
    live.push()
    good = live.served()
    bad = live.commit(".flx", FLX + FAILS_WHEN_LIVE)
    write(live.folder / "down")
    out = live.push()
    assert len(re.findall("^Failed ", out, re.MULTILINE)) >= 2 and "To finish" in out and "Served" not in out
    assert eventually(lambda: not processes_of(live.folder))
    assert (live.ref("refs/flaskflex/live"), live.ref("main")) == (good, bad)
    (live.folder / "down").unlink()
    with pytest.raises(AssertionError, match="(?s)gave 1:.*Served .*flaskflex: error: .* does not run"):
        live.flaskflex("host", NAME)
    assert live.served() == good


def test_a_push_after_one_that_was_cut_off_and_does_not_run_is_told_so(live: Hosted) -> None:
    good = live.served()
    live.commit(".flx", FLX + FAILS_WHEN_LIVE)
    live.push("origin", "HEAD:stored")
    cut_off = ("-c", "core.hooksPath=/dev/null", "update-ref", "refs/heads/main", "stored")
    live.git(*cut_off, cwd=live.repository)
    new = live.commit(".flx", FLX)
    assert re.search("^Refused .*was cut off, and does not run", live.push(status=1), re.MULTILINE)
    assert live.served() == good
    live.push()
    assert live.served() == new


def test_a_branch_that_head_names_and_nobody_has_pushed_changes_nothing(live: Hosted) -> None:
    write(live.repository / "flaskflex" / "before" / "page.html", "before the first push")
    live.flaskflex("host", NAME)
    live.assert_clean()
    write(live.repository / "flaskflex" / "before" / "page.html", "before the first push")
    live.git("symbolic-ref", "HEAD", "refs/heads/other", cwd=live.repository)
    with untouched(live.site):
        live.flaskflex("host", NAME)
    new = live.commit()
    live.push("origin", "HEAD:other")
    assert live.ref("refs/flaskflex/live") == live.ref("refs/heads/other") == new
    live.assert_holds(new)


def test_a_branch_whose_name_is_in_another_encoding_deploys(new: Hosted) -> None:
    branch = os.fsdecode("refs/heads/grün".encode("latin-1"))
    for _ in range(2):
        commit = new.commit()
        new.push("origin", f"HEAD:{branch}")
        assert new.ref("refs/flaskflex/live") == new.ref(branch) == commit


def test_what_is_no_branch_and_no_tag_is_stored_without_a_line_to_deploy_it(live: Hosted) -> None:
    live.git("notes", "add", "-m", "a note")
    assert re.search("^Stored +refs/notes/commits; .*\n(?!To deploy)",
                     live.push("origin", "refs/notes/*:refs/notes/*"), re.MULTILINE)


def test_a_tag_is_no_commit_for_a_branch_and_the_hint_pushes_its_commit(new: Hosted) -> None:
    new.git("tag", "-a", "-m", "v1", "v1")
    with untouched(new.site):
        out = new.push("origin", "v1:refs/heads/main", status=1)
    typed, = re.findall("^(git push .*)$", out, re.MULTILINE)
    run("sh", "-ec", typed.replace("TAG", "v1"), cwd=new.clone, env=new.environ)
    assert new.served() == new.git("rev-parse", "HEAD")


def test_a_folder_of_a_commit_is_no_commit_for_a_branch(new: Hosted) -> None:
    with untouched(new.site):
        out = new.push("origin", "HEAD^{tree}:refs/heads/main", status=1)
    assert re.search("^Refused .* not a commit", out, re.MULTILINE), out


def test_a_branch_that_head_names_since_is_tried_before_it_is_served(live: Hosted) -> None:
    served, good = live.served(), live.git("rev-parse", "HEAD")
    live.commit(text="def hello(:\n")
    assert "Stored" in live.push("origin", "HEAD:other")
    live.git("symbolic-ref", "HEAD", "refs/heads/other", cwd=live.repository)
    with untouched(live.site):
        assert "Waits " in live.flaskflex("host", NAME)
        assert "SyntaxError" in live.push("origin", f"{live.commit()}:other", status=1)
    assert live.ref("refs/flaskflex/live") == served
    live.push("--force", "origin", f"{good}:other")
    live.git("reset", "-q", "--hard", good)
    fixed = live.commit()
    live.push("origin", "HEAD:other")
    assert live.ref("refs/flaskflex/live") == live.ref("other") == fixed
    live.assert_holds(fixed)
    live.push("origin", "HEAD:main")
    assert "Stored" in live.push("origin", f"{live.commit()}:main")


@pytest.mark.parametrize("branch", ["main", "another"])
def test_a_branch_whose_push_is_taken_back_names_what_it_named_before(branch: str, live: Hosted) -> None:
    before = live.ref(branch)
    live.git("symbolic-ref", "HEAD", "refs/heads/other", cwd=live.repository)
    served = live.commit()
    live.push("origin", "HEAD:other")
    live.git("reset", "-q", "--hard", "HEAD~")
    live.git("symbolic-ref", "HEAD", f"refs/heads/{branch}", cwd=live.repository)
    live.commit(".flx", FLX + FAILS_WHEN_LIVE)
    assert re.search("^Served ", live.push("origin", f"HEAD:refs/heads/{branch}"), re.MULTILINE)
    assert (live.ref("refs/flaskflex/live"), live.ref(branch)) == (served, before)
    new = live.commit(".flx", FLX)
    live.push("origin", f"HEAD:refs/heads/{branch}")
    assert live.ref("refs/flaskflex/live") == live.ref(branch) == new


def test_a_tag_of_what_is_live_leaves_the_log_of_its_push(live: Hosted) -> None:
    new = live.commit(".flx", FLX + "[deploy]\necho what the line printed\n")
    live.push("origin", "HEAD:main", "HEAD:refs/tags/first")
    live.push("origin", "HEAD:refs/tags/second")
    live.commit()
    live.push("origin", "HEAD:refs/tags/third")
    log = (live.repository / "flaskflex" / "logs" / f"{new}.log").read_text()
    assert log.count("\nwhat the line printed\n") == 2 and "last push: Live" in live.flaskflex("host")
