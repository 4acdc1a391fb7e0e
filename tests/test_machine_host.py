"""A machine of one's own: each project has a user, a site and perhaps a database, and none can harm another."""
from __future__ import annotations

import re
import shlex
from typing import Iterator, List

import pytest
from conftest import Environ
from machine_host import PROGRAM, HostMachine, running_host_machine


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


def state(host: HostMachine) -> str:
    """Return all that a command could change on the machine, but logs."""
    return host.run("cat /etc/passwd /etc/group /etc/shadow; find /etc/apache2 /etc/logrotate.d /var/www "
                    "/var/backups/flaskflex -printf '%p %m %u %g %s %T@ %l\\n' 2>/dev/null | sort")


REFUSED = {
    "a capital": ("Blog --domain a.example.org", "not a name"),
    "an underscore": ("a_b --domain a.example.org", "not a name"),
    "a digit in front": ("1a --domain a.example.org", "not a name"),
    "a hyphen at the end": ("a- --domain a.example.org", "not a name"),
    "33 letters": (f"{'a' * 33} --domain a.example.org", "not a name"),
    "a path": ("../a --domain a.example.org", "not a name"),
    "the name of certbot's file": ("blog-le-ssl --domain a.example.org", "not a name"),
    "no name": ("--domain a.example.org", "not a name"),
    "root": ("root --domain a.example.org", "already"),
    "a user of the system": ("www-data --domain a.example.org", "already"),
    "a user of the machine": ("student --domain a.example.org", "already"),
    "a folder of somebody's": ("html --domain a.example.org", "/var/www/html"),
    "no project, for a key": ("nothing --key /home/student/.ssh/id_ed25519.pub", "--domain"),
    "no project, to remove": ("nothing --remove", "no project nothing"),
    "a domain with a space": ("a --domain 'a b'", "not a domain"),
    "a domain with a line break": ("a --domain 'a.example.org\nNonsense'", "not a domain"),
    "a domain with a slash": ("a --domain http://a.example.org", "not a domain"),
    "another project's domain": ("a --domain a.example.org --domain taken.example.org", "flaskflex-taken.conf"),
    "another project's, in capitals": ("a --domain TAKEN.example.org", "flaskflex-taken.conf"),
    "the default site's domain": ("a --domain flaskflex.invalid", "000-flaskflex.conf"),
    "a key file that is not there": ("a --domain a.example.org --key /nothing.pub", "/nothing.pub"),
    "an empty key file": ("a --domain a.example.org --key /dev/null", "public key"),
    "a private key": ("a --domain a.example.org --key /home/student/.ssh/id_ed25519", "private"),
    "a key with an option": ("a --domain a.example.org --key /tmp/option.pub", "public key"),
    "a key with a command": ("a --domain a.example.org --key /tmp/command.pub", "public key"),
    "half a key": ("a --domain a.example.org --key /tmp/half.pub", "public key"),
    "nonsense": ("a --domain a.example.org --key /etc/passwd", "public key"),
}


@pytest.fixture(scope="module")
def taken(host: HostMachine) -> HostMachine:
    """The machine with a project, and with key files that hold what they should not."""
    host.add("taken")
    host.run("""cd /tmp; key=$(cat /home/student/.ssh/id_ed25519.pub)
                echo "no-pty $key" >option.pub; echo "command=\\"touch /tmp/x\\" $key" >command.pub
                printf %.60s "$key" >half.pub""")
    return host


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(case: str, taken: HostMachine) -> None:
    args, reason = REFUSED[case]
    before = state(taken)
    out = taken.run(f"cd /root; {PROGRAM} host {args}", status=1)
    assert reason in out and "flaskflex: error: " in out and "Traceback" not in out, out
    assert state(taken) == before


def test_without_root_or_a_package_or_debian_it_says_so(taken: HostMachine) -> None:
    taken.run("install -m 644 /root/flaskflex.py /srv/flaskflex.py")
    out = taken.as_user("student", "python3 /srv/flaskflex.py host blog --domain a.example.org", status=1)
    assert "sudo python3 /srv/flaskflex.py host blog --domain a.example.org" in out
    assert taken.as_user("student", "mkdir own; cd own; python3 /srv/flaskflex.py host; python3 /srv/flaskflex.py "
                                    "host blog; ls").endswith("blog\nblog.git\n")
    taken.run("cp /var/lib/dpkg/status /tmp; sed -i '/^Package: \\(git\\|apache2\\|logrotate\\)$/,/^Status/ "
              "s/install ok installed/deinstall ok config-files/' /var/lib/dpkg/status")
    out = taken.host("blog", "--domain", "a.example.org", status=1)
    taken.run("cp /tmp/status /var/lib/dpkg/status")
    assert "Type: sudo apt-get install --yes git apache2 logrotate\n" in out


def test_as_root_without_domain_a_folder_takes_the_pushes(taken: HostMachine) -> None:
    assert "/tmp/folder/blog" in taken.run(f"mkdir /tmp/folder; cd /tmp/folder; {PROGRAM} host blog")
    assert "/var/www" not in taken.run(f"cd /tmp/folder; {PROGRAM} host blog")


def keys(host: HostMachine, name: str) -> List[str]:
    return host.run(f"cat /var/www/{name}/.ssh/authorized_keys").splitlines()


def test_keys_are_added_once_each_and_taken_away(host: HostMachine) -> None:
    host.add("keyed")
    student = host.run("cat /home/student/.ssh/id_ed25519.pub").strip()
    assert keys(host, "keyed") == [f"restrict,pty {student}"]
    own = f'from="127.0.0.1" {student.split()[0]} AAAAown own'
    host.as_user("keyed", f"echo '# mine' >>.ssh/authorized_keys; echo {shlex.quote(own)} >>.ssh/authorized_keys")
    host.run("cd /tmp; rm -f one two; for key in one two; do ssh-keygen -q -t ecdsa -N '' -C $key -f $key; done; "
             "printf '# the class\\r\\n\\r\\n' >class.pub; cat one.pub two.pub one.pub >>class.pub")
    for _ in "twice":
        said = host.host("keyed", "--key", "/tmp/class.pub", "--key", "/home/student/.ssh/id_ed25519.pub")
        assert "4 (more" in said
        assert [line.split()[-1] for line in keys(host, "keyed")] == ["student@home", "mine", "own", "one", "two"]
    ssh = "ssh keyed@keyed.example.org id -un"
    assert host.as_user("student", ssh) == "keyed\n"
    assert host.as_user("student", "ssh -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 keyed@keyed.example.org true "
                                   "2>&1 || echo refused").endswith("refused\n")
    for _ in "twice":
        host.host("keyed", "--revoke", "/tmp/one.pub", "--revoke", "/home/student/.ssh/id_ed25519.pub")
        assert [line.split()[-1] for line in keys(host, "keyed")] == ["mine", "own", "two"]
    assert "Permission denied" in host.as_user("student", ssh, status=255)
    assert host.run("stat -c '%U %a' /var/www/keyed/.ssh /var/www/keyed/.ssh/authorized_keys") == (
        "keyed 700\nkeyed 600\n")


def test_two_commands_at_once_make_two_projects(host: HostMachine) -> None:
    host.run("cd /root; for name in twin-a twin-b twin-c; do "
             f"{PROGRAM} host $name --domain $name.example.org >/tmp/$name.out 2>&1 & done; wait; cat /tmp/twin-?.out")
    for name in ("twin-a", "twin-b", "twin-c"):
        assert host.ask(f"{name}.example.org").status == 503
