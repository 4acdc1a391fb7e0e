"""One project attacks another, root and Apache, with all that a project has: nothing of it may succeed.

docs/isolation.rst shows what is tried here, and why it fails.
"""
from __future__ import annotations

import shlex
from typing import Dict, Iterator, Tuple

import pytest
from conftest import SCRIPT, Environ
from machine_host import FROM_BYTECODE, HostMachine, running_host_machine, start_mariadb

pytestmark = pytest.mark.once

SECRET = "the-neighbours-secret"
VICTIM = "/var/www/victim/victim"  # the neighbour's site
PUBLIC = "/var/www/mallory/mallory/public_html"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, session_environ: Environ) -> Iterator[HostMachine]:
    """A machine with two projects that are live: mallory attacks, and victim has secrets everywhere."""
    with running_host_machine(tmp_path_factory.mktemp("host") / "machine", session_environ) as host:
        start_mariadb(host)
        for name in ("victim", "mallory"):
            host.add(name, "--database")
            host.clone(name)
            host.push(name)
        host.as_user("victim", f"echo {SECRET} >victim/.env; echo {SECRET} >victim/todo.db; "
                               f"SECRET={SECRET} sleep 1000 >/dev/null 2>&1 &")
        host.run(f"mariadb victim -e 'CREATE TABLE t (x TEXT); INSERT INTO t VALUES (\"{SECRET}\")'; "
                 f"chmod 644 {VICTIM}/.env; echo {SECRET} >/etc/flaskflex-secret; "
                 f"chmod 600 /etc/flaskflex-secret")
        host.ask("victim.example.org", f"/?{SECRET}")
        host.as_user("mallory", f"cp {PUBLIC}/.htaccess good.htaccess")
        yield host


def victims(host: HostMachine) -> str:
    """Return what the neighbour, root and Apache have, and must have after an attack too."""
    return host.run(
        "find /var/www/victim /etc/apache2 /etc/logrotate.d /var/backups/flaskflex /var/log/flaskflex "
        "-name .venv -prune -o -type d -printf '%p %m %u %g\\n' "
        "-o ! -name '*index*' ! -name '*.log' -printf '%p %m %u %g %s %l\\n' | sort; "
        "cd /var/www; ls; "
        "cat victim/.ssh/authorized_keys victim/victim/.env victim/victim/todo.db /etc/passwd /etc/shadow; "
        "pgrep -u victim sleep")


@pytest.fixture(scope="module")
def untouched(host: HostMachine) -> str:
    """What victims() returns before the first attack."""
    host.ask("victim.example.org")  # its application runs
    return victims(host)


# What mallory's code, shell, hooks and [deploy] lines can do: they are the same user's.
COMMANDS = {
    "list the neighbour's home": "ls /var/www/victim",
    "read a file of the neighbour's": f"cat {VICTIM}/.env",
    "read the neighbour's commits": "git -c safe.directory='*' -C /var/www/victim/victim.git log",
    "read the neighbour's password": "cat /var/www/victim/victim.git/flaskflex/variables",
    "read the neighbour's log": "cat /var/log/flaskflex/victim/access.log",
    "read through a link": f"ln -sf {VICTIM}/.env own; cat own",
    "read through a hard link": f"ln {VICTIM}/.env own2 && cat own2",
    "write a file of the neighbour's": f"echo x >{VICTIM}/todo.db",
    "make a file in the neighbour's site": f"touch {VICTIM}/public_html/new",
    "take the neighbour's home away": "mv /var/www/victim /var/www/other",
    "take a home's place": "rm -rf /var/www/nobody; mkdir /var/www/nobody",
    "let the neighbour's keys in": "cat .ssh/authorized_keys >>/var/www/victim/.ssh/authorized_keys",
    "end the neighbour's processes": "kill -KILL $(pgrep -u victim sleep)",
    "read the environment of the neighbour's processes": "cat /proc/$(pgrep -u victim sleep)/environ",
    "trace the neighbour's processes": "head -c 1 /proc/$(pgrep -u victim sleep)/mem",
    "read the neighbour's database": "mariadb victim -e 'SELECT * FROM t'",
    "read it with the own password": "MYSQL_PWD=$(sed -n s/DB_PASSWORD=//p mallory.git/flaskflex/variables) "
                                     "mariadb victim -e 'SELECT * FROM t'",
    "read files through the database": "MYSQL_PWD=$(sed -n s/DB_PASSWORD=//p "
                                       "mallory.git/flaskflex/variables) "
                                       "mariadb -N mallory -e 'SELECT LOAD_FILE(\"/etc/passwd\") + 0 IS "
                                       "NULL' | grep 0",
    "be the database's root": "mariadb -u root -e 'SELECT * FROM victim.t'",
    "call suexec": f"cd {VICTIM}/public_html; /usr/lib/apache2/suexec victim victim dispatch.fcgi",
    "call suexec from the own site": f"cd {PUBLIC}; /usr/lib/apache2/suexec victim victim dispatch.fcgi",
    "become root": "su -c id </dev/null || sudo -n id",
    "read root's files": "cat /etc/shadow || cat /root/flaskflex.py || cat /etc/flaskflex-secret",
    "read the archives": "ls /var/backups/flaskflex",
    "hold the lock of the machine": "flock -n /var/backups/flaskflex true",
    "change a site": "echo >>/etc/apache2/sites-available/flaskflex-mallory.conf",
    "add a site": "touch /etc/apache2/sites-enabled/x.conf",
    "change the rotation of logs": "echo >>/etc/logrotate.d/flaskflex",
    "write the own log": "echo x >>log/error.log",
    "put a link in the log's place": "ln -sf /etc/shadow log/error.log",
    "move the log's folder": "mv /var/log/flaskflex/mallory /var/log/flaskflex/other",
    "let Apache into the own group": "usermod -aG mallory www-data",
    "talk to the neighbour's application":
        "python3 -c 'import glob, socket\nfor path in glob.glob(\"/var/lib/apache2/fcgid/sock/*\"):\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect(path); print(path)' | grep .",
}


