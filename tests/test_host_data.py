"""What visitors, the application and the owner have made in a site stays, whatever is pushed."""
from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

import pytest
from apache import eventually
from conftest import run
from helpers import snapshot, untouched, write
from hosting import APPLICATION, FLX, NAME, Hosted

pytest_plugins = ["hosting_fixtures"]

pytestmark = pytest.mark.once


def database(hosted: Hosted) -> str:
    return (hosted.site / "application" / "todo.db").read_text()


def test_what_the_site_made_stays(live: Hosted) -> None:
    live.commit("application/todo.db", "seed")
    live.push()
    write(live.site / "application" / "uploads" / "cat.jpg", "a cat")
    write(live.site / "application" / "todo.db", "a visitor's")
    live.commit()
    out = live.push()
    assert "stays as it is on the host: application/todo.db" in out
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
    assert "stays as it is on the host: .env, application/seed.db\n" in out
    for path in (".env", "application/seed.db"):
        assert (live.site / path).read_text() == path
    assert live.served() and not (live.site / "application" / "page.html").exists()


@pytest.mark.parametrize("place", [".env", "application/.env", "instance/settings.cfg"])
def test_a_database_that_settings_name_by_its_path_is_changed_by_no_trial(place: str, live: Hosted) -> None:
    write(live.site / "application" / "rows", "a row\n")
    write(live.site / place, f"DATABASE={live.site}/application/rows\n")
    live.commit(".flx", f"{FLX}[deploy]\n. ./{place}; echo another row >>$DATABASE; false\n")
    with untouched(live.site):
        assert "ended with 1" in live.push(status=1)


def test_what_git_no_longer_has_stays_if_gitignore_names_it(live: Hosted) -> None:
    paths = ["application/uploads/cat.jpg", *(f"cache/{number}" for number in range(8)), "old.txt"]
    for path in paths:
        write(live.clone / path, path)
    live.git("add", ".")
    live.commit()
    live.push()
    live.git("rm", "-q", "-r", "--cached", *paths)
    write(live.clone / ".gitignore", "cache/\n/old\n")
    live.commit("application/.gitignore", "/uploads\n")
    live.commit(".gitignore", "cache/\n/old\n")
    assert ("stays as it is on the host: application/uploads/cat.jpg, cache/0, cache/1, cache/2, cache/3 "
            "and 4 more\n") in live.push()
    assert {path for path in paths if (live.site / path).exists()} == set(paths) - {"old.txt"}
    assert live.served() == live.git("rev-parse", "HEAD")


def test_files_that_the_site_has_lost_come_back_with_the_next_push_and_data_does_not(live: Hosted) -> None:
    live.commit("application/seed.db", "rows")
    live.push()
    shutil.rmtree(live.site / "application")
    shutil.rmtree(live.site / "public_html")
    live.commit("another.txt", "")
    live.push()
    assert not (live.site / "application" / "seed.db").exists()
    write(live.site / "application" / "seed.db", "rows")
    live.served()


def test_a_lost_file_that_cannot_come_back_stops_no_push(live: Hosted) -> None:
    live.commit("uploads/.gitkeep", "")
    live.push()
    shutil.rmtree(live.site / "uploads")
    write(live.site / "uploads", "the site's own")
    live.commit()
    live.push()
    assert live.ref("refs/flaskflex/live") == live.git("rev-parse", "HEAD")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_lost_file_is_not_missed_where_a_disk_is_mounted_over_its_folder(live: Hosted) -> None:
    live.commit("uploads/.gitkeep", "")
    live.push()
    new = live.commit()
    run("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs "$1"; git push -q "$2" HEAD:main', "sh",
        live.site / "uploads", live.repository, cwd=live.clone,
        env={**live.environ, "PATH": f"{live.environ['PATH']}:/usr/sbin:/sbin"})
    assert live.served() == new


def test_what_gitignore_names_is_served_no_longer_if_git_no_longer_has_it(live: Hosted) -> None:
    live.commit("public_html/dump.txt", "a secret")
    live.push()
    live.git("rm", "-q", "public_html/dump.txt")
    live.commit(".gitignore", "dump.txt\n")
    live.push()
    assert not (live.site / "public_html" / "dump.txt").exists()


def test_what_is_taken_back_goes_whatever_gitignore_names(live: Hosted) -> None:
    live.commit(".gitignore", "local.py\n")
    live.push()
    served = live.served()
    live.commit("application/local.py", "raise ValueError\n")
    live.commit(".flx", f"{FLX}[deploy]\ncase $PWD in */trial) ;; *) exit 7 ;; esac\n")
    live.push()
    assert live.served() == served and not (live.site / "application" / "local.py").exists()


def test_settings_that_the_site_has_already_may_be_pushed_though_they_name_it(live: Hosted) -> None:
    write(live.site / ".env", f"DATABASE={live.site}/rows\n")
    new = live.commit(".env", f"DATABASE={live.site}/rows\n")
    live.push()
    assert live.served() == new


def test_settings_that_name_something_else_are_the_same_in_a_trial(live: Hosted) -> None:
    text = f"A={live.site}~old/x\nB=/mnt/backup{live.site}/x\nC={live.site}2/x\n"
    write(live.site / ".env", text)
    write(live.site / "expected", text)
    (live.site / "instance").mkdir()
    (live.site / "instance" / "loop").symlink_to("loop")
    live.commit(".flx", f"{FLX}[deploy]\ncmp .env expected\n")
    live.push()
    live.served()


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


def test_a_file_beside_one_that_is_no_database_is_no_journal(live: Hosted) -> None:
    live.commit("pages/travel", "1")
    live.commit("pages/travel-journal", "1")
    live.push()
    new = live.commit("pages/travel", "2")
    live.push()
    assert live.served() == new


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


@pytest.mark.parametrize("name", ["todo.db", "rows.data"])
def test_a_database_that_the_application_has_open_is_not_replaced_under_it(name: str, live: Hosted) -> None:
    place = live.site / "application" / name
    seed(live.clone / "application" / name, "seed").close()
    live.git("add", "application")
    live.git("commit", "-q", "-m", "A database")
    live.push()
    with contextlib.closing(sqlite3.connect(place)) as visitor:
        visitor.execute("SELECT * FROM rows").fetchall()
        seed(live.clone / "application" / name, "mine").close()
        live.git("commit", "-qam", "Another")
        assert re.search(f"^Refused .*application/{name}", live.push(status=1), re.MULTILINE)
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
    assert "stays as it is on the host: config.ini" in live.push()
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
