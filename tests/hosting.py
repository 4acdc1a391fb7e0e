"""A project on a host, and its clone, as the tests of hosting push it: real git, over a real ssh."""
from __future__ import annotations

import fcntl
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, List, NamedTuple, Optional

from apache import eventually
from conftest import IDENTITY, SCRIPT, Environ, run
from helpers import write
from machine import Sshd

NAME = "yourprojectname"

FLX = """\
[setup]
mkdir .venv
[deploy]
cp -p public_html/dispatch.fcgi public_html/.dispatch.fcgi.new
mv -f public_html/.dispatch.fcgi.new public_html/dispatch.fcgi
[permission]
public_html 755
public_html/dispatch.fcgi 755
"""


# Answers over FastCGI as flup and Flask do, in a tenth of their time: most tests here are about pushes.
DISPATCH = """\
#!/usr/bin/env python3
import socket
import struct
import sys
import traceback

sys.path.insert(0, "../application")
import app

def record(kind, content=b""):
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content

listener = socket.socket(fileno=0)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    try:
        answer = b"Status: 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\n" + app.hello().encode()
    except Exception:
        traceback.print_exc()
        answer = b"Status: 500 INTERNAL SERVER ERROR\\r\\nContent-Type: text/plain\\r\\n\\r\\n"
    connection.sendall(record(6, answer) + record(6) + record(3, bytes(8)))
    connection.close()
"""

APPLICATION = """\
def hello():
    return "Hello!"
"""


class Hosted(NamedTuple):
    """A host in a folder, and a clone of its project."""

    folder: Path
    environ: Environ

    @property
    def repository(self) -> Path:
        return self.folder / "host" / f"{NAME}.git"

    @property
    def site(self) -> Path:
        return self.folder / "host" / NAME

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def git(self, *args: Any, check: bool = True, cwd: Optional[Path] = None) -> str:
        """Run git in the clone; return what it printed."""
        return run("git", *args, cwd=cwd or self.clone, env=self.environ, check=check).rstrip("\n")

    def flaskflex(self, *args: Any, check: bool = True) -> str:
        """Run flaskflex on the host."""
        return run(sys.executable, SCRIPT, *args, cwd=self.folder / "host", env=self.environ, check=check)

    def commit(self, path: str = "application/app.py", text: Optional[str] = None) -> str:
        """Commit a file with a text (a line more, if none is given) in the clone; return the commit."""
        place = self.clone / path
        write(place, f"{place.read_text()}# more\n" if text is None else text)
        self.git("add", "-f", path)
        self.git("commit", "-q", "-m", f"change {path}")
        return self.git("rev-parse", "HEAD")

    def push(self, *args: Any, status: Optional[int] = 0) -> str:
        """Push (HEAD to main, if nothing else is said); return what the pusher saw."""
        done = subprocess.run(["git", "push", *map(str, args or ["origin", "HEAD:main"])], cwd=self.clone,
                              env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        out = done.stdout.decode("utf-8", "backslashreplace")
        assert status is None or done.returncode == status, out
        return "\n".join(line.replace("remote: ", "").rstrip() for line in out.splitlines())

    def ref(self, name: str) -> str:
        """Return the commit that a ref of the host's names, "" without one."""
        return self.git("rev-parse", "--quiet", "--verify", name, cwd=self.repository, check=False)

    def served(self) -> str:
        """Return the commit that is live, once it is sure that the site holds it, and the branch names it."""
        live = self.ref("refs/flaskflex/live")
        assert live == self.ref("refs/heads/main")
        self.assert_holds(live)
        return live

    def assert_holds(self, commit: str) -> None:
        """The files of a commit are in the site, whole, and nothing of a push is left anywhere."""
        for line in self.git("ls-tree", "-r", "-z", commit, cwd=self.repository).split("\0")[:-1]:
            facts, path = line.split("\t", 1)
            mode, _, blob = facts.split(" ")
            content = subprocess.run(["git", "cat-file", "blob", blob], cwd=self.repository, env=self.environ,
                                     stdout=subprocess.PIPE, check=True).stdout
            place = self.site / path
            held = os.fsencode(os.readlink(place)) if mode == "120000" else place.read_bytes()
            assert held == content, path
        self.assert_clean()

    def assert_clean(self) -> None:
        """No trial and no unfinished file is left, and nobody has the lock."""
        assert eventually(lambda: not list(self.repository.glob("flaskflex/.trial.flaskflex-old-*")))
        assert not list(self.folder.glob("host/**/*flaskflex-new*"))
        assert not [path for path in (self.repository / "flaskflex").iterdir()
                    if path.name in ("trial", "before")]
        assert eventually(self.lock_is_free)
        assert {path.name for path in (self.folder / "host").iterdir()} == {NAME, f"{NAME}.git"}

    def lock_is_free(self) -> bool:
        """Return True if nobody works on the project."""
        with open(self.repository / "flaskflex" / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def make_hosted(folder: Path, environ: Environ) -> Hosted:
    """Make a host with a project, and a clone with an application that is committed and not yet pushed."""
    own = {**environ, **IDENTITY}
    hosted = Hosted(folder, own)
    (folder / "host").mkdir(parents=True)
    hosted.flaskflex("host", NAME)
    py_compile.compile(str(hosted.repository / "flaskflex" / "flaskflex.py"))  # once, and not in each copy
    run("git", "clone", "-q", hosted.repository, hosted.clone, cwd=folder, env=own)
    write(hosted.clone / "public_html" / "dispatch.fcgi", DISPATCH, mode=0o755)
    htaccess = (SCRIPT.parent / "templates" / "htaccess").read_text(encoding="utf-8")
    write(hosted.clone / "public_html" / ".htaccess", htaccess)
    write(hosted.clone / ".flx", FLX)
    write(hosted.clone / "application" / "app.py", APPLICATION)
    hosted.git("add", ".")
    hosted.git("commit", "-q", "-m", "The application")
    return hosted


def copy_hosted(hosted: Hosted, folder: Path, environ: Environ, sshd: Sshd) -> Hosted:
    """Copy a host and its clone for one test, which pushes over ssh."""
    shutil.copytree(hosted.folder, folder, symlinks=True)
    copy = Hosted(folder, {**environ, **IDENTITY, "GIT_SSH_COMMAND": sshd.ssh})
    copy.git("remote", "set-url", "origin", sshd.url(copy.repository))
    return copy


def processes_of(folder: Path) -> List[str]:
    """Return the command lines of the processes that work in a folder, or that it is named to."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(entry / "cwd")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if f"{cwd}/".startswith(f"{folder}/") or f"{folder}/" in command:
            found.append(f"{entry.name} {command}")
    return found