@pytest.mark.parametrize("attack", COMMANDS)
def test_no_command_of_a_project_reaches_another_or_root(
    attack: str, host: HostMachine, untouched: str
) -> None:
    host.ask("victim.example.org")  # its application runs
    out = host.as_user("mallory", f"({COMMANDS[attack]}) 2>&1 && exit 9 || exit 3", status=3)
    assert SECRET not in out
    assert victims(host) == untouched


SEEN = {  # what the neighbour itself reads by the same commands
    "read a file of the neighbour's": SECRET,
    "read the neighbour's commits": "The application",
    "read the neighbour's password": "DB_PASSWORD=",
    "read the neighbour's log": SECRET,
    "read the environment of the neighbour's processes": SECRET,
}


@pytest.mark.parametrize("attack", SEEN)
def test_what_a_command_would_show_is_there(attack: str, host: HostMachine) -> None:
    assert SEEN[attack] in host.as_user("victim", COMMANDS[attack])


# What mallory puts into .htaccess, in front of the usual lines or in their place, and a path to ask for.
HTACCESS: Dict[str, Tuple[str, str]] = {
    "a path rewritten to the neighbour's": (f"RewriteEngine On\nRewriteRule ^x$ {VICTIM}/.env [L]", "/x"),
    "a path above the site": ("RewriteEngine On\nRewriteRule ^x$ ../../../victim/victim/.env [L]", "/x"),
    "a link": ("", "/link.txt"),
    "a link to a folder": ("", "/folder/.env"),
    "a link to a folder, rewritten": ("RewriteEngine On\nRewriteRule ^x$ folder/todo.db [L]", "/x"),
    "a link to root's files": ("", "/passwd.txt"),
    "a link that Options allows": ("Options +FollowSymLinks", "/link.txt"),
    "a listing": ("Options +Indexes", "/folder/"),
    "includes": ("Options +Includes\nSetOutputFilter INCLUDES", "/include.txt"),
    "a file in an expression": (f"SetEnvIfExpr \"file('{VICTIM}/.env') =~ /(.*)/\" HTTP_LEAK=$1", "/"),
    "a file in a condition": (
        f"RewriteEngine On\nRewriteCond expr \"file('{VICTIM}/.env') =~ /(.*)/\"\nRewriteRule ^x$ /%1 "
        f"[R,L]", "/x"),
    "a file in an error": (f"ErrorDocument 404 \"%{{file:{VICTIM}/.env}}\"", "/link.txt"),
    "a file in <If>": (f"<If \"file('{VICTIM}/.env') =~ /secret/\">\nRedirect /x /{SECRET}\n</If>", "/x"),
    "a file that is an error": (f"ErrorDocument 404 {VICTIM}/.env", "/link.txt"),
    "the server's status": ("RewriteEngine Off\nSetHandler server-status", "/"),
    "the server's configuration": ("RewriteEngine Off\nSetHandler server-info", "/"),
    "a status by RewriteRule": ("RewriteEngine On\nRewriteRule ^x$ - [H=server-status,L]", "/x"),
    "a proxy": ("RewriteEngine On\nRewriteRule ^x$ http://victim.example.org/ [P,L]", "/x"),
    "a proxy to a socket": ("SetHandler \"proxy:unix:/run/mysqld/mysqld.sock|http://x\"", "/"),
    "the neighbour's script": (
        f"RewriteEngine Off\nFcgidWrapper {VICTIM}/public_html/dispatch.fcgi .fcgi", "/dispatch.fcgi"),
    "a program of the system's": ("RewriteEngine Off\nFcgidWrapper \"/usr/bin/env\" .fcgi", "/dispatch.fcgi"),
    "a script that is a link": ("RewriteEngine Off", "/link.fcgi"),
    "a map of types": ("RewriteEngine Off\nAddHandler type-map .var", "/map.var"),
    "a password file": (f"AuthType Basic\nAuthName x\nAuthUserFile {VICTIM}/.env\nRequire valid-user", "/"),
    "a filter": ("SetOutputFilter cat", "/"),
    "a wrong word": ("Nonsense On", "/"),
}


