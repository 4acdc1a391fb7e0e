"""The other end of git push: what is pushed is tried, and goes live or is refused."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import pytest
from apache import eventually
from conftest import SCRIPT, Environ, Flaskflex, run
from helpers import (
    assert_refused, light_virtualenv, load_flaskflex, site_packages, snapshot, untouched, write,
)
from hosting import APPLICATION, FLX, NAME, Hosted, processes_of
from installing import certified, serving


pytest_plugins = ["hosting_fixtures"]

pytestmark = pytest.mark.oldest

FLASKFLEX = load_flaskflex()


# --- host NAME ---


def test_a_host_prints_how_to_go_on_and_a_second_run_changes_nothing(
    tmp_path: Path, flaskflex: Flaskflex
) -> None:
    folder = tmp_path / "a host"
    folder.mkdir()
    first = flaskflex("-C", folder, "host", "blog")
    assert first.status == 0 and first.err == "", first
    clone, = re.findall("^Clone +(git clone .*)$", first.out, re.MULTILINE)
    assert clone.endswith(f"'{folder}/blog.git'" if " " in str(folder) else f"{folder}/blog.git") or (
        f"{folder}/blog.git" in clone)
    assert str(folder / "blog" / "public_html") in first.out
    assert re.search("^Next .*git push", first.out, re.MULTILINE)
    with untouched(folder / "blog", folder / "blog.git" / "hooks"):
        second = flaskflex("-C", folder, "host", "blog")
    assert (second.status, second.out) == (0, first.out)
    assert flaskflex("--quiet", "-C", folder, "host", "blog") == (0, "", "")


def test_a_second_run_repairs_and_renews(new: Hosted) -> None:
    hooks = new.repository / "hooks"
    good = snapshot(hooks)
    (hooks / "update").unlink()
    (hooks / "post-receive").write_text("old")
    (hooks / "reference-transaction").chmod(0o644)
    shutil.rmtree(new.site)
    new.flaskflex("host", NAME)
    assert {path: (facts[0], facts[2]) for path, facts in snapshot(hooks).items()} == {
        path: (facts[0], facts[2]) for path, facts in good.items()}
    new.push()
    assert new.served() == new.git("rev-parse", "HEAD")
    shutil.rmtree(new.site)
    assert new.flaskflex("--quiet", "host", NAME) == ""
    assert new.served() == new.git("rev-parse", "HEAD")


@pytest.mark.parametrize("place", ["blog", "blog.git"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_foreign_files_in_the_way_are_refused(
    place: str, kind: str, tmp_path: Path, flaskflex: Flaskflex
) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    if kind == "file":
        write(folder / place, "mine")
    elif kind == "folder":
        write(folder / place / "mine.txt", "mine")
    else:
        (folder / place).symlink_to("nowhere")
    with untouched(folder):
        assert_refused(flaskflex("-C", folder, "host", "blog"), str(folder / place), "name")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "blog.git", "a b", "-x", "a;b", ""])
def test_a_name_that_could_mean_something_else_is_refused(
    name: str, tmp_path: Path, flaskflex: Flaskflex
) -> None:
    (tmp_path / "host").mkdir()
    with untouched(tmp_path / "host"):
        assert_refused(flaskflex("-C", tmp_path / "host", "host", "--", name), "name")


@pytest.mark.parametrize("url", ["example.org", "http://a:b/", "http://me:word@a/", "http://a b/"])
def test_a_url_that_cannot_be_asked_for_is_refused(url: str, tmp_path: Path, flaskflex: Flaskflex) -> None:
    with untouched(tmp_path):
        assert_refused(flaskflex("-C", tmp_path, "host", "blog", "--url", url), "URL of a site")


def test_the_projects_of_a_folder_are_listed(live: Hosted) -> None:
    assert "Nothing" in live.flaskflex("-C", live.folder, "host")
    live.flaskflex("host", "another")
    live.commit("application/app.py", "import nowhere\n")
    live.push(status=1)
    listed = live.flaskflex("host")
    served = live.git("log", "-1", "--format=%h %s", live.ref("refs/flaskflex/live"))
    assert re.search(rf"^{NAME} +{served}.* ago", listed, re.MULTILINE), listed
    assert re.search("last push: Refused .* No module named 'nowhere'", listed), listed
    assert re.search(rf"^ +{live.site}, size: [0-9.]+[KM]$", listed, re.MULTILINE), listed
    assert re.search("^another +nothing", listed, re.MULTILINE), listed
    (live.folder / "host" / "another.git" / "HEAD").unlink()
    listed = live.flaskflex("host", check=False)
    assert re.search(f"^{NAME} ", listed, re.MULTILINE), listed
    reason = "flaskflex: error: another cannot be read\n.*/another.git/HEAD"
    assert re.search(reason, listed, re.MULTILINE), listed


# --- a push ---


def test_the_first_push_and_the_next_are_live_and_the_branch_names_them(new: Hosted) -> None:
    out = new.push()
    first = new.served()
    assert first == new.git("rev-parse", "HEAD")
    assert re.search(r"^\$ mkdir .venv$", out, re.MULTILINE) and "200 OK" in out, out
    assert str(new.site / "public_html") in [line for line in out.splitlines() if "main" not in line][-2], out
    second = new.commit()
    out = new.push()
    assert new.served() == second != first
    assert "$ mkdir" not in out, out
    log = new.git("reflog", "show", "refs/flaskflex/live", cwd=new.repository).splitlines()
    assert len(log) == 2 and "change application/app.py" in log[0]
    assert new.git("ls-remote", "origin", "refs/flaskflex/live").split()[0] == second
    assert (new.site / "public_html" / "dispatch.fcgi").stat().st_mode & 0o777 == 0o755
    assert not processes_of(new.folder)


BROKEN: Dict[str, Tuple[str, str, str]] = {  # what is pushed: (path, text, what the pusher sees of it)
    "a syntax error": ("application/app.py", "def app(:\n", "SyntaxError"),
    "a missing package": ("application/app.py", "import nowhere\n", "No module named 'nowhere'"),
    "a 500": ("application/app.py", APPLICATION.replace('"Hello!"', "1 / 0"), "ZeroDivisionError"),
    "an application that ends": ("application/app.py", "raise SystemExit('gone')\n", "gone"),
    "a line that fails": (".flx", "[deploy]\necho one >&2; exit 3\n", "one"),
    "a line that takes too long": (".flx", "[deploy]\nsleep 60\n", "takes longer than 2 s"),
    "a file that is not there": (".flx", "[permission]\nnowhere 755\n", "nowhere is not in the project"),
    "a mode that is none": (".flx", "[permission]\n.flx rwx\n", "[permission] needs PATH MODE"),
    "a file outside": (".flx", "[permission]\n../x 755\n", "../x is not in the project"),
    "a variable that is not there": (".flx", "[replace]\n.flx A DB_HOST\n", "DB_HOST"),
    "a value for a folder": (".flx", "[replace]\napplication A PROJECT_NAME\n", "application is no file"),
    "a value for a file outside": (".flx", "[replace]\n../x A PROJECT_NAME\n", "../x is no file"),
    "a value for the project": (".flx", "[replace]\n. A PROJECT_NAME\n", ". is no file"),
    "a character that no shell takes": (".flx", "[deploy]\ntrue\0\n", "NUL"),
    "no script": ("public_html/dispatch.fcgi", "", "does not begin with #!"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_fails_is_refused_and_the_site_is_as_it_was(what: str, live: Hosted) -> None:
    path, text, words = BROKEN[what]
    served = live.served()
    write(live.site / "application" / "todo.db", "a visitor's")
    live.git("config", "flaskflex.timeout", "2", cwd=live.repository)
    live.commit(path, text)
    for _ in range(2):  # the same commit can be pushed again
        with untouched(live.site):
            out = live.push(status=1)
            headline, = re.findall("^Refused +(.*)$", out, re.MULTILINE)
            assert words in (out if what == "a line that fails" else headline), out
            assert re.search(f"^Served +{served[:7]} ", out, re.MULTILINE), out
        assert live.served() == served
    assert not processes_of(live.folder)


@pytest.mark.parametrize("setting", ["10m", "0"])
def test_a_time_for_lines_that_is_no_number_of_seconds_is_refused_with_the_way_out(
    setting: str, live: Hosted
) -> None:
    live.git("config", "flaskflex.timeout", setting, cwd=live.repository)
    live.commit()
    out = live.push(status=1)
    assert f"flaskflex.timeout is '{setting}', which is not a number of seconds" in out, out
    run("sh", "-ec", out[out.index("git config"):].splitlines()[0], cwd=live.repository, env=live.environ)
    live.push()


@pytest.mark.parametrize("what", ["a missing package", "a line that fails"])
def test_a_first_push_that_fails_leaves_what_was_there(what: str, new: Hosted) -> None:
    write(new.site / ".env", "SECRET=1", mode=0o600)
    good = new.git("rev-parse", "HEAD")
    path, text, words = BROKEN[what]
    new.commit(path, text)
    with untouched(new.site):
        assert words in new.push(status=1)
    assert new.ref("refs/heads/main") == ""
    new.assert_clean()
    new.git("reset", "-q", "--hard", good)
    new.push()
    assert new.served() == good
    assert (new.site / ".env").read_text() == "SECRET=1"


def test_settings_that_are_corrected_while_a_first_push_fails_stay(new: Hosted) -> None:
    write(new.site / ".env", "SECRET=wrong", mode=0o600)
    write(new.site / "instance" / "config.py", "DEBUG = True")
    write(new.site / "todo.db", "a visitor")
    meanwhile = "printf SECRET=right >.env\nrm instance/config.py\n: >todo.db\n"
    new.commit(".flx", f"{FLX}[deploy]\n{meanwhile}false\n")
    assert "ended with 1" in new.push(status=1)
    held = [(new.site / path).read_text() for path in (".env", "instance/config.py", "todo.db")]
    assert held == ["SECRET=right", "DEBUG = True", "a visitor"]


def test_a_trial_has_programs_and_editable_installs_of_its_own(live: Hosted, virtualenv: Path) -> None:
    """A copied virtualenv names the site's Python in its programs: pip would change the live one."""
    own = live.site / ".venv"
    own.rmdir()
    packages = site_packages(light_virtualenv(own, virtualenv))
    program = (virtualenv / "bin" / "pip").read_text()
    write(own / "bin" / "pip", program.replace(str(virtualenv), str(own)), mode=0o755)
    (live.site / "absolute").symlink_to(live.site / ".venv")
    (live.site / "around").symlink_to(f"../{live.site.name}/.venv")
    write(packages / "editable.pth", f"{live.site}/library\n{live.site}2/library\n")
    record = live.folder / "record"
    live.commit(".flx", "[deploy]\n"
                f"cat .venv/lib/python*/site-packages/editable.pth >> {record}\n"
                f"head -n 1 .venv/bin/pip >> {record}; .venv/bin/pip --version >> {record}\n"
                f"readlink absolute around >> {record}\n"
                f".venv/bin/python -c 'import sys; print(sys.prefix)' >> {record}\n"
                "false\n")
    with untouched(live.site):
        live.push(status=1)
    lines = record.read_text().splitlines()
    trial = live.repository / "flaskflex" / "trial"
    assert lines[0] == f"{trial}/library" and lines[1] == f"{live.site}2/library"
    assert lines[2].startswith(f"#!{trial}/.venv/bin/python") and lines[3].startswith("pip ")
    assert lines[4:] == [f"{trial}/.venv"] * 3


