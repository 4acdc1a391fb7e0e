"""Hostile input: what a project, its git configuration, and its virtualenv may hold that nobody expects."""
from __future__ import annotations

import os
import shutil
import socket
import stat
import string
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List, Optional, TypeVar

import pytest
from conftest import SCRIPT, Environ, Flaskflex, Git, run
from helpers import (
    add_distribution, assert_prepared, assert_refused, light_virtualenv, load_flaskflex, newer_script,
    site_packages, untouched, write,
)

pytestmark = pytest.mark.oldest

hypothesis = pytest.importorskip("hypothesis")
strategies = pytest.importorskip("hypothesis.strategies")

FLUP = "flup==1.0.3"
flaskflex_module: Any = load_flaskflex()


@pytest.fixture
def active(active: Path) -> Path:
    """There is Flask in the virtualenv."""
    add_distribution(active, "Flask", "3.1.0")
    return active


# --- what stands in the place of a file ---


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # a socket's address is short
        server.bind(path.name)
        os.fchdir(here)
        os.close(here)


def endless_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.stat("/dev/zero").st_rdev)
    except PermissionError:
        pytest.skip("only root can make a device")


@pytest.mark.parametrize("path", ["req.txt", "public_html/dispatch.fcgi"])
@pytest.mark.parametrize("make", [fifo, unix_socket, endless_device])
def test_what_is_no_file_is_neither_read_nor_replaced(
    make: Callable[[Path], None], path: str, project: Path, flaskflex: Flaskflex
) -> None:
    (project / "public_html").mkdir()
    make(project / path)
    with untouched(project):
        assert_refused(flaskflex(), path)
        assert_refused(flaskflex("--dry-run", "--force"), path)