@pytest.fixture(scope="module")
def armed(host: HostMachine) -> HostMachine:
    """The machine, with what mallory has put into its public_html."""
    host.as_user("mallory", f"""cd {PUBLIC}
        ln -s {VICTIM}/.env link.txt; ln -s {VICTIM} folder; ln -s /etc/passwd passwd.txt
        ln -s {VICTIM}/public_html/dispatch.fcgi link.fcgi
        echo '<!--#include file="link.txt" --><!--#exec cmd="cat {VICTIM}/.env" -->' >include.txt
        printf 'URI: link.txt\\nContent-Type: text/plain\\n\\nURI: folder/.env\\n' >map.var""")
    return host


@pytest.mark.parametrize("attack", HTACCESS)
def test_no_htaccess_of_a_project_shows_anything_of_a_neighbours(
    attack: str, armed: HostMachine, untouched: str
) -> None:
    text, path = HTACCESS[attack]
    armed.as_user("mallory", f"printf '%s\\n' {shlex.quote(text)} >{PUBLIC}/.htaccess; "
                             f"grep -v '^#' good.htaccess >>{PUBLIC}/.htaccess")
    if "RewriteEngine Off" in text:
        armed.as_user("mallory", f"printf '%s\\n' 'AddHandler fcgid-script .fcgi' 'Options +ExecCGI' "
                                 f"{shlex.quote(text)} >{PUBLIC}/.htaccess")
    answer = armed.ask("mallory.example.org", path)
    assert SECRET not in answer.text and "root:" not in answer.text, answer
    assert f"{armed.run('id -u victim').strip()} 0 Hello!" not in answer.text, answer
    assert answer.status in (200, 400, 401, 403, 404, 500), answer
    assert armed.ask("victim.example.org").status == 200
    assert victims(armed) == untouched


# What mallory makes of public_html and the folders above it, as its user, and a path to ask for.
LINKS = {
    "public_html is a link to the neighbour's site":
        (f"cd mallory; mv public_html kept; ln -s {VICTIM} public_html", "/todo.db"),
    "public_html is a link to root's files":
        ("cd mallory; mv public_html kept; ln -s /etc public_html", "/passwd"),
    "the site is a link to the neighbour's":
        (f"mv mallory kept; mkdir trap; ln -s {VICTIM} trap/public_html; ln -s trap mallory", "/todo.db"),
    "the site is a link to a folder with links":
        ("mv mallory kept; mkdir trap; ln -s /etc trap/public_html; ln -s trap mallory", "/passwd"),
    "public_html is closed to Apache": ("chmod 700 mallory", "/"),
}


@pytest.mark.parametrize("attack", LINKS)
def test_no_link_in_the_place_of_a_folder_leads_apache_elsewhere(attack: str, armed: HostMachine) -> None:
    script, path = LINKS[attack]
    armed.as_user("mallory", script)
    answer = armed.ask("mallory.example.org", path)
    armed.as_user("mallory", "rm -rf trap; test ! -L mallory || rm mallory; "
                             "test ! -d kept || mv kept mallory; cd mallory; "
                             "test ! -L public_html || rm public_html; "
                             "test ! -d kept || mv kept public_html; chmod 755 .")
    assert SECRET not in answer.text and "root:" not in answer.text, answer
    assert answer.status in (403, 404, 500, 503), answer