def test_output_without_a_line_end_and_subjects_in_any_encoding_do_no_harm(live: Hosted) -> None:
    live.commit(".flx", f"{FLX}[deploy]\nprintf half\n")
    subject = b"Caf\xe9"  # git itself would note its encoding: other tools do not
    tree, parent = live.git("rev-parse", "HEAD^{tree}"), live.git("rev-parse", "HEAD^")
    person = "A <a@example.org> 1300000000 +0000"
    text = f"tree {tree}\nparent {parent}\nauthor {person}\ncommitter {person}\n\n".encode() + subject
    commit = subprocess.run(["git", "hash-object", "-t", "commit", "-w", "--stdin"], cwd=live.clone,
                            env=live.environ, input=text, stdout=subprocess.PIPE, check=True).stdout.decode()
    out = live.push("origin", f"{commit.strip()}:main")
    assert "half\n" in out and re.search("^Live  ", out, re.MULTILINE), out
    assert live.served() == commit.strip()


def test_nothing_that_a_trial_starts_stays(live: Hosted) -> None:
    live.commit(".flx", "[deploy]\nsleep 1234 >/dev/null 2>&1 &\n(setsid sleep 1235 &)\n"
                        "env -i setsid sh -c 'sleep 1236 &'\nfalse\n")
    live.push(status=1)
    assert not processes_of(live.folder)
    assert run("pgrep", "-fx", "sleep 123[456]", cwd=live.folder, env=live.environ, check=False) == ""


def test_a_trial_that_is_write_protected_goes_and_so_does_one_whose_removal_was_cut_off(live: Hosted) -> None:
    write(live.repository / "flaskflex" / ".trial.flaskflex-old-1" / "file")
    write(live.site / "protected" / "file").parent.chmod(0o555)  # from root, no mode protects it
    new = live.commit()
    live.push()
    assert live.served() == new


# --- .flx ---


