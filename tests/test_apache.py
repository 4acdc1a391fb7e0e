"""What flaskflex prepared answers under a real Apache, wherever the project is mounted."""
from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Tuple
from urllib.parse import quote, unquote

import pytest
from apache import (
    PATIENCE, SYSTEM_PATH, Host, Site, VirtualHost,
    ask_process, eventually, running_host, session_of, why_not,
)
from conftest import IDENTITY, SCRIPT, Environ, run
from deployed import item

pytestmark = [pytest.mark.once, pytest.mark.skipif(bool(why_not()), reason=str(why_not()))]

APPLICATIONS = Path(__file__).resolve().parent / "applications"
NAME = "yourprojectname"
COLON = "Ünïcode:site"
SPACES = "a site: Größe"  # behind a link: mod_fcgid cuts the path that Apache finds a script at at its spaces
SECRET = "nobody may read this"

SHAPES = {
    "app_object": "app",
    "application_object": "application",
    "other_name": "blog",
    "factory": "create_app",
    "package": "package",
    "plain_folder": "one db",
    "wsgi_beside_package": "wsgi.py",
}

ALONE = (
    *SHAPES, "files", COLON, "broken", "live-deploy", "live-touch", "next", "busy-deploy", "busy-touch",
)

# What a careful host allows, and what .htaccess has to do with.
NARROW = "FileInfo Options=ExecCGI,SymLinksIfOwnerMatch"

# A host that hands encoded and doubled slashes on; its .fcgi files are programs, wherever they lie.
GENEROUS = """\
    AllowEncodedSlashes NoDecode
    MergeSlashes Off
    AddHandler fcgid-script .fcgi
    <FilesMatch "\\.fcgi$">
        SetHandler fcgid-script
    </FilesMatch>
"""

MOUNTS = {
    "root": ("root.test", ""),
    "subdirectory": ("mounts.test", "/sub/site"),
    "alias": ("mounts.test", "/alias/site"),
    "userdir": ("mounts.test", f"/~{NAME}"),
    "root-with-all-overrides": ("all.test", ""),
}


class Server(NamedTuple):
    """The running host, the project that is mounted everywhere, and the repository that all come from."""

    host: Host
    project: Path
    origin: Path
    environ: Environ

    def site(self, name: str) -> Site:
        """The address of a project that stands alone on a host of its own."""
        return Site(self.host.port, host_name(name))

    def place(self, name: str, application: str) -> Path:
        """Put another prepared project on the host, with this example application and the same virtualenv."""
        project = self.host.homes / name
        check_out(self.origin, project, self.environ)
        shutil.copytree(APPLICATIONS / application, project / "application")
        (project / ".venv").symlink_to(self.project / ".venv")
        self.host.hand_over(project)
        return project