# What mallory pushes: shell lines in a clone; raw=NAME is a tree that git itself would not make.
PUSHES = {
    "keys": "mkdir .ssh; cat ~/.ssh/id_ed25519.pub >.ssh/authorized_keys; mkdir home; "
            "ln -s ../.. home/up; git add -A",
    "public_html as a link": f"git rm -rq public_html; ln -s {VICTIM} public_html; git add -A",
    "a link to write through": "ln -s ../../.ssh x; git add x; git commit -qm x; "
                               "git push -q origin HEAD:main || true; "
                               "rm x; mkdir x; cp ~/.ssh/id_ed25519.pub x/authorized_keys; git add -A",
    "a submodule": "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),sub; "
                   "printf '[submodule \"sub\"]\\npath = sub\\nurl = ext::touch /tmp/ran-sub\\n' "
                   ">.gitmodules; "
                   "git add .gitmodules",
    "a path with ..": "raw=..",
    "a path in .git": "raw=.git",
}


@pytest.mark.parametrize("attack", PUSHES)
def test_no_pushed_tree_is_written_outside_of_the_site(
    attack: str, armed: HostMachine, untouched: str
) -> None:
    keys = armed.run("cat /var/www/mallory/.ssh/authorized_keys; ls -A /var/www/mallory /var/www")
    script = PUSHES[attack]
    if script.startswith("raw="):
        script = ("tree=$(git rev-parse HEAD^{tree}); python3 -c 'import subprocess, sys\n"
                  "name, tree = sys.argv[1:]\n"
                  "old = subprocess.check_output([\"git\", \"cat-file\", \"tree\", tree])\n"
                  "blob = subprocess.check_output([\"git\", \"hash-object\", \"-w\", \"--stdin\"], "
                  "input=b\"pwned\")\n"
                  "inner = b\"100644 config\\0\" + bytes.fromhex(blob.decode())\n"
                  "write = [\"git\", \"hash-object\", \"-t\", \"tree\", \"-w\", \"--stdin\", "
                  "\"--literally\"]\n"
                  "inner = subprocess.check_output(write, input=inner).decode()\n"
                  "outer = b\"40000 \" + name.encode() + b\"\\0\" + bytes.fromhex(inner) + old\n"
                  "print(subprocess.check_output(write, input=outer).decode())' "
                  f"{script[4:]} $tree >/tmp/tree; tip=$(git commit-tree -p HEAD -m raw $(cat /tmp/tree))")
    out = armed.as_user("student", "cd mallory; git fetch -q; git checkout -q -B main origin/main; "
                                   f"tip=HEAD; {script}; git diff --cached --quiet || git commit -qm x; "
                                   "git push -q origin $tip:main 2>&1 || true; cd ..; rm -rf mallory; "
                                   "git clone -q ssh://mallory@mallory.example.org/~/mallory.git 2>&1")
    assert not script.startswith("tree=") or "Refused" in out, out
    assert armed.run("cat /var/www/mallory/.ssh/authorized_keys; ls -A /var/www/mallory /var/www") == keys
    assert victims(armed) == untouched
    assert "pwned" not in armed.run("cat /var/www/mallory/config /var/www/mallory/mallory.git/config "
                                    "2>/dev/null || true")
    assert armed.run("ls /tmp/ran-sub 2>&1 || true").startswith("ls: cannot")


# What mallory lays out for root's commands. Whatever runs of it writes its user's id to /tmp/ran.
TRAPS = {
    ".ssh is a link to root's": "rm -rf .ssh; ln -s /root/.ssh .ssh",
    "the keys are a link to a file of root's": "mkdir -p .ssh; ln -sf /etc/flaskflex-secret "
                                               ".ssh/authorized_keys",
    "the keys have no end": "rm -rf .ssh; mkdir .ssh; ln -s /dev/zero .ssh/authorized_keys",
    "the variables are a link to a file of root's": "ln -sf /etc/flaskflex-secret "
                                                    "mallory.git/flaskflex/variables",
    "the repository is a link to the neighbour's": "mv mallory.git old.git; ln -s ../victim/victim.git "
                                                   "mallory.git",
    "the script in the repository": "echo 'import os; open(\"/tmp/ran\", \"a\").write(str(os.getuid()))' "
                                    ">mallory.git/flaskflex/flaskflex.py",
    "settings of git's": "git -C mallory.git config core.fsmonitor 'id -u >>/tmp/ran'; "
                         "git -C mallory.git config "
                         "core.pager 'id -u >>/tmp/ran'; "
                         "printf '[alias]\\n log = !id -u >>/tmp/ran\\n' >.gitconfig",
    "a git and a python of its own": "mkdir -p bin .local/bin; for name in bin/git bin/python3 "
                                     ".local/bin/git; do "
                                     "printf '#!/bin/sh\\nid -u >>/tmp/ran\\n' >$name; chmod 755 $name; done",
    "files of the shell's": "for name in .profile .bashrc .bash_profile .bash_logout; do "
                            "echo 'id -u >>/tmp/ran' >$name; done",
    "a pipe in the place of HEAD": "rm mallory.git/HEAD; mkfifo mallory.git/HEAD",
    "a lock that is never released": "flock mallory.git/flaskflex/lock sleep 1000 >/dev/null 2>&1 &",
    "the neighbour's name in a subject": "git -C mallory.git update-ref refs/flaskflex/live $(printf "
                                         "'\\033[2J\\007' | "
                                         "git -C mallory.git -c user.name=x -c user.email=x commit-tree "
                                         "$(git -C mallory.git rev-parse 'main^{tree}'))",
}


