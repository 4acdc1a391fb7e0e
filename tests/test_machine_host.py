"""A machine of one's own: each project has a user, a site and perhaps a database, and none can harm another."""
from __future__ import annotations

import re
from typing import Iterator

import pytest
from conftest import Environ
from machine_host import HostMachine, running_host_machine


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Iterator[HostMachine]:
    """The machine of this module: each test uses projects of its own."""
    with running_host_machine(tmp_path_factory.mktemp("host") / "machine", session_environ) as host:
        yield host


def test_a_project_is_made_by_one_command_cloned_pushed_and_served_as_its_own_user(host: HostMachine) -> None:
    made = host.add("blog")
    assert "git clone ssh://blog@blog.example.org/~/blog.git" in made
    assert host.ask("blog.example.org") == (503, "This site waits for its first git push.\n")
    host.clone("blog")
    pushed = host.push("blog")
    assert "http://blog.example.org/" in pushed, pushed
    uid = host.run("id -u blog").strip()
    assert host.ask("blog.example.org") == (200, f"{uid} 0 Hello!")
    assert host.ask("blog.example.org", method="POST", body=bytes(5 << 20)) == (200, f"{uid} {5 << 20} Hello!")
    assert re.search(r"^drwx--x--- .* blog +www-data ", host.run("ls -ld /var/www/blog"))
    assert host.add("blog") == made
    assert host.ask("blog.example.org").text == f"{uid} 0 Hello!"