def host_name(project: str) -> str:
    """The name of the virtual host of a project: its own, as far as a name may be like that."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in project) + ".test"


def check_out(origin: Path, project: Path, environ: Environ) -> None:
    run("git", "clone", "-q", "-b", "main", origin, project, cwd=origin, env=environ, umask=0o022)


@pytest.fixture(scope="session")
def origin(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, warm_cache: Path, session_environ: Environ
) -> Path:
    """A bare repository with a project that flaskflex prepared, and that has no application yet."""
    folder = tmp_path_factory.mktemp("origin")
    environ = {**session_environ, **IDENTITY, "VIRTUAL_ENV": str(virtualenv)}
    run("git", "init", "-q", "--bare", "-b", "main", "host.git", cwd=folder, env=environ)
    run("git", "clone", "-q", "host.git", NAME, cwd=folder, env=environ)
    shutil.copy(SCRIPT, folder / NAME)
    run(virtualenv / "bin" / "python", "flaskflex.py", cwd=folder / NAME, env=environ)
    run("git", "push", "-q", "origin", "HEAD:main", cwd=folder / NAME, env=environ)
    return folder / "host.git"


@pytest.fixture(scope="session")
def server(origin: Path, session_environ: Environ) -> Iterator[Server]:
    """Apache, and the example site pushed to it, deployed as its .flx says, and mounted everywhere."""
    environ = {**session_environ, **IDENTITY}
    clone = origin.parent / NAME
    shutil.copytree(APPLICATIONS / "site", clone / "application")
    run("git", "add", "application", cwd=clone, env=environ)
    run("git", "commit", "-q", "-m", "The application", cwd=clone, env=environ)
    run("git", "push", "-q", "origin", "HEAD:site", cwd=clone, env=environ)
    with running_host() as host:
        project = host.homes / NAME
        check_out(origin, project, environ)
        run("git", "checkout", "-q", "site", cwd=project, env=environ, umask=0o022)
        add_files(project / "public_html", host.base / "run" / "started")
        host.hand_over(project)
        host.apply_changes(project, "setup", "deploy", "permission")
        (host.base / "www" / "sub").mkdir()
        (host.base / "www" / "sub" / "site").symlink_to(project / "public_html")
        (host.base / "www" / "link").symlink_to(host.homes / SPACES / "public_html")
        host.hand_over(host.base / "www" / "sub" / "site")
        host.start(virtual_hosts(host))
        yield Server(host, project, origin, environ)


def add_files(public_html: Path, started: Path) -> None:
    """What else may be found in public_html: things to serve, and things to hide."""
    for name, text in {
        "robots.txt": "User-agent: *\n",
        "pictures/cat.txt": "a cat\n",
        "Üter.txt": "a file with an umlaut\n",
        ".well-known/security.txt": "well known\n",
        ".env": SECRET,
        ".git/config": SECRET,
        ".dispatch.fcgi.new": SECRET,
        "pictures/.hidden": SECRET,
    }.items():
        (public_html / name).parent.mkdir(exist_ok=True)
        (public_html / name).write_text(text, "utf-8")
    for name in PROGRAMS[:-1]:
        program = public_html / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
        program.chmod(0o755)


def virtual_hosts(host: Host) -> List[VirtualHost]:
    public_html = host.homes / NAME / "public_html"
    mounts = f'Alias "/alias/site" "{public_html}"\n    UserDir "{host.homes}/*/public_html"'
    return [
        VirtualHost("root.test", public_html),
        VirtualHost("mounts.test", host.base / "www", NARROW, mounts, "SymLinksIfOwnerMatch"),
        VirtualHost("all.test", public_html, override="All"),
        VirtualHost("generous.test", host.base / "www", more=f"{mounts}\n{GENEROUS}", options="All"),
        VirtualHost("generous-root.test", public_html, more=GENEROUS, options="All"),
        VirtualHost(host_name(SPACES), host.base / "www" / "link"),
        *(VirtualHost(host_name(name), host.homes / name / "public_html",
                      more=f'ErrorLog "{host.base}/log/{host_name(name)}.log"') for name in ALONE),
    ]


GENEROUS_MOUNTS = {
    "generous": ("generous.test", "/alias/site"),
    "generous-root": ("generous-root.test", ""),
}


@pytest.fixture(params=MOUNTS)
def site(server: Server, request: pytest.FixtureRequest) -> Site:
    """The example site, at one of the places where it is mounted."""
    host, prefix = {**MOUNTS, **GENEROUS_MOUNTS}[request.param]
    return Site(server.host.port, host, prefix)


# --- addresses ---

def test_front_page_answers(site: Site) -> None:
    answer = site.get("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Wölkömmen" in answer.text
    assert f'href="{site.prefix}/links"' in answer.text


def test_links_are_right_for_the_mount(site: Site) -> None:
    answer = site.get("/links")
    assert b"dispatch" not in answer.body
    assert answer.json == {
        "index": f"{site.prefix}/",
        "odd": f"{site.prefix}/where/50%25%20%C3%A4r%20%231%3F?q=a%26b",
        "static": f"{site.prefix}/static/hello.txt",
        "external": f"http://{site.host}:{site.port}{site.prefix}/",
    }


def test_links_lead_where_they_say(site: Site) -> None:
    link = site.get("/links").json["odd"]
    answer = site._replace(prefix="").get(link)
    assert (answer.json["rest"], answer.json["arguments"]) == ("50% är #1?", {"q": ["a&b"]})


@pytest.mark.parametrize(
    "path, target", [("/go", "/links"), ("/folder", "/folder/"), ("/folder?a=%26", "/folder/?a=%26")]
)
def test_redirects_are_right_for_the_mount(site: Site, path: str, target: str) -> None:
    answer = site.get(path)
    assert answer.status in (302, 308)
    assert answer.headers["Location"] in site.spellings(target)


@pytest.mark.parametrize("site", [name for name, (_, prefix) in MOUNTS.items() if prefix], indirect=True)
def test_address_without_its_last_slash_leads_to_the_front_page(site: Site) -> None:
    answer = site.get("")
    assert answer.status == 301
    assert answer.headers["Location"].endswith(f"{site.prefix}/")


@pytest.mark.parametrize("path", [
    "%25", "%3F", "%23", "%2541", "%252F", "100%25", "a%20b", "a+b", "a%2Bb", "%26", "a&b=c", "%3B", "a;b",
    "%22", "'", "a:b", "%5C", "%7Bx%7D", "$1", "%25%7BREQUEST_URI%7D", "%251", "[E=X:Y]", "a,b", "~me", "@",
    "*", "a..b", "a/", "http:", "%C3%BC", "%E2%82%AC", "%F0%9F%8D%B6", "u%CC%88", "%C2%85", "a/b/c.html",
    "dispatch.fcgi", "dispatch.fcgi/more", "public_html/dispatch.fcgi", "where/where", "sub/site/where/x",
    "index.html", "robots.txt", "static/hello.txt",
])
def test_path_arrives_intact(site: Site, path: str) -> None:
    answer = site.get(f"/where/{path}")
    assert answer.status == 200
    assert answer.json["rest"] == unquote(path)
    assert answer.json["path"] == f"/where/{unquote(path)}"
    assert answer.json["script_root"] == site.prefix
    assert unquote(answer.json["here"]) == f"{site.prefix}/where/{unquote(path)}"


def test_encoded_letters_are_the_letters(site: Site) -> None:
    answer = site.get("/wh%65re/%61")
    assert (answer.status, answer.json["rest"], answer.json["script_root"]) == (200, "a", site.prefix)


def test_encoded_mount_is_the_mount(site: Site) -> None:
    prefix = site.prefix.replace("s", "%73").replace("~", "%7E")
    answer = site._replace(prefix=prefix).get("/where/x")
    assert (answer.status, answer.json["rest"], answer.json["script_root"]) == (200, "x", site.prefix)


@pytest.mark.parametrize("path", ["//where/x", "/where//x", "//where///x"])
def test_doubled_slashes_in_an_address_do_no_harm(site: Site, path: str) -> None:
    answer = site.get(path)
    assert (answer.status, answer.json["rest"], answer.json["script_root"]) == (200, "x", site.prefix)


def test_redirect_from_an_address_with_doubled_slashes_stays_here(site: Site) -> None:
    assert site.get("//go").headers["Location"] in site.spellings("/links")


def test_address_with_dots_is_the_short_one(site: Site) -> None:
    answer = site.get("/y/../where/./x")
    assert (answer.status, answer.json["rest"]) == (200, "x")


@pytest.mark.parametrize("detour", [
    "/%5cevil.example/..", "/%5C%5Cevil.example/%2e%2e", "/evil.example/%5c/../..", "//evil.example/..",
    "/a/b/../../%5cevil.example/./..", "/x/../y/..", "/%5cevil.example/..//",
])
@pytest.mark.parametrize("site", [*MOUNTS, "generous"], indirect=True)
def test_where_the_site_is_does_not_depend_on_what_was_typed(site: Site, detour: str) -> None:
    answer = site.get(f"{detour}/where/x")
    assert (answer.status, answer.json["rest"], answer.json["script_root"]) == (200, "x", site.prefix)
    assert answer.json["here"] == f"{site.prefix}/where/x"
    assert site.get(f"{detour}/go").headers["Location"] in site.spellings("/links")


@pytest.mark.parametrize("path, rest", [
    ("a%2Fb", "a/b"), ("a%2fb", "a/b"), ("a%252Fb", "a%2Fb"), ("a%2Fb%252fc", "a/b%2fc"), ("a//b", "a//b"),
    ("a%2F%2Fb", "a//b"), ("a%2F/b///c", "a//b///c"), ("a%2F..%2F.b", "a/../.b"), ("a%2F?q=%2F", "a/"),
])
@pytest.mark.parametrize("site", ["generous", "generous-root"], indirect=True)
def test_slashes_arrive_as_typed_where_the_server_lets_them(site: Site, path: str, rest: str) -> None:
    answer = site.get(f"/raw/{path}")
    assert (answer.status, answer.json) == (200, {"rest": rest, "script_root": site.prefix})


@pytest.mark.parametrize("path", ["//evil.example/x", "/%2Fevil.example/x", "/%2F%2F/evil.example/x"])
@pytest.mark.parametrize("site", ["generous", "generous-root"], indirect=True)
def test_path_begins_with_one_slash_so_that_it_is_never_another_host(site: Site, path: str) -> None:
    answer = site.get(path)
    assert (answer.status, answer.headers["X-Path"]) == (404, "/evil.example/x")


@pytest.mark.parametrize("path", ["/a%0Ab", "/%0A", "/dispatch.fcgi%0A", "/%0Ddispatch.fcgi%0A/x"])
def test_newline_arrives(site: Site, path: str) -> None:  # at the application: no rule of Flask's matches one
    assert site.get(path).headers["X-Path"] == path


def test_unencoded_bytes_arrive_intact(site: Site) -> None:
    path = f"{site.prefix}/where/ü€".encode()
    host = site.host.encode()
    answer = site.raw(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (path, host))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert rb'"rest":"\u00fc\u20ac"' in answer


def test_whole_address_in_the_request_line_is_understood(site: Site) -> None:
    target = f"http://{site.host}:{site.port}{site.prefix}/where/%25?a=%25"
    answer = site._replace(prefix="").get(target)
    assert answer.status == 200
    assert (answer.json["rest"], answer.json["query"]) == ("%", "a=%25")
    assert answer.json["script_root"] == site.prefix


@pytest.mark.parametrize("query", [
    "a=1&a=2&b=%26", "q=%C3%A9&%C3%A9=q", "next=/x?y=/z", "a=%23%25%3F", "a=b+c%2Bd", "plain", "a=%2541",
    "%22'", "a=;b", "a=/where/x", "a=http://example.org/", "",
])
def test_query_string_arrives_intact(site: Site, query: str) -> None:
    answer = site.get(f"/where/x?{query}")
    assert (answer.status, answer.json["query"], answer.json["rest"]) == (200, query, "x")
    assert answer.json["script_root"] == site.prefix


def test_query_string_of_the_front_page_arrives(site: Site) -> None:
    assert site.get("/?a=1").status == 200
    assert site.get("/where/?a=%26").json["arguments"] == {"a": ["&"]}


def test_https_is_seen_as_https(site: Site) -> None:
    answer = site.get("/where/x", {"X-Forwarded-Proto": "https"})
    assert (answer.json["scheme"], answer.json["secure"]) == ("https", True)
    assert answer.json["url"].startswith(f"https://{site.host}")
    assert site.get("/where/x").json["scheme"] == "http"


# --- requests and answers ---

@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_method_arrives(site: Site, method: str) -> None:
    body = None if method == "GET" else b"its body"
    answer = site.ask(method, "/method", body)
    assert (answer.status, answer.text) == (200, f"{method} {(body or b'').decode()}")


def test_head_has_headers_and_no_body(site: Site) -> None:
    answer = site.ask("HEAD", "/method")
    assert (answer.status, answer.headers["X-Method"], answer.body) == (200, "HEAD", b"")


def test_options_and_refusals_name_the_methods(site: Site) -> None:
    assert sorted(site.ask("OPTIONS", "/links").headers["Allow"].split(", ")) == ["GET", "HEAD", "OPTIONS"]
    assert site.ask("POST", "/links", b"").status == 405


def test_form_arrives(site: Site) -> None:
    body = b"name=Z%C3%BCrich&tag=a&tag=b+c&empty="
    answer = site.ask("POST", "/form", body, {"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.json == {"fields": {"name": ["Zürich"], "tag": ["a", "b c"], "empty": [""]}}


def test_json_arrives(site: Site) -> None:
    body = '{"name": "Zürich", "list": [1, 2.5, null]}'.encode()
    answer = site.ask("POST", "/json", body, {"Content-Type": "application/json"})
    assert answer.json == {"given": {"name": "Zürich", "list": [1, 2.5, None]}}


def test_upload_of_100_kb_arrives(site: Site) -> None:
    content = bytes(range(256)) * 400
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="photo.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--edge--\r\n"
    )
    answer = site.ask("POST", "/upload", body, {"Content-Type": "multipart/form-data; boundary=edge"})
    digest = hashlib.sha256(content).hexdigest()
    assert answer.json == {"name": "photo.bin", "size": len(content), "sha256": digest}


def test_body_that_nobody_reads_does_no_harm(site: Site) -> None:
    for _ in range(3):
        answer = site.ask("POST", "/unread", b"x" * 100_000)
        assert (answer.status, answer.text) == (200, "not interested")
    assert site.get("/teapot").status == 418


def test_session_and_cookies_come_back(site: Site) -> None:
    cookies = site.get("/remember/%C3%BCber").headers.get_all("Set-Cookie") or []
    assert len(cookies) == 3
    answer = site.get("/recall", {"Cookie": "; ".join(cookie.split(";")[0] for cookie in cookies)})
    assert answer.json == {"word": "über", "cookies": ["first", "second", "session"]}


def test_basic_authorization_reaches_the_application(site: Site) -> None:
    refused = site.get("/login")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="tests"')
    given = base64.b64encode("me:pässword: x".encode()).decode()
    answer = site.get("/login", {"Authorization": f"Basic {given}"})
    assert answer.json == {"username": "me", "password": "pässword: x"}


def test_bearer_token_reaches_the_application(site: Site) -> None:
    assert site.get("/token", {"Authorization": "Bearer a.b-c_d=="}).text == "Bearer a.b-c_d=="
    assert site.get("/token").text == ""


def test_etag_gives_304(site: Site) -> None:
    first = site.get("/tagged")
    assert (first.status, first.text) == (200, "the same every time")
    second = site.get("/tagged", {"If-None-Match": first.headers["ETag"]})
    assert (second.status, second.body, second.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert site.get("/tagged", {"If-None-Match": '"another"'}).status == 200


def test_static_files_of_flask_are_served(site: Site) -> None:
    first = site.get("/static/hello.txt")
    assert (first.status, first.body) == (200, (APPLICATIONS / "site/static/hello.txt").read_bytes())
    assert site.get("/static/hello.txt", {"If-None-Match": first.headers["ETag"]}).status == 304
    since = {"If-Modified-Since": first.headers["Last-Modified"]}
    assert site.get("/static/hello.txt", since).status == 304
    part = site.get("/static/hello.txt", {"Range": "bytes=0-4"})
    assert (part.status, part.body) == (206, b"hello")


def test_files_of_public_html_are_served_by_apache(site: Site) -> None:
    assert site.get("/robots.txt").text == "User-agent: *\n"
    assert site.get("/robots.txt?query").text == "User-agent: *\n"
    assert site.get("/pictures/cat.txt").text == "a cat\n"
    assert site.get(quote("/Üter.txt")).text == "a file with an umlaut\n"
    assert site.get("/.well-known/security.txt").text == "well known\n"


def test_what_is_well_known_and_no_file_is_for_the_application(site: Site) -> None:
    assert site.get("/.well-known/other").text == "the application has no such page"


def test_folder_of_public_html_is_for_the_application(site: Site) -> None:
    assert site.get("/pictures/").text == "the application's pictures"
    assert site.get("/pictures").headers["Location"].endswith(f"{site.prefix}/pictures/")


def test_large_answer_arrives_whole(site: Site) -> None:
    answer = site.get("/large")
    assert (len(answer.body), answer.headers["Content-Length"]) == (1_000_000, "1000000")


def test_beginning_of_a_stream_arrives_before_its_end_is_made(
    site: Site, server: Server, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    note = server.project / "application" / f"{name}.read"
    answer = site.ask("GET", f"/stream/{name}", beginning=lambda start: note.touch())
    assert answer.status == 200
    assert answer.body == b"." * 200_000 + b"the end"


# --- errors ---

def test_status_of_the_application_arrives(site: Site) -> None:
    answer = site.get("/teapot")
    assert (answer.status, answer.text) == (418, "short and stout")


def test_404_is_the_page_of_the_application(site: Site) -> None:
    answer = site.get("/no/such/page")
    assert (answer.status, answer.text) == (404, "the application has no such page")


def test_traceback_goes_to_the_error_log_and_not_to_the_browser(
    site: Site, server: Server, request: pytest.FixtureRequest
) -> None:
    reason = f"reason-{request.node.callspec.id}"
    answer = site.get(f"/broken?reason={reason}")
    assert answer.status == 500
    assert b"Traceback" not in answer.body and b"broken on purpose" not in answer.body
    said = f"RuntimeError: broken on purpose, for {reason}"
    assert eventually(lambda: said in server.host.error_log())
    before = server.host.error_log().partition(said)[0]
    assert "Traceback (most recent call last)" in before[-5000:]
    assert site.get("/teapot").status == 418


def test_usual_request_says_nothing_in_the_error_log(site: Site, server: Server) -> None:
    site.get("/where/x")
    before = server.host.error_log()
    site.get("/where/x?quiet")
    assert "quiet" not in server.host.error_log()[len(before):]
    assert "stderr" not in server.host.error_log()[len(before):]


def test_application_that_does_not_start_says_why_in_the_log_of_its_site(server: Server) -> None:
    project, site = server.place("broken", "app_object"), server.site("broken")
    module, log = project / "application" / "app.py", server.host.base / "log" / "broken.test.log"
    sound, script = module.read_text(), project / "public_html" / "dispatch.fcgi"
    for reason, line in {
        "RuntimeError: żółć": "raise RuntimeError('żółć')",
        "RuntimeError: lone": "raise RuntimeError('lone \\udc80')",
        "SystemExit: no settings": "raise SystemExit('no settings')",
        "SyntaxError": "def",
        "ModuleNotFoundError: No module named 'nowhere'": "import nowhere",
        "Failed to find Flask application": "'nothing'",
    }.items():
        module.write_text(f"{line}\n", "utf-8")
        answer = site.get("/")
        assert (answer.status, answer.text) == (500, "Internal Server Error\n"), log.read_text("utf-8")
        said = reason.encode("unicode_escape").decode() if reason.isascii() else reason.split()[0]
        assert eventually(lambda: said in log.read_text("utf-8"))
        assert "Traceback (most recent call last)" in log.read_text("utf-8")
        module.write_text(sound)
        assert site.get("/").status == 200, log.read_text("utf-8")
        log.write_text("")
        shutil.copy2(script, script.with_name("new"))
        script.with_name("new").replace(script)  # what the lines of .flx do, without pip


# --- what nobody may read ---

@pytest.mark.parametrize("path", [
    "/.env", "/.git/config", "/.git/", "/.git", "/.htaccess", "/.dispatch.fcgi.new", "/pictures/.hidden",
    "/%2eenv", "/.git%2fconfig", "//.env", "/./.env", "/x/../.env", "/.env?x", "/.env/", "/.env/x",
    "/.well-known/../.env", "/.well-knownother",
])
def test_hidden_files_are_refused(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status in (403, 404)
    assert SECRET.encode() not in answer.body and b"Rewrite" not in answer.body
    assert b"the application has" not in answer.body


@pytest.mark.parametrize("path", [
    "/dispatch.fcgi", "/dispatch.fcgi/", "/dispatch.fcgi/anything", "/dispatch.fcgi?x",
    "/dispatch%2Efcgi", "/dispatch.fcgi/where/x", "//dispatch.fcgi", "/x/../dispatch.fcgi",
    "/./dispatch.fcgi/x", "/dispatch.fcgi//",
])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_dispatch_fcgi_itself_is_not_found(site: Site, path: str, method: str) -> None:
    answer = site.ask(method, path, b"a=b" if method == "POST" else None)
    assert answer.status == 404
    assert b"import" not in answer.body and b"the application has" not in answer.body


PROGRAMS = [
    "other.fcgi", "photo.fcgi.jpg", "dispatch.fcgi.jpg", "dispatch.fcgi.bak", "uploads/dispatch.fcgi",
    "uploads/photo.fcgi.jpg", "uploads/other.fcgi", "uploads/dispatch.fcgi/dispatch.fcgi",
]


@pytest.mark.parametrize("path", PROGRAMS)
@pytest.mark.parametrize("more", ["", "/", "/x", "?x"])
@pytest.mark.parametrize("site", [*MOUNTS, *GENEROUS_MOUNTS], indirect=True)
def test_only_dispatch_fcgi_is_a_program(site: Site, server: Server, path: str, more: str) -> None:
    answer = site.get(f"/{path}{more}")
    assert answer.status in (200, 403, 404)
    assert not (server.host.base / "run" / "started").exists()
    assert site.get("/teapot").status == 418


# --- the shapes of applications ---

@pytest.mark.parametrize("shape, greeting", SHAPES.items())
def test_application_is_found(server: Server, shape: str, greeting: str) -> None:
    server.place(shape, shape)
    answer = server.site(shape).get("/")
    assert (answer.status, answer.text) == (200, greeting), server.host.error_log()[-3000:]


def test_relative_files_land_in_the_folder_of_the_application(server: Server) -> None:
    project, site = server.place("files", "relative_files"), server.site("files")
    before = sorted(os.listdir(project / "public_html"))
    assert site.get("/").status == 200
    assert (project / "application" / "visits.txt").read_text() == "one more\n"
    assert (project / "application" / "todo.db").exists()
    assert sorted(os.listdir(project / "public_html")) == before == [".htaccess", "dispatch.fcgi"]
    for path in ("/todo.db", "/application/todo.db", "/visits.txt"):
        assert site.get(path).status == 404


@pytest.mark.parametrize("name", [COLON, SPACES])
def test_awkward_project_path_is_served(server: Server, name: str) -> None:
    project, site = server.place(name, "site"), server.site(name)
    assert site.get("/where/%25?a=b").json["rest"] == "%", server.host.error_log()[-3000:]
    assert site.get("/links").json["index"] == "/"
    assert site.get("/static/hello.txt").status == 200
    (project / "public_html" / ".env").write_text(SECRET)
    assert site.get("/.env").status == 403
    assert site.get("/dispatch.fcgi").status == 404


# --- serve ---

# Become a user in a network of one's own, with the address 127.0.0.1 and no other, and run a program.
WITHOUT_IPV6 = """\
import fcntl, os, pathlib, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
ipv6 = pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
if ipv6.exists():  # else there is none anyway
    ipv6.write_text("1")
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network of its own")
def test_ordinary_user_without_ipv6_asks_through_apache(server: Server) -> None:
    user, group = server.host.worker["user"], server.host.worker["group"]
    project = server.place("ordinary", "app_object")
    script = shutil.copy(SCRIPT, project)
    out = run(
        "unshare", "--net", "/usr/bin/python3", "-c", WITHOUT_IPV6, user, group,
        project / ".venv" / "bin" / "python", script, "check", "--venv", project / ".venv",
        cwd=project, env=server.host.environ, check=False)
    assert item(out, "GET /").level == "ok" and item(out, "GET /").text.endswith("through Apache")


