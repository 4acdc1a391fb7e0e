"""What the tests of hosting stand on: a throwaway machine leaves the real one alone; sshd is a real one."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import SCRIPT, Environ, Git, run
from helpers import untouched, write
from machine import Machine, Sshd, running_machine

pytestmark = pytest.mark.once


def test_a_throwaway_machine_has_users_files_and_processes_of_its_own(machine: Machine) -> None:
    accounts = ["/etc/passwd", "/etc/group", "/etc/shadow"]
    before = [Path(path).read_bytes() for path in accounts]
    assert machine.run("useradd -m student; su student -c 'id -un; cd; pwd'") == "student\n/home/student\n"
    assert machine.run("cat /proc/1/comm; ls /tmp /run") == "cat\n/run:\nlock\nsshd\n\n/tmp:\nhome\n"
    shutil.copy(SCRIPT, machine.root / "srv" / "script.py")
    assert machine.run("python3 /srv/script.py --version").startswith("flaskflex ")
    assert machine.run("echo so; exit 3", status=3) == "so\n"
    assert [Path(path).read_bytes() for path in accounts] == before
    assert not Path("/srv/script.py").exists()
    assert not Path("/home/student").exists()


def test_a_throwaway_machine_leaves_no_process_and_no_file(tmp_path: Path, environ: Environ) -> None:
    """Not even what went into the background; and an orphan that ended does not stay in the table."""
    with untouched(tmp_path):
        with running_machine(tmp_path / "another", environ) as own:
            own.run("sleep 7654 >/dev/null 2>&1 & sh -c 'true & exec sleep 0.01'")
            assert "defunct" not in own.run("ps -e")
            assert own.run("pgrep -x sleep | wc -l") == "1\n"
    assert subprocess.run(["pgrep", "-fx", "sleep 7654"], stdout=subprocess.PIPE).stdout == b""


def test_what_is_pushed_over_ssh_arrives_and_its_hook_runs_in_the_tests_own_environment(
    tmp_path: Path, sshd: Sshd, project: Path, environ: Environ, git: Git
) -> None:
    run("git", "init", "-q", "--bare", "-b", "main", tmp_path / "ssh.git", cwd=tmp_path, env=environ)
    write(tmp_path / "ssh.git" / "hooks" / "post-update", '#!/bin/sh\necho "hook $HOME $1"\n', mode=0o755)
    git("add", "flaskflex.py")
    git("commit", "-q", "-m", "first")
    environ["GIT_SSH_COMMAND"] = sshd.ssh
    pushed = git("push", "-q", sshd.url(tmp_path / "ssh.git"), "HEAD:refs/heads/main")
    assert f"hook {environ['HOME']} refs/heads/main" in pushed
    assert git("rev-parse", "main", cwd=tmp_path / "ssh.git") == git("rev-parse", "HEAD")


@pytest.mark.parametrize("right, wrong", [("user_key", "host_key"), ("known_hosts", "unknown_hosts")])
def test_with_a_wrong_key_or_an_unknown_server_there_is_no_login(
    right: str, wrong: str, tmp_path: Path, sshd: Sshd, environ: Environ
) -> None:
    echo = [f"-p{sshd.port}", f"{sshd.user}@127.0.0.1", "echo in"]
    assert run(*sshd.ssh.split(), *echo, cwd=tmp_path, env=environ) == "in\n"
    refused = run(*sshd.ssh.replace(right, wrong).split(), *echo, cwd=tmp_path, env=environ, check=False)
    assert "in\n" not in refused
