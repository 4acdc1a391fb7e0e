"""A host for the tests: a real Apache with mod_fcgid, and what it does with a project that is pushed to it.

The server has a configuration and a folder of its own, listens on loopback, and is a child of the tests,
which end it. It is never root: tests that run as root start it as the user that Debian has for it.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from conftest import PASSED_ON, Environ
from helpers import load_flaskflex

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MODULES = Path("/usr/lib/apache2/modules")
NEEDED = ("mpm_event", "authz_core", "alias", "dir", "mime", "setenvif", "env", "rewrite", "userdir", "fcgid")
WORKER = "www-data"

PATIENCE = 30.0  # seconds to wait for what comes at once on a machine that is not busy

CONFIGURATION = """\
ServerRoot "{base}"
ServerName localhost
{modules}
Listen 127.0.0.1:{port}
PidFile "{base}/run/apache.pid"
DefaultRuntimeDir "{base}/run"
Mutex file:{base}/run default
ErrorLog "{base}/log/error.log"
LogLevel warn
TypesConfig /etc/mime.types
# Where suexec is installed, mod_fcgid wants to be started by root for it.
Suexec Off
FcgidIPCDir "{base}/run/fcgid"
FcgidProcessTableFile "{base}/run/fcgid/table"
<IfModule wsgi_module>
    WSGISocketPrefix "{base}/run/wsgi"
</IfModule>
<Directory "/">
    AllowOverride None
    Require all denied
</Directory>
"""

VIRTUAL_HOST = """
<VirtualHost 127.0.0.1:{port}>
    ServerName {host.name}
    DocumentRoot "{host.root}"
    DirectoryIndex index.html
    SetEnvIf X-Forwarded-Proto "^https$" HTTPS=on
    <Directory "{base}">
        Options {host.options}
        AllowOverride {host.override}
        Require all granted
    </Directory>
    {host.more}
</VirtualHost>
"""


class VirtualHost(NamedTuple):
    """One name-based host: its name, its DocumentRoot, what .htaccess may say, and further directives."""

    name: str
    root: Path
    override: str = "FileInfo Options"
    more: str = ""
    options: str = "FollowSymLinks"


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site(NamedTuple):
    """A place where a project answers: a port, a host's name, and the address of its top, without a slash."""

    port: int
    host: str
    prefix: str = ""

    def ask(
        self, method: str, path: str, body: Optional[bytes] = None,
        headers: Optional[Mapping[str, str]] = None, beginning: Optional[Callable[[bytes], None]] = None,
    ) -> Answer:
        """Send a request whose path goes out exactly as it stands here, and read the whole answer.

        beginning is called with the first part of the body, before the rest is read.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, self.prefix + path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", f"{self.host}:{self.port}")
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            start = b""
            if beginning:
                start = response.read(1000)
                beginning(start)
            return Answer(response.status, response.headers, start + response.read())

    def get(self, path: str, headers: Optional[Mapping[str, str]] = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def spellings(self, path: str) -> Tuple[str, str]:
        """The two ways in which an answer may name an address of this site: without its host, and with it."""
        return f"{self.prefix}{path}", f"http://{self.host}:{self.port}{self.prefix}{path}"

    def raw(self, request: bytes) -> bytes:
        """Send bytes as they are, and give back everything that comes until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@functools.lru_cache(maxsize=None)