# --- new code ---

def write_version(project: Path, version: int) -> None:
    """Put a version of the example into the project, at once, as if a push had written it."""
    module = project / "application" / "app.py"
    fresh = project / "app.py.new"
    text = (APPLICATIONS / "versions" / "app.py").read_text().replace('"0"', f'"{version}"')
    fresh.write_text(text + "\n" * version)  # Python tells modules apart by their size, and the second
    fresh.replace(module)


def deploy(server: Server, project: Path) -> None:
    server.host.apply_changes(project, "deploy", "permission")


def touch(server: Server, project: Path) -> None:
    run("touch", "public_html/dispatch.fcgi", cwd=project, env=server.host.environ)


Way = Callable[[Server, Path], None]
WAYS = pytest.mark.parametrize("way", [deploy, touch], ids=["deploy-lines", "touch"])


def place_versions(server: Server, name: str) -> Tuple[Path, Site]:
    project = server.place(name, "versions")
    (project / "processes").mkdir()
    server.host.hand_over(project / "processes")
    return project, server.site(name)


def running(server: Server, project: Path) -> Dict[int, str]:
    """The processes that serve a project and have begun to: their numbers and their versions."""
    found = {}
    for note in (project / "processes").iterdir():
        if session_of(int(note.name)) == session_of(server.host.leader):
            found[int(note.name)] = note.read_text()
    return found


