"""More than one machine: git pushes to both, HAProxy stands in front, and one of them may stop."""
from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from apache import eventually
from conftest import Environ
from machine import PATIENCE, free_port
from machine_host import KEY, HostMachine, running_host_machine

pytestmark = pytest.mark.once

# As in the README, but for the addresses.
HAPROXY = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch
    retry-on all-retryable-errors

frontend web
    bind 127.0.0.1:{port}
    default_backend machines

backend machines
    http-request disable-l7-retry if METH_POST
    option httpchk
    http-check send meth GET uri / hdr Host blog.example.org
    server one {one}:80 check inter 1s
    server two {two}:80 check inter 1s
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory,
             session_environ: Environ) -> Iterator[Tuple[HostMachine, HostMachine]]:
    """Two machines that host the same project; its clone, on the first, pushes to both."""
    folder = tmp_path_factory.mktemp("machines")
    with running_host_machine(folder / "one", session_environ) as one, \
            running_host_machine(folder / "two", session_environ, 1) as two:
        shutil.copy(one.root / KEY[1:], two.root / KEY[1:])
        for host in (one, two):
            host.add("blog")
        one.run(f"echo {two.address} two.example.org >>/etc/hosts")
        one.clone("blog")
        one.as_user("student", "cd blog; git remote set-url --add --push origin "
                               "ssh://blog@blog.example.org/~/blog.git; "
                               "git remote set-url --add --push origin ssh://blog@two.example.org/~/blog.git")
        one.push("blog")
        yield one, two


@pytest.fixture
def balancer(tmp_path: Path, machines: Tuple[HostMachine, HostMachine]) -> Iterator[int]:
    """The port of an HAProxy in front of the machines."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("haproxy is not installed (Debian's package haproxy)")
    port = free_port()
    one, two = machines
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(port=port, one=one.address, two=two.address))
    with subprocess.Popen([program, "-db", "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: status(port) == 200)
            yield port
        finally:
            process.terminate()


VISIT = "/?visitor"  # what the balancer itself asks for, to see who is there, is "/"


def status(port: int) -> int:
    """Ask for the page as a visitor, and return the status, or 0 if nothing comes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", VISIT, headers={"Host": "blog.example.org"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def serves(host: HostMachine) -> bool:
    """Return True if the site is served by a machine that may just be starting its Apache."""
    with contextlib.suppress(OSError):
        return host.ask("blog.example.org").status == 200
    return False


def visits(host: HostMachine) -> int:
    """Return how often the balancer has sent a visitor to a machine."""
    return host.run("cat /var/log/flaskflex/blog/access.log").count(f"GET {VISIT} ")


def test_no_request_fails_when_one_machine_stops_during_a_load(
    machines: Tuple[HostMachine, HostMachine], balancer: int
) -> None:
    seen: List[int] = []
    done = threading.Event()

    def visit() -> None:
        while not done.is_set():
            seen.append(status(balancer))

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        for host in machines:
            count = len(seen)
            assert eventually(lambda: len(seen) > count + 20)
            host.run("apache2ctl stop")
            count = len(seen)
            assert eventually(lambda: len(seen) > count + 20)
            host.run("while test -e /run/apache2/apache2.pid; do sleep 0.05; done; "
                     "until apache2ctl start; do sleep 0.05; done")  # its last processes may have the port
            assert eventually(lambda: serves(host))
            before = visits(host)
            assert eventually(lambda: visits(host) > before)
    finally:
        done.set()
        for visitor in visitors:
            visitor.join()
    assert set(seen) == {200}


def test_a_push_that_one_machine_refuses_is_seen_and_put_right(
    machines: Tuple[HostMachine, HostMachine]
) -> None:
    one, two = machines
    live = "runuser -u blog -- git -C /var/www/blog/blog.git rev-parse refs/flaskflex/live"
    two.as_user("blog", "echo own >blog/application/new.txt")
    (one.root / "home/student/blog/application/new.txt").write_text("pushed")
    out = one.push("blog", status=1)
    assert "application/new.txt" in out
    assert "failed to push some refs to 'ssh://two.example.org" in out.replace("blog@", "")
    assert one.run(live) != two.run(live)
    two.as_user("blog", "mv blog/application/new.txt blog/application/new.txt.old")
    out = one.push("blog")
    assert "Everything up-to-date" in out
    assert one.run(live) == two.run(live)
    for host in machines:
        assert host.run("cat /var/www/blog/blog/application/new.txt") == "pushed"
