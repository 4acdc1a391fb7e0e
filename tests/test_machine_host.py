"""A machine of one's own: each project has a user, a site and perhaps a database."""
from __future__ import annotations

import re
import shlex
from typing import Iterator, List

import pytest
from apache import eventually
from conftest import Environ
from machine_host import (
    APPLICATION, FLX, FROM_BYTECODE, KEY, PROGRAM, HostMachine, running_host_machine, start_mariadb,
)

pytestmark = pytest.mark.once


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
    assert host.ask("blog.example.org", method="POST", body=bytes(5 << 20)) == (200, f"{uid} {5 << 20} "
                                                                                     f"Hello!")
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
    "a group that comes with power": ("docker --domain a.example.org", "already"),
    "a user whose home is like a project's": ("ops --domain a.example.org", "already"),
    "an archive that is not there":
        ("a --domain a.example.org --restore /nothing.tar.gz", "/nothing.tar.gz"),
    "a database without a MariaDB that runs": ("a --domain a.example.org --database", "mariadb failed"),
    "a folder of somebody's": ("html --domain a.example.org", "/var/www/html"),
    "no project, for a key": ("nothing --key /home/student/.ssh/id_ed25519.pub", "--domain"),
    "no project, to remove": ("nothing --remove", "no project nothing"),
    "a domain with a space": ("a --domain 'a b'", "not a domain"),
    "a domain with a line break": ("a --domain 'a.example.org\nNonsense'", "not a domain"),
    "a domain with a slash": ("a --domain http://a.example.org", "not a domain"),
    "another project's domain":
        ("a --domain a.example.org --domain taken.example.org", "flaskflex-taken.conf"),
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
                printf %.60s "$key" >half.pub; useradd -m -d /var/www/ops ops""")
    return host


@pytest.fixture(scope="module")
def untouched(taken: HostMachine) -> str:
    """What state() returns before the first refusal."""
    return state(taken)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(
    case: str, taken: HostMachine, untouched: str
) -> None:
    args, reason = REFUSED[case]
    out = taken.run(f"{FROM_BYTECODE} host {args}", status=1)
    assert reason in out and "flaskflex: error: " in out and "Traceback" not in out, out
    assert state(taken) == untouched


def test_without_root_or_a_package_or_debian_it_says_so(taken: HostMachine) -> None:
    taken.run("install -m 644 /root/flaskflex.py /srv/flaskflex.py")
    out = taken.as_user("student", "python3 /srv/flaskflex.py host blog --domain a.example.org", status=1)
    assert "sudo python3 /srv/flaskflex.py host blog --domain a.example.org" in out
    assert taken.as_user("student", "mkdir own; cd own; python3 /srv/flaskflex.py host; "
                                    "python3 /srv/flaskflex.py "
                                    "host blog; ls").endswith("blog\nblog.git\n")
    out = taken.run("python3 - host blog --domain a.example.org </root/flaskflex.py", status=1)
    assert "Download it, and type: python3 flaskflex.py host blog --domain a.example.org\n" in out
    taken.run("cp /var/lib/dpkg/status /tmp; sed -i '/^Package: \\(git\\|apache2\\|logrotate\\)$/,/^Status/ "
              "s/install ok installed/deinstall ok config-files/' /var/lib/dpkg/status")
    out = taken.host("blog", "--domain", "a.example.org", status=1)
    taken.run("cp /tmp/status /var/lib/dpkg/status")
    assert "Type: sudo apt-get install --yes git apache2 logrotate\n" in out


def test_as_root_without_domain_a_folder_takes_the_pushes(taken: HostMachine) -> None:
    assert "/tmp/folder/own" in taken.run(f"mkdir /tmp/folder; cd /tmp/folder; {PROGRAM} host own")
    assert "/tmp/folder/blog" in taken.run(f"{PROGRAM} -C /tmp/folder host blog")


def test_the_name_of_a_project_of_the_machine_is_that_of_no_other_one(host: HostMachine) -> None:
    said = host.add("known")
    assert host.run(f"cd /tmp; {PROGRAM} host known") == said
    assert host.run("ls -d /tmp/known* 2>/dev/null || true") == ""


def test_roots_demo_stays_in_its_folder_whatever_projects_the_machine_has(host: HostMachine) -> None:
    host.add("yourprojectname")
    out = host.run(f"GIT_ALLOW_PROTOCOL=none {PROGRAM} demo /tmp/demo", status=1)  # that is far enough
    assert "Repository  /tmp/demo/host/yourprojectname.git\n" in out and "transport 'file' not" in out


def keys(host: HostMachine, name: str) -> List[str]:
    return host.run(f"cat /var/www/{name}/.ssh/authorized_keys").split("\n")[:-1]


def test_keys_are_added_once_each_and_taken_away(host: HostMachine) -> None:
    host.add("keyed")
    student = host.run("cat /home/student/.ssh/id_ed25519.pub").strip()
    assert keys(host, "keyed") == [f"restrict,pty {student}"]
    own = f'from="127.0.0.1" {student.split()[0]} AAAAown no\x0cline\u2028ends\x85here own'
    host.as_user("keyed", f"echo '# mine' >>.ssh/authorized_keys; "
                          f"echo {shlex.quote(own)} >>.ssh/authorized_keys")
    host.run("cd /tmp; rm -f one two; for key in one two; "
             "do ssh-keygen -q -t ecdsa -N '' -C $key -f $key; done; "
             "printf '# the class\\r\\n\\r\\n' >class.pub; cat one.pub two.pub one.pub >>class.pub")
    url = "https://keyed.example.org/start"
    host.add("keyed", "--url", url)
    for _ in "twice":
        said = host.host("keyed", "--domain", "keyed.example.org", "--key", "/tmp/class.pub", "--key", KEY)
        assert "4 (more" in said
        assert [line.split()[-1] for line in keys(host, "keyed")] == [
            "student@home", "mine", "own", "one", "two"]
    assert host.as_user("keyed", "git -C keyed.git config flaskflex.url") == f"{url}\n"
    ssh = "ssh keyed@keyed.example.org id -un"
    assert host.as_user("student", ssh) == "keyed\n"
    assert host.as_user("student", "ssh -o ExitOnForwardFailure=yes -R 0:127.0.0.1:22 "
                                   "keyed@keyed.example.org true "
                                   "2>&1 || echo refused").endswith("refused\n")
    for _ in "twice":
        host.host("keyed", "--revoke", "/tmp/one.pub", "--revoke", "/home/student/.ssh/id_ed25519.pub")
        assert [line.split()[-1] for line in keys(host, "keyed")] == ["mine", "own", "two"]
    assert "Permission denied" in host.as_user("student", ssh, status=255)
    assert host.run("stat -c '%U %a' /var/www/keyed/.ssh /var/www/keyed/.ssh/authorized_keys") == (
        "keyed 700\nkeyed 600\n")


def test_keys_that_cannot_be_read_whole_are_not_replaced(host: HostMachine) -> None:
    host.add("many")
    host.run("cd /tmp; rm -f other; ssh-keygen -q -t ecdsa -N '' -f other")
    for harm in ("yes '# many' | head -c 1100000 >>.ssh/authorized_keys", "chmod 0 .ssh/authorized_keys"):
        host.as_user("many", harm)
        before = host.run("sha256sum /var/www/many/.ssh/authorized_keys")
        assert "authorized_keys" in host.host("many", "--key", "/tmp/other.pub", status=1)
        assert host.run("sha256sum /var/www/many/.ssh/authorized_keys") == before


def test_two_commands_at_once_make_two_projects(host: HostMachine) -> None:
    host.run("cd /root; for name in twin-a twin-b twin-c; do "
             f"{PROGRAM} host $name --domain $name.example.org >/tmp/$name.out 2>&1 & done; wait; "
             f"cat /tmp/twin-?.out")
    for name in ("twin-a", "twin-b", "twin-c"):
        assert host.ask(f"{name}.example.org").status == 503


def reloads(host: HostMachine) -> int:
    """Return how often Apache has read its files again."""
    return host.run("cat /var/log/apache2/error.log").count("SIGUSR1 received")


def test_apache_is_reloaded_once_for_a_project_and_for_a_push_never(host: HostMachine) -> None:
    before = reloads(host)
    host.add("reloaded")
    assert eventually(lambda: reloads(host) == before + 1)
    host.clone("reloaded")
    host.push("reloaded")
    host.add("reloaded")
    host.host("reloaded", "--key", "/tmp/home/../../home/student/.ssh/id_ed25519.pub")
    assert host.ask("reloaded.example.org").status == 200
    assert reloads(host) == before + 1


def test_a_site_answers_at_its_domains_only_and_what_was_edited_stays(host: HostMachine) -> None:
    host.add("named")
    site = host.root / "etc/apache2/sites-available/flaskflex-named.conf"
    site.write_text(site.read_text().replace("FcgidIdleTimeout 300", "FcgidIdleTimeout 60"))
    domains = ["www.named.example", "named.example", "xn--nmed-0ra.example"]
    host.host("named", *(f"--domain={domain}" for domain in domains))
    waits = (503, "This site waits for its first git push.\n")
    nobody = (404, "There is no site of this name here.\n")
    for domain in domains:
        assert eventually(lambda: host.ask(domain) == waits)
    for domain in ("named.example.org", "unknown.example", host.address, "machine.invalid"):
        assert eventually(lambda: host.ask(domain) == nobody)
    assert "FcgidIdleTimeout 60" in site.read_text()
    assert host.host("named", "--key", "/home/student/.ssh/id_ed25519.pub").count("xn--nmed-0ra.example") == 1


def test_names_in_a_site_that_its_owner_has_edited_count_and_stay(host: HostMachine) -> None:
    host.add("edited")
    site = host.root / "etc/apache2/sites-available/flaskflex-edited.conf"
    own = "\tservername edited.example.org\n\tServerAlias WWW.edited.example *.edited.example\n"
    listen = f"# für alle\nListen {host.address}:8081\n"
    text = listen + site.read_text().replace("    ServerName edited.example.org\n", own)
    site.write_text(text, encoding="latin-1")
    host.run("apache2ctl graceful")
    out = host.host("edited", "--key", "/home/student/.ssh/id_ed25519.pub")
    assert "edited.example.org/, http://WWW.edited.example/, http://*.edited.example/\n" in out
    assert own in site.read_text(encoding="latin-1")
    host.host("edited", "--domain", "edited.example.org", "--domain", "www.edited.example")
    assert own in site.read_text(encoding="latin-1")
    assert "flaskflex-edited.conf" in host.host("other", "--domain", "www.edited.example", status=1)
    host.host("edited", "--domain", "new.example")
    text = site.read_text(encoding="latin-1")
    assert re.findall("(?i)server(?:name|alias).*", text) == ["ServerName new.example"]
    assert text.startswith(listen)


def test_a_site_that_apache_refuses_is_taken_back_and_all_others_go_on(host: HostMachine) -> None:
    host.add("good")
    before = host.run("cd /etc/apache2; ls -l sites-*; cat sites-available/*")
    broken = PROGRAM.replace("flaskflex.py", "broken.py")
    host.run("cd /root; sed 's/^    MergeSlashes Off/    Nonsense On/' flaskflex.py >broken.py")
    out = host.run(f"cd /root; {broken} host bad --domain bad.example.org", status=1)
    assert "Nonsense" in out and "flaskflex: error" in out
    assert "of /etc/apache2/sites-available/flaskflex-bad.conf" in out and "/tmp" not in out
    assert host.run("cd /etc/apache2; ls -l sites-*; cat sites-available/*") == before
    host.run("apache2ctl graceful")
    assert host.ask("good.example.org").status == 503
    assert "no project bad has a site" in host.host("bad", "--key", "/tmp/one.pub", status=1)
    host.add("bad")
    assert host.ask("bad.example.org").status == 503


def test_what_is_wrong_with_apache_already_is_said_and_nothing_is_changed(host: HostMachine) -> None:
    host.run("echo Nonsense >/etc/apache2/conf-enabled/wrong.conf")
    before = state(host)
    out = host.host("late", "--domain", "late.example.org", status=1)
    assert "wrong.conf" in out
    assert state(host) == before
    host.run("rm /etc/apache2/conf-enabled/wrong.conf")
    host.run("a2enmod -q proxy_http")
    out = host.host("late", "--domain", "late.example.org", status=1)
    host.run(re.search("(?m)sudo (a2dismod .*)$", out)[1])  # type: ignore[index]
    assert "proxy" not in host.run("ls /etc/apache2/mods-enabled")


def test_a_host_name_that_debians_own_site_has_is_not_lost_to_it(host: HostMachine) -> None:
    host.run("a2ensite -q 000-default; apache2ctl graceful")
    assert eventually(lambda: "Debian" in host.ask("unknown.example").text)
    out = host.host("own", "--domain", "machine.invalid", status=1)
    assert "000-default.conf" in out and "a2dissite" in out
    host.run("a2dissite -q 000-default")
    host.host("own", "--domain", "machine.invalid")
    host.run("apache2ctl graceful")
    assert eventually(lambda: host.ask("machine.invalid").status == 503)


def test_the_application_sees_the_path_as_it_was_asked_for(host: HostMachine) -> None:
    host.add("paths")
    host.clone("paths")
    host.push("paths")
    for asked, seen in (("a%2Fb", "a/b"), ("a%252Fb", "a%2Fb"), ("a//b", "a//b"), ("a%20b", "a b")):
        assert host.ask("paths.example.org", f"/path/{asked}").text == seen


def test_what_a_link_in_public_html_leads_to_is_served_and_all_else_is_closed(host: HostMachine) -> None:
    host.add("linked")
    host.clone("linked")
    clone = host.root / "home/student/linked"
    host.push("linked")
    (clone / "static").mkdir()
    (clone / "static" / "a.txt").write_text("a file")
    host.push("linked")
    (clone / "public_html" / "static").symlink_to("../static")
    host.push("linked")
    assert host.ask("linked.example.org", "/static/a.txt").text == "a file"
    modes = host.run("cd /var/www/linked/linked; stat -c '%n %a' . .flx .venv application static public_html")
    assert modes == ". 711\n.flx 600\n.venv 700\napplication 700\nstatic 755\npublic_html 755\n"


def test_logs_can_be_read_after_rotation_too_and_not_be_written_or_moved(host: HostMachine) -> None:
    host.add("logged")
    host.clone("logged")
    (host.root / "home/student/logged/application/app.py").write_text(
        APPLICATION + "\n\n@app.route('/fail')\ndef fail():\n    raise RuntimeError('for the log')\n")
    host.push("logged")
    assert host.ask("logged.example.org", "/fail?one").status == 500

    def log(name: str) -> str:
        return host.as_user("student", f"ssh logged@logged.example.org cat log/{name}")

    assert "RuntimeError: for the log" in log("error.log")
    assert "/fail?one" in log("access.log")
    host.as_user("logged", "cd logged; cp application/app.py kept; echo 1 / 0 >application/app.py; "
                           "touch public_html/dispatch.fcgi")
    assert eventually(lambda: host.ask("logged.example.org").status == 500)
    host.as_user("logged", "cd logged; mv kept application/app.py")
    assert "ZeroDivisionError: division by zero" in log("error.log")
    host.run("logrotate --force /etc/logrotate.d/flaskflex")
    # For a moment, processes that write to the old file may still answer.
    assert eventually(lambda: host.ask("logged.example.org", "/fail?two").status == 500
                      and "/fail?two" in log("access.log"))
    assert "/fail?two" not in log("access.log.1") and "/fail?one" in log("access.log.1")
    host.run("logrotate --force /etc/logrotate.d/flaskflex")
    assert "/fail?one" in host.as_user("logged", "zcat log/access.log.2.gz")
    for attack in ("echo x >>log/error.log", "rm log/error.log", "mv log/error.log log/old",
                   "ln -s /etc/passwd log/x", "mv /var/log/flaskflex/logged /var/log/flaskflex/x"):
        host.as_user("logged", f"{attack} 2>&1 && exit 9 || exit 3", status=3)
    host.as_user("logged", "rm log; ln -s /etc log; touch mine")
    host.add("logged")
    host.run("apache2ctl graceful")
    assert eventually(lambda: host.ask("logged.example.org", "/fail?three").status == 500)
    assert eventually(lambda: "three" in host.run("cat /var/log/flaskflex/logged/access.log"))
    assert "access.log" not in host.run("ls /etc")


# --- the database ---


@pytest.fixture(scope="module")
def mariadb(host: HostMachine) -> HostMachine:
    """The machine with its MariaDB running."""
    start_mariadb(host)
    return host


def test_a_database_is_the_projects_own_and_its_variables_reach_replace(mariadb: HostMachine) -> None:
    host = mariadb
    host.add("stored", "--database")
    host.add("other", "--database")
    host.clone("stored")
    clone = host.root / "home/student/stored"
    (clone / "application/settings.txt").write_text("@H@ @U@ @P@")
    (clone / ".flx").write_text("[replace]\n" + "".join(
        f"application/settings.txt @{name[0]}@ DB_{name}\n" for name in ("HOST", "USER")
    ) + "application/settings.txt @P@ DB_PASSWORD\n" + FLX)
    host.push("stored")
    settings = host.run("cat /var/www/stored/stored/application/settings.txt")
    where, user, password = settings.split()
    assert (where, user) == ("localhost", "stored")
    assert re.fullmatch("[a-zA-Z0-9_-]{32}", password)
    sql = f"MYSQL_PWD={password} mariadb -h localhost -u stored"
    host.as_user("stored", f"{sql} stored -e 'CREATE TABLE t (x TEXT); INSERT INTO t VALUES (\"ü\")'")
    host.add("stored", "--database")
    assert host.as_user("stored", f"{sql} -N stored -e 'SELECT x FROM t; SHOW DATABASES'") == (
        "ü\ninformation_schema\nstored\n")
    host.as_user("other", "mariadb stored 2>&1 && exit 9 || exit 3", status=3)
    host.as_user("other", f"{sql.replace('stored', 'root')} 2>&1 && exit 9 || exit 3", status=3)
    variables = "/var/www/stored/stored.git/flaskflex/variables"
    assert host.run(f"stat -c '%U %a' {variables} /var/www/stored/stored.git") == "stored 600\nstored 700\n"


@pytest.mark.parametrize("foreign", ["CREATE DATABASE `{name}`", "CREATE USER '{name}'@'localhost'"])
def test_a_database_or_a_user_of_somebody_elses_is_left_alone(foreign: str, mariadb: HostMachine) -> None:
    name = foreign.split()[1].lower()
    mariadb.run(f"mariadb -e {shlex.quote(foreign.format(name=f'foreign-{name}'))}")
    mariadb.name(f"foreign-{name}.example.org")
    out = mariadb.host(f"foreign-{name}", "--domain", f"foreign-{name}.example.org", "--database", status=1)
    assert f"foreign-{name}, which flaskflex host did not make" in out
    assert "foreign" not in mariadb.run("mariadb -N -e 'SELECT User, Db FROM mysql.db'")


# --- the list, and the end of a project ---


def test_the_list_tells_domains_what_is_live_size_and_processes(host: HostMachine) -> None:
    host.add("listed")
    fresh = ("listed      listed.example.org\n            nothing is live yet\n"
             "            http://listed.example.org/, size: ")
    assert fresh in host.host()
    host.clone("listed")
    host.push("listed")
    host.as_user("listed", "sleep 1000 >/dev/null 2>&1 &")
    host.run("while :; do /bin/true; done >/dev/null 2>&1 & echo $! >/tmp/busy")  # processes come and go
    out = host.host()
    host.run("kill $(cat /tmp/busy)")
    listed = re.search(r"(?m)^listed +listed.example.org\n( .*\n)+", out)
    assert listed
    assert re.search(r"(?m)^ +[0-9a-f]{7} The application \(.* ago\)$", listed[0])
    assert re.search(r"(?m)^ +last push: Live", listed[0])
    assert re.search(r"(?m)^ +http://listed.example.org/, size: [0-9.]+M\n +processes: [1-9]", listed[0])
    assert "is hosted in /tmp" in host.run(f"{PROGRAM} host -C /tmp")  # and not the machine's


def test_a_removed_project_is_gone_and_comes_back_as_it_was_from_its_archive(mariadb: HostMachine) -> None:
    host = mariadb
    host.add("gone-2")
    host.clone("gone-2")
    host.push("gone-2")
    host.add("gone", "--database")
    host.clone("gone")
    host.push("gone")
    page = host.ask("gone.example.org").text
    host.as_user("gone", "echo visitors >gone/todo.db; mkfifo gone/fifo; ln -s /etc/shadow gone/link; "
                         "chmod 0 gone/todo.db; touch /tmp/left; (sleep 1000; touch back) >/dev/null 2>&1 &")
    host.run("mariadb gone -e 'CREATE TABLE t (x INT); INSERT INTO t VALUES (42)'")
    host.run("cd /etc/apache2/sites-available; sed -i 's/FcgidIdleTimeout 300/FcgidIdleTimeout 301/; "
             "s/ServerName .*/&\\n    ServerAlias *.gone.example.org/' flaskflex-gone.conf; "
             "mkdir -p /var/spool/cron/crontabs; "
             "echo '1 1 * * * true' >/var/spool/cron/crontabs/gone; "
             "chmod 666 /var/www/gone/gone/public_html/.htaccess")
    site = host.run("cat /etc/apache2/sites-enabled/flaskflex-gone.conf")
    assert "FcgidIdleTimeout 301\n" in site and "    ServerAlias *.gone.example.org\n" in site
    user = int(host.run("id -u gone"))
    assert host.ask("gone.example.org", "/?long-ago").status == 200
    variables = host.run("cat /var/www/gone/gone.git/flaskflex/variables")
    live = host.run("runuser -u gone -- git -C /var/www/gone/gone.git rev-parse refs/flaskflex/live")
    out = host.host("gone", "--remove")
    assert host.ask("gone.example.org").status == 404
    places = "/var/www /etc/apache2/sites-available /etc/apache2/sites-enabled /var/log/flaskflex"
    assert host.run(f"ls {places} | grep -E '^(flaskflex-)?gone(.conf)?$' || true; ! id gone 2>/dev/null; "
                    "find /tmp /var /etc -xdev '(' -nouser -o -nogroup ')' 2>/dev/null || true") == ""
    assert "gone" not in host.run("mariadb -N -e 'SHOW DATABASES; SELECT User FROM mysql.user'")
    assert host.ask("gone-2.example.org").status == 200
    archive, = re.findall(r"/var/backups/flaskflex/gone-[0-9-]+\.tar\.gz$", out, re.MULTILINE)[:1]
    assert host.run(f"stat -c '%U %a' {archive.rpartition('/')[0]}") == "root 700\n"
    restore, = re.findall("^Restore +sudo (.*)$", out, re.MULTILINE)
    assert "only with --database" in host.run(f"cd /root; {restore.replace(' --database ', ' ')}", status=1)
    assert host.run("! id gone 2>&1")  # nothing is begun that would lack the database
    host.run(f"cd /root; {restore}")
    assert eventually(lambda: host.ask("gone.example.org").status == 200)
    assert host.ask("gone.example.org").text[4:] == page[4:]
    assert host.run("cd /var/www/gone/gone; cat todo.db; readlink link") == "visitors\n/etc/shadow\n"
    assert host.run("cat /var/www/gone/gone.git/flaskflex/variables") == variables
    assert host.run("mariadb -N gone -e 'SELECT x FROM t'") == "42\n"
    assert int(host.run("id -u gone")) > user  # nobody becomes the owner of what a removed one has left
    assert host.run("cat /etc/apache2/sites-enabled/flaskflex-gone.conf") == site
    assert host.run("cat /var/spool/cron/crontabs/gone; cd /var/www/gone/gone; "
                    "stat -c %a public_html/.htaccess") == (
        "1 1 * * * true\n666\n")
    assert "/?long-ago" in host.run("cat /var/log/flaskflex/gone/access.log")
    assert host.run("runuser -u gone -- git -C /var/www/gone/gone.git rev-parse refs/flaskflex/live") == live
    (host.root / "home/student/gone/more").write_text("more")
    assert "Live" in host.push("gone")
    assert "is there already" in host.run(f"cd /root; {restore}", status=1)
    archive, = re.findall("--restore=(.*)$", host.host("gone-2", "--remove"), re.MULTILINE)
    assert "holds no database" in host.host("gone-2", "--domain=gone-2.example.org", "--database",
                                            f"--restore={archive}", status=1)


def test_a_project_can_be_restored_for_another_domain(mariadb: HostMachine) -> None:
    host = mariadb  # which is asked for a database of the project
    host.add("moved")
    archive, = re.findall("--restore=(.*)$", host.host("moved", "--remove"), re.MULTILINE)
    out = host.host("moved", "--domain", "again.example.org", "--restore", archive)
    assert re.search("^Site +http://again.example.org/$", out, re.MULTILINE)
    site = host.run("cat /etc/apache2/sites-enabled/flaskflex-moved.conf")
    assert re.findall("Server(?:Name|Alias) .*", site) == ["ServerName again.example.org"]


# MariaDB's client, which reads a dump, and its server do not see the same end of this text.
TWO_MEANINGS = (
    b"DELIMITER //\nCREATE PROCEDURE p() SELECT '\xbf\\' # ' ;; /*\n, \"*/ GRANT ALL PRIVILEGES ON *.* TO "
    b"mean@localhost WITH GRANT OPTION ;; /* \" # */\n//\n")


def test_a_database_that_is_restored_runs_nothing_as_root(mariadb: HostMachine) -> None:
    host = mariadb
    host.add("mean", "--database")
    (host.root / "var/www/mean/routine.sql").write_bytes(TWO_MEANINGS)
    host.as_user("mean", "MYSQL_PWD=$(sed -n s/^DB_PASSWORD=//p mean.git/flaskflex/variables) "
                         "mariadb --comments --default-character-set=gbk mean <routine.sql")
    restore, = re.findall("^Restore +sudo (.*)$", host.host("mean", "--remove"), re.MULTILINE)
    host.run(f"cd /root; {restore} || true")
    assert "ALL PRIVILEGES ON *.*" not in host.run("mariadb -e 'SHOW GRANTS FOR mean@localhost'")


def test_a_removal_that_was_cut_off_can_be_finished(mariadb: HostMachine) -> None:
    host = mariadb  # which is asked for a database of the project
    host.add("cut")
    host.add("cut-later")
    host.run("rm -rf /var/www/cut; mkdir -p /var/www/.cut.flaskflex-removed/half")
    assert re.search("(?m)^cut-later  ", host.host())
    host.host("cut", "--remove")
    assert "cut " not in host.host() and ".cut." not in host.run("ls -A /var/www")


def test_a_project_whose_home_is_gone_leaves_its_database_in_an_archive(mariadb: HostMachine) -> None:
    mariadb.add("homeless")
    earlier, = re.findall("--restore=(.*)$", mariadb.host("homeless", "--remove"), re.MULTILINE)
    mariadb.run("sleep 1")  # an archive has the time in its name, by seconds
    mariadb.host("homeless", "--domain", "homeless.example.org", "--database")
    mariadb.run("mariadb homeless -e 'CREATE TABLE t (x INT)'; rm -rf /var/www/homeless")
    out = mariadb.host("homeless", "--remove")
    archive, = re.findall("all that it had is in (.*)$", out, re.MULTILINE)
    assert archive != earlier and re.search(f"^Its home .*{earlier}", out, re.MULTILINE)
    restore, = re.findall("^Restore +sudo (.*)$", out, re.MULTILINE)
    assert "CREATE TABLE `t`" in mariadb.run(f"tar -xOPzf {archive} /var/backups/flaskflex/homeless.sql")
    assert "homeless" not in mariadb.run("mariadb -N -e 'SHOW DATABASES'")
    mariadb.run(f"cd /root; {restore}")  # the earlier one, which had no database
    mariadb.run(f"rm -rf /var/www/homeless {earlier}")
    out = mariadb.host("homeless", "--remove")
    assert re.search("^Its home .*no archive has it$", out, re.MULTILINE) and "Restore" not in out


def test_a_first_push_that_fails_keeps_what_the_projects_user_may_not_read(host: HostMachine) -> None:
    host.add("first")
    host.clone("first")
    host.run("install -m 600 /root/flaskflex.py /var/www/first/first/.env")
    host.as_user("student", "printf '[deploy]\\nfalse\\n' >first/.flx")
    assert "cannot be copied" in host.push("first", status=1)
    host.run("cmp /root/flaskflex.py /var/www/first/first/.env")
    host.run("chown first: /var/www/first/first/.env; chmod 400 /var/www/first/first/.env")  # nor write
    assert "false: ended with 1" in host.push("first", status=1)
    host.run("cmp /root/flaskflex.py /var/www/first/first/.env")
    host.as_user("student", f"printf %s {shlex.quote(FLX)} >first/.flx")
    assert "Live" in host.push("first")


def test_a_push_of_files_that_apaches_user_owns_is_taken_back_whole(host: HostMachine) -> None:
    host.add("mixed")
    host.clone("mixed")
    host.as_user("student", "cd mixed; mkdir public_html/uploads; "
                            "echo 1 | tee one >public_html/uploads/README")
    host.push("mixed")
    host.run("chown www-data /var/www/mixed/mixed/public_html/uploads")
    host.as_user("student", "cd mixed; rm one; mkdir public_html/uploads/new; "
                            "echo 2 >public_html/uploads/new/2")
    out = host.push("mixed")
    assert "not ours to write to" in out and re.search("Served +[0-9a-f]{7} ", out)
    assert host.run("cd /var/www/mixed; cat mixed/one mixed/public_html/uploads/*") == "1\n1\n"
    refs = host.as_user("mixed", "git -C mixed.git rev-parse main refs/flaskflex/live").split()
    assert len(refs) == 2 and refs[0] == refs[1]


def test_a_project_that_cannot_be_archived_stays_and_serves(mariadb: HostMachine) -> None:
    host = mariadb  # which is asked for a database of the project
    host.add("kept")
    host.clone("kept")
    host.push("kept")
    host.run("mount -t tmpfs -o size=100k tmpfs /var/backups/flaskflex; chmod 700 /var/backups/flaskflex")
    out = host.host("kept", "--remove", status=1)
    left = host.run("ls /var/backups/flaskflex; umount /var/backups/flaskflex")
    assert "tar failed" in out and left == ""
    assert eventually(lambda: host.ask("kept.example.org").status == 200)
    (host.root / "home/student/kept/more").write_text("more")
    assert "Live" in host.push("kept")


# --- https ---


def ask_https(host: HostMachine, domain: str) -> str:
    """Return the page that a visitor of a domain gets over https, whatever the certificate."""
    return host.run("python3 -c 'import http.client, ssl, sys\n"
                    "context = ssl._create_unverified_context()\n"
                    "connection = http.client.HTTPSConnection(sys.argv[1], context=context)\n"
                    "connection.request(\"GET\", \"/\")\n"
                    f"print(connection.getresponse().read().decode(), end=\"\")' {domain}")


def test_certbot_makes_an_https_site_of_a_projects_site_that_further_commands_keep(
    mariadb: HostMachine
) -> None:
    """Without Let's Encrypt: certbot installs a certificate that it did not get there."""
    host = mariadb  # which is asked for a database of the project
    if host.run("test -e /usr/bin/certbot -a -e /usr/sbin/make-ssl-cert || echo missing"):
        pytest.skip("certbot is not installed (Debian's packages python3-certbot-apache and ssl-cert)")
    host.run("test -e /etc/ssl/certs/ssl-cert-snakeoil.pem || make-ssl-cert generate-default-snakeoil")
    (host.root / "etc/apache2/ports.conf").write_text(
        f"Listen {host.address}:80\n<IfModule ssl_module>\n    Listen {host.address}:443\n</IfModule>\n")
    for name in ("secure", "plain"):
        host.add(name)
    host.clone("secure")
    host.push("secure")
    page = host.ask("secure.example.org").text
    host.run("mkdir /srv/certificate; cd /srv/certificate; "
             "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem "
             "-out cert.pem -days 30 -subj /CN=secure.example.org -addext "
             "subjectAltName=DNS:secure.example.org; "
             "certbot install --apache --non-interactive --redirect -d secure.example.org --key-path key.pem "
             "--cert-path cert.pem --fullchain-path cert.pem; apache2ctl configtest")
    host.name("unknown.example.org")
    for _ in "twice":
        assert eventually(lambda: host.ask("secure.example.org").status == 301)
        assert ask_https(host, "secure.example.org") == page
        assert ask_https(host, "unknown.example.org") == "There is no site of this name here.\n"
        assert ask_https(host, "plain.example.org") == "There is no site of this name here.\n"
        host.add("secure")
    host.host("secure", "--remove")
    assert host.run("ls /etc/apache2/sites-*/ | grep secure || true") == ""