@WAYS
def test_new_code_is_live(server: Server, way: Way) -> None:
    project, site = place_versions(server, f"live-{way.__name__}")
    assert site.get("/").text.split()[0] == "0"
    for version in (1, 2):
        write_version(project, version)
        way(server, project)
        assert eventually(lambda: site.get("/").text.split()[0] == str(version))
        assert eventually(lambda: set(running(server, project).values()) == {str(version)})


def test_deploy_lines_make_new_code_live_for_the_next_request(server: Server) -> None:
    project, site = place_versions(server, "next")
    site.get("/")
    write_version(project, 1)
    deploy(server, project)
    assert site.get("/").text.split()[0] == "1"


def test_replaced_script_answers_all_that_reach_it_before_it_leaves(server: Server) -> None:
    project, _ = place_versions(server, "leaving")
    script, path = project / "public_html" / "dispatch.fcgi", server.host.base / "run" / "leaving"
    with socket.socket(socket.AF_UNIX) as listener:  # as mod_fcgid does it: the child has the only one
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(5)
        process = subprocess.Popen(
            [str(script)], cwd=script.parent, stdin=listener.fileno(), env={"PATH": SYSTEM_PATH},
            **server.host.worker,
        )
    try:
        assert b"Status: 200" in (ask_process(path) or b"")
        server.host.apply_changes(project, "deploy")
        answers = list(iter(lambda: ask_process(path), None))
        assert [answer for answer in answers if b"Status: 200" not in answer] == []
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@WAYS
def test_no_request_is_lost_while_new_code_is_deployed(server: Server, way: Way) -> None:
    project, site = place_versions(server, f"busy-{way.__name__}")
    over = threading.Event()
    answers: List[Tuple[int, str]] = []

    def keep_asking() -> None:
        while not over.is_set():
            try:
                answer = site.get("/")
                answers.append((answer.status, answer.text))
            except Exception as error:  # whatever goes wrong is an answer too
                answers.append((0, repr(error)))

    clients = [threading.Thread(target=keep_asking) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        assert eventually(lambda: len(answers) > 20)
        begin = time.monotonic()
        for version in (1, 2, 3, 4):
            write_version(project, version)
            way(server, project)
            assert eventually(lambda: answers[-1][1].startswith(f"{version} "))
            eventually(lambda: time.monotonic() > begin + 0.75 * version)  # the pace: four in three seconds
    finally:
        over.set()
        for client in clients:
            client.join(PATIENCE)
    assert [answer for answer in answers if answer[0] != 200] == []
    assert {answer[1].split()[0] for answer in answers} == set("01234")
    assert eventually(lambda: set(running(server, project).values()) == {"4"}, 5), running(server, project)
