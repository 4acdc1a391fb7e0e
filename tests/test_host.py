"""The other end of git push: what is pushed is tried, and goes live or is refused."""
from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Tuple

import pytest
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


def test_a_folder_that_apache_serves_is_warned_of(tmp_path: Path, flaskflex: Flaskflex) -> None:
    write(tmp_path / "public_html" / "www" / "index.html")
    result = flaskflex("-C", tmp_path / "public_html" / "www", "host", "blog")
    assert result.status == 0 and "warning: if Apache serves" in result.err
    assert flaskflex("-C", tmp_path, "host", "blog").err == ""


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
    "a .flx without end": (".flx", "# flood\n" * (1 << 18), ".flx, as it is committed, is larger than"),
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


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_the_hint_names_what_is_in_the_way_of_a_folder(kind: str, live: Hosted) -> None:
    if kind == "a file":
        write(live.site / "uploads", "the site's own")
    else:
        (live.site / "uploads").symlink_to(live.folder)
    live.commit("uploads/a", "pushed")
    new = live.commit("uploads/b", "pushed")
    for typed in re.findall("^ +(mv .*)$", live.push(status=1), re.MULTILINE):
        run("sh", "-ec", typed, cwd=live.folder, env=live.environ)
    live.push()
    assert live.served() == new and os.path.lexists(live.site / "uploads.old")


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


def test_settings_that_a_first_push_replaces_and_fails_are_kept_beside_them(new: Hosted) -> None:
    write(new.site / ".env", "SECRET=1")
    new.commit(".flx", f"{FLX}[setup]\necho SECRET=example >.env\nfalse\n")
    for _ in range(2):
        new.push(status=1)
        assert (new.site / ".env").read_text() == "SECRET=example\n"
        assert (new.site / ".env.old").read_text() == "SECRET=1"


def test_settings_that_a_first_push_replaces_are_kept_when_it_goes_live_too(new: Hosted) -> None:
    write(new.site / ".env", "SECRET=1")
    new.commit(".flx", FLX.replace("[setup]", "[setup]\necho SECRET=example >.env"))
    assert "Note        .env was changed; what it held before is in .env.old" in new.push()
    assert (new.site / ".env.old").read_text() == "SECRET=1"
    new.served()


def test_no_settings_take_the_place_of_others_that_were_kept(new: Hosted) -> None:
    write(new.site / ".env", "A")
    write(new.site / ".env.old", "B")
    new.commit(".flx", f"{FLX}[setup]\necho 1 >.env; echo 2 >.env.old; false\n")
    out = new.push(status=1)
    assert {path.read_text() for path in new.site.glob(".env*")} == {"A", "B", "1\n", "2\n"}
    assert "Note        .env was changed; what it held before is in .env.old" in out


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
    (live.site / "neighbour").symlink_to(f"{live.site}~/library")
    write(packages / "editable.pth", f"{live.site}/library\n{live.site}2/library\n")
    record = live.folder / "record"
    live.commit(".flx", "[deploy]\n"
                f"cat .venv/lib/python*/site-packages/editable.pth >> {record}\n"
                f"head -n 1 .venv/bin/pip >> {record}; .venv/bin/pip --version >> {record}\n"
                f"readlink absolute around neighbour >> {record}\n"
                f".venv/bin/python -c 'import sys; print(sys.prefix)' >> {record}\n"
                "false\n")
    with untouched(live.site):
        live.push(status=1)
    lines = record.read_text().splitlines()
    trial = live.repository / "flaskflex" / "trial"
    assert lines[0] == f"{trial}/library" and lines[1] == f"{live.site}2/library"
    assert lines[2].startswith(f"#!{trial}/.venv/bin/python") and lines[3].startswith("pip ")
    assert lines[4:] == [f"{trial}/.venv", f"{trial}/.venv", f"{live.site}~/library", f"{trial}/.venv"]


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
    assert names - of_the_shell == {"HOME", "USER", "LOGNAME", "LANG", "PATH", "FLASKFLEX_HOST",
                                    "GIT_CEILING_DIRECTORIES"}
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


# --- its parts ---


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
            FLASKFLEX.adopt_copy(tmp_path, [tmp_path], tmp_path / "copy", [])


def test_what_a_push_has_started_that_ended_well_is_not_ended_by_one_that_waited(live: Hosted) -> None:
    code = """
import flaskflex, pathlib, subprocess, sys
hosted = flaskflex.HostedProject(pathlib.Path(sys.argv[1]))
with hosted.locked(flaskflex.Log(hosted.log_path("a")), sys.argv[2]):
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True).pid)
    sys.stdout.flush()
    sys.stdin.read()
"""
    command, pipe = [sys.executable, "-B", "-c", code, str(live.repository)], subprocess.PIPE
    with subprocess.Popen([*command, "first"], cwd=SCRIPT.parent, stdin=pipe, stdout=pipe) as first:
        assert first.stdin and first.stdout
        pids = [int(first.stdout.readline())]
        with subprocess.Popen([*command, "second"], cwd=SCRIPT.parent, stdin=pipe, stdout=pipe,
                              stderr=pipe) as second:
            assert second.stdin and second.stdout and second.stderr
            assert second.stderr.readline() == b"Waiting     for first\n"
            first.stdin.close()
            pids.append(int(second.stdout.readline()))
    found = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]  # b"" of one that was killed
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert found == [b"sleep\x0060\0"] * 2


def test_who_waits_is_told_for_whom_as_soon_as_that_is_known(live: Hosted) -> None:
    code = """
import flaskflex, pathlib, sys
hosted = flaskflex.HostedProject(pathlib.Path(sys.argv[1]))
with hosted.locked(flaskflex.Log(hosted.log_path("a")), "a push"):
    pass
"""
    with open(live.repository / "flaskflex" / "lock", "r+b", buffering=0) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-B", "-c", code, live.repository], cwd=SCRIPT.parent,
                              stderr=subprocess.PIPE) as waiting:
            time.sleep(0.5)  # it has seen by then that somebody has the lock, and not who
            lock.write(b"somebody\n")
            assert waiting.stderr and waiting.stderr.readline() == b"Waiting     for somebody\n"
            fcntl.flock(lock, fcntl.LOCK_UN)


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
