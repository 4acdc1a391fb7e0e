"""What req.txt says, and what must never get into it."""
from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import (
    add_distribution, assert_refused, load_flaskflex, site_packages, untouched, write,
)

pytestmark = pytest.mark.oldest_and_newest

FLUP = "flup==1.0.3"
SECRET = "s3cr3t"
FLASKFLEX: Any = load_flaskflex()


@pytest.fixture
def active(active: Path) -> Path:
    """To begin with there are Flask and Werkzeug in the virtualenv."""
    add_distribution(active, "Flask", "3.1.0")
    add_distribution(active, "Werkzeug", "3.1.3")
    return active


def pip(virtualenv: Path, *arguments: Any, environ: Environ, cwd: Path = Path("/")) -> str:
    return run(virtualenv / "bin" / "python", "-I", "-m", "pip", *arguments, cwd=cwd, env=environ)


def remove_distribution(virtualenv: Path, name: str) -> None:
    for folder in site_packages(virtualenv).glob(f"{name}-*.dist-info"):
        folder.rename(virtualenv / folder.name)


def frozen(project: Path) -> List[str]:
    """The requirements above the marker line of req.txt."""
    above, marker, _ = (project / "req.txt").read_text(encoding="utf-8").partition("# --- ")
    assert marker
    return [line for line in above.splitlines() if not line.startswith("#")]


# --- the form ---