def test_each_section_is_carried_out_in_order_and_unknown_ones_are_told(new: Hosted) -> None:
    record = new.folder / "record"
    new.commit("application/settings.py", "NAME = 'PROJECT_NAME and TOKEN'\n")
    new.commit(".flx", FLX + f"""\
[deploy]
cd application && pwd >> {record}
pwd >> {record}; read line; echo "read $?" >> {record}
[setup]
echo setup >> {record}
[permittion]
echo never >> {record}
[replace]
application/settings.py PROJECT_NAME PROJECT_NAME
application/settings.py TOKEN PROJECT_NAME
[permission]
application/settings.py 640
""")
    out = new.push()
    assert "[permittion]" in out
    assert record.read_text().splitlines() == ["setup", f"{new.site}/application", str(new.site), "read 1"]
    settings = new.site / "application" / "settings.py"
    for _ in range(2):
        assert settings.read_text() == f"NAME = '{NAME} and {NAME}'\n"
        assert settings.stat().st_mode & 0o777 == 0o640
        new.commit()
        new.push()
    new.commit("application/settings.py", "NAME = 'TOKEN'\n")
    assert "was changed" not in new.push()
    assert settings.read_text() == f"NAME = '{NAME}'\n"


def test_a_file_that_git_names_like_the_mode_of_a_submodule_is_a_file(live: Hosted) -> None:
    live.commit("settings.txt", "PROJECT_NAME 118537\n")
    assert "160000" in live.git("rev-parse", "HEAD:settings.txt")
    live.commit(".flx", FLX + "[replace]\nsettings.txt PROJECT_NAME PROJECT_NAME\n")
    live.push()
    live.git("rm", "-q", "settings.txt")
    live.commit(".flx", FLX)
    live.push()
    assert live.served() and not (live.site / "settings.txt").exists()


def test_setup_runs_again_when_the_python_of_the_virtualenv_is_gone(live: Hosted) -> None:
    live.commit(".flx", f"[setup]\n{sys.executable} -m venv --clear --without-pip .venv\n"
                "echo .venv/bin/flask init-db\necho made .venv/\n")
    assert "$" not in live.push()
    live.flaskflex("host", NAME)
    for lose in (lose_interpreter, upgrade_system):
        write(live.site / ".venv" / "pyvenv.cfg")
        lose(live.site / ".venv")
        live.commit()
        out = live.push()
        assert re.findall(r"^\$ .* -m venv", out, re.MULTILINE), lose
        assert "$ echo made" in out and "init-db" not in out  # that would empty the visitors' tables
        assert "home = " in (live.site / ".venv" / "pyvenv.cfg").read_text()
        live.served()


def lose_interpreter(virtualenv: Path) -> None:
    (virtualenv / "bin").mkdir(exist_ok=True)
    (virtualenv / "bin" / "python").unlink(missing_ok=True)
    (virtualenv / "bin" / "python").symlink_to("/usr/bin/python2.7")


def upgrade_system(virtualenv: Path) -> None:
    """The virtualenv's Python runs, but is another one, which finds no packages."""
    library = site_packages(virtualenv).parent
    library.rename(library.with_name("python3.1"))


def test_the_environment_of_commands_is_built_anew(live: Hosted, host_environ: Environ) -> None:
    record = live.folder / "record"
    live.commit(".flx", f"[deploy]\nenv > {record}\ngit init -q {live.folder}/elsewhere\n"
                        f"git -C {live.folder}/elsewhere rev-parse --absolute-git-dir >> {record}\n")
    live.push()
    lines = record.read_text().splitlines()
    names = {line.split("=")[0] for line in lines[:-1]}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert names - of_the_shell == {"HOME", "USER", "LOGNAME", "LANG", "PATH", "FLASKFLEX_HOST"}
    assert f"HOME={host_environ['HOME']}" in lines
    assert "git-core" not in "".join(lines)
    assert lines[-1] == f"{live.folder}/elsewhere/.git"


# A package that is its own build backend, so that pip needs nothing else to build it.
PYPROJECT = """\
[build-system]
requires = []
build-backend = "greeting"
backend-path = ["."]
"""
GREETING = """\
import os, zipfile

def build_wheel(folder, *_):
    with zipfile.ZipFile(os.path.join(folder, "greeting-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("greeting.py", "")
        for name, text in (
            ("METADATA", "Metadata-Version: 2.1\\nName: greeting\\nVersion: 1.0\\n"),
            ("WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"), ("RECORD", ""),
        ):
            wheel.writestr(f"greeting-1.0.dist-info/{name}", text)
    return "greeting-1.0-py3-none-any.whl"
"""


def test_a_line_can_install_from_git_over_https(
    new: Hosted, tmp_path: Path, host_virtualenv: Path
) -> None:
    certificate, context = certified(tmp_path, new.environ)
    source = tmp_path / "greeting"
    write(source / "pyproject.toml", PYPROJECT)
    write(source / "greeting.py", GREETING)
    for command in (["init", "-q", "."], ["add", "."], ["commit", "-q", "-m", "A package"],
                    ["update-server-info"]):  # a folder is enough, then, for git to fetch from
        new.git(*command, cwd=source)
    with serving(tmp_path, context=context) as (address, _):
        url = f"{address.replace('127.0.0.1', 'localhost')}/greeting/.git"
        new.commit(".flx", f"[setup]\ncp -a {host_virtualenv} .venv\n[deploy]\n"
                           f"GIT_SSL_CAINFO={certificate} .venv/bin/python -m pip install git+{url}\n"
                           ".venv/bin/python -c 'import greeting'\n")
        new.push()
    new.served()


def test_a_virtualenv_that_the_pusher_has_active_is_not_the_sites(live: Hosted) -> None:
    """A push to a folder of the same machine hands its environment to the hooks."""
    write(live.folder / "env" / "pyvenv.cfg", "")
    write(live.folder / "env" / "bin" / "python3", "#!/bin/sh\nexit 1\n", mode=0o755)
    active = {**live.environ, "PATH": f"{live.folder}/env/bin:{live.environ['PATH']}"}
    live.commit(".flx", "[deploy]\npython3 -c pass\n")
    live._replace(environ=active).push(live.repository, "HEAD:main")
    live.served()


# --- data ---


def database(hosted: Hosted) -> str:
    return (hosted.site / "application" / "todo.db").read_text()


def test_what_the_site_made_stays(live: Hosted) -> None:
    live.commit("application/todo.db", "seed")
    live.push()
    write(live.site / "application" / "uploads" / "cat.jpg", "a cat")
    write(live.site / "application" / "todo.db", "a visitor's")
    live.commit()
    out = live.push()
    assert "application/todo.db holds data, and stays as it is there" in out
    assert database(live) == "a visitor's"
    assert (live.site / "application" / "uploads" / "cat.jpg").read_text() == "a cat"
    assert live.ref("refs/flaskflex/live") == live.ref("main")