def why_not(modules: Tuple[str, ...] = NEEDED) -> Optional[str]:
    """Why no Apache with these modules can be started here, or None."""
    if not shutil.which("apache2", path=SYSTEM_PATH):
        return "apache2 is not installed (Debian's package apache2)"
    missing = [name for name in modules if not (MODULES / f"mod_{name}.so").exists()]
    if missing:
        return (f"Apache lacks mod_{', mod_'.join(missing)} (Debian has mod_fcgid in libapache2-mod-fcgid, "
                "mod_wsgi in libapache2-mod-wsgi-py3)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(WORKER)
        except KeyError:
            return f"the tests run as root, and there is no user {WORKER} to run Apache as"
    probe = subprocess.run(
        ["/usr/bin/env", "python3", "-c", "import ensurepip, venv"],
        env={"PATH": SYSTEM_PATH}, stderr=subprocess.DEVNULL,
    )
    if probe.returncode:
        return "the system's own python3 cannot make virtualenvs (Debian's package python3-venv)"
    return None


def eventually(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What what() gives as soon as it is true, or what it gives at the end of so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.02)


class Host:
    """A machine that takes pushed projects, as far as the tests need one: folders, a worker, and Apache."""

    def __init__(self, modules: Sequence[str] = NEEDED) -> None:
        self.modules = modules
        # Not below pytest's folder, which nobody but its owner may enter.
        self.base = Path(os.path.realpath(tempfile.mkdtemp(prefix="flaskflex-host-", dir="/tmp")))
        self.base.chmod(0o755)
        self.homes = self.base / "home"
        self.port = 0
        self.apache: Optional[subprocess.Popen[bytes]] = None
        self.worker: Dict[str, Any] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(WORKER)
            self.worker = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for name in ("home", "www", "run", "log", "worker"):
            (self.base / name).mkdir(mode=0o755)
        for name in ("run", "log", "worker"):
            self.hand_over(self.base / name)

    def hand_over(self, path: Path) -> None:
        """Make the worker the owner of a file, or of a folder and everything in it."""
        if self.worker:
            owner = f"{self.worker['user']}:{self.worker['group']}"
            subprocess.run(["chown", "-hR", owner, str(path)], check=True)

    @property
    def environ(self) -> Environ:
        """What the lines of .flx find in their environment: the system's PATH, not the one of the tests."""
        environ = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environ.update(
            PATH=SYSTEM_PATH, HOME=str(self.base / "worker"), LANG="C.UTF-8",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )
        return environ

    def apply_changes(self, project: Path, *kinds: str) -> None:
        """Do what the .flx of a project says in sections of these kinds, as the host does after a push."""
        lines = load_flaskflex().parse_flx((project / ".flx").read_bytes())
        for kind in kinds:
            for line in (line for line in lines if line.section == kind):
                if kind == "permission":
                    path, mode = line.fields
                    (project / path).chmod(int(mode, 8))
                    continue
                done = subprocess.run(
                    ["/bin/sh", "-c", f"exec <&-\n{line.text}"], cwd=project, env=self.environ,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, umask=0o022, **self.worker,
                )
                assert done.returncode == 0, f"{line.text} gave {done.returncode}:\n{done.stdout.decode()}"

    def start(self, hosts: Sequence[VirtualHost]) -> None:
        """Start Apache with these hosts on a free port, and return once it listens."""
        for _ in range(5):  # another program may take the port first
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            configuration = self.base / "apache.conf"
            configuration.write_text(self.configuration(hosts), "utf-8")
            self.apache = subprocess.Popen(
                ["apache2", "-f", str(configuration), "-D", "FOREGROUND"], cwd=self.base,
                env={"PATH": SYSTEM_PATH, "LANG": "C"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True, umask=0o022, preexec_fn=end_with_parent, **self.worker,
            )
            apache, ready = self.apache, self.base / "run" / "apache.pid"
            eventually(lambda: ready.exists() or apache.poll() is not None)
            if ready.exists():
                return
            apache.kill()
            said = apache.communicate()[1].decode()
            if "Address already in use" not in said:
                break
        raise AssertionError(f"Apache does not start: {said}\n{self.error_log()}")

    def configuration(self, hosts: Sequence[VirtualHost]) -> str:
        modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in self.modules)
        whole = CONFIGURATION.format(base=self.base, modules=modules, port=self.port)
        return whole + "".join(
            VIRTUAL_HOST.format(base=self.base, port=self.port, host=host) for host in hosts
        )

    def error_log(self) -> str:
        log = self.base / "log" / "error.log"
        return log.read_text("utf-8", "replace") if log.exists() else ""

    @property
    def leader(self) -> int:
        """The process number of Apache itself, which leads the session of all that it starts."""
        return self.apache.pid if self.apache else -1

    def session(self) -> List[int]:
        """The processes that Apache and its children are: those of the session that it leads."""
        return [pid for pid in processes() if session_of(pid) == self.leader]

    def close(self) -> None:
        """End Apache and everything that it started, and remove all the folders."""
        try:
            if self.apache:
                self.apache.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.apache.wait(PATIENCE)
                eventually(lambda: not self.session(), 5)
                for pid in self.session():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.apache.wait()
                if self.apache.stderr:
                    self.apache.stderr.close()
        finally:
            shutil.rmtree(self.base, ignore_errors=True)


def end_with_parent() -> None:
    """In a child: ask Linux to end it when its parent is killed and cannot."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def ask_process(path: Path) -> Optional[bytes]:
    """Ask a FastCGI process for /, through its socket: its whole answer, or None if it takes no requests."""
    def record(kind: int, content: bytes = b"") -> bytes:
        return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content
    variables = ["REQUEST_METHOD", "GET", "PATH_INFO", "/", "SERVER_NAME", "localhost", "SERVER_PORT", "80"]
    pairs = [bytes([len(name), len(value)]) + (name + value).encode()
             for name, value in zip(variables[::2], variables[1::2])]
    request = record(1, struct.pack("!HB5x", 1, 0)) + record(4, b"".join(pairs)) + record(4) + record(5)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:
            return None
        try:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (BrokenPipeError, ConnectionResetError) as error:
            return repr(error).encode()


def processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def session_of(pid: int) -> int:
    """The session of a process that runs; 0 for one that is over, be it that nobody took note of it yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[3])


@contextlib.contextmanager
def running_host(modules: Sequence[str] = NEEDED) -> Iterator[Host]:
    host = Host(modules)
    try:
        yield host
    finally:
        host.close()
