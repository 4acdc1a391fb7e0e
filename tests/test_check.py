"""What check says about what is committed: each item made to fail and to pass, on real projects.

Whether the application answers is in test_answer.py, and the form of .flx in test_flx.py.
"""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from conftest import Environ, Flaskflex, Git, run
from deployed import APPLICATION, copy_deployed, deploy, item, read_items, troubles
from helpers import FILES, add_distribution, assert_refused, light_virtualenv, snapshot, untouched, write

DISPATCH = "public_html/dispatch.fcgi"
SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def deployed(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, warm_cache: Path, session_environ: Environ
) -> Path:
    return deploy(tmp_path_factory.mktemp("deployed"), virtualenv, session_environ)


@pytest.fixture
def project(deployed: Path, tmp_path: Path) -> Path:
    """A project with which all is well."""
    return copy_deployed(deployed, tmp_path)


Type = Callable[[str], None]


@pytest.fixture
def type_in(project: Path, environ: Environ) -> Type:
    """Type a command, as a hint says it, in the project; where git wants a message, one is written."""
    def type_in(command: str) -> None:
        run("sh", "-c", command, cwd=project, env={**environ, "GIT_EDITOR": "echo typed >"})
    return type_in


def commit(git: Git, *paths: str) -> None:
    git("add", "--force", "--all", "--", *(paths or ["."]))
    git("commit", "-q", "-m", "A change")


# --- the whole ---


def test_a_project_that_is_ready_has_one_ok_for_each_item_and_nothing_changes(
    project: Path, flaskflex: Flaskflex
) -> None:
    host = project.parent / "host.git"
    before = snapshot(project), snapshot(host)
    result = flaskflex("check")
    assert (result.status, result.err) == (0, "")
    words = [word for item in read_items(result.out) for word in item.text.split()]
    subjects = [
        "files", "dispatch.fcgi", "application/app.py", ".flx", "req.txt", "public_html", "GET", "branch",
    ]
    assert [word for word in words if word in subjects] == subjects
    assert troubles(result.out) == [] and len(read_items(result.out)) == len(subjects)
    assert f"{project} (branch main)" in result.out.splitlines()[0]
    assert (snapshot(project), snapshot(host)) == before