@pytest.mark.real_pip
def test_the_file_is_the_frozen_virtualenv_between_a_comment_and_a_marker(
    project: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    result = flaskflex("--no-commit")
    content = (project / "req.txt").read_bytes()
    first, *_, last = content.decode("ascii").splitlines()
    assert first.startswith("# ") and f"Python {'.'.join(map(str, sys.version_info[:3]))}" in first
    assert last.startswith("# ---") and "below" in last
    assert b"\r" not in content and content.endswith(b"\n")
    listed = pip(virtualenv, "freeze", environ=environ).splitlines()
    assert frozen(project) == sorted([*listed, FLUP], key=str.lower)
    assert f"req.txt ({len(listed)} packages, and flup to serve them)" in result.out


def test_what_stands_below_the_marker_survives_every_run(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    own = "\n\n# mine, żółć\n  two==2 ; python_version > '3'\n\x0cno-newline-at-the-end==1"
    flaskflex("--no-commit")
    with (project / "req.txt").open("a", encoding="utf-8") as file:
        file.write(own)
    with untouched(project):
        assert flaskflex("--no-commit").status == 0
    add_distribution(active, "added", "1.0")
    assert flaskflex("--no-commit").status == 0
    assert frozen(project) == ["added==1.0", "Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]
    assert (project / "req.txt").read_bytes().endswith(b"stay ---\n" + own.encode())


def test_a_second_run_tells_what_changed(project: Path, active: Path, git: Git, flaskflex: Flaskflex) -> None:
    add_distribution(active, "gone", "1.0")
    flaskflex()
    remove_distribution(active, "gone")
    remove_distribution(active, "Flask")
    for name, version in [("Flask", "3.1.1"), ("one", "1"), ("two", "2"), ("Sorted_In.x", "1")]:
        add_distribution(active, name, version)
    result = flaskflex()
    changes = "+one +Sorted_In.x +two -gone, Flask 3.1.0 -> 3.1.1"
    assert f"   update   req.txt ({changes})" in result.out.splitlines()
    assert frozen(project) == ["Flask==3.1.1", FLUP, "one==1", "Sorted_In.x==1", "two==2", "Werkzeug==3.1.3"]
    assert git("show", "--format=", "--name-only", "HEAD") == "req.txt\n"


def test_five_hundred_packages_are_frozen(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    names = [f"package{number:03}" for number in range(498)]
    for name in names:
        add_distribution(active, name, "1.0")
    result = flaskflex()
    assert "req.txt (500 packages, and flup to serve them)" in result.out
    assert frozen(project) == ["Flask==3.1.0", FLUP, *(f"{name}==1.0" for name in names), "Werkzeug==3.1.3"]


# --- flup, Flask, and what is left out ---


def test_the_flup_of_the_virtualenv_is_kept(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    add_distribution(active, "flup", "1.0.2")
    result = flaskflex("--no-commit")
    assert frozen(project) == ["Flask==3.1.0", "flup==1.0.2", "Werkzeug==3.1.3"]
    assert "req.txt (3 packages)" in result.out


# A line of the user's own below the marker, and whether it asks for flup.
OWN_LINES = [
    ("flup", True), ("Flup>=1.0", True), ("flup[extra]<2 ; python_version > '3'", True),
    ("flup @ https://host.example/flup.zip", True), ("# flup==1.0.2", False), ("flup-tools==1", False),
]


@pytest.mark.parametrize("line, asks_for_flup", OWN_LINES)
def test_flup_is_added_unless_a_line_of_the_users_own_asks_for_it(line: str, asks_for_flup: bool) -> None:
    flask = FLASKFLEX.Requirement("Flask", "Flask==3.1.0")
    lines = [requirement.line for requirement in FLASKFLEX.add_flup([flask], f"{line}\n")]
    assert lines == ["Flask==3.1.0", *([] if asks_for_flup else [FLUP])]


@pytest.mark.parametrize("line, asks_for_flup", OWN_LINES[:1] + OWN_LINES[-1:])
def test_flup_of_the_users_own_stays_where_it_stands(
    line: str, asks_for_flup: bool, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    write(project / "req.txt", f"# --- frozen above ({'0' * 12}): as flaskflex marks it ---\n{line}\n")
    assert flaskflex("--no-commit", "--force").status == 0
    assert frozen(project) == ["Flask==3.1.0", *([] if asks_for_flup else [FLUP]), "Werkzeug==3.1.3"]
    assert (project / "req.txt").read_text().endswith(f"---\n{line}\n")


def test_a_virtualenv_without_flask_is_warned_of(active: Path, flaskflex: Flaskflex) -> None:
    remove_distribution(active, "Flask")
    result = flaskflex("-n")
    assert result.status == 0
    assert re.search("warning: .*no Flask", result.err) and str(active) in result.err


def test_packages_are_excluded_by_name(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    add_distribution(active, "Some_Thing.else", "1")
    result = flaskflex("--no-commit", "--exclude", "some-thing-ELSE", "--exclude=werkzeug")
    assert frozen(project) == ["Flask==3.1.0", FLUP]
    assert "--exclude" not in result.err


def test_excluding_what_is_not_there_is_warned_of(active: Path, flaskflex: Flaskflex) -> None:
    result = flaskflex("-n", "--exclude", "wergzeug")
    assert result.status == 0
    assert re.search("warning: .*wergzeug", result.err)


@pytest.mark.parametrize("name", ["pkg-resources", "pkg_resources"])
def test_debians_phantom_is_dropped_and_that_is_said(
    name: str, project: Path, active: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    """Debian 12's own pip leaves it out by itself."""
    add_distribution(active, name, "0.0.0")
    result = flaskflex("--no-commit")
    assert frozen(project) == ["Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]
    listed = "==0.0.0" in pip(active, "freeze", environ=environ)
    assert bool(re.search("warning: .*pkg.resources", result.err)) == listed


def test_flaskflex_and_what_only_it_needs_is_dropped_and_that_is_said(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    needs = {
        "flaskflex": ["GitPython"], "GitPython": ["gitdb", "shared"], "gitdb": ["smmap"], "smmap": [],
        "application": ["shared"], "shared": [],
    }
    for name, needed in needs.items():
        add_distribution(active, name, "1")
        with (site_packages(active) / f"{name}-1.dist-info" / "METADATA").open("a") as file:
            file.writelines(f"Requires-Dist: {other} (>=1)\n" for other in needed)
    result = flaskflex("--no-commit")
    assert frozen(project) == ["application==1", "Flask==3.1.0", FLUP, "shared==1", "Werkzeug==3.1.3"]
    assert all(name in result.err for name in ("flaskflex", "gitpython", "gitdb", "smmap"))


# --- a req.txt that is there already ---


def test_an_edit_above_the_marker_that_no_commit_holds_is_refused(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    written = (project / "req.txt").read_text()
    write(project / "req.txt", written.replace(FLUP, "flup==1.0.2"))
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "req.txt", "--force")
    assert flaskflex("--force").status == 0
    assert (project / "req.txt").read_text() == written


def test_an_edit_above_the_marker_that_a_commit_holds_is_replaced(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    written = (project / "req.txt").read_text()
    write(project / "req.txt", written.replace(FLUP, "flup==1.0.2\nmine==1"))
    git("commit", "-q", "-m", "my own", "req.txt")
    result = flaskflex()
    assert "   update   req.txt (-mine, flup 1.0.2 -> 1.0.3)" in result.out.splitlines()
    assert (project / "req.txt").read_text() == written


def test_an_unedited_freeze_is_known_as_one_before_it_is_committed(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    flaskflex("--no-commit")
    add_distribution(active, "added", "1.0")
    result = flaskflex("--no-commit")
    assert result.status == 0
    assert "update   req.txt (+added)" in result.out


def test_a_req_txt_that_is_not_flaskflexs_is_refused(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / "req.txt", "flask\n")
    git("add", "req.txt")
    git("commit", "-q", "-m", "my own")
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "req.txt", "--force")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_foreign_freeze_in_utf_16_is_read(
    encoding: str, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    text = "\ufeffFlask==3.1.0\r\nWerkzeug==3.0.0\r\ngone==1\r\n"
    (project / "req.txt").write_bytes(text.encode(encoding))
    result = flaskflex("--no-commit", "--force")
    assert "  replace   req.txt (+flup -gone, Werkzeug 3.0.0 -> 3.1.3)" in result.out.splitlines()
    assert frozen(project) == ["Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]


@pytest.mark.parametrize("encoding, newline, added", [
    ("utf-16", "\r\n", []), ("utf-8-sig", "\n", []), ("utf-8", "\r\n", []),
    ("utf-16", "\r\n", ["added==1.0"]),
])
def test_flaskflexs_own_is_written_in_utf_8_again(
    encoding: str, newline: str, added: List[str],
    project: Path, active: Path, git: Git, flaskflex: Flaskflex,
) -> None:
    flaskflex()
    text = (project / "req.txt").read_text() + "mine==1  # żółć\n"
    (project / "req.txt").write_bytes(text.replace("\n", newline).encode(encoding))
    if added:
        add_distribution(active, "added", "1.0")
    assert flaskflex().status == 0
    content = (project / "req.txt").read_bytes().decode("utf-8")
    assert content.startswith("# The") and content.endswith("---\nmine==1  # żółć\n")
    assert "\r" not in content
    assert frozen(project) == [*added, "Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]
    assert git("show", "HEAD:req.txt") == content


# --- installs from folders of this machine ---

# A build backend of a few lines needs no other package, and so no package index.
BACKEND = '''
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        information = f"{NAME}-1.0.dist-info"
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: 1.0\\n")
        wheel.writestr(f"{information}/WHEEL",
                       "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{information}/RECORD", "")
    return f"{NAME}-1.0-py3-none-any.whl"

build_wheel = build_editable
'''


def make_library(folder: Path, name: str) -> Path:
    """A folder that pip can install, editable or not."""
    settings = 'requires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    write(folder / "pyproject.toml", f"[build-system]\n{settings}")
    write(folder / "backend.py", f"NAME = {name!r}\n{BACKEND}")
    return folder


@pytest.mark.real_pip
def test_an_install_from_inside_the_project_becomes_a_relative_path(
    project: Path, active: Path, git: Git, environ: Environ, flaskflex: Flaskflex
) -> None:
    """Whether or not there is an origin, which pip freeze shows, its password included."""
    origin = f"https://user:{SECRET}@host.example/me.git"
    git("remote", "set-url", "origin", origin)
    editable = make_library(project / "libs" / "a b-ą", "editable_one")
    copied = make_library(project / "libs" / "copied", "copied")
    git("add", "libs")
    git("commit", "-q", "-m", "libraries")
    pip(active, "install", "-q", "-e", editable, copied, environ=environ)
    assert f"git+{origin}@" in pip(active, "freeze", environ=environ)
    result = flaskflex()
    assert result.status == 0, result
    lines = frozen(project)
    assert len(lines) == 5
    assert lines[0] == "./libs/copied"
    assert SECRET not in git("show", "HEAD") + result.out + result.err
    git("remote", "remove", "origin")
    assert "-e /" in pip(active, "freeze", environ=environ)
    with untouched(project):
        assert flaskflex().status == 0
    # The server reads it from the root of the project.
    write(project / "local.txt", "\n".join(line for line in lines if "==" not in line))
    pip(active, "uninstall", "-y", "-q", "editable_one", "copied", environ=environ)
    pip(active, "install", "-q", "--no-index", "-r", "local.txt", environ=environ, cwd=project)
    listed = pip(active, "list", "--format=freeze", environ=environ)
    assert "copied==1.0" in listed and "editable" in listed
    assert str(editable) in pip(active, "list", "--editable", environ=environ)


def test_an_install_that_setup_py_develop_made_becomes_a_relative_path(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    """Made by hand, as not every pip and setuptools can make such an install any more."""
    library = project / "libs" / "old"
    write(library / "old.egg-info" / "PKG-INFO", "Metadata-Version: 1.0\nName: old\nVersion: 1.0\n")
    write(library / "setup.py")
    write(site_packages(active) / "old.egg-link", f"{library}\n.")
    write(site_packages(active) / "easy-install.pth", f"{library}\n")
    git("add", "libs")
    git("commit", "-q", "-m", "libraries")
    assert flaskflex("--no-commit").status == 0
    assert "-e ./libs/old" in frozen(project)


@pytest.mark.real_pip
@pytest.mark.parametrize("arguments", [["-e"], []], ids=["editable", "copied"])
def test_an_install_from_outside_the_project_is_refused_by_name(
    arguments: List[str], tmp_path: Path, project: Path, active: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    # The name begins like that of the project, and yet it is outside.
    outside = make_library(tmp_path / "yourprojectname-libs", "outside")
    pip(active, "install", "-q", *arguments, outside, environ=environ)
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "outside is installed from", str(outside), "--exclude")
    assert flaskflex("-n", "--exclude", "outside").status == 0


def test_all_that_cannot_be_installed_is_named_at_once(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    for name in ("one", "two"):
        origin = {"url": f"file:///elsewhere/{name}", "dir_info": {"editable": True}}
        add_distribution(active, name, "1", origin)
    result = flaskflex()
    assert_refused(result, "one is installed from /elsewhere/one", "two is installed from /elsewhere/two")


def test_editable_installs_as_uv_freezes_them_have_their_names(project: Path, active: Path) -> None:
    folders = {"mylib": project / "libs" / "a b-ą", "one": Path("/elsewhere/1"), "two": Path("/elsewhere/2")}
    for name, folder in folders.items():
        add_distribution(active, name, "1", {"url": folder.as_uri(), "dir_info": {"editable": True}})
    frozen_by_uv = "".join(f"-e {folder.as_uri()}\n" for folder in folders.values())
    virtualenv = FLASKFLEX.Virtualenv(active, active / "bin" / "python", "3.11.7")
    plan = FLASKFLEX.plan_freeze(frozen_by_uv, virtualenv, project, "")
    assert plan.requirements == [("mylib", "-e './libs/a b-ą'")]
    assert plan.refused == {
        "one": "one is installed from /elsewhere/1, which the server does not have",
        "two": "two is installed from /elsewhere/2, which the server does not have",
    }
    with FLASKFLEX.WorkTree(FLASKFLEX.Project(project, project / ".git" / "index")) as tree:
        plan = FLASKFLEX.require_installable(frozen_by_uv, virtualenv, tree, ["one", "Two", "three"])
    assert plan.user_lines == "# flaskflex: exclude one\n# flaskflex: exclude Two\n"
    assert [warning for warning in plan.warnings if "--exclude" in warning] == [
        f"--exclude three: {active} holds no such package"]


# --- installs from addresses ---


def archive(url: str) -> Dict[str, Any]:
    return {"url": url, "archive_info": {}}


def repository(url: str) -> Dict[str, Any]:
    return {"url": url, "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}


def test_addresses_without_a_secret_are_kept(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    addresses = {
        "x1 @ https://host.example/x-1.zip": archive("https://host.example/x-1.zip"),
        "x2 @ git+https://host.example/x@c0ffee": repository("https://host.example/x"),
        "x3 @ git+ssh://git@host.example:22/~me/x@c0ffee": repository("ssh://git@host.example:22/~me/x"),
        "x4 @ git+https://host.example/x@c0ffee#subdirectory=a/b":
            {**repository("https://host.example/x"), "subdirectory": "a/b"},
    }
    for line, direct_url in addresses.items():
        add_distribution(active, line[:2], "1", direct_url)
    assert flaskflex("--no-commit").status == 0
    assert frozen(project)[-4:] == list(addresses)


SECRET_ADDRESSES = [
    archive(f"https://user:{SECRET}@host.example/x-1.zip"),
    archive(f"https://{SECRET}@host.example/x-1.zip"),
    archive(f"https://host.example/x-1.zip?token={SECRET}"),
    repository(f"https://user:{SECRET}@host.example/x"),
    repository(f"https://oauth2:{SECRET}@host.example:8443/x"),
    repository(f"ssh://git:{SECRET}@host.example/x"),
]


def test_addresses_with_a_secret_are_refused_and_the_secret_never_shown(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    for number, direct_url in enumerate(SECRET_ADDRESSES):
        add_distribution(active, f"x{number}", "1", direct_url)
    reason = "holds what looks like a password or a token"
    names = [f"x{number} {reason}" for number in range(len(SECRET_ADDRESSES))]
    for options in ([], ["-n"], ["--force", "--no-commit"]):
        with untouched(project):
            result = flaskflex(*options)
        assert_refused(result, *names, "--exclude")
        assert SECRET not in result.out + result.err


@pytest.fixture
def checked_out(tmp_path: Path, active: Path, git: Git, environ: Environ) -> Path:
    """The clone that `pip install -e git+…` keeps inside the virtualenv."""
    library = make_library(tmp_path / "library", "x")
    git("init", "-q", library)
    git("add", ".", cwd=library)
    git("commit", "-q", "-m", "library", cwd=library)
    pip(active, "install", "-q", "-e", f"git+{library.as_uri()}#egg=x", environ=environ)
    return active / "src" / "x"


@pytest.mark.real_pip
@pytest.mark.parametrize("alias", [False, True], ids=["", "the virtualenv by another path"])
def test_an_editable_install_from_a_repository_is_kept(
    alias: bool, tmp_path: Path, project: Path, active: Path, checked_out: Path,
    git: Git, environ: Environ, flaskflex: Flaskflex,
) -> None:
    git("remote", "set-url", "origin", "https://host.example/x", cwd=checked_out)
    if alias:
        (tmp_path / "alias").symlink_to(active)
        environ["VIRTUAL_ENV"] = str(tmp_path / "alias")
    result = flaskflex("--no-commit")
    assert result.status == 0, result
    assert re.fullmatch(r"-e git\+https://host.example/x@[0-9a-f]{40}#egg=x", frozen(project)[-1])


@pytest.mark.real_pip
@pytest.mark.parametrize("user", [f"user:{SECRET}", SECRET])
def test_an_editable_install_from_an_address_with_a_secret_is_refused(
    user: str, project: Path, active: Path, checked_out: Path,
    git: Git, environ: Environ, flaskflex: Flaskflex,
) -> None:
    git("remote", "set-url", "origin", f"https://{user}@host.example/x", cwd=checked_out)
    assert SECRET in pip(active, "freeze", environ=environ)
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "x holds what looks like a password", "${NAME}")
    assert SECRET not in result.out + result.err


def test_what_pip_would_not_read_again_is_refused(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    """A distribution's metadata may say anything, and must not become an option of pip on the server."""
    folder = site_packages(active) / "odd-1.dist-info"
    name = "odd --index-url=https://host.example"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    with untouched(project):
        assert_refused(flaskflex(), "odd")


# --- the project itself, and packages of other machines ---


@pytest.mark.real_pip
@pytest.mark.parametrize("editable", [".", "libs/x"])
def test_an_install_of_the_project_or_of_a_part_of_it_is_asked_for_by_its_path(
    editable: str, project: Path, active: Path, git: Git, environ: Environ, flaskflex: Flaskflex,
) -> None:
    """Before the first commit, after it, without an origin: whatever pip freeze makes of it each time.

    One of the two is editable, the other is copied. Each stands where its name sorts, and check agrees.
    """
    wanted: List[str] = []
    for folder, name in ((".", "mylib"), ("libs/x", "part")):
        wanted += ["-e"] * (folder == editable) + [str(make_library(project / folder, name))]
    git("add", ".")
    git("reset", "-q", "flaskflex.py")
    pip(active, "install", "-q", *wanted, environ=environ)
    asked = ["-e .", "./libs/x"] if editable == "." else [".", "-e ./libs/x"]
    for next_step in ([], ["commit", "-q", "-m", "library"], ["remote", "remove", "origin"]):
        if next_step:
            git(*next_step)
            (project / "req.txt").unlink()
        assert flaskflex("-C", project / "libs" / "x").status == 0
        assert frozen(project) == ["Flask==3.1.0", FLUP, *asked, "Werkzeug==3.1.3"]
        assert "req.txt agrees with the virtualenv (4 packages)" in flaskflex("check", "--timeout=1").out


def test_a_package_that_conda_built_elsewhere_is_asked_for_by_its_version(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    remove_distribution(active, "Flask")
    url = "file:///croot/flask_1716545870149/work"
    add_distribution(active, "Flask", "3.0.3", {"url": url, "dir_info": {}})
    result = flaskflex("--no-commit")
    assert result.status == 0, result
    assert frozen(project) == ["Flask==3.0.3", FLUP, "Werkzeug==3.1.3"]
    assert re.search("warning: these were built in folders that are gone, .*: Flask==3.0.3$", result.err,
                     re.MULTILINE)


def test_a_repository_on_this_machine_is_not_taken_for_a_package_of_the_index(
    tmp_path: Path, active: Path, project: Path, flaskflex: Flaskflex
) -> None:
    add_distribution(active, "x", "1", repository(f"file://{tmp_path}/library"))
    with untouched(project):
        assert_refused(flaskflex(), f"x is installed from {tmp_path}/library@c0ffee")


def add_metadata(virtualenv: Path, name: str, version: str, *fields: str) -> None:
    add_distribution(virtualenv, name, version)
    with (site_packages(virtualenv) / f"{name}-{version}.dist-info" / "METADATA").open("a") as file:
        file.writelines(f"{field}\n" for field in fields)


@pytest.mark.parametrize("system", ["win32", "darwin", "linux"])
def test_packages_of_one_system_are_asked_for_on_that_alone_if_they_were_frozen_there(
    system: str, project: Path, active: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_metadata(active, "pywin32", "306", "Classifier: Operating System :: Microsoft :: Windows")
    add_metadata(active, "appnope", "0.1.4")
    add_metadata(active, "pywinpty", "2.0")
    add_metadata(active, "everywhere", "1", "Classifier: Operating System :: Microsoft :: Windows",
                 "Classifier: Operating System :: POSIX")
    add_metadata(
        active, "tool", "1", 'Requires-Dist: appnope ; platform_system == "Darwin"',
        "Requires-Dist: pywinpty>=1.1 ; os_name == 'nt'", 'Requires-Dist: Werkzeug ; sys_platform == "win32"',
        'Requires-Dist: everywhere ; sys_platform == "win32" or extra == "all"',
    )
    add_metadata(active, "other", "1", "Requires-Dist: Werkzeug")
    monkeypatch.setattr(sys, "platform", system)
    lines = ["appnope==0.1.4", "everywhere==1", "other==1", "pywin32==306", "pywinpty==2.0", "tool==1"]
    virtualenv = FLASKFLEX.Virtualenv(active, active / "bin" / "python", "3.11.7")
    plan = FLASKFLEX.plan_freeze("\n".join(lines), virtualenv, project, "")
    bound = [line for _, line in plan.requirements if line not in lines]
    assert bound == [f'{line} ; sys_platform == "{system}"' for line in {
        "win32": ["pywin32==306", "pywinpty==2.0"], "darwin": ["appnope==0.1.4"], "linux": []}[system]]


def test_a_local_version_is_warned_of_unless_an_index_is_named(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    add_distribution(active, "torch", "2.3.0+cpu")
    result = flaskflex("--no-commit")
    assert "torch==2.3.0+cpu" in frozen(project)
    assert re.search(r"warning: .*torch==2.3.0\+cpu.*--extra-index-url", result.err)
    with (project / "req.txt").open("a") as file:
        file.write("--extra-index-url https://download.pytorch.org/whl/cpu\n")
    assert "torch" not in flaskflex("--no-commit").err


# --- what is excluded ---


def test_exclude_is_remembered_and_takes_along_what_only_that_needs(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    needs = [f"Requires-Dist: {need}" for need in ("pluggy>=1", "iniconfig", "both")]
    add_metadata(active, "pytest", "8", *needs)
    add_metadata(active, "tox", "4", "Requires-Dist: both")
    for name in ("pluggy", "iniconfig", "both"):
        add_metadata(active, name, "1")
    write(site_packages(active) / "pluggy-1.dist-info" / "REQUESTED")
    kept = ["both==1", "Flask==3.1.0", FLUP, "pluggy==1", "tox==4", "Werkzeug==3.1.3"]
    assert "iniconfig" in flaskflex("--exclude=pytest", "--exclude", "PyTest").err
    assert frozen(project) == kept
    assert (project / "req.txt").read_text().endswith("stay ---\n# flaskflex: exclude PyTest\n")
    assert "req.txt agrees" in flaskflex("check", "--timeout=1").out
    with untouched(project):
        assert flaskflex().status == flaskflex("--exclude", "pytest").status == 0
    # Without the line it is back.
    write(project / "req.txt", (project / "req.txt").read_text().replace("# flaskflex: exclude PyTest\n", ""))
    assert flaskflex().status == 0
    assert frozen(project) == sorted([*kept, "pytest==8", "iniconfig==1"], key=str.lower)


# --- several developers ---


def test_git_merges_two_freezes_and_the_next_run_names_what_is_lacking(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    for name in ("bbb", "mmm", "yyy"):
        add_distribution(active, name, "1")
    flaskflex()
    git("switch", "-q", "-c", "colleague")
    add_distribution(active, "aaa", "1")
    flaskflex()
    git("switch", "-q", "main")
    remove_distribution(active, "aaa")
    add_distribution(active, "zzz", "1")
    flaskflex()
    git("merge", "-q", "-m", "both", "colleague")
    result = flaskflex()
    assert "   update   req.txt (-aaa)" in result.out.splitlines()
    hint = f"{active}/bin/python -m pip install aaa==1"
    assert re.search(f"warning: the committed req.txt names .* lacks.*: {hint}$", result.err, re.MULTILINE)


def test_a_secret_in_what_a_colleague_froze_is_not_shown(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    add_distribution(active, "aaa", "1")
    add_distribution(active, "zzz", "1")
    flaskflex()
    secret = "acme @ https://bob:hunter2secret@example.org/acme.zip"
    write(project / "req.txt", (project / "req.txt").read_text().replace("aaa==1", secret))
    git("commit", "-q", "-a", "-m", "a colleague's")
    git("checkout", "-q", "HEAD~", "req.txt")
    for name in ("aaa", "zzz"):
        remove_distribution(active, name)
    result = flaskflex()
    assert "pip install zzz==1" in result.err and "hunter2" not in result.err + result.out


def test_a_long_list_of_changes_is_cut(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    flaskflex()
    for number in range(10):
        add_distribution(active, f"x{number}", "1")
    names = " ".join(f"+x{number}" for number in range(8))
    assert f"   update   req.txt ({names}, and 2 more)" in flaskflex().out.splitlines()


def test_a_freeze_is_known_by_the_commit_that_made_it(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    flaskflex()
    first = (project / "req.txt").read_text()
    write(project / "req.txt", first.replace(FLUP, "flup==1.0.2"))
    git("commit", "-q", "-m", "mine", "req.txt")
    (project / ".git" / "flaskflex-frozen").unlink()
    write(project / "req.txt", first + "mine==1\n")
    assert flaskflex("--no-commit").status == 0
    assert (project / "req.txt").read_text() == first + "mine==1\n"


def test_a_req_txt_of_version_1_0_is_understood(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    above = "# The application's virtualenv (Python 3.11.7), frozen by flaskflex: edit nothing.\nold==1\n"
    digits = hashlib.sha256(above.encode()).hexdigest()[:12]
    marker = f"# --- frozen above ({digits}); your own lines go below, and stay ---\n"
    write(project / "req.txt", f"{above}{marker}mine==1\n")
    assert flaskflex("--no-commit").status == 0
    assert frozen(project) == ["Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]
    text = (project / "req.txt").read_text()
    assert text.endswith("above; your own lines go below, and stay ---\nmine==1\n")
    write(project / "req.txt", f"edited==1\n{above}{marker}mine==1\n")
    assert_refused(flaskflex("--no-commit"), "edited above its marker line")


@pytest.mark.parametrize("link", [False, True])
def test_the_note_in_gits_folder_is_written_through_no_link(
    link: bool, tmp_path: Path, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    note = project / ".git" / "flaskflex-frozen"
    theirs = write(tmp_path / "theirs", "precious\n")
    note.symlink_to(theirs) if link else os.link(theirs, note)
    result = flaskflex("--no-commit")
    assert (result.status == 0) or str(note) in result.err
    assert theirs.read_text() == "precious\n"


CONFLICT = "<<<<<<< HEAD\nrequests==2.0\n=======\nrequests==2.1\n>>>>>>> theirs\n"


def test_conflict_markers_are_refused_with_the_numbers_of_their_lines(
    project: Path, active: Path, git: Git, flaskflex: Flaskflex
) -> None:
    assert flaskflex().status == 0
    with (project / "req.txt").open("a") as file:
        file.write(CONFLICT)
    with untouched(project):
        assert_refused(flaskflex(), "line 6 (", "line 8 (", "line 10 (", "is not a line that pip can read")
    git("commit", "-q", "-m", "merged", "req.txt")
    found = flaskflex("check", "--timeout=1").out
    numbers = "line 6 .*line 8 .*line 10 "
    assert re.search(f"^     fail   req.txt cannot be installed: {numbers}", found, re.MULTILINE)


# --- secrets in the user's own lines ---


# Each with a secret in it; the second one is two lines in one.
OWN_SECRETS = [
    f"--extra-index-url https://user:{SECRET}@host.example/simple",
    f"--extra-index-url \\\n  https://user:{SECRET}@host.example/",
    f"--index-url=https://host.example/?sig={SECRET}", f"-i https://{SECRET}@host.example/simple",
    f"# as in https://user:{SECRET}@host.example/", f"requests==1 # http://user:{SECRET}@host.example",
]


def test_secrets_below_the_marker_are_neither_committed_nor_shown(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    assert flaskflex().status == 0
    with (project / "req.txt").open("a") as file:
        file.writelines(f"{line}\n" for line in OWN_SECRETS)
    reason = "holds what looks like a password or a token"
    for options in ([], ["-n"], ["-n", "--force"], ["--force"]):
        with untouched(project):
            result = flaskflex(*options)
        assert_refused(result, "${NAME}")
        assert re.findall(rf"line (\d+) \([^;]*\) {reason}", result.err) == ["6", "7", "9", "10", "11", "12"]
        assert SECRET not in result.out + result.err


def test_a_variable_of_the_environment_is_no_secret(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    assert flaskflex().status == 0
    with (project / "req.txt").open("a") as file:
        file.write("--extra-index-url https://${USER}:${TOKEN}@host.example/simple\n")
    assert flaskflex().status == 0
    assert "req.txt agrees" in flaskflex("check", "--timeout=1").out


@pytest.mark.parametrize("options", [["-n", "--force"], ["--force", "--no-commit"], ["-n"]], ids=" ".join)
def test_a_secret_in_a_file_that_is_to_be_replaced_is_neither_shown_nor_kept(
    options: List[str], project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    write(project / "req.txt", f"flask\nx @ https://user:{SECRET}@host.example/x.zip\n")
    with untouched(project):
        result = flaskflex(*options)
    assert_refused(result, "req.txt holds what looks like a password or a token in line 2")
    assert SECRET not in result.out + result.err


HIDDEN = [
    "x @ https://proxy.example/https://u:PW@host.example/x",
    "x @ https://proxy.example/https:/u:PW@host.example/x",
    "x @ https://proxy.example/https%3A%2F%2Fu%3APW%40host.example/x",
    "x @ https://host.example/x.zip;token=PW", "x @ https://host.example/x.zip%3Fsig=PW",
    "x @ https://host.example/x.zip%253Fsig=PW", "x @ git+ssh://TOKEN@host.example/x",
    "x @ https://host.example/x.zip#access_token=PW", "x @ https://dl.cloudsmith.io/aToken/org/repo/x.whl",
    "-i https://pypi.anaconda.org/t/aToken/me/simple",
    "-i https://packagecloud.io/priv/0123456789abcdef/me/repo/pypi/simple",
    "-i https://mailto:PW@host.example/", "# mailto:me:PW@host.example",
    "-i https://${U}:PW@host.example/", "x @ https://host.example/aB3dE5gH7jK9mN1p/x.whl",
    "x @ https://host.example/x?a=${T}&b=PW", "--global-option ghp_0123456789abcdefghij0123456789abcdef",
    "x @ https://host.example/glpat-0123456789abcdefghij/",
    "x @ https://host.example/github_pat_0123456789abcdefghij/x",
    "-i https://host.example/AKIA0123456789ABCDEF/",
    "--config-settings=pypi-AgEIcHlwaS5vcmcCJDAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAx",
]
HARMLESS = [
    "-i https://${TOKEN}@host.example/", "-i https://user:${PW}@host.example/",
    "x @ https://host.example/x?t=${T}",
    "x @ git+https://host.example/MyFlaskApplication2024@0123456789abcdef0123456789abcdef01234567#egg=x",
    "x @ https://files.pythonhosted.org/packages/ab/cd/0123456789abcdef0123456789abcdef0123456789/"
    "x-2.3.0%2Bcu121-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl#sha256=0123456789abcdef",
    "-i https://dl.cloudsmith.io/public/org/repo/python/simple/",
    "# ask me <me@host.example>: it is 12:30", "# mailto:me@host.example", "#mailto:me@host.example",
    "x==1 --hash=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "x @ https://host.example/x.zip ; python_version > '3'",
]


@pytest.mark.parametrize("line, expected", [
    *((line, True) for line in HIDDEN), *((line, False) for line in HARMLESS),
])
def test_secrets_are_known_wherever_they_hide(line: str, expected: bool) -> None:
    assert FLASKFLEX.has_credentials(line) == expected


READABLE = [
    "flask", "flask==1.0", "flask>=1,<2", "flask (>=1.0)", "a==1!2.0", "a===foo", "name ~= 1.4.2",
    "flask == 1 # c", "requests [security] >= 2.8.1, == 2.8.* ; python_version < '2.7'", "x @ https://h/x",
    "x[e]@https://h/x", "-e .", "-e ./lib", "-e './a b'", ".", "./lib[dev]", "-r more.txt", "-rmore.txt",
    "--no-binary :all:", "--pre", "vendor/x-1.whl", "x-1.0-py3-none-any.whl", "git+https://h/x@1#egg=x",
    "flask==1 \\\n  --hash=sha256:00", "flask==1 ; python_version>'3' --hash=sha256:00",
    "-c constraints.txt", "# any text <<<<", "",
]
UNREADABLE = [
    "<<<<<<< HEAD", "=======", ">>>>>>> feature/x", "||||||| base", "flask 3.0", "flask=3.0", "--frobnicate",
    "-x", "flask==", "==1", "@ https://h/x", "fl\u0430sk==1", "--index-url", "$(x)", "* foo", "-e 'x",
    "-r ../base.txt", "-c /home/me/c.txt", "--find-links /home/me/wheels", "-f/home/me",
]


@pytest.mark.parametrize("line, expected", [
    *((line, True) for line in READABLE), *((line, False) for line in UNREADABLE),
])
def test_lines_that_pip_can_read_are_told_from_others(line: str, expected: bool, tmp_path: Path) -> None:
    assert (FLASKFLEX.refused_lines(line, tmp_path) == []) == expected