def test_data_that_git_no_longer_has_stays_even_if_nothing_has_changed_it(live: Hosted) -> None:
    for path in (".env", "application/seed.db", "application/page.html"):
        write(live.clone / path, path)
    live.git("add", ".")
    live.commit()
    live.push()
    live.git("rm", "-q", "--cached", ".env", "application/seed.db", "application/page.html")
    live.commit()
    out = live.push()
    for path in (".env", "application/seed.db"):
        assert f"{path} holds data, and stays as it is there" in out
        assert (live.site / path).read_text() == path
    assert live.served() and not (live.site / "application" / "page.html").exists()


@pytest.mark.parametrize("tracked", [True, False], ids=["a committed file", "an untracked file"])
def test_a_push_that_would_replace_it_is_refused_and_the_hint_works_when_typed(
    tracked: bool, live: Hosted
) -> None:
    if tracked:
        live.commit("application/todo.db", "seed")
        live.push()
    served = live.ref("main")
    write(live.site / "application" / "todo.db", "a visitor's")
    live.commit("application/todo.db", "mine")
    with untouched(live.site):
        out = live.push(status=1)
    assert live.ref("main") == served
    assert re.search("^Refused .*application/todo.db", out, re.MULTILINE)
    typed = [line.strip() for line in out.splitlines() if re.match(" +git (rm|commit)", line)]
    run("sh", "-ec", "\n".join(typed), cwd=live.clone, env=live.environ)
    live.push()
    assert database(live) == "a visitor's"
    assert (live.clone / "application" / "todo.db").read_text() == "mine"
    live.served()
    live.commit()
    live.push()
    assert database(live) == "a visitor's"


def test_visitors_rows_that_are_still_beside_a_database_keep_it(live: Hosted) -> None:
    place = live.site / "application" / "todo.db"
    seed(live.clone / "application" / "todo.db", "seed").close()
    live.commit(".gitignore", "*.db-*\n")
    live.git("add", "application")
    live.git("commit", "-q", "-m", "A database")
    live.push()
    with contextlib.closing(seed(place, "visitor")):
        assert (live.clone / "application" / "todo.db").read_bytes() == place.read_bytes()
        seed(live.clone / "application" / "todo.db", "mine").close()
        live.git("commit", "-qam", "Another")
        out = live.push(status=1)
        assert re.search("^Refused .*application/todo.db", out, re.MULTILINE)
    typed = [line.strip() for line in out.splitlines() if re.match(" +mv ", line)]
    with contextlib.closing(seed(place, "another")):
        run("sh", "-ec", "\n".join(typed), cwd=live.folder, env=live.environ)
    live.push()
    assert rows(place) == ["seed", "mine"]
    assert rows(place.with_name("todo.db.old")) == ["seed", "visitor", "another"]


def test_a_database_that_the_application_has_open_is_not_replaced_under_it(live: Hosted) -> None:
    place = live.site / "application" / "todo.db"
    seed(live.clone / "application" / "todo.db", "seed").close()
    live.git("add", "application")
    live.git("commit", "-q", "-m", "A database")
    live.push()
    with contextlib.closing(sqlite3.connect(place)) as visitor:
        visitor.execute("SELECT * FROM rows").fetchall()
        seed(live.clone / "application" / "todo.db", "mine").close()
        live.git("commit", "-qam", "Another")
        assert re.search("^Refused .*application/todo.db", live.push(status=1), re.MULTILINE)
        visitor.execute("INSERT INTO rows VALUES ('visitor')")
        visitor.commit()
    assert rows(place) == ["seed", "visitor"]


