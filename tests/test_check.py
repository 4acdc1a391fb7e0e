"""What check says about what is committed: each item made to fail and to pass, on real projects.

Whether the application answers is in test_answer.py, and the form of .flx in test_flx.py.
"""
from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Callable, List, Tuple

import pytest
from conftest import Environ, Flaskflex, Git, run
from deployed import APPLICATION, Item, copy_deployed, item, processes_in, read_items, troubles
from helpers import (
    FILES, add_distribution, assert_refused, load_flaskflex, snapshot, untouched, write,
)

DISPATCH = "public_html/dispatch.fcgi"
SECRET = "s3cr3t"


@pytest.fixture
def project(deployed: Path, tmp_path: Path) -> Path:
    """A project with which all is well."""
    return copy_deployed(deployed, tmp_path)


FLASKFLEX = load_flaskflex()

Type = Callable[[str], None]
Look = Callable[[str], List[Item]]


@pytest.fixture
def type_in(project: Path, environ: Environ) -> Type:
    """Type the last line of a hint in the project. No command of check's needs an editor, or asks."""
    def type_in(hint: str) -> None:
        command = hint.rpartition("\n")[2]
        run("sh", "-c", command, cwd=project, env={**environ, "GIT_EDITOR": "false"})
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
        "files", "dispatch.fcgi", "application/app.py", ".flx", "public_html", "req.txt", "GET", "branch",
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