def test_everything_that_is_wrong_is_told_in_one_run_each_with_a_hint(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("rm", "-q", "req.txt")
    git("mv", "application/app.py", "application/web.py")
    git("update-index", "--chmod=-x", DISPATCH)
    write(project / ".flx", "[nonsense]\nx\n")
    write(project / "public_html" / "todo.db")
    git("add", ".flx", "public_html/todo.db")
    git("commit", "-q", "-m", "All at once")
    result = flaskflex("check")
    assert result.status == 1
    found = troubles(result.out)
    assert [item.level for item in found] == ["fail", "fail", "fail", "warn", "warn", "fail", "warn"]
    for told, word in zip(found, ("req.txt", "execute", "app.py", "nonsense", "todo.db", "app.py", "push")):
        assert word in told.text
        assert told.hint, told


def test_quiet_check_tells_by_its_exit_status_alone(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    assert flaskflex("--quiet", "check") == (0, "", "")
    git("rm", "-q", "--cached", ".flx")
    git("commit", "-q", "-m", "Gone")
    assert flaskflex("--quiet", "check") == (1, "", "")


@pytest.mark.parametrize("words", [("check", "-C"), ("-C",)])
def test_check_works_as_if_started_elsewhere(
    words: Tuple[str, ...],
    project: Path, tmp_path: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    del environ["VIRTUAL_ENV"]
    rest = () if "check" in words else ("check",)
    result = flaskflex(*words, project / "public_html", *rest, "--venv", virtualenv, cwd=tmp_path)
    assert (result.status, troubles(result.out)) == (0, [])
    assert f"{project} (branch main)" in result.out.splitlines()[0]


@pytest.mark.parametrize("options", [
    ["--timeout", "0"], ["--timeout", "-1"], ["--timeout", "nan"], ["--timeout", "inf"],
    ["--timeout", "1e300"], ["--timeout", "soon"], ["--exclude", "x"], ["now"],
])
def test_wrong_usage_of_check_is_refused_as_such(options: List[str], flaskflex: Flaskflex) -> None:
    result = flaskflex("check", *options)
    assert (result.status, result.out) == (2, "")
    assert "usage:" in result.err


# --- before the first run, and where there is nothing to check ---


def test_before_the_first_run_it_says_that_flaskflex_is_to_be_run(
    tmp_path: Path, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    fresh = tmp_path / "fresh"
    run("git", "init", "-q", "-b", "main", fresh, cwd=tmp_path, env=environ)
    with untouched(fresh):
        result = flaskflex("check", cwd=fresh)
    assert result.status == 1
    found = read_items(result.out)
    assert [item.text for item in found[:4]] == [f"{path} is missing" for path in FILES]
    assert {item.hint for item in found[:4]} == {"python flaskflex.py"}
    # There is no branch to switch to: the first commit makes it, and flaskflex makes that.
    assert "git switch" not in item(result.out, "branch|commit").hint


def test_outside_a_repository_it_refuses(project: Path, tmp_path: Path, flaskflex: Flaskflex) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert_refused(flaskflex("check", cwd=tmp_path / "elsewhere"), "not in a git repository")


def test_outside_a_virtualenv_it_refuses(
    project: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    del environ["VIRTUAL_ENV"]
    machine = (virtualenv / "bin" / "python").resolve()
    assert_refused(flaskflex("check", python=machine), "no virtualenv", "activate")


# --- the four files ---

STATES = {
    "is missing": "fail",
    "is not committed": "fail",
    "is committed, but gone": "warn",
    "has changes that are not committed": "warn",
}


@pytest.mark.parametrize("turn", range(len(FILES)))
def test_each_state_of_each_file_is_told_and_mended_by_its_hint(
    turn: int, project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    missing, uncommitted, gone, changed = FILES[turn:] + FILES[:turn]
    git("rm", "-q", missing)
    git("rm", "-q", "--cached", uncommitted)
    git("commit", "-q", "-m", "Fewer files")
    (project / gone).unlink()
    with (project / changed).open("a") as file:
        file.write("# a line of mine\n")
    result = flaskflex("check")
    assert result.status == 1
    hints = set()
    for path, (words, level) in zip((missing, uncommitted, gone, changed), STATES.items()):
        found = item(result.out, f"^{path} {words}")
        assert found.level == level
        hints.add(found.hint)
    for hint in sorted(hints):
        type_in(hint)
    assert item(flaskflex("check").out, "four files").level == "ok"
    assert "# a line of mine" in git("show", f"HEAD:{changed}")


@pytest.mark.parametrize("path", [".flx", "application/app.py"])
def test_what_git_was_told_to_remove_can_be_had_back_by_the_hint(
    path: str, project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("rm", "-q", path)
    found = item(flaskflex("check").out, f"^{path} is committed, but gone")
    assert found.level == "warn"
    type_in(found.hint)
    assert (project / path).exists()


def test_line_endings_that_git_itself_put_into_the_work_tree_are_no_change(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("config", "core.autocrlf", "true")
    (project / ".flx").unlink()
    git("checkout", "-q", "--", ".flx")
    assert b"\r\n" in (project / ".flx").read_bytes()
    assert item(flaskflex("check").out, "four files").level == "ok"


# --- dispatch.fcgi ---


@pytest.mark.parametrize("old, new, level, words", [
    (b"\n", b"\r\n", "fail", "CRLF"),
    (b"#!/usr/bin/env python3\n", b"", "fail", "#!"),
    (b"#!/usr/bin/env python3\n", b"#!python3\n", "fail", "#!"),
    (b"#!/usr/bin/env python3\n", b"\xef\xbb\xbf#!/usr/bin/env python3\n", "fail", "#!"),
    (b"#!/usr/bin/env python3\n", b"#!/home/me/env/bin/python\n", "warn", "/home/me/env/bin/python"),
    (b"#!/usr/bin/env python3\n", b"#! /usr/bin/python3\n", "ok", "can be started"),
])
def test_committed_dispatch_fcgi_is_one_that_a_server_can_start(
    old: bytes, new: bytes, level: str, words: str,
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    script = project / DISPATCH
    script.write_bytes(script.read_bytes().replace(old, new))
    commit(git, DISPATCH)
    result = flaskflex("check")
    found = item(result.out, "dispatch.fcgi")
    assert (found.level, result.status) == (level, 1 if level == "fail" else 0)
    assert words in found.text
    if level != "ok":
        type_in(found.hint)
        assert git("show", f"HEAD:{DISPATCH}").encode() == script.read_bytes().replace(b"\r", b"")
        assert script.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_committed_execute_bit_counts_and_not_that_of_the_work_tree(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("config", "core.fileMode", "false")
    (project / DISPATCH).chmod(0o644)
    assert item(flaskflex("check").out, "dispatch.fcgi").level == "ok"
    (project / DISPATCH).chmod(0o755)
    git("update-index", "--chmod=-x", DISPATCH)
    git("commit", "-q", "-m", "Not executable")
    result = flaskflex("check")
    found = item(result.out, "execute bit")
    assert (found.level, result.status) == ("fail", 1)
    type_in(found.hint)
    assert git("ls-tree", "HEAD", DISPATCH).startswith("100755 ")


def test_committed_text_counts_and_not_that_of_the_work_tree(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    script = project / DISPATCH
    sound = script.read_bytes()
    script.write_bytes(b"no script")
    commit(git, DISPATCH)
    script.write_bytes(sound)
    result = flaskflex("check")
    assert item(result.out, "dispatch.fcgi does not begin").level == "fail"
    assert item(result.out, "dispatch.fcgi has changes").level == "warn"
    assert item(result.out, "GET /").level == "ok"


# --- the application ---

FACTORY = APPLICATION.replace("app = Flask(__name__)", "bp = Blueprint('bp', __name__)").replace(
    "Flask\n", "Blueprint, Flask\n").replace("@app", "@bp") + '''

def create_app():
    app = Flask(__name__)
    app.register_blueprint(bp)
    return app
'''


def replace_application(project: Path, git: Git, **modules: str) -> None:
    """Commit other modules (by their paths, with __ for a slash) in place of the application."""
    git("rm", "-q", "-r", "application")
    shutil.rmtree(project / "application", ignore_errors=True)
    for name, text in modules.items():
        write(project / f"{name.replace('__', '/', 1)}.py", text)
    git("add", "--all")
    git("commit", "-q", "-m", "Another application")


@pytest.mark.parametrize("name, module", [
    ("application__myapp", APPLICATION), ("application", APPLICATION), ("app", APPLICATION),
    ("public_html__app", APPLICATION),
    # The shape of Flask's own tutorial, copied into place: the factory is in __init__.py.
    ("application____init__", FACTORY), ("application____init__", APPLICATION),
])
def test_misnamed_application_is_mended_by_the_hint_and_answers(
    name: str, module: str, project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    replace_application(project, git, **{name: module})
    if name == "application____init__":
        write(project / "application" / "db.py", "DATABASE = 'todo.db'\n")
    result = flaskflex("check")
    found = item(result.out, "^application/app.py is missing")
    assert (found.level, result.status) == ("fail", 1)
    type_in(found.hint)
    commit(git)
    result = flaskflex("check")
    assert item(result.out, "^application/app.py is there and committed").level == "ok"
    assert item(result.out, "GET /").level == "ok", result.out


@pytest.mark.parametrize("modules, words", [
    ([], ["cp -r", "application"]),
    (["application__one", "application__two"], ["app.py", "one.py", "two.py"]),
    (["application____init__", "application__web"], ["mv application/web.py application/app.py"]),
    (["web"], ["application"]),
])
def test_missing_application_is_hinted_at(
    modules: List[str], words: List[str], project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    replace_application(project, git, **{name: "" for name in modules})
    result = flaskflex("check")
    found = item(result.out, "^application/app.py is missing")
    assert (found.level, result.status) == ("fail", 1)
    for word in words:
        assert word in found.hint


def test_application_that_is_a_repository_of_its_own_is_told_and_mended_by_the_hint(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("rm", "-q", "-r", "--cached", "application")
    git("init", "-q", cwd=project / "application")
    git("add", ".", cwd=project / "application")
    git("commit", "-q", "-m", "A history of its own", cwd=project / "application")
    git("-c", "advice.addEmbeddedRepo=false", "add", "application")
    git("commit", "-q", "-m", "Add the application")
    found = item(flaskflex("check").out, "^application is a git repository of its own")
    assert found.level == "fail"
    type_in(found.hint)
    commit(git)
    assert item(flaskflex("check").out, "^application/app.py is there and committed").level == "ok"
    assert git("--git-dir=../application.git", "log", "--format=%s") == "A history of its own\n"


def test_application_behind_a_symbolic_link_is_told_and_mended_by_the_hint(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    (project / "application").rename(project.parent / "elsewhere")
    (project / "application").symlink_to("../elsewhere")
    commit(git)
    found = item(flaskflex("check").out, "^application is a symbolic link")
    assert found.level == "fail"
    type_in(found.hint)
    commit(git)
    assert item(flaskflex("check").out, "^application/app.py is there and committed").level == "ok"


def test_committed_virtualenv_is_told_and_taken_out_by_the_hint(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    write(project / ".venv" / "pyvenv.cfg", "home = /usr/bin\n")
    commit(git)
    found = item(flaskflex("check").out, "^.venv is committed")
    assert found.level == "warn"
    type_in(found.hint)
    assert [one for one in read_items(flaskflex("check").out) if ".venv" in one.text] == []
    assert (project / ".venv" / "pyvenv.cfg").exists()


def test_uncommitted_application_fails_and_the_hint_commits_it(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("rm", "-q", "--cached", "application/app.py")
    git("commit", "-q", "-m", "Forgotten")
    result = flaskflex("check")
    found = item(result.out, "^application/app.py is not committed")
    assert (found.level, result.status) == ("fail", 1)
    type_in(found.hint)
    assert item(flaskflex("check").out, "^application/app.py").level == "ok"


def test_application_that_is_gone_from_the_work_tree_alone_is_told(
    project: Path, type_in: Type, flaskflex: Flaskflex
) -> None:
    (project / "application" / "app.py").unlink()
    found = item(flaskflex("check").out, "^application/app.py is committed, but gone")
    assert found.level == "warn"
    type_in(found.hint)
    assert flaskflex("check").status == 0


def test_work_tree_of_the_application_that_differs_from_the_commit_is_told(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    # It answers here and not on the server, or answers there as it did before.
    write(project / ".gitignore", "/application/ignored.py\n__pycache__\n")
    commit(git, ".gitignore")
    paths = ["application/app.py", "application/models.py", "application/templates/a b.html"]
    for path in paths:
        write(project / path, APPLICATION + "# changed\n")
    write(project / "application" / "ignored.py")
    write(project / "notes.txt")
    result = flaskflex("check")
    told = [item for item in troubles(result.out) if "application/" in item.text]
    assert [item.level for item in told] == ["warn"], result.out
    for path in paths:
        assert path in told[0].text
    assert "ignored.py" not in result.out and "notes.txt" not in result.out
    type_in(told[0].hint)
    result = flaskflex("check")
    assert [item for item in troubles(result.out) if "application" in item.text] == [], result.out
    assert "notes.txt" not in git("ls-files")


# --- req.txt ---


@pytest.fixture
def active(tmp_path: Path, project: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex) -> Path:
    """A virtualenv of the test's own, which is active, and which the committed req.txt agrees with."""
    own = light_virtualenv(tmp_path / "env", virtualenv)
    for name in ("Flask", "gone", "changed"):
        add_distribution(own, name, "1.0")
    environ["VIRTUAL_ENV"] = str(own)
    assert flaskflex().status == 0
    return own


def test_requirements_that_agree_are_ok(active: Path, project: Path, flaskflex: Flaskflex) -> None:
    with (project / "req.txt").open("a") as file:
        file.write("# mine\ngunicorn==23.0.0\nrequests>=2\n")
    assert flaskflex("--message", "mine").status == 0
    found = item(flaskflex("check").out, "req.txt")
    assert (found.level, found.text) == ("ok", "req.txt agrees with the virtualenv (3 packages)")


def test_requirements_that_differ_are_named_and_mended_by_the_hint(
    active: Path, type_in: Type, flaskflex: Flaskflex
) -> None:
    add_distribution(active, "Added_Package", "1.0")
    for name in ("gone", "changed"):
        shutil.rmtree(next(active.glob(f"lib/*/site-packages/{name}-1.0.dist-info")))
    add_distribution(active, "changed", "2.0")
    found = item(flaskflex("check").out, "req.txt and the virtualenv differ")
    assert found.level == "warn"
    assert found.text.endswith(" in added-package, changed, gone")
    type_in(found.hint)
    assert item(flaskflex("check").out, "req.txt").level == "ok"


def test_requirements_written_by_hand_are_compared_by_name(
    active: Path, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    by_hand = "# by hand\nflask\ngone==1.0\nchanged>=0.5\nflup==1.0.3\nAnother[extra]~=2.0\n"
    write(project / "req.txt", by_hand)
    commit(git, "req.txt")
    found = item(flaskflex("check").out, "req.txt and the virtualenv differ")
    assert found.text.endswith(" in another, changed, flask")


def test_package_that_no_server_can_install_is_told_and_fails_nothing_while_req_txt_lacks_it(
    active: Path, flaskflex: Flaskflex
) -> None:
    editable = {"url": "file:///home/me/outside", "dir_info": {"editable": True}}
    add_distribution(active, "outside", "1.0", editable)
    add_distribution(active, "copied", "1.0", {"url": "file:///home/me/copied", "dir_info": {}})
    address = f"https://me:{SECRET}@example.org/guarded.zip"
    add_distribution(active, "guarded", "1.0", {"url": address, "archive_info": {}})
    result = flaskflex("check")
    assert SECRET not in result.out + result.err
    found = item(result.out, "^req.txt")
    for word in ("outside", "copied", "guarded"):
        assert word in found.text
    assert found.level == "warn"  # as with --exclude: the server never hears of them


def test_line_of_req_txt_that_no_server_can_install_fails(
    active: Path, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    with (project / "req.txt").open("a") as file:
        file.write(
            "-e /home/me/editable\nlibrary @ file:///home/me/library\n/home/me/plain\n-e ../above\n"
            f"guarded @ https://me:{SECRET}@example.org/library.zip\n"
            f"--extra-index-url https://me:{SECRET}@example.org/simple\n"
        )
    commit(git, "req.txt")
    result = flaskflex("check")
    assert result.status == 1
    failures = [item for item in troubles(result.out) if item.text.startswith("req.txt")]
    assert {item.level for item in failures} == {"fail"}
    text = "\n".join(item.text for item in failures)
    for word in ("editable", "library", "plain", "../above", "guarded", "--extra-index-url"):
        assert word in text
    assert SECRET not in result.out + result.err


def test_line_of_req_txt_that_installs_from_the_project_is_ok(
    active: Path, project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "library" / "setup.py", "import setuptools\nsetuptools.setup(name='library')\n")
    with (project / "req.txt").open("a") as file:
        file.write("-e ./library\n./library\n-r more.txt\n--no-binary :all:\n")
    commit(git)
    assert item(flaskflex("check").out, "req.txt").level == "ok"


# --- public_html ---

EXPOSED = [
    "app.py", ".env", "todo.db", "sub/settings.cfg", "sub/.hg/hgrc", "my notes.sqlite3", "größe.py", "x.pyc",
]
PUBLIC = ["index.html", "sub/style.css", ".well-known/security.txt", "dispatch.html", "pyramid.jpg"]


def test_what_would_be_served_by_mistake_is_told_and_moved_by_the_hint(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    for name in (*EXPOSED, *PUBLIC):
        write(project / "public_html" / name, name)
    commit(git)
    write(project / "public_html" / "later.py")
    result = flaskflex("check")
    assert result.status == 0
    told = [item for item in troubles(result.out) if "public_html" in item.text]
    assert {item.level for item in told} == {"warn"}
    told_of = [item.text.partition(" would be served")[0] for item in told]
    assert told_of == sorted(f"public_html/{name}" for name in EXPOSED)
    for found in told:
        if "public_html/app.py" in found.text:
            git("rm", "-q", "public_html/app.py")  # there is one in application/ already
        else:
            type_in(found.hint)
    git("commit", "-q", "-m", "Moved")
    assert item(flaskflex("check").out, "^public_html").level == "ok"


# --- pushed ---


def ahead(git: Git) -> None:
    git("commit", "-q", "--allow-empty", "-m", "One more")


def ahead_by_two(git: Git) -> None:
    ahead(git)
    ahead(git)


def behind(git: Git) -> None:
    ahead(git)
    git("push", "-q")
    git("reset", "-q", "--hard", "HEAD^")


def apart(git: Git) -> None:
    behind(git)
    git("commit", "-q", "--allow-empty", "-m", "Another one")


def without_upstream(git: Git) -> None:
    git("switch", "-q", "-c", "topic")


def gone_from_the_host(git: Git) -> None:
    git("update-ref", "-d", "refs/remotes/origin/main")
    host = Path(git("rev-parse", "--show-toplevel").strip(), "..", "host.git")
    git("update-ref", "-d", "refs/heads/main", cwd=host)


@pytest.mark.parametrize("change, words, hint", [
    (ahead, "1 commit of branch main not pushed", "git push"),
    (ahead_by_two, "2 commits of branch main not pushed", "git push"),
    (behind, "host has 1 commit more", "git pull"),
    (apart, "host has 1 commit more", "git pull"),
    (without_upstream, "branch topic is not pushed", "git push -u origin topic"),
    (gone_from_the_host, "branch main is not pushed", "git push -u origin main"),
])
def test_branch_that_the_host_has_not_is_told_and_mended_by_the_hint(
    change: Callable[[Git], None], words: str, hint: str,
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("config", "pull.rebase", "true")
    change(git)
    result = flaskflex("check")
    found = item(result.out, words)
    assert (found.level, found.hint, result.status) == ("warn", hint, 0)
    type_in(found.hint)
    left = git("rev-list", "--left-right", "--count", "@{upstream}...HEAD").split()
    assert left == ["0", "1" if change is apart else "0"]


def test_project_without_a_remote_is_told_how_to_add_one(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("remote", "remove", "origin")
    found = item(flaskflex("check").out, "branch main")
    assert (found.level, found.hint) == ("warn", "git remote add origin ADDRESS")


def test_detached_head_is_told_how_to_get_to_a_branch(project: Path, git: Git, flaskflex: Flaskflex) -> None:
    git("switch", "-q", "--detach")
    result = flaskflex("check")
    found = item(result.out, "branch")
    assert (found.level, found.hint) == ("warn", "git switch BRANCH")
    assert "detached" in result.out.splitlines()[0]