def test_names_with_line_breaks_are_not_taken_for_ours(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    odd = ["req.txt\n", "\n.flx", "public_html/dispatch.fcgi\n100755", "public_html\n/.htaccess", "\x1b[31m"]
    for name in odd:
        write(project / name, "mine\n")
    git("add", "--", *odd)
    git("commit", "-q", "-m", "odd")
    for name in odd:
        write(project / name, "staged\n")
    git("add", "--", *odd)
    staged = git("diff", "--cached", "--raw", "-z")
    assert flaskflex().status == 0
    assert_prepared(project, environ)
    assert git("diff", "--cached", "--raw", "-z") == staged


@pytest.mark.parametrize("branch", ["-f", "--help", "a'b\"c$(x)", "żółć", "refs/heads/main"])
def test_a_branch_may_have_any_name(
    branch: str, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    git("symbolic-ref", "HEAD", f"refs/heads/{branch}")
    result = flaskflex()
    assert result.status == 0 and f"(branch {branch})" in result.out, result
    assert_prepared(project, environ)
    assert git("for-each-ref", "--format=%(refname)") == f"refs/heads/{branch}\n"
    assert "Traceback" not in flaskflex("check", "--timeout=1").err


def test_a_tag_may_be_called_like_the_branch(git: Git, flaskflex: Flaskflex) -> None:
    flaskflex()
    git("tag", "main")
    assert "(branch main)\n" in flaskflex().out


@pytest.mark.parametrize("name", ["-env", "--help", "a b", "żółć", "$(x)", "a\nb"])
def test_a_virtualenv_may_lie_anywhere(
    name: str, project: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    light_virtualenv(project / name, virtualenv)
    add_distribution(project / name, "Flask", "3.1.0")
    assert flaskflex(f"--venv={name}").status == 0
    assert "\nFlask==3.1.0\n" in (project / "req.txt").read_text()
    result = flaskflex(env={**environ, "VIRTUAL_ENV": name})
    assert result.status == 0 and "Nothing" in result.out, result


@pytest.mark.parametrize("message", ["-F/etc/passwd", "--no-verify", "-", "%s$(x)", "Flaskflex-Version: 9.9"])
def test_a_message_is_a_message(message: str, project: Path, git: Git, flaskflex: Flaskflex) -> None:
    refusing = write(project / ".git" / "hooks" / "pre-commit", "#!/bin/sh\nexit 1\n", mode=0o755)
    assert_refused(flaskflex(f"-m{message}"), "git did not commit")
    refusing.unlink()
    assert flaskflex(f"-m{message}").status == 0
    subject, blank, trailer = git("log", "-1", "--format=%B").splitlines()[:3]
    assert (subject, blank) == (message, "") and trailer.startswith("Flaskflex-Template: .flx ")
    # It is found again, under its true version.
    with untouched(project):
        assert flaskflex().status == 0


@pytest.mark.parametrize("own", [False, True], ids=["not flaskflex's", "below the marker"])
@pytest.mark.parametrize("line, count, words", [
    ("# " + "x" * 1021 + "\n", 1025, "at most 1048576 bytes"),
    ("x" * 2001, 1, "longer than 2000 characters"),
], ids=["1 MB and a bit", "2 kB and a bit in a line"])
def test_a_req_txt_that_is_too_long_is_refused(
    line: str, count: int, words: str, own: bool, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    marker = "# --- frozen above; your own lines go below, and stay ---\n" if own else ""
    write(project / "req.txt", marker + line * count)
    with untouched(project):
        result = flaskflex("--no-commit")
        assert_refused(result, words if own or count > 1 else "not flaskflex's")
        assert len(result.err) < 10_000


# Foreign text on which a pattern that looks back would be at work for minutes.
LONG = 100_000
ENDLESS = [
    "a" * LONG, "a-" * LONG, "a+" * LONG, "://" * LONG, ":" * LONG, "a:" * LONG, "(" * LONG, "(a" * LONG,
    "[" * LONG, "a[" * LONG, ";a" * LONG, "&a" * LONG, "a==1," * LONG, "a==1!" * LONG, "a" + " " * LONG + "b",
    "eyJ" * LONG, "ghp_" * LONG, "pypi-" * LONG, "A1a" * LONG, "\\\n" * LONG, "a\\\n" * LONG, "# " * LONG,
    "%25" * LONG, "." * LONG, "--" * LONG, "-e " + "a/" * LONG, "==" * LONG, "a @ " + "a+" * LONG,
    "#egg=" * LONG, "/t/" * LONG, "(a==" * LONG, "\n" * LONG,
]


def test_no_text_keeps_flaskflex_busy() -> None:
    """The processor's time (not the clock's) is limited for each: a pattern that looks back takes minutes."""
    done = subprocess.run([sys.executable, "-c", TAKE_APART, str(SCRIPT)], input="\0".join(ENDLESS).encode(),
                          stdout=subprocess.PIPE)
    begun = done.stdout.splitlines()
    assert done.returncode == 0, f"it was busy with {ENDLESS[len(begun) - 1][:8]!r}"
    assert len(begun) == len(ENDLESS)


TAKE_APART = r"""
import importlib.util, pathlib, resource, sys, time
spec = importlib.util.spec_from_file_location("flaskflex", sys.argv[1])
flaskflex = importlib.util.module_from_spec(spec)
spec.loader.exec_module(flaskflex)
virtualenv = flaskflex.Virtualenv(pathlib.Path("/nowhere"), pathlib.Path("/nowhere"), "3.11.7")
for text in sys.stdin.read().split("\0"):
    print("begun", flush=True)
    limit = int(time.process_time()) + 20, resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, limit)
    flaskflex.refused_lines(text, pathlib.Path("/nowhere"))
    flaskflex.describe_changes(text, flaskflex.parse_requirements(text))
    flaskflex.has_credentials(text)
    flaskflex.hide_urls(text)
    flaskflex.split_requirements(text)
    flaskflex.remember_excluded(text, ["x"])
    for line in (text, f"-e {text}", f"x @ file:{text}", f"x @ {text}", f"x=={text}"):
        flaskflex.plan_freeze(line, virtualenv, pathlib.Path("/nowhere"), text)
    for pattern in (flaskflex.READABLE_LINE, flaskflex.FROZEN_LINE, flaskflex.EDITABLE_LINE, flaskflex.NAME):
        pattern.fullmatch(text)
    flaskflex.parse_need(text)
"""


# --- what a repository's configuration has git execute ---

SETTINGS = [
    "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "diff.external",
    "diff.odd.textconv", "diff.odd.command", "merge.odd.driver", "gpg.program", "credential.helper",
    "interactive.diffFilter", "sequence.editor", "uploadpack.packObjectsHook", "browser.odd.cmd", "pager.log",
    "core.alternateRefsCommand", "fsck.skipList", "trailer.Flaskflex-Version.command",
]
COMMANDS = [
    "commit", "rev-parse", "symbolic-ref", "ls-tree", "cat-file", "rev-list", "read-tree", "update-index",
    "hash-object", "var", "check-ignore", "merge-file", "reset", "diff-index", "log", "status",
]


def test_nothing_is_executed_that_a_commit_would_not_execute(
    project: Path, tmp_path: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    write(project / ".gitattributes", "* diff=odd merge=odd\n")
    git("add", ".gitattributes")
    git("commit", "-q", "-m", "first")
    executed = tmp_path / "executed"
    executed.mkdir()
    for name in SETTINGS:
        script = f"#!/bin/sh\ntouch {executed}/{name}\nexit 1\n"
        git("config", name, write(executed / "bin" / name, script, mode=0o755))
    for name in COMMANDS:
        git("config", f"alias.{name}", f"!touch {executed}/alias-{name}")

    def names() -> List[str]:
        found = sorted(path.name for path in executed.iterdir() if path.is_file())
        for name in found:
            (executed / name).unlink()
        return found

    # What git itself executes, in a copy.
    copy = shutil.copytree(project, tmp_path / "copy")
    write(copy / "mine.txt", "mine\n")
    run("git", "add", "mine.txt", cwd=copy, env=environ)
    run("git", "commit", "-q", "-m", "mine", cwd=copy, env=environ)
    by_git = names()
    for options in (["--dry-run"], [], ["--dry-run", "--force"], ["--force", "--no-commit"], []):
        assert flaskflex(*options).status == 0
        assert set(names()) <= set(by_git)
        if not options:
            with (project / ".flx").open("a") as file:
                file.write("# mine\n")
    newer = newer_script(project / "flaskflex.py", "FLX", lambda text: "# newer\n" + text)
    assert "merge   .flx" in flaskflex(script=newer).out
    assert set(names()) <= set(by_git)


# --- packages ---


def odd_distribution(virtualenv: Path, text: str, direct_url: Optional[str] = None) -> None:
    folder = site_packages(virtualenv) / "odd-1.dist-info"
    write(folder / "METADATA", text)
    write(folder / "RECORD")
    if direct_url:
        write(folder / "direct_url.json", direct_url)


METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


@pytest.mark.parametrize("name, version", [
    ("odd", "1\n --index-url=https://host.example"),
    ("odd", "1\r --index-url=https://host.example"),
    ("odd", "1\x1b]0;title\x07"),
    ("odd", "1\x00"),
    ("odd", "1 # \u2028--pre"),
    ("odd", "1 ; python_version > '3' --hash=sha256:0"),
    ("../../odd", "1"),
    ("..", "1"),
    ("-r /etc/passwd", "1"),
    ("odd\n -r /etc/passwd", "1"),
    ("odd\u202egnp", "1"),
])
def test_odd_metadata_gets_neither_into_req_txt_nor_onto_the_terminal(
    name: str, version: str, project: Path, active: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    odd_distribution(active, METADATA.format(name=name, version=version))
    result = flaskflex("--no-commit")
    said = result.out + result.err
    assert all(character.isprintable() or character == "\n" for character in said), result
    if result.status:  # some pips leave such a distribution out, others show it as it is
        assert_refused(result, "")
        assert not (project / "req.txt").exists()
    else:
        lines = (project / "req.txt").read_text().splitlines()
        known = ("Flask==3.1.0", FLUP, "odd==1")
        assert [line for line in lines if line[0] != "#" and line not in known] == []


@pytest.mark.parametrize("direct_url", [
    '{"url": "file:///%1b%5d0;title%07", "dir_info": {}}',
    '{"url": "file:///x%00y", "dir_info": {}}',
    '{"url": "file:///LOOP", "dir_info": {}}',
    '{"url": "https://[::1/x", "archive_info": {}}',
    '{"url": "https://host.example/\\n--pre", "archive_info": {}}',
    '{"url": "https://ho\\u2100st.example/x", "archive_info": {}}',
    '{"url": "git+https://host.example/x", "vcs_info": {"vcs": "git", "commit_id": "-u evil"}}',
    '{"url": "file://' + "/x" * 3000 + '", "dir_info": {}}',
    '[1]', '{"url": 1}', 'not JSON', '{}',
])
def test_an_odd_address_ends_in_a_refusal_or_in_the_packages_version(
    direct_url: str, tmp_path: Path, project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    direct_url = direct_url.replace("/LOOP", str(tmp_path / "loop"))
    odd_distribution(active, METADATA.format(name="odd", version="1"), direct_url)
    result = flaskflex("--no-commit")
    said = result.out + result.err
    assert all(character.isprintable() or character == "\n" for character in said), result
    if result.status:
        assert_refused(result, "")
    else:
        assert "\nodd==1\n" in (project / "req.txt").read_text()


def test_a_distribution_without_a_name_does_no_harm(
    project: Path, active: Path, flaskflex: Flaskflex
) -> None:
    add_distribution(active, "flaskflex", "1")
    odd_distribution(active, "Metadata-Version: 2.1\n")
    assert flaskflex("--no-commit").status == 0
    assert "flaskflex==" not in (project / "req.txt").read_text()


# --- properties of what is parsed ---

Test = TypeVar("Test", bound=Callable[..., None])


def holds_for(**arguments: Any) -> Callable[[Test], Test]:
    """Hypothesis tries the test with all sorts of arguments, however long each takes."""
    settings = hypothesis.settings(max_examples=200, deadline=None, database=None)

    def decorate(test: Test) -> Test:
        decorated: Test = settings(hypothesis.given(**arguments)(test))
        return decorated
    return decorate


# Any text that a file can hold, read as flaskflex reads it: surrogates stand for bytes that are not UTF-8.
any_text = strategies.text(strategies.characters(exclude_categories=["Cs"]) | strategies.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF))
names = strategies.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)
versions = strategies.from_regex(
    r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}([ab]|rc|\.post|\.dev)?[0-9](\+[a-z0-9.]{1,5})?", fullmatch=True
)
pinned = strategies.builds("{}=={}".format, names, versions)
secrets = strategies.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=%@:", min_size=1)
hosts = strategies.from_regex(r"[a-z]{1,8}(\.[a-z]{2,4}){1,2}(:[0-9]{2,4})?", fullmatch=True)
paths = strategies.from_regex(r"(/[A-Za-z0-9._~@-]{1,8}){1,3}", fullmatch=True)
forms = strategies.sampled_from([
    "x @ {}", "x @ git+{}@0123abc", "-e git+{}@0123abc#egg=x", "-e hg+{}@0123abc#egg=x&subdirectory=a",
    "x @ {}#sha256=0123abc",
])
schemes = strategies.sampled_from(["https", "http", "ssh", "ftp"])


@holds_for(requirements=strategies.lists(pinned), user_lines=any_text)
def test_what_is_written_is_read_again(requirements: List[str], user_lines: str) -> None:
    """The frozen part is known as it was written, and not a byte of the user's own lines is lost."""
    parsed = flaskflex_module.parse_requirements("\n".join(requirements))
    assert [requirement.line for requirement in parsed] == requirements
    content = flaskflex_module.render_requirements(parsed, "3.11.7", user_lines)
    frozen, _, kept = flaskflex_module.split_requirements(content.decode("utf-8", "surrogateescape"))
    assert kept.encode("utf-8", "surrogateescape") == user_lines.encode("utf-8", "surrogateescape")
    assert flaskflex_module.describe_changes(frozen, parsed) == ""


@holds_for(requirements=strategies.lists(pinned, min_size=1), data=strategies.data())
def test_an_edit_of_the_frozen_part_changes_its_fingerprint(requirements: List[str], data: Any) -> None:
    parsed = flaskflex_module.parse_requirements("\n".join(requirements))
    text = flaskflex_module.render_requirements(parsed, "3.11.7", "").decode()
    end = text.rindex("\n# ---")
    place = data.draw(strategies.integers(0, end - 1))
    other = data.draw(strategies.characters(exclude_categories=["Cs"]).filter(lambda new: new != text[place]))
    edited = (text[:place] + other + text[place + 1:]).encode()
    prints = [flaskflex_module.frozen_fingerprint(content) for content in (text.encode(), edited)]
    assert prints[0] != prints[1]


@holds_for(text=any_text)
def test_any_text_is_parsed_without_an_exception(text: str) -> None:
    for requirement in flaskflex_module.parse_requirements(text):
        assert requirement.line == requirement.line.strip() != ""
    flaskflex_module.split_requirements(text)
    flaskflex_module.describe_changes(text, flaskflex_module.add_flup([], text))
    flaskflex_module.refused_lines(text, Path("/nowhere"))


@holds_for(content=strategies.binary() | strategies.binary().map(lambda rest: b"\xff\xfe" + rest))
def test_any_file_is_decoded_without_an_exception(content: bytes) -> None:
    text = flaskflex_module.decode(content)
    flaskflex_module.split_requirements(text)
    text.encode("utf-8", "surrogateescape")


@holds_for(form=forms, scheme=schemes, user=secrets, password=secrets, host=hosts, path=paths)
def test_a_password_in_an_address_is_never_missed(
    form: str, scheme: str, user: str, password: str, host: str, path: str
) -> None:
    assert flaskflex_module.has_credentials(form.format(f"{scheme}://{user}:{password}@{host}{path}"))
    assert flaskflex_module.has_credentials(form.format(f"{scheme}://:{password}@{host}{path}"))


@holds_for(form=forms, scheme=schemes, token=secrets, host=hosts, path=paths)
def test_a_token_in_an_address_is_never_missed(
    form: str, scheme: str, token: str, host: str, path: str
) -> None:
    assert flaskflex_module.has_credentials(form.format(f"https://{token}@{host}{path}"))
    if token.strip("&;"):  # these alone part a query into nothing
        assert flaskflex_module.has_credentials(form.format(f"{scheme}://{host}{path}?{token}"))


@holds_for(form=forms, scheme=schemes, host=hosts, path=paths, line=pinned)
def test_an_address_without_a_secret_is_not_suspected(
    form: str, scheme: str, host: str, path: str, line: str
) -> None:
    assert not flaskflex_module.has_credentials(form.format(f"{scheme}://{host}{path}"))
    assert not flaskflex_module.has_credentials(form.format(f"ssh://git@{host}{path}"))
    assert not flaskflex_module.has_credentials(line)


@pytest.mark.parametrize("line", [
    "-e git+https://host.example/x@0123abc#egg=../../x",
    "-e git+https://host.example/x@0123abc#egg=x --index-url=https://host.example",
    "-e git+https://host.example/x@0123abc#egg=x\u2028--pre",
    "x==1 --index-url=https://host.example", "x==1\t-r other.txt", "--index-url https://host.example",
    "-r other.txt", "x", "x>=1", "x @ /etc", "x @ ../x", "/etc", "../x", "x==${HOME}",
    "x @ https://${TOKEN}@host.example/x",
])
def test_a_line_that_asks_for_more_than_one_package_is_refused(line: str, tmp_path: Path) -> None:
    virtualenv = flaskflex_module.Virtualenv(tmp_path, tmp_path / "bin" / "python", "3.11.7")
    requirement = flaskflex_module.Requirement("x", line)
    with pytest.raises(flaskflex_module.Refused):
        written = flaskflex_module.server_line(requirement, None, virtualenv, tmp_path / "project")
        flaskflex_module.judge_line(written, tmp_path / "project")


@holds_for(url=any_text, editable=strategies.booleans())
def test_any_line_is_judged_without_an_exception(
    url: str, editable: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    virtualenv = flaskflex_module.Virtualenv(folder, folder / "bin" / "python", "3.11.7")
    for line in (f"-e {url}", f"x @ {url}", f"x @ file://{url}", f"x @ https://{url}", url):
        plan = flaskflex_module.plan_freeze(line, virtualenv, folder / "project", "")
        for requirement in plan.requirements:
            assert requirement.line.isprintable() and len(requirement.line.splitlines()) == 1