def seed(path: Path, row: str) -> sqlite3.Connection:
    """Add a row to a database as SQLite does it in WAL mode: beside it, until all connections are closed."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (row)")
    connection.execute("INSERT INTO rows VALUES (?)", [row])
    connection.commit()
    return connection


def rows(path: Path) -> List[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row for row, in connection.execute("SELECT row FROM rows")]


def test_the_other_hint_works_when_typed_on_the_host(live: Hosted) -> None:
    names = ["it's.db", "it's.db.old"]
    for name in (*names, "it's.db.old.old.old"):
        write(live.site / "application" / name, name)
    for name in names:
        live.commit(f"application/{name}", "mine")
    out = live.push(status=1)
    typed = [line.strip() for line in out.splitlines() if re.match(" +mv ", line)]
    run("sh", "-ec", "\n".join(typed), cwd=live.folder, env=live.environ)
    live.push()
    live.served()
    kept = [path.read_text() for path in (live.site / "application").glob("it's*")]
    assert sorted(kept) == ["it's.db", "it's.db.old", "it's.db.old.old.old", "mine", "mine"]


# In front of git: what the site does when its files have been judged, before others take their places.
MEANWHILE = """\
#!/bin/sh
case "$*" in *--work-tree={site}/.flaskflex-new-*checkout-index*) cd {site}; {does} ;; esac
exec {git} "$@"
"""


@pytest.mark.parametrize("path, text, does", [
    ("page.txt", "mine", "printf more >page.txt"),
    ("page.txt", "mine", "printf more >new; mv new page.txt"),
    ("page.txt", None, "printf more >page.txt"),
    ("another.txt", "mine", "printf more >another.txt"),
], ids=["it writes to a file", "it replaces a file", "it writes to a file that goes", "it makes a file"])
def test_what_the_site_does_while_a_push_goes_live_is_kept(
    path: str, text: Optional[str], does: str, live: Hosted
) -> None:
    live.commit("page.txt", "seed")
    live.push()
    served = live.served()
    git = MEANWHILE.format(site=live.site, does=does, git=shutil.which("git"))
    folder = write(live.folder / "bin" / "git", git, 0o755).parent
    python = f'#!/bin/sh\nPATH={folder}:$PATH exec {sys.executable} "$@"\n'
    write(live.folder / "python", python, 0o755)
    live.git("config", "flaskflex.python", live.folder / "python", cwd=live.repository)
    live.commit()
    if text is None:
        live.git("rm", "-q", path)
        live.git("commit", "-q", "-m", "without")
    else:
        live.commit(path, text)
    assert re.search(f"^Failed .*{path}", live.push(), re.MULTILINE)
    assert live.ref("main") == live.ref("refs/flaskflex/live") == served
    assert (live.site / "application" / "app.py").read_text() == APPLICATION
    assert (live.site / path).read_text() == "more"


def link(hosted: Hosted, path: str, target: str) -> None:
    place = hosted.clone / path
    if place.is_dir() and not place.is_symlink():
        hosted.git("rm", "-q", "-r", path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    hosted.git("add", "-A")
    hosted.git("commit", "-q", "-m", f"{path} is a link")


def commit_where_the_site_has_folders(hosted: Hosted, path: str) -> None:
    (hosted.site / path / "empty").mkdir(parents=True)
    hosted.commit(path, "a file")


SHAPES: Dict[str, List[Callable[[Hosted], object]]] = {  # what is pushed, one after the other
    "a file becomes a folder": [
        lambda hosted: hosted.commit("a", "file"),
        lambda hosted: hosted.git("rm", "-q", "a") and None or hosted.commit("a/b/c", "file"),
        lambda hosted: hosted.git("rm", "-q", "-r", "a") and None or hosted.commit("a", "file again"),
    ],
    "a link becomes a folder, and back": [
        lambda hosted: link(hosted, "static", "application"),
        lambda hosted: hosted.git("rm", "-q", "static") and None or hosted.commit("static/app.py", "x = 1\n"),
        lambda hosted: link(hosted, "static", "application"),
    ],
    "names that are hard to quote": [
        lambda hosted: hosted.commit("a b/\n\"c'\\", "1"),
        lambda hosted: hosted.commit("a b/\n\"c'\\", "2"),
        lambda hosted: hosted.commit("\u00e9\t*?[x]", "3"),
    ],
    "line ends by .gitattributes": [
        lambda hosted: hosted.commit(".gitattributes", "*.txt text eol=lf\n"),
        lambda hosted: hosted.commit("a.txt", "1\n2\n"),
        lambda hosted: hosted.commit("a.txt", "1\n3\n"),
    ],
    "a file is where the site has made a folder for it": [
        lambda hosted: commit_where_the_site_has_folders(hosted, "data"),
    ],
    "a file goes, and its folder with it": [
        lambda hosted: hosted.commit("deep/down/file", "1"),
        lambda hosted: hosted.git("rm", "-q", "-r", "deep") and None or hosted.commit(),
    ],
}


@pytest.mark.parametrize("what", SHAPES)
def test_files_of_all_shapes_come_and_go(what: str, live: Hosted) -> None:
    for change in SHAPES[what]:
        change(live)
        live.push()
        assert live.served() == live.git("rev-parse", "HEAD")
    assert not (live.site / "deep").exists()


def test_a_folder_that_a_killed_push_left_empty_goes(live: Hosted) -> None:
    live.commit("gone/below/file", "one")
    live.push()
    (live.site / "gone" / "below" / "file").unlink()
    live.git("rm", "-q", "gone/below/file")
    live.commit()
    live.push()
    assert not (live.site / "gone").exists()


@pytest.mark.parametrize("when", ["the first push", "a later push", "a later push that is killed once"])
def test_a_file_that_the_site_had_already_stays_when_an_equal_one_is_taken_back(
    when: str, new: Hosted
) -> None:
    if when != "the first push":
        new.push()
    write(new.site / "application" / "page.txt", "the site's own", mode=0o600)
    own = snapshot(new.site / "application")["page.txt"]
    if "killed" in when:
        write(new.folder / "kill")
    new.commit("application/page.txt", "the site's own")
    new.commit("application/other.txt", "pushed")
    new.commit(".flx", f"{FLX}[deploy]\ncase $PWD in */trial) exit 0 ;; esac; "
                       f"rm {new.folder}/kill && kill -9 $PPID; exit 7\n")
    new.push(status=int(when == "the first push"))
    assert eventually(lambda: new.ref("main") == new.ref("refs/flaskflex/live"))
    assert not (new.folder / "kill").exists() and not (new.site / "application" / "other.txt").exists()
    assert snapshot(new.site / "application")["page.txt"] == own
    new.commit("application/page.txt", "another")
    assert re.search("^Refused .*application/page.txt", new.push(status=1), re.MULTILINE)
    assert snapshot(new.site / "application")["page.txt"] == own


@pytest.mark.parametrize("pushes", [0, 1, 2])
def test_a_file_that_the_site_had_already_stays_when_git_no_longer_has_it(pushes: int, live: Hosted) -> None:
    write(live.site / "uploads" / "logo.png", "a visitor's")
    live.commit("uploads/logo.png", "a visitor's")
    live.push()
    for _ in range(pushes):
        live.commit()
        live.push()
    live.git("rm", "-q", "uploads/logo.png")
    live.commit()
    live.push()
    assert (live.site / "uploads" / "logo.png").read_text() == "a visitor's"


def test_a_first_push_of_what_the_site_has_already_is_carried_out_once(new: Hosted) -> None:
    shutil.copytree(new.clone / "application", new.site / "application")
    with untouched(new.site / "application"):
        assert new.push().count("$ mkdir .venv") == 1
    assert new.served() == new.git("rev-parse", "HEAD")


@pytest.mark.parametrize("now", ["a link", "a file"])
def test_nothing_is_removed_through_what_the_site_has_in_a_folders_place(now: str, live: Hosted) -> None:
    live.commit("uploads/default.png", "pushed")
    live.push()
    elsewhere = live.folder / "elsewhere"
    (live.site / "uploads").rename(elsewhere)
    if now == "a link":
        (live.site / "uploads").symlink_to(elsewhere)
    else:
        write(live.site / "uploads", "a visitor's")
    live.git("rm", "-q", "uploads/default.png")
    live.git("commit", "-q", "-m", "no default")
    with untouched(elsewhere):
        live.push()
    assert live.served() == live.git("rev-parse", "HEAD")
    assert (live.site / "uploads").read_text() == "a visitor's" if now == "a file" else elsewhere.is_dir()


def test_nothing_is_written_through_a_link_of_the_sites(live: Hosted) -> None:
    elsewhere = write(live.folder / "elsewhere" / "file", "mine").parent
    (live.site / "uploads").symlink_to(elsewhere)
    live.commit("uploads/file", "pushed")
    with untouched(elsewhere, live.site):
        live.push(status=1)


def lose_virtualenv(hosted: Hosted) -> None:
    (hosted.site / ".venv").rmdir()


def lose_index(hosted: Hosted) -> None:
    (hosted.repository / "flaskflex" / "index").unlink()


def damage_index(hosted: Hosted) -> None:
    write(hosted.repository / "flaskflex" / "index", "")


def lock_from_the_future(hosted: Hosted) -> None:
    os.utime(write(hosted.repository / "HEAD.lock"), (1 << 32, 1 << 32))


def move_site(hosted: Hosted) -> None:
    hosted.site.rename(hosted.folder / "disk")
    hosted.site.symlink_to(hosted.folder / "disk")


def lose_site(hosted: Hosted) -> None:
    shutil.rmtree(hosted.site)


@pytest.mark.parametrize("harm", [
    lose_virtualenv, lose_index, damage_index, lock_from_the_future, move_site, lose_site])
def test_what_happens_to_a_host_does_not_stop_the_next_push(
    harm: Callable[[Hosted], None], live: Hosted
) -> None:
    harm(live)
    new = live.commit()
    live.push()
    assert live.served() == new and (live.site / ".venv").is_dir()


def test_a_site_that_is_set_up_anew_is_asked_itself(live: Hosted) -> None:
    write(live.site / "data", "what the site made")
    live.commit(text="def hello():\n    return open('../data').read()\n")
    live.push()
    assert eventually(lambda: not processes_of(live.folder))
    lose_site(live)
    with pytest.raises(AssertionError, match="(?s)gave 1:.*Failed .* 500 .*'../data'.*error: .*not run"):
        live.flaskflex("host", NAME)


def test_a_virtualenv_that_is_a_link_is_not_changed_by_a_trial(live: Hosted) -> None:
    elsewhere = live.folder / "elsewhere"
    (live.site / ".venv").rename(elsewhere)
    (live.site / ".venv").symlink_to(elsewhere)
    write(elsewhere / "bin" / "tool", f"#!{live.site}/.venv/bin/python\n", mode=0o755)
    live.commit()
    with untouched(elsewhere, live.site):
        out = live.push(status=1)
    typed, = re.findall("^On the host: (.*)$", out, re.MULTILINE)
    run("sh", "-ec", typed, cwd=live.folder, env=live.environ)
    live.push()
    assert (live.site / ".venv").is_dir() and not (live.site / ".venv").is_symlink()


def test_a_submodule_becomes_a_file_and_the_other_way_round(live: Hosted) -> None:
    live.git("update-index", "--add", "--cacheinfo", f"160000,{live.git('rev-parse', 'HEAD')},part")
    live.git("commit", "-q", "-m", "A submodule")
    live.push()
    live.git("rm", "-q", "--cached", "part")
    live.commit("part", "a file")
    live.push()
    assert live.served() == live.git("rev-parse", "HEAD")
    live.git("update-index", "--cacheinfo", f"160000,{live.git('rev-parse', 'HEAD')},part")
    live.git("commit", "-q", "-m", "A submodule again")
    live.push()
    assert not (live.site / "part").exists()


def test_a_strict_umask_closes_nothing_to_apache(tmp_path: Path, new: Hosted) -> None:
    write(new.folder / "host2" / "x")
    run("sh", "-ec", f"umask 077; exec {sys.executable} {SCRIPT} host {NAME}", cwd=new.folder / "host2",
        env=new.environ)
    assert (new.folder / "host2" / NAME).stat().st_mode & 0o777 == 0o755


# A disk that is full but for so many kilobytes takes a push or refuses it; then there is room again.
FULL_DISK = """
mount -t tmpfs -o size=20m tmpfs "$1"
cp -a "$2/host/." "$1"
cd "$3"
git remote set-url origin "$1/yourprojectname.git"
for free in 0 16 64 256 1024; do
    head -c 30m /dev/zero >"$1/zeros" 2>/dev/null || true
    truncate -s -"${free}k" "$1/zeros"
    git push -q origin HEAD:main || true
    rm "$1/zeros"
    git push -q origin HEAD:main
    git -C "$1/yourprojectname.git" rev-parse main refs/flaskflex/live
    cmp application/app.py "$1/yourprojectname/application/app.py"
    ls -A "$1" "$1/yourprojectname" "$1/yourprojectname.git/flaskflex"
    echo '# more' >>application/app.py
    git commit -q -a -m more
