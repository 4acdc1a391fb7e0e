"""What req.txt says, and what must never get into it."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import add_distribution, assert_refused, light_virtualenv, site_packages, untouched, write

FLUP = "flup==1.0.3"
SECRET = "s3cr3t"

pytestmark = pytest.mark.real_pip


@pytest.fixture
def active(tmp_path: Path, virtualenv: Path, environ: Environ) -> Path:
    """A virtualenv of the test's own, which is active: to begin with there are Flask and Werkzeug in it."""
    own = light_virtualenv(tmp_path / "env", virtualenv)
    add_distribution(own, "Flask", "3.1.0")
    add_distribution(own, "Werkzeug", "3.1.3")
    environ["VIRTUAL_ENV"] = str(own)
    return own


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
    assert "   update   req.txt (+3 -1 ~1)" in result.out.splitlines()
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
def test_flup_is_added_unless_a_line_of_the_users_own_asks_for_it(
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
    name: str, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    add_distribution(active, name, "0.0.0")
    result = flaskflex("--no-commit")
    assert frozen(project) == ["Flask==3.1.0", FLUP, "Werkzeug==3.1.3"]
    assert re.search("warning: .*pkg.resources", result.err)


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
    assert "   update   req.txt (+0 -1 ~1)" in result.out.splitlines()
    assert (project / "req.txt").read_text() == written


def test_an_unedited_freeze_is_known_as_one_before_it_is_committed(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    flaskflex("--no-commit")
    add_distribution(active, "added", "1.0")
    result = flaskflex("--no-commit")
    assert result.status == 0
    assert "update   req.txt (+1 -0 ~0)" in result.out


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
    assert "  replace   req.txt (+1 -1 ~1)" in result.out.splitlines()
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


@pytest.mark.parametrize("origin, written", [
    (f"https://user:{SECRET}@host.example/me.git", f"git+https://user:{SECRET}@host.example/me.git@"),
    (None, "-e /"),
])
def test_an_install_from_inside_the_project_becomes_a_relative_path(
    origin: Optional[str], written: str,
    project: Path, active: Path, git: Git, environ: Environ, flaskflex: Flaskflex,
) -> None:
    git("remote", "set-url", "origin", origin) if origin else git("remote", "remove", "origin")
    editable = make_library(project / "libs" / "a b-ą", "editable_one")
    copied = make_library(project / "libs" / "copied", "copied")
    git("add", "libs")
    git("commit", "-q", "-m", "libraries")
    pip(active, "install", "-q", "-e", editable, copied, environ=environ)
    assert written in pip(active, "freeze", environ=environ)
    result = flaskflex()
    assert result.status == 0, result
    lines = frozen(project)
    assert len(lines) == 5
    assert lines[0] == "./libs/copied"
    assert SECRET not in git("show", "HEAD") + result.out + result.err
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
        add_distribution(active, name, "1", {"url": f"file:///elsewhere/{name}", "dir_info": {}})
    result = flaskflex()
    assert_refused(result, "one is installed from /elsewhere/one", "two is installed from /elsewhere/two")


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


@pytest.mark.parametrize("options", [[], ["-n"], ["--force", "--no-commit"]], ids=" ".join)
def test_addresses_with_a_secret_are_refused_and_the_secret_never_shown(
    options: List[str], project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    for number, direct_url in enumerate(SECRET_ADDRESSES):
        add_distribution(active, f"x{number}", "1", direct_url)
    with untouched(project):
        result = flaskflex(*options)
    names = [f"x{number} is installed from an address" for number in range(len(SECRET_ADDRESSES))]
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


@pytest.mark.parametrize("user", [f"user:{SECRET}", SECRET])
def test_an_editable_install_from_an_address_with_a_secret_is_refused(
    user: str, project: Path, active: Path, checked_out: Path,
    git: Git, environ: Environ, flaskflex: Flaskflex,
) -> None:
    git("remote", "set-url", "origin", f"https://{user}@host.example/x", cwd=checked_out)
    assert SECRET in pip(active, "freeze", environ=environ)
    with untouched(project):
        result = flaskflex()
    assert_refused(result, "x is installed from an address")
    assert SECRET not in result.out + result.err


def test_what_pip_would_not_read_again_is_refused(project: Path, active: Path, flaskflex: Flaskflex) -> None:
    """A distribution's metadata may say anything, and must not become an option of pip on the server."""
    folder = site_packages(active) / "odd-1.dist-info"
    name = "odd --index-url=https://host.example"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    with untouched(project):
        assert_refused(flaskflex(), "odd")