@pytest.fixture(scope="module")
def hurried(armed: HostMachine) -> None:
    """Let root wait only a moment for what runs as a project's user."""
    armed.run("sed -i 's/^USER_SECONDS = 60.0/USER_SECONDS = 3.0/' /root/flaskflex.py")
    armed.compile()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("trap", TRAPS)
def test_no_command_of_roots_falls_into_a_trap_in_a_home(
    trap: str, armed: HostMachine, untouched: str
) -> None:
    home = "/var/www/mallory"
    armed.run(f"rm -rf /tmp/home-before; cp -a {home} /tmp/home-before; rm -f /tmp/ran; echo >/tmp/ran; "
              f"chmod 666 /tmp/ran")
    armed.as_user("mallory", TRAPS[trap])
    listed = armed.host()
    armed.run(f"{FROM_BYTECODE} host mallory --key /home/student/.ssh/id_ed25519.pub --database || true")
    after = victims(armed)
    armed.run("pkill -KILL -u mallory || true; "  # what was cut off may still write
              f"rm -rf {home} || {{ sleep 1; rm -rf {home}; }}; mv /tmp/home-before {home}")
    assert after == untouched
    assert armed.run("ls -A /root/.ssh 2>/dev/null || true; cat /etc/flaskflex-secret") == f"{SECRET}\n"
    assert "0" not in armed.run("cat /tmp/ran").split()
    assert "victim.example.org" in listed and "\033" not in listed and "\a" not in listed
    armed.add("mallory")
    assert armed.ask("victim.example.org").status == 200


def test_a_folder_of_a_neighbours_in_tmp_does_not_hold_up_a_push(armed: HostMachine) -> None:
    armed.as_user("mallory", "mkdir -m 755 /tmp/flaskflex-apache-x; "
                             "mkfifo -m 644 /tmp/flaskflex-apache-x/apache.conf")
    out = armed.as_user("student", "cd victim; git commit -q --allow-empty -m more; "
                                   "timeout 30 git push origin HEAD:main")
    assert "Live" in out


def test_a_link_in_the_place_of_htaccess_shows_nothing_of_a_neighbours(armed: HostMachine) -> None:
    """Apache follows it, whoever owns what it leads to, and its error log has the first word of that."""
    armed.run(f"chmod 644 {VICTIM}/.env")
    armed.add("victim")
    armed.as_user("mallory", f"cd {PUBLIC}; mv .htaccess kept; ln -s {VICTIM}/.env .htaccess")
    answer = armed.ask("mallory.example.org")
    armed.as_user("mallory", f"cd {PUBLIC}; mv kept .htaccess")
    assert answer.status == 403
    assert SECRET not in armed.run("cat /var/log/flaskflex/mallory/error.log")
    assert armed.ask("victim.example.org").status == 200


def test_a_project_that_is_removed_takes_nothing_of_others_with_it(armed: HostMachine) -> None:
    armed.as_user("mallory", f"ln -s / everything; ln -s /var/www/victim victim; "
                             f"ln -s {VICTIM}/.env 'a file'; "
                             "(trap '' TERM HUP; while sleep 1; do :; done) >/dev/null 2>&1 & ")
    before = victims(armed).replace("mallory", "")
    armed.host("mallory", "--remove")
    after = victims(armed)
    assert "mallory" not in armed.run("ls /var/www /etc/apache2/sites-enabled; cat /etc/passwd")
    for line in after.splitlines():
        assert "mallory" in line or "/var/backups" in line or line in before, line
    assert armed.ask("victim.example.org").status == 200


def test_the_page_on_isolation_names_every_attack() -> None:
    page = (SCRIPT.parent / "docs" / "isolation.rst").read_text()
    missing = [attack for table in (COMMANDS, HTACCESS, LINKS, PUSHES, TRAPS) for attack in table
               if f"   * - {attack}\n" not in page]
    assert missing == []
