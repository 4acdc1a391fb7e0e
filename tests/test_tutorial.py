"""The README's tutorial, literally: each command, in its order, against a host that one command made.

The user is an ordinary one. Nothing is replaced: example.org is a server of the machine's own, with a
certificate that the machine trusts, and the question of ssh, which the README announces, is answered.
"""
from __future__ import annotations

import re
import shlex
from typing import Iterator

import pytest
from conftest import SCRIPT, Environ
from helpers import write
from machine_host import HostMachine, running_host_machine
from test_readme import blocks, section

pytestmark = pytest.mark.once

NAME = "yourprojectname"
DOMAIN = f"{NAME}.example.org"
TUTORIAL = blocks(section("Tutorial: deploying your application"), ".. code-block:: sh")

SERVE_DOWNLOADS = """\
mkdir /srv/downloads; cp /root/flaskflex.py /srv/downloads; cd /srv/downloads
openssl req -x509 -newkey rsa:2048 -nodes -keyout /root/key.pem -out /root/cert.pem -days 30 \
    -subj /CN=example.org -addext subjectAltName=DNS:example.org
cp /root/cert.pem /usr/local/share/ca-certificates/example.crt
update-ca-certificates >/dev/null
cat >/root/serve.py <<END
import http.server, ssl
server = http.server.HTTPServer(("example.org", 443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/cert.pem", "/root/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
END
python3 /root/serve.py >/tmp/downloads.log 2>&1 </dev/null &
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Iterator[HostMachine]:
    """A machine with a server at https://example.org, and a user who is at the very beginning."""
    folder = tmp_path_factory.mktemp("tutorial") / "machine"
    with running_host_machine(folder, session_environ) as host:
        for domain in ("example.org", DOMAIN):
            host.name(domain)
        host.run(SERVE_DOWNLOADS)
        host.run("useradd -m -s /bin/bash you")
        host.as_user("you", "git config --global init.defaultBranch trunk")  # whatever theirs is called
        write(host.root / "srv/yes", "#!/bin/sh\necho yes\n", mode=0o755)
        yield host


def type_in(host: HostMachine, text: str) -> str:
    """Type lines into the user's bash, which ends at the first that fails; return all that is printed."""
    return host.as_user("you", f"SSH_ASKPASS_REQUIRE=force SSH_ASKPASS=/srv/yes bash -ec {shlex.quote(text)}")


def test_each_command_of_the_tutorial_works_as_it_stands(host: HostMachine) -> None:
    application, key, *further = TUTORIAL
    made = type_in(host, application + key)
    assert made.splitlines()[-1].startswith("ssh-ed25519 ")
    command, = blocks(section("A host in one command"), ".. code-block:: sh")[:1]
    (host.root / "root/id_ed25519.pub").write_text(made.splitlines()[-1] + "\n")
    said = host.run(f'sudo() {{ "$@"; }}\ncd /root\n{command}')
    assert any(f"git clone ssh://{NAME}@{DOMAIN}/~/{NAME}.git" in block for block in further)
    assert f"git clone ssh://{NAME}@{DOMAIN}/~/{NAME}.git" in said
    seen = type_in(host, "\n".join(further))
    assert re.findall("Hello(?:, world| again)!", seen) == ["Hello, world!", "Hello again!"], seen
    assert re.search(r"^ +ok   .*GET / answers 200 OK", seen, re.MULTILINE)
    assert host.ask(DOMAIN).text == "Hello again!"
    lines = host.as_user(NAME, f"cat {NAME}/req.txt").splitlines()
    asked = [line for line in lines if not line.startswith("#")]
    installed = host.as_user(NAME, f"{NAME}/.venv/bin/python -Im pip freeze").splitlines()
    assert sorted(asked) == sorted(installed) and "Flask-Login" in "".join(installed)
    assert "trunk" in host.as_user(NAME, f"git -C {NAME}.git branch")
    assert SCRIPT.read_bytes() == (host.root / "home/you" / NAME / "flaskflex.py").read_bytes()