def test_it_says_where_to_type_its_hints(
    project: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    elsewhere = project / "public_html"
    assert "To type" not in flaskflex("check", cwd=elsewhere).out
    git("rm", "-q", "--cached", ".flx")
    git("commit", "-q", "-m", "Gone")
    assert "To type" not in flaskflex("check").out
    typed, = re.findall("^To type .*: (cd .*)$", flaskflex("check", cwd=elsewhere).out, re.MULTILINE)
    assert run("sh", "-ec", f"{typed}; pwd", cwd=elsewhere, env=environ) == f"{project}\n"


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
    assert found[0].text == f"{', '.join(FILES)} are missing"
    assert [item.text for item in found if item.hint == "python flaskflex.py"] == [found[0].text]
    # There is no branch to switch to: the first commit makes it, and flaskflex makes that.
    assert "git switch" not in result.out


def test_outside_a_repository_it_refuses(project: Path, tmp_path: Path, flaskflex: Flaskflex) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert_refused(flaskflex("check", cwd=tmp_path / "elsewhere"), "not in a git repository")


def test_outside_a_virtualenv_it_refuses(
    project: Path, environ: Environ, virtualenv: Path, flaskflex: Flaskflex
) -> None:
    del environ["VIRTUAL_ENV"]
    machine = (virtualenv / "bin" / "python").resolve()
    assert_refused(flaskflex("check", python=machine), "no virtualenv", "activate")


# --- every hint is typed, and fixes what it was given for ---


@pytest.fixture
def look(project: Path, environ: Environ, monkeypatch: pytest.MonkeyPatch) -> Look:
    """Look at the project in this process, as check does before it asks the application."""
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def look(pattern: str) -> List[Item]:
        found = FLASKFLEX.find_project(project)
        findings = FLASKFLEX.check_committed(found)
        return [Item(*finding) for finding in findings if re.search(pattern, finding.text)]
    return look


# A filter that does what Git LFS does, of which git needs nothing installed.
LFS = """\
git config filter.lfs.clean "sed 's/.*/version https:\\/\\/git-lfs.github.com\\/spec\\/v1/'"
git config filter.lfs.required true
echo '*.png filter=lfs diff=lfs merge=lfs -text' > .gitattributes
"""

SHORT = {
    "UNCOMMIT": "git rm -q --cached APP; COMMIT", "IGNORE": "git add .gitignore; COMMIT",
    "ADD": "git add -Af .; COMMIT", "COMMIT": "git commit -qm x",
    "APP": "application/app.py", "DISPATCH": DISPATCH, "SKIP": "git commit -q --allow-empty -m x",
    "LIVE": f"git -C ../host.git update-ref {FLASKFLEX.LIVE_REF}",
}


def in_full(arrange: str) -> str:
    """The commands that the words in capitals stand for."""
    for name, text in SHORT.items():
        arrange = arrange.replace(name, text)
    return arrange


# What is done to a project in which all is well, then the level and the text of what check says of it.
FAULTS = {
    "a file is missing": ("git rm -q .flx; COMMIT", "fail", r"^\.flx is missing"),
    "files are not committed": (
        "git rm -q --cached .flx req.txt; COMMIT", "fail", r"^\.flx, req\.txt are not committed"),
    "a file is gone": ("rm .flx", "warn", r"^\.flx is committed, but gone"),
    "a file is removed": ("git rm -q .flx", "warn", r"^\.flx is committed, but gone"),
    "a file is changed": ("echo '# mine' >> .flx", "warn", r"^\.flx is changed"),
    "no execute bit": ("git update-index --chmod=-x DISPATCH; COMMIT", "fail", "execute bit"),
    "CRLF": ("sed -i 's/$/\\r/' DISPATCH; ADD", "fail", "CRLF"),
    "no #!": ("sed -i 1d DISPATCH; ADD", "fail", "#!"),
    "a program that servers lack": ("sed -i '1s,.*,#!/opt/python,' DISPATCH; ADD", "warn", "/opt/python"),
    "the application is gone": ("rm application/app.py", "warn", "app.py is committed, but gone"),
    "the application is removed": ("git rm -qr application", "warn", "app.py is committed, but gone"),
    "the application is not committed": (
        "UNCOMMIT", "fail", "app.py is not committed"),
    "the application is not committed, and data is beside it": (
        "UNCOMMIT; touch application/todo.db application/.env",
        "fail", "app.py is not committed"),
    "git ignores the application": (
        "git rm -q --cached APP; echo app.py > .gitignore; IGNORE", "fail", "app.py is not committed"),
    "git ignores its folder": (
        "git rm -q --cached APP; echo 'app*' > .gitignore; IGNORE", "fail", "app.py is not committed"),
    "changes, with data beside": (
        "touch application/models.py 'application/a b.sqlite3'; echo '# x' >> application/app.py",
        "warn", "last commit lacks changes in application/app.py, application/models.py$"),
    "a link": (
        "mv application ../elsewhere; ln -s ../elsewhere application; ADD",
        "fail", "^application is a symbolic link"),
    "a repository of its own": (
        "git rm -rq --cached application; cd application; touch x.db; git init -q; git add app.py; COMMIT; "
        "cd ..; git -c advice.addEmbeddedRepo=false add application; COMMIT",
        "fail", "is a git repository of its own"),
    "a submodule": (
        "git init -q ../lib; cd ../lib; touch a.py; git add .; COMMIT; cd ../yourprojectname; "
        "git -c protocol.file.allow=always submodule --quiet add ../lib application/lib; COMMIT; "
        "touch application/lib/x.db", "warn", "will not have application/lib: "),
    "a submodule whose files are not here": (
        "git init -q ../lib; cd ../lib; touch a.py; git add .; COMMIT; cd ../yourprojectname; "
        "git config --global protocol.file.allow always; git submodule --quiet add ../lib application/lib; "
        "COMMIT; git submodule --quiet deinit --all; git config submodule.application/lib.url ../../lib",
        "warn", "will not have application/lib: "),
    "a repository in public_html": (
        "mkdir public_html/lib; cd public_html/lib; touch a.css; git init -q; git add .; COMMIT; cd ../..; "
        "git -c advice.addEmbeddedRepo=false add public_html/lib; COMMIT",
        "warn", "will not have public_html/lib: "),
    "a package hides app.py": (
        "mkdir application/app; touch application/app/__init__.py; ADD", "fail", "app.py never runs"),
    "a package, and a module of another name": (
        "cd application; mkdir app; touch app/__init__.py; git mv app.py blog.py; ADD",
        "fail", "app.py is missing"),
    "a package alone": (
        "cd application; mkdir app; git mv app.py app/__init__.py; COMMIT", "fail", "app.py is missing"),
    "another module": ("git mv application/app.py application/web.py; COMMIT", "fail", "app.py is missing"),
    "a module with a hostile name": (
        "git mv application/app.py 'application/a;touch x;.py'; COMMIT", "fail", "app.py is missing"),
    "a module at the top": (
        "git mv APP application.py; mkdir static templates instance; touch static/a templates/b; ADD",
        "fail", "app.py is missing"),
    "a module in public_html": (
        "mkdir public_html/static; git mv application/app.py public_html/; COMMIT",
        "fail", "app.py is missing"),
    "git ignores code": (
        "mkdir -p application/static/lib/__pycache__; echo lib/ > .gitignore; IGNORE; "
        "cd application/static/lib; touch a.css b.db .env __pycache__/x",
        "warn", r"will not have application/static/lib/: git ignores"),
    "a committed database": (
        "touch application/a.db 'application/b c.sqlite3-wal'; ADD",
        "warn", r"a\.db.*: committed"),
    "a committed database with a hostile name": (
        "touch 'application/`touch x`.db' 'application/#;touch x;.db'; printf /x > .gitignore; ADD",
        "warn", ": committed"),
    "a committed database that changed": (
        "touch application/a.db; ADD; echo >> application/a.db; git add .; echo >> application/a.db",
        "warn", r"a\.db: committed"),
    "a committed instance folder": (
        "mkdir application/instance; touch application/instance/x; ADD",
        "warn", "instance/x: c"),
    "committed settings": ("touch application/.env; ADD", "warn", r"\.env: committed"),
    "a new database": ("touch application/a.db 'application/a[1].db'", "warn", r"a\.db.*not to be committed"),
    "new settings": (
        "mkdir instance; touch .env instance/config.py",
        "warn", r"\.env, instance/config.py.*not to be"),
    "a committed virtualenv": (
        "mkdir -p 'my env/lib'; touch 'my env/pyvenv.cfg' 'my env/lib/x.py'; ADD",
        "warn", "virtualenv my env is"),
    "a committed virtualenv where the host's will be": (
        "mkdir .venv; touch .venv/x; ADD",
        "warn", r"virtualenv \.venv"),
    "the project is a virtualenv": (
        "mkdir bin; touch pyvenv.cfg bin/python; ADD",
        "warn", r"virtualenv \. is"),
    "committed bytecode": (
        "mkdir -p a/__pycache__; touch a/__pycache__/b.pyc; ADD",
        "warn", "__pycache__ is committed"),
    "pointers of Git LFS": (
        LFS + "echo image > 'application/a b.png'; echo image > public_html/c.png; ADD",
        "fail", "pointers of Git LFS.*a b"),
    "a served database": ("touch 'public_html/a b.db'; ADD", "warn", "would be served"),
}


@pytest.mark.parametrize("arrange, level, pattern", FAULTS.values(), ids=list(FAULTS))
def test_fault_is_told_and_fixed_by_its_hint(
    arrange: str, level: str, pattern: str, project: Path, git: Git, type_in: Type, look: Look
) -> None:
    run("sh", "-ec", in_full(arrange), cwd=project, env=dict(os.environ))
    data = {path for path in project.rglob("*") if FLASKFLEX.is_data(str(path.relative_to(project)))}
    held = set(git("ls-files", "-z").split("\0"))
    found = look(pattern)
    assert [item.level for item in found] == [level]
    type_in(found[0].hint)
    assert look(pattern) == []
    # What was typed adds no data to git, takes none away from here, and runs no name.
    added = set(git("ls-files", "-z").split("\0")) - held
    assert [path for path in added if FLASKFLEX.is_data(path) or "__pycache__" in path] == []
    assert all(path.exists() or (project / "application" / path.name).exists() for path in data)
    assert not (project / "x").exists()


def test_path_in_a_hint_is_one_word_for_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a b;touch x;$(touch y)"
    write(folder / ".git" / "HEAD")
    write(folder / ".venv" / "pyvenv.cfg")
    with pytest.raises(FLASKFLEX.Failure) as failure:
        FLASKFLEX.read_virtualenv("--venv", folder / ".venv")
    hints = [failure.value.hint, FLASKFLEX.activation_hint(folder)]
    assert [shlex.split(hint.partition(": ")[2])[-1] for hint in hints] == [
        str(folder / ".venv"), str(folder / ".venv" / "bin" / "activate"),
    ]


@pytest.mark.parametrize("paths, data", [
    (["a.db", "x/a.sqlite3", "a.db-wal", "a.sqlite-journal", ".env", "x/.env", ".env.local", "x/tls.key",
      "instance/x", "x/instance/y/z"], True),
    (["a.dbml", "db.py", ".env.example", ".flaskenv", "env", "x/instances/y", "instance/.gitkeep",
      "keyboard.py", "sqlite.html", ".env.template", "x/.env.dist"], False),
])
def test_data_and_settings_are_known_by_their_names(paths: List[str], data: bool) -> None:
    assert [path for path in paths if FLASKFLEX.is_data(path) != data] == []


def test_project_that_is_well_has_no_fault_in_it(look: Look) -> None:
    assert {item.level for item in look("")} == {"ok"}


@pytest.mark.parametrize("arrange, kept", [
    ("echo '*.db' > .gitignore; touch application/todo.db", r"application/todo\.db.*tables"),
    ("echo .env > .gitignore; touch application/.env .env", r"\.env, application/\.env.*scp"),
    ("echo instance > .gitignore; mkdir application/instance; touch application/instance/config.py",
     r"application/instance/config\.py.*scp"),
    ("echo lib/ > .gitignore; mkdir -p public_html/lib; touch public_html/lib/a.css",
     r"public_html/lib/.*--force"),
    ("echo '*.orig' > .gitignore; touch application/app.py.bak; git add -f application/app.py.bak; "
     "touch application/app.py.orig; echo .env >> .gitignore; touch public_html/.env application/.env",
     r"not have application/\.env: "),
    ("echo lib.py > .gitignore; touch public_html/lib.py", r"not have public_html/lib\.py"),
])
def test_what_git_ignores_is_told_by_kind(arrange: str, kept: str, project: Path, look: Look) -> None:
    run("sh", "-ec", f"{arrange}; git add .; git commit -qm x", cwd=project, env=dict(os.environ))
    told = [f"{item.text} {item.hint}".replace("\n", " ") for item in look("") if item.level != "ok"]
    assert len(told) == 1 and re.search(kept, told[0]), told


def test_what_is_made_anew_everywhere_is_no_loss(project: Path, look: Look) -> None:
    names = ["__pycache__/a.pyc", "b.pyc", ".pytest_cache/c", ".DS_Store", "node_modules/d", "e.log", "f~",
             "g.egg-info/h", "env/pyvenv.cfg", ".vscode/i"]
    for name in names:
        write(project / "application" / name)
    write(project / ".gitignore", "".join(f"{name.partition('/')[0]}\n" for name in names))
    run("git", "add", ".gitignore", cwd=project, env=dict(os.environ))
    assert [item for item in look("") if item.level != "ok"] == []


def test_whole_home_that_is_a_repository_is_told(
    project: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    assert [item.level for item in look("home folder itself")] == ["warn"]


def test_conflict_that_was_committed_fails_with_its_line(project: Path, git: Git, look: Look) -> None:
    expected = set()
    for path in ("public_html/.htaccess", DISPATCH, ".flx"):
        text = (project / path).read_text()
        (project / path).write_text(f"{text}<<<<<<< HEAD\n=======\n>>>>>>> topic\n")
        expected |= {f"{path}, line {text.count(chr(10)) + number}" for number in (1, 3)}
    commit(git, ".flx", "public_html/.htaccess", DISPATCH)
    found = look("conflict marker")
    assert {item.text.partition(": ")[0] for item in found} == expected
    assert {item.level for item in found} == {"fail"}
    git("checkout", "-q", "HEAD^", "--", ".")
    for hint in {item.hint.rpartition("\n")[2] for item in found}:
        run("sh", "-c", hint, cwd=project, env=dict(os.environ))
    assert look("conflict marker") == []


def test_pointers_of_lfs_in_the_work_tree_are_replaced_first(
    project: Path, tmp_path: Path, git: Git, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '#!/bin/sh\ntest "$1" = install || echo image > application/a.png\n'
    write(tmp_path / "bin" / "git-lfs", script, 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    run("sh", "-ec", LFS + "git config filter.lfs.smudge cat; echo image > application/a.png; git add .; "
        "git commit -qm x; rm application/a.png; git checkout -q .", cwd=project, env=dict(os.environ))
    assert (project / "application/a.png").read_text().startswith("version https://git-lfs.")
    found, = look("pointers of Git LFS")
    assert "GIT_LFS_SKIP_PUSH=1 git push" in found.hint  # else LFS wants to push what the pointers stand for
    run("sh", "-ec", found.hint.rpartition("\n")[2], cwd=project, env=dict(os.environ))
    assert look("pointers of Git LFS") == []
    assert git("cat-file", "blob", "HEAD:application/a.png") == "image\n"


def test_file_that_a_filter_of_git_changes_is_as_committed(project: Path, git: Git, look: Look) -> None:
    run("sh", "-ec", LFS + "echo req.txt filter=lfs > .gitattributes; git add .; git add --renormalize .;"
        "git commit -qm x", cwd=project, env=dict(os.environ))
    assert git("status", "--porcelain") == ""
    told = [item.text for item in look("req.txt")]
    assert told == ["the host would get pointers of Git LFS, not the files: req.txt"]


# --- the four files ---

STATES = {
    "is missing": "fail",
    "is not committed": "fail",
    "is committed, but gone": "warn",
    "is changed here, and would deploy as in the last commit": "warn",
}


@pytest.mark.parametrize("turn", range(len(FILES)))
def test_each_state_of_each_file_is_told_and_mended_by_its_hint(
    turn: int, project: Path, git: Git, type_in: Type, look: Look
) -> None:
    missing, uncommitted, gone, changed = FILES[turn:] + FILES[:turn]
    git("rm", "-q", missing)
    git("rm", "-q", "--cached", uncommitted)
    git("commit", "-q", "-m", "Fewer files")
    (project / gone).unlink()
    with (project / changed).open("a") as file:
        file.write("# a line of mine\n")
    hints = set()
    for path, (words, level) in zip((missing, uncommitted, gone, changed), STATES.items()):
        (found,) = look(f"^{path} {words}")
        assert found.level == level
        hints.add(found.hint)
    for hint in sorted(hints):
        type_in(hint)
    assert [found.level for found in look("four files")] == ["ok"]
    assert "# a line of mine" in git("show", f"HEAD:{changed}")


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
    old: bytes, new: bytes, level: str, words: str, project: Path, git: Git, type_in: Type, look: Look
) -> None:
    script = project / DISPATCH
    script.write_bytes(script.read_bytes().replace(old, new))
    commit(git, DISPATCH)
    (found,) = look("dispatch.fcgi")
    assert found.level == level
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
    assert item(flaskflex("check").out, "dispatch.fcgi can be started").level == "ok"
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
    assert item(result.out, "dispatch.fcgi is changed").level == "warn"
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
    modules: List[str], words: List[str], project: Path, git: Git, look: Look
) -> None:
    replace_application(project, git, **{name: "" for name in modules})
    (found,) = look("^application/app.py is missing")
    assert found.level == "fail"
    for word in words:
        assert word in found.hint


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
    assert [item.level for item in told] == ["warn", "warn"], result.out
    for path in paths:
        assert path in told[0].text
    assert "application/ignored.py" in told[1].text and "notes.txt" not in result.out
    for found in told:
        type_in(found.hint)
    result = flaskflex("check")
    assert [item for item in troubles(result.out) if "application" in item.text] == [], result.out
    assert "notes.txt" not in git("ls-files")


# --- req.txt ---


@pytest.fixture
def active(active: Path, flaskflex: Flaskflex) -> Path:
    """There is something in the virtualenv, and the committed req.txt agrees with it."""
    for name in ("Flask", "gone", "changed"):
        add_distribution(active, name, "1.0")
    assert flaskflex().status == 0
    return active


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
    "visits.db-wal", "server.key", "a/b/same.db", "a/same.db", "a_same.db", "b/same.db", "uncommitted.db",
]
PUBLIC = ["index.html", "sub/style.css", ".well-known/security.txt", "dispatch.html", "pyramid.jpg"]


def test_what_would_be_served_by_mistake_is_told_and_moved_by_the_hint(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    for name in (*EXPOSED, *PUBLIC):
        write(project / "public_html" / name, name)
    commit(git)
    write(project / "public_html" / "later.py", "later.py")
    for name in (".DS_Store", "..htaccess.swp", ".htaccess~"):  # an editor's, perhaps at this moment
        write(project / "public_html" / name)
    write(project / "application" / "uncommitted.db", "a visitor's")
    result = flaskflex("check")
    assert result.status == 0
    told = [item for item in troubles(result.out) if "public_html" in item.text]
    assert {item.level for item in told} == {"warn"}
    told_of = [item.text.partition(" would be served")[0] for item in told]
    assert told_of == sorted(f"public_html/{name}" for name in (*EXPOSED, "later.py"))
    for found in told:
        type_in(found.hint)
    kept = sorted(path.read_text() for path in (project / "application").rglob("*") if path.is_file())
    assert kept == sorted([APPLICATION, "a visitor's", *EXPOSED, "later.py"])  # none has replaced another
    assert (project / "application" / "app.py").read_text() == APPLICATION  # there was one already
    assert git("show", "HEAD:application/public_html_app.py") == "app.py"
    assert item(flaskflex("check").out, "^public_html").level == "ok"


# --- pushed ---


def pushed() -> Item:
    """What check says of the branch in the folder of the test."""
    project = FLASKFLEX.find_project(Path("."))
    upstream = FLASKFLEX.read_upstream(project)
    with FLASKFLEX.asking_host(project, upstream[0]) as asked:
        (finding,) = FLASKFLEX.check_pushed(project, upstream, asked)
    return Item(*finding)


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


def after_a_branch_of_this_clone(git: Git) -> None:
    git("switch", "-q", "-c", "topic", "--track", "main")


def gone_from_the_host(git: Git) -> None:
    git("update-ref", "-d", "refs/remotes/origin/main")
    host = Path(git("rev-parse", "--show-toplevel").strip(), "..", "host.git")
    git("update-ref", "-d", "refs/heads/main", cwd=host)


@pytest.mark.parametrize("change, words, hint", [
    (ahead, "1 commit of branch main is not pushed", "git push"),
    (ahead_by_two, "2 commits of branch main are not pushed", "git push"),
    (behind, "host has 1 commit more", "git pull"),
    (apart, "host has 1 commit more", "git pull --rebase --autostash && git push"),
    (without_upstream, "branch topic is not pushed", "git push -u origin topic"),
    (after_a_branch_of_this_clone, "branch topic is not pushed", "git push -u origin topic"),
    (gone_from_the_host, "branch main is not pushed", "git push -u origin main"),
])
def test_branch_that_the_host_has_not_is_told_and_mended_by_the_hint(
    change: Callable[[Git], None], words: str, hint: str,
    project: Path, git: Git, type_in: Type, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    change(git)
    found = pushed()
    assert words in found.text
    assert (found.level, found.hint) == ("warn", hint)
    type_in(found.hint)
    assert git("rev-list", "--left-right", "--count", "@{upstream}...HEAD").split() == ["0", "0"]


def test_project_without_a_remote_is_told_how_to_add_one(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    git("remote", "remove", "origin")
    found = item(flaskflex("check").out, "branch main")
    assert (found.level, found.hint) == ("warn", "git remote add origin URL")


def test_detached_head_is_told_how_to_get_to_a_branch(
    project: Path, git: Git, type_in: Type, flaskflex: Flaskflex
) -> None:
    git("switch", "-q", "--detach")
    result = flaskflex("check")
    found = item(result.out, "branch")
    assert (found.level, found.hint) == ("warn", "git switch main")
    assert "detached" in result.out.splitlines()[0]
    type_in(found.hint)
    assert git("branch", "--show-current") == "main\n"


# --- what the host says of itself ---


HOSTILE_BRANCH = "main;touch${IFS}x"

# What has happened since the last deploy; what check says, and the level after the hint was typed.
HOSTS = {
    "it says nothing": ("", "ok", "is pushed$"),
    "it is a clone itself": (
        "cd ../host.git; git update-ref refs/remotes/origin/other main; "
        "git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/other", "ok", "is pushed$"),
    "it serves HEAD": ("LIVE main", "ok", "is pushed$"),
    "it serves what was before": ("LIVE main^", "warn", "serves an older commit"),
    "somebody else has pushed": (
        "SKIP; git push -q; LIVE main; git reset -q --hard HEAD^; "
        "git update-ref refs/remotes/origin/main HEAD", "warn", "serves another commit"),
    "another branch was pushed": (
        "LIVE main; git switch -qc topic; SKIP; git push -qu origin topic",
        "warn", "branch topic is pushed, and the host deploys branch main"),
    "another branch was pushed, and what it serves is not said": (
        "git switch -qc topic; SKIP; git push -qu origin topic", "warn", "and the host deploys branch main"),
    "one with a hostile name was pushed": (
        f"LIVE main; git switch -qc '{HOSTILE_BRANCH}'; SKIP; git push -qu origin HEAD",
        "warn", "and the host deploys branch main"),
    "one with a hostile name was not pushed": (f"git switch -qc '{HOSTILE_BRANCH}'", "warn", "is not pushed"),
    "another remote is gone": ("git remote set-url origin ../nowhere.git", "ok", "is pushed$"),
}


@pytest.mark.parametrize("arrange, level, words", HOSTS.values(), ids=list(HOSTS))
def test_what_the_host_serves_is_told_and_fixed_by_the_hint(
    arrange: str, level: str, words: str,
    project: Path, type_in: Type, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    host = project.parent / "host.git"
    run("sh", "-ec", in_full(arrange), cwd=project, env=dict(os.environ))
    found = pushed()
    assert (found.level, bool(re.search(words, found.text))) == (level, True), found
    write(host / "hooks" / "post-receive", f"#!/bin/sh\ngit update-ref {FLASKFLEX.LIVE_REF} HEAD\n", 0o755)
    if level != "ok":
        type_in(found.hint)
        found = pushed()
    assert (found.level, found.hint) == ("ok", "")
    assert not (project / "x").exists()


def test_host_that_does_not_answer_is_not_waited_for_and_asks_nobody(
    project: Path, git: Git, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = write(project.parent / "ssh", "#!/bin/sh\ncd ..\nenv >env\necho \"$@\" >args.new\n"
                "mv args.new args\nexec sleep 600\n", 0o755)
    git("config", "core.sshCommand", str(ssh))
    git("remote", "set-url", "origin", "me@127.0.0.1:host.git")
    with FLASKFLEX.asking_host(FLASKFLEX.find_project(project), "origin") as asked:
        wait_until((project.parent / "args").exists)
        monkeypatch.setattr(FLASKFLEX, "HOST_SECONDS", 0.01)
        assert FLASKFLEX.read_host_refs(asked) == ("", "")
    wait_until(lambda: not processes_in(project, project.parent))
    assert "-o BatchMode=yes" in (project.parent / "args").read_text()
    asked_with = (project.parent / "env").read_text().splitlines()
    assert {"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS_REQUIRE=never"} <= set(asked_with)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; a test that waits in vain fails after half a minute."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


# --- one process for all requests ---


@pytest.mark.parametrize("name, told", [
    ("Flask-SocketIO", True), ("python_socketio", True), ("Flask-APScheduler", True), ("Flask", False),
])
def test_package_that_needs_one_process_is_told(name: str, told: bool) -> None:
    found = list(FLASKFLEX.check_processes([FLASKFLEX.Requirement(name, f"{name}==1.0")]))
    assert [(item.level, item.text.partition(":")[0]) for item in found] == [("warn", name)] * told
