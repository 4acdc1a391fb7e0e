"""Hosts to which something has happened, hosts with settings of others, and real applications."""
from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Callable

import pytest
from apache import eventually
from conftest import SCRIPT, Environ, run
from helpers import load_flaskflex, site_packages, untouched, write
from hosting import APPLICATION, FLX, NAME, Hosted, processes_of

pytest_plugins = ["hosting_fixtures"]

pytestmark = pytest.mark.once


# --- what happens to a host ---


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


def test_a_lost_site_is_set_up_anew_beside_what_its_owner_put_there(live: Hosted) -> None:
    lose_site(live)
    write(live.site / ".env", "SECRET=1")
    live.flaskflex("host", NAME)
    live.served()
    assert (live.site / ".env").read_text() == "SECRET=1"


@pytest.mark.parametrize("path", ["application/todo.db", "instance/store"])
def test_setup_does_not_run_again_where_visitors_rows_are_left(path: str, live: Hosted) -> None:
    live.commit(".flx", FLX.replace("[setup]", f"[setup]\nmkdir -p instance; echo seed >{path}"))
    live.push()
    lose_site(live)
    write(live.site / path, "a visitor's")
    new = live.commit()
    live.push()
    assert (live.site / path).read_text() == "a visitor's"
    assert live.served() == new


def test_a_lock_that_holds_anything_stops_no_push(live: Hosted) -> None:
    (live.repository / "flaskflex" / "lock").write_bytes(b"\xff\n\xff")
    live.commit()
    live.push()
    live.served()


def test_no_command_of_a_trial_finds_the_repository_in_which_it_lies(live: Hosted) -> None:
    served = live.served()
    live.commit(".flx", f"{FLX}[deploy]\ngit update-ref -d refs/flaskflex/live\n")
    assert "not a git repository" in live.push(status=1)
    assert live.served() == served
    live.commit(".flx", f"{FLX}[deploy]\ngit ls-remote {live.repository}\n")
    live.commit(text="import subprocess\n\ndef hello():\n"
                     "    return subprocess.check_output(['git', 'rev-parse', 'HEAD']).decode()\n")
    assert re.search("^Refused .*CalledProcessError: .*'rev-parse'", live.push(status=1), re.MULTILINE)


def test_the_owner_may_enter_the_folders_of_a_site_whatever_its_commands_have_set(live: Hosted) -> None:
    live.commit("static/style.css", "a")
    live.commit(".flx", f"{FLX}[deploy]\nchmod 644 static\n")
    live.push()
    live.commit("static/style.css", "b")
    live.commit(".flx", FLX)
    live.push()
    assert (live.site / "static").stat().st_mode & 0o777 == 0o744


def test_a_folder_may_be_closed_to_writing_and_is_changed_by_the_next_push(live: Hosted) -> None:
    live.commit("private/x", "1")
    live.commit(".flx", f"{FLX}[permission]\nprivate 500\n")
    live.push()
    live.commit("private/x", "2")
    live.push()
    live.served()
    assert (live.site / "private").stat().st_mode & 0o777 == 0o500


def test_folders_to_which_a_link_of_the_sites_leads_stay_as_they_are(live: Hosted) -> None:
    live.commit("data/sub/x", "1")
    live.push()
    (live.site / "data").rename(live.folder / "data")
    (live.site / "data").symlink_to(live.folder / "data")
    (live.folder / "data" / "sub").chmod(0o2550)
    live.commit(text="def hello(:\n")
    with untouched(live.folder / "data"):
        live.push(status=1)


@pytest.mark.parametrize("path, mode, words", [
    ("application", "644", "a folder needs a 7 or a 5 first"), ("loop", "755", "loop is not in the project"),
])
def test_a_mode_that_would_stop_all_later_pushes_is_refused(
    path: str, mode: str, words: str, live: Hosted
) -> None:
    (live.clone / "loop").symlink_to("loop")
    live.git("add", "loop")
    live.commit(".flx", f"{FLX}[permission]\n{path} {mode}\n")
    with untouched(live.site):
        assert words in live.push(status=1)


def test_a_link_to_itself_closes_no_site(tmp_path: Path) -> None:
    write(tmp_path / "application" / "app.py")
    (tmp_path / "public_html").mkdir()
    (tmp_path / "public_html" / "loop").symlink_to("loop")
    load_flaskflex().close_to_others(tmp_path)
    assert (tmp_path / "application").stat().st_mode & 0o077 == 0


def test_a_folder_may_have_a_name_in_another_encoding(tmp_path: Path, new: Hosted) -> None:
    folder = tmp_path / os.fsdecode(b"gr\xfcn")
    folder.mkdir()
    run(sys.executable, SCRIPT, "-C", folder, "host", NAME, cwd=tmp_path, env=new.environ)
    assert (folder / NAME).is_dir()


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


def test_a_careless_umask_opens_nothing_to_others(live: Hosted) -> None:
    shutil.rmtree(live.repository / "flaskflex" / "__pycache__")
    live.commit()
    run("sh", "-ec", f"umask 0; git push -q {live.repository} HEAD:main", cwd=live.clone, env=live.environ)
    made = list((live.repository / "flaskflex").rglob("*"))
    assert "__pycache__" in {path.name for path in made}
    assert not [path for path in made if path.lstat().st_mode & 0o002 and not path.is_symlink()]


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
    write(disk / NAME / "NOT MOUNTED")
    live.commit()
    assert re.search(f"^Refused .*nothing is left in {disk / NAME}", live.push(status=1), re.MULTILINE)
    assert list((disk / NAME).iterdir()) == [disk / NAME / "NOT MOUNTED"]


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
