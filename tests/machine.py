"""A throwaway machine, and an sshd: what the tests of hosting need, and must not take from the real machine.

The machine has its own users, /etc, packages and processes, made in a moment from those of the real one (an
overlay), and all of it is gone afterwards. The network is shared: servers in it listen on loopback.
"""
from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import pytest

PATIENCE = 30.0  # seconds to wait for what comes at once on a machine that is not busy
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first process of the machine: it ends, and all others with it, when the test closes its input, or dies.
# It tells its pid on the outside, once its root is the machine's: before, a command that joins it would
# change the real one. SIGCHLD is ignored so that orphans do not stay as zombies.
INIT = """\
read -r pid rest </proc/self/stat
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir run/lock run/sshd tmp/home
trap '' CHLD
exec chroot . sh -c 'echo "$1"; exec cat' sh "$pid"
"""


class Machine(NamedTuple):
    """A throwaway machine that runs."""

    root: Path  # its file system, as it is seen from outside
    pid: int  # of its first process
    environ: Dict[str, str]

    def run(self, script: str, status: int = 0) -> str:
        """Run a shell script as root, which has to end with the status; return all that it printed."""
        namespaces = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd"]
        done = subprocess.run(
            [*namespaces, "sh", "-ec", script], env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        text = done.stdout.decode("utf-8", "backslashreplace")
        assert done.returncode == status, f"{script}\nended with {done.returncode}:\n{text}"
        return text


@contextlib.contextmanager
def running_machine(folder: Path, environ: Dict[str, str]) -> Iterator[Machine]:
    """Start a throwaway machine that keeps its files in a folder; skip the test where that is not possible.

    It has the files of the root file system only; copy what lies elsewhere below Machine.root.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux can make a throwaway machine")
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", INIT, "init", folder],
        env={**environ, "PATH": SYSTEM_PATH}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdin and process.stdout and process.stderr
        pid = process.stdout.readline().decode().strip()
        if not pid:
            pytest.skip(f"no throwaway machine here: {process.stderr.read().decode().strip()}")
        own = {**environ, "PATH": SYSTEM_PATH, "HOME": "/tmp/home", "TMPDIR": "/tmp",
               "DEBIAN_FRONTEND": "noninteractive"}
        yield Machine(Path("/proc", pid, "root"), int(pid), own)
        process.stdin.close()
        process.wait()
    shutil.rmtree(folder)


SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/user_key.pub"
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv {variables}
"""

# How the two agree on a key: what they choose by themselves takes a tenth of a second of each connection.
QUICK = "KexAlgorithms=curve25519-sha256"

# As root, sshd insists on an empty folder for itself, which only Debian's service makes: here it gets a /run
# of its own.
WITH_RUN = """\
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
exec "$@"
"""


class Sshd(NamedTuple):
    """An sshd that runs, into which the user of the tests can log in without a password."""

    port: int
    user: str
    ssh: str  # the command of a client that has the key and knows the server: a value for GIT_SSH_COMMAND

    def url(self, path: Path) -> str:
        """Return the URL of a repository on the host."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def running_sshd(folder: Path, environ: Dict[str, str]) -> Iterator[Sshd]:
    """Start an sshd that keeps its files in a folder, and sets the environment variables for what it runs."""
    program = shutil.which("sshd", path=SYSTEM_PATH)
    if program is None:
        pytest.skip("sshd is not installed")
    folder.mkdir()
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port, user = free_port(), pwd.getpwuid(os.geteuid()).pw_name
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    variables = " ".join(f'"{name}={value}"' for name, value in environ.items())
    (folder / "config").write_text(SSHD_CONFIG.format(port=port, folder=folder, variables=variables))
    command = [program, "-D", "-e", "-f", str(folder / "config")]
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        command = ["unshare", "--mount", "sh", "-ec", WITH_RUN, "sh", *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(process, port, folder / "log")
        yield Sshd(port, user, ssh_command(folder))
    finally:
        process.terminate()
        process.wait()


def ssh_command(folder: Path) -> str:
    """Return the command of an ssh that uses the key and the known hosts of a folder, and asks nothing."""
    options: List[str] = [
        QUICK, "BatchMode=yes", "IdentitiesOnly=yes", f"IdentityFile={folder}/user_key",
        f"UserKnownHostsFile={folder}/known_hosts",
    ]
    return " ".join(["ssh", "-F", "none", *(f"-o {option}" for option in options)])


def free_port() -> int:
    """Return a loopback port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server that was just started takes connections."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"the server did not start:\n{log.read_text()}")