done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_harms_nothing(live: Hosted, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    live.commit()
    out = run("unshare", "--mount", "sh", "-ec", FULL_DISK, "sh", tmp_path / "disk", live.folder, live.clone,
              cwd=tmp_path, env={**live.environ, "PATH": f"{live.environ['PATH']}:/usr/sbin:/sbin"})
    commits = re.findall("^[0-9a-f]{40}$", out, re.MULTILINE)
    assert len(commits) == 10 and len(set(commits)) == 5 and commits[::2] == commits[1::2]
    assert "Refused" in out  # of some
    assert "flaskflex-new" not in out and "\ntrial\n" not in out and "\nbefore\n" not in out


# --- applications of tutorials ---

TUTORIALS = Path(__file__).resolve().parent / "tutorials"


@pytest.fixture(scope="module")
def flup(tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ) -> Path:
    """A folder with flup, which the shared virtualenv has not."""
    folder = tmp_path_factory.mktemp("flup")
    run(virtualenv / "bin" / "python", "-m", "pip", "install", "-q", "--target", folder, "flup==1.0.3",
        cwd=folder, env=session_environ)
    return folder


@pytest.mark.parametrize("name", sorted(path.name for path in TUTORIALS.iterdir()))
def test_the_application_of_a_tutorial_goes_live_and_is_changed(
    name: str, new: Hosted, virtualenv: Path, flup: Path
) -> None:
    shutil.rmtree(new.clone / "application")
    shutil.copytree(TUTORIALS / name, new.clone / "application", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SCRIPT.parent / "templates" / "dispatch.fcgi", new.clone / "public_html")
    python = "python%d.%d" % sys.version_info[:2]
    new.git("add", "-A")
    new.commit(".flx", f"""{FLX}[setup]
rmdir .venv
{sys.executable} -m venv --without-pip .venv
printf '%s\\n' '{site_packages(virtualenv)}' '{flup}' >.venv/lib/{python}/site-packages/shared.pth
""")
    for text in ("1", "2"):
        commit = new.commit("number.txt", text)
        assert re.search("^Asked +GET / answers (200|302) ", new.push(), re.MULTILINE)
        assert new.ref("refs/flaskflex/live") == commit
        assert (new.site / "number.txt").read_text() == text


# --- branches ---


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


# --- what must not be lost ---


def test_what_comes_to_the_site_after_a_first_push_was_cut_off_stays(new: Hosted) -> None:
    write(new.folder / "hold")
    commit = new.commit(".flx", f"{FLX}[deploy]\nwhile test -e {new.folder}/hold; do sleep 0.02; done\n")
    with subprocess.Popen(["git", "push", "-q", "origin", "HEAD:main"], cwd=new.clone, env=new.environ,
                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        assert eventually((new.site / "application" / "app.py").exists)
        hook = f"update refs/heads/main [0-9a-f]+ {commit}"
        run("pkill", "-9", "-f", hook, cwd=new.folder, env=new.environ)
    (new.folder / "hold").unlink()
    write(new.site / ".env", "SECRET=1")
    write(new.site / "uploads" / "cat.jpg", "a cat")
    new.flaskflex("host", NAME)
    assert not (new.site / "application").exists()
    new.push()
    assert (new.site / ".env").read_text() + (new.site / "uploads" / "cat.jpg").read_text() == "SECRET=1a cat"
    assert new.served() == new.git("rev-parse", "HEAD")


def test_a_repository_that_was_renamed_is_told_apart_from_its_site(live: Hosted) -> None:
    renamed = live.repository.with_name("renamed")
    live.repository.rename(renamed)
    live.commit()
    with untouched(live.site):
        assert "renamed is not called NAME.git any more" in live.push(renamed, "HEAD:main", status=1)
    renamed.rename(live.repository)
    live.push()
    live.served()


@pytest.mark.parametrize("first", [True, False])
def test_replace_spares_what_the_site_has_itself(first: bool, new: Hosted) -> None:
    if not first:
        new.push()
    write(new.site / "application" / "config.ini", "the site's own")
    new.commit("application/config.ini", "TOKEN")
    new.commit(".flx", FLX + "[replace]\napplication/config.ini TOKEN PROJECT_NAME\n")
    for _ in range(2):
        assert re.search("^Refused .*application/config.ini", new.push(status=1), re.MULTILINE)
    assert (new.site / "application" / "config.ini").read_text() == "the site's own"


def test_replace_spares_what_the_site_has_changed_since(live: Hosted) -> None:
    live.commit("application/config.ini", "TOKEN")
    live.push()
    write(live.site / "application" / "config.ini", "TOKEN the application has more to say")
    live.commit(".flx", FLX + "[replace]\napplication/config.ini TOKEN PROJECT_NAME\n")
    with untouched(live.site):
        assert re.search("^Refused .*application/config.ini", live.push(status=1), re.MULTILINE)


def test_what_is_in_the_way_of_replace_is_found_before_any_file_is_replaced(live: Hosted) -> None:
    live.commit("config.ini", "TOKEN")
    live.push()
    live.commit()
    live.commit(".flx", f"{FLX}[replace]\nconfig.ini TOKEN PROJECT_NAME\n[deploy]\n"
                        f"case $PWD in */trial) echo of a visitor >>{live.site}/config.ini ;; esac\n")
    before = snapshot(live.site / "application")
    assert re.search("^Failed .*config.ini", live.push(), re.MULTILINE)
    assert snapshot(live.site / "application") == before
    assert (live.site / "config.ini").read_text() == "TOKENof a visitor\n"


def test_what_the_site_has_added_to_a_file_in_which_replace_works_is_kept(live: Hosted) -> None:
    live.commit("config.ini", "NAME=TOKEN\n")
    live.commit(".flx", FLX + "[replace]\nconfig.ini TOKEN PROJECT_NAME\n")
    live.push()
    write(live.site / "config.ini", f"NAME={NAME}\nSECRET=1\n")
    live.commit()
    assert "config.ini was changed on the host, and stays as it is" in live.push()
    live.commit("config.ini", "NAME=TOKEN\nMORE=1\n")
    with untouched(live.site):
        assert re.search("^Refused .*config.ini", live.push(status=1), re.MULTILINE)
    assert (live.site / "config.ini").read_text() == f"NAME={NAME}\nSECRET=1\n"


def test_a_file_in_which_replace_works_no_longer_is_as_it_was_pushed(live: Hosted) -> None:
    live.commit("config.ini", "TOKEN")
    live.commit(".flx", FLX + "[replace]\nconfig.ini TOKEN PROJECT_NAME\n")
    live.push()
    assert (live.site / "config.ini").read_text() == NAME
    live.commit(".flx", FLX)
    live.push()
    live.served()


def test_values_that_are_others_now_get_into_files_that_no_push_changes(live: Hosted) -> None:
    variables = live.repository / "flaskflex" / "variables"
    write(variables, "DB_PASSWORD=first\n")
    live.commit("config.ini", "TOKEN")
    live.commit(".flx", FLX + "[replace]\nconfig.ini TOKEN DB_PASSWORD\n")
    live.push()
    write(variables, "DB_PASSWORD=second\n")
    live.commit()
    assert "config.ini was changed" not in live.push()
    assert (live.site / "config.ini").read_text() == "second"
    write(variables, "DB_PASSWORD=third\n")
    live.commit(".flx", FLX + "[replace]\nconfig.ini TOKEN DB_PASSWORD\n[deploy]\ncase $PWD in */trial) ;; "
                              "*) exit 7 ;; esac\n")
    assert re.search("^Failed", live.push(), re.MULTILINE)
    assert (live.site / "config.ini").read_text() == "third"  # of the old commit, which is served again


def test_values_that_are_others_now_are_no_edits_after_a_push_that_was_taken_back(live: Hosted) -> None:
    variables = live.repository / "flaskflex" / "variables"
    write(variables, "DB_PASSWORD=first\n")
    live.commit("config.ini", "TOKEN 1")
    flx = f"{FLX}[replace]\nconfig.ini TOKEN DB_PASSWORD\n"
    live.commit(".flx", flx)
    live.push()
    write(variables, "DB_PASSWORD=second\n")
    live.commit("config.ini", "TOKEN 2")
    live.commit("page.txt", "pushed")
    live.commit(".flx", f"{flx}[deploy]\n"
                        f"case $PWD in */trial) echo of a visitor >{live.site}/page.txt ;; esac\n")
    assert re.search("^Failed .*page.txt", live.push(), re.MULTILINE)
    assert (live.site / "config.ini").read_text() == "first 1"
    (live.site / "page.txt").unlink()
    live.commit(".flx", flx)
    live.push()
    assert (live.site / "config.ini").read_text() == "second 2"


@pytest.mark.parametrize("name", [":x", ":(top)x", "-x", "*", "x,y"])
def test_a_name_that_means_something_to_git_is_one_to_replace(name: str, live: Hosted) -> None:
    write(live.clone / "x", "another TOKEN")
    write(live.clone / name, "TOKEN")
    write(live.clone / ".flx", f"{FLX}[replace]\n./{name} TOKEN PROJECT_NAME\n")
    live.git("add", ".")
    live.git("commit", "-q", "-m", "odd names")
    live.push()
    assert [(live.site / path).read_text() for path in ("x", name)] == ["another TOKEN", NAME]


def test_replace_writes_through_no_link(live: Hosted) -> None:
    write(live.site / "instance" / "config.ini", "the site's own")
    (live.clone / "config.ini").symlink_to("instance/config.ini")
    live.git("add", ".")
    live.commit(".flx", FLX + "[replace]\nconfig.ini TOKEN PROJECT_NAME\n")
    assert "config.ini is a link" in live.push(status=1)
    assert (live.site / "instance" / "config.ini").read_text() == "the site's own"


def test_settings_in_which_replace_works_stay_too_when_git_no_longer_has_them(live: Hosted) -> None:
    live.commit(".env", "NAME=TOKEN\n")
    live.commit(".flx", FLX + "[replace]\n.env TOKEN PROJECT_NAME\n")
    live.push()
    write(live.site / ".env", f"NAME={NAME}\nSECRET=1\n")
    live.git("rm", "-q", "--cached", ".env")
    live.commit(".flx", FLX)
    live.push()
    assert live.served() and (live.site / ".env").read_text() == f"NAME={NAME}\nSECRET=1\n"


# --- what others have set ---


def test_files_have_the_line_ends_that_the_new_commit_asks_for(live: Hosted) -> None:
    live.commit(".gitattributes", "*.sh text eol=crlf\n")
    live.commit("run.sh", "true\n")
    live.push()
    assert (live.site / "run.sh").read_bytes() == b"true\r\n"
    live.commit(".gitattributes", "*.sh text eol=lf\n")
    live.commit("run.sh", "false\n")
    live.push()
    assert (live.site / "run.sh").read_bytes() == b"false\n"


def test_what_the_hosts_user_has_set_for_git_does_not_matter(live: Hosted) -> None:
    home = live.folder / "home"
    write(home / ".gitconfig", "[safe]\nbareRepository = explicit\n[i18n]\nlogOutputEncoding = UTF-16\n"
                               "[receive]\ndenyDeleteCurrent = ignore\ndenyNonFastForwards = true\n")
    write(home / ".config" / "git" / "attributes", "*.py text eol=crlf\n")
    own = live._replace(environ={**live.environ, "HOME": str(home), "XDG_CONFIG_HOME": f"{home}/.config"})
    new = own.commit(text=APPLICATION + "# more\n")
    own.push(own.repository, "HEAD:main")
    own.push(own.repository, ":main", status=1)
    own.push(own.repository, "+HEAD~:main")
    own.push(own.repository, f"{new}:main")
    assert live.served() == new and b"\r" not in (live.site / "application" / "app.py").read_bytes()
    own.flaskflex("host", "another")


def test_logs_from_a_time_when_the_clock_was_ahead_stop_no_push(live: Hosted) -> None:
    for number in range(25):
        os.utime(write(live.repository / "flaskflex" / "logs" / f"{number:040x}.log"), (2 ** 31, 2 ** 31))
    commit = live.commit()
    assert "Live" in live.push()
    assert (live.repository / "flaskflex" / "logs" / f"{commit}.log").exists()


def test_a_site_behind_a_link_is_itself_in_a_trial_and_its_disk_has_to_be_there(live: Hosted) -> None:
    disk = live.folder / "disk"
    write(live.site / ".venv" / "bin" / "tool", f"#!{live.site}/.venv/bin/python\n", 0o755)
    write(live.folder / "data" / "todo.db", "a visitor's")
    (live.site / "data").symlink_to("../../data")
    (live.site / "alike").symlink_to(f"/backup{live.site}")
    disk.mkdir()
    live.site.rename(disk / NAME)
    live.site.symlink_to(disk / NAME)
    (disk / NAME / "data").unlink()
    (disk / NAME / "data").symlink_to("../../data")
    live.commit(".flx", f"{FLX}[deploy]\nhead -n 1 .venv/bin/tool; cat data/todo.db; echo; readlink alike\n")
    out = live.push()
    trial = live.repository / "flaskflex" / "trial"
    others = ["a visitor's", f"/backup{live.site}"]
    assert re.findall("^(#!.*|a visitor's|/backup.*)$", out, re.MULTILINE) == [
        f"#!{trial}/.venv/bin/python", *others, f"#!{live.site}/.venv/bin/python", *others]
    (disk / NAME).rename(disk / "not mounted")
    (disk / NAME).mkdir()
    live.commit()
    assert re.search(f"^Refused .*{disk / NAME} is empty", live.push(status=1), re.MULTILINE)
    assert list((disk / NAME).iterdir()) == []


def test_a_trial_that_cannot_be_removed_stops_no_push(live: Hosted) -> None:
    live.commit(".flx", f"{FLX}[deploy]\ntouch made; chattr +i made; false\n")
    live.push(status=1)
    if not (live.repository / "flaskflex" / "trial" / "made").exists():
        pytest.skip("no file can be made immutable here")
    try:
        new = live.commit(".flx", FLX)
        live.push()
        assert live.ref("main") == live.ref("refs/flaskflex/live") == new
    finally:
        made, = live.repository.glob("flaskflex/*trial*/made")
        run("chattr", "-i", made, cwd=live.folder, env=live.environ)
    live.commit()
    live.push()
    live.served()


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


def test_a_repository_keeps_its_refs_in_files_whatever_git_takes_by_default(
    tmp_path: Path, flaskflex: Flaskflex, environ: Environ
) -> None:
    flaskflex("-C", tmp_path, "host", "blog", env={**environ, "GIT_DEFAULT_REF_FORMAT": "reftable"})
    assert (tmp_path / "blog.git" / "HEAD").read_text() == "ref: refs/heads/main\n"


@pytest.mark.parametrize("program", ["cp", "find"])
def test_a_program_that_is_killed_while_a_site_is_copied_leaves_no_copy_that_counts(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bin" / program, "#!/bin/sh\nkill -9 $$\n", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(FLASKFLEX.Failure, match=f"{program} was killed|cannot be copied"):
        if program == "cp":
            FLASKFLEX.copy_folder(tmp_path, tmp_path / "copy", whole=True)
        else:
            FLASKFLEX.adopt_copy(tmp_path, [tmp_path], tmp_path / "copy")


def test_a_line_of_which_a_full_disk_takes_a_part_is_shown_whole(tmp_path: Path) -> None:
    code = """
import flaskflex, pathlib, resource
log = flaskflex.Log(pathlib.Path("log"))
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, unlimited[1]))
log.fact("Refused", "the reason")
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
"""
    environ = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=tmp_path, env=environ,
                          stderr=subprocess.PIPE)
    assert done.stderr == b"Refused     the reason\n"


@pytest.mark.parametrize("backlog, close, level, words", [
    (1, False, "fail", "no answer within 0.2 s"),
    (1, True, "warn", "cannot be asked from here"),
], ids=["it takes the connection and hangs", "it refuses the connection"])
def test_a_site_that_hangs_is_a_failure_and_one_that_cannot_be_reached_is_not(
    backlog: int, close: bool, level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FLASKFLEX, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        if close:
            server.close()
        finding = FLASKFLEX.ask_url(url)
    assert finding.level == level and words in finding.text, finding


def test_a_process_whose_parent_has_ended_is_still_found_after_another_program_ran() -> None:
    code = """
import flaskflex, subprocess
flaskflex.linux_prctl(flaskflex.PR_SET_CHILD_SUBREAPER, 1)
with flaskflex.running(["true"]):
    pass
subprocess.run(["sh", "-c", "sleep 20 >/dev/null 2>&1 &"])
found = flaskflex.descendants(set())
flaskflex.send_signal(found, 9)
print(len(found))
"""
    out = run(sys.executable, "-B", "-c", code, cwd=SCRIPT.parent, env=dict(os.environ))
    assert out == "1\n"
