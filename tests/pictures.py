"""The pictures in docs/, made from real runs: what a terminal shows, and the page in a browser.

    python tests/pictures.py            make them anew
    python tests/pictures.py --check    fail if those in docs/ show something else than real runs do

A picture of a terminal is an SVG file, compared byte for byte: what differs from run to run (paths, hashes,
times, versions, frames of other people's code in a traceback) is replaced by something fixed. A picture of
a browser is a PNG file, compared by its size, and looked at for text. All of it needs Apache with mod_fcgid,
and Debian's chromium.
"""
from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import zlib
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from apache import why_not
from conftest import PASSED_ON
from rich.console import Console
from rich.text import Text

SCRIPT = Path(__file__).resolve().parent.parent / "flaskflex.py"
DOCS = SCRIPT.parent / "docs"
NAME = "yourprojectname"
COLUMNS = 96

# Bare, with a background of its own: it is as readable on a dark page as on a light one. No font is fetched.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font: {char_height}px "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
.{unique_id}-title {{ font: 18px sans-serif; }}
{styles}
</style>
<defs>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

WORKS = """\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello, world!"
"""
NEEDS_A_PACKAGE = WORKS.replace("\n\napp", "\nimport markdown\n\napp")
NEEDS_A_SETTING = WORKS.replace("from", "import os\n\nfrom", 1).replace(
    "\n\n\n@", '\napp.secret_key = os.environ["SECRET_KEY"]\n\n\n@')


class Stage(NamedTuple):
    """Where the pictures are made: a folder with a host, a virtualenv and a clone, and the environment."""

    folder: Path
    environ: Dict[str, str]

    @property
    def clone(self) -> Path:
        return self.folder / NAME

    def run(self, *command: str, cwd: str = "") -> None:
        """Run a command that is in no picture."""
        done = subprocess.run(command, cwd=self.folder / cwd, env=self.environ, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit(f"{command} failed:\n{done.stdout.decode('utf-8', 'replace')}")

    def commit(self, application: str, message: str) -> None:
        """Let the clone's last commit have another application."""
        (self.clone / "application").mkdir(exist_ok=True)
        (self.clone / "application" / "app.py").write_text(application)
        self.run("git", "add", ".", cwd=NAME)
        self.run("git", "commit", f"--message={message}", cwd=NAME)

    def show(self, command: str) -> str:
        """Type a command in the clone, at a terminal; return the command and what it shows, made fixed."""
        return f"$ {command}\n{self.fixed(self.at_terminal(command))}"

    def at_terminal(self, command: str) -> str:
        """Return what a command prints to a terminal."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        with subprocess.Popen(["/bin/sh", "-c", command], cwd=self.clone, env=self.environ, stdin=theirs,
                              stdout=theirs, stderr=theirs):
            os.close(theirs)
            output = b"".join(iter(lambda: read_terminal(ours), b""))
        os.close(ours)
        return output.decode("utf-8").replace("\r\n", "\n")

    def fixed(self, text: str) -> str:
        """Return a text with what differs from run to run replaced by something fixed."""
        text = re.sub("[^\n]*\r", "", text.replace("\033[K", ""))  # what the terminal wipes out
        host = str(self.folder / "host")
        url = f"ssh://{NAME}@{NAME}.example.org/~"
        for old, new in ((f"To {host}", f"To {url}"), (f"to '{host}", f"to '{url}"), (host, "~"),
                         (str(self.folder), "~")):
            text = text.replace(old, new)
        text = re.sub(r"Python 3\.\d+\.\d+", "Python 3.13.5", text)
        text = re.sub(r"\bin \d+\.\d+ s\b", "in 0.21 s", text)
        text = re.sub(r"(?m)^remote: (?:Looking in .*)?\s*\n", "", text)
        return fixed_hashes(without_foreign_frames(text))


def read_terminal(handle: int) -> bytes:
    """Return what comes next from a terminal, nothing once its last program has ended."""
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # Linux's way of saying so
        return b""


def fixed_hashes(text: str) -> str:
    """Return a text in which git's short hashes are 1111111, 2222222, in the order in which they appear."""
    found = list(dict.fromkeys(re.findall(r"\b[0-9a-f]{7}\b", text)))
    return re.sub("|".join(found) or "$^", lambda match: str(found.index(match[0]) + 1) * 7, text)


def without_foreign_frames(text: str) -> str:
    """Return a text in whose tracebacks a line with dots stands for the frames that are not of app.py.

    The marks below a frame's line are left out: no two releases of Python make them alike.
    """
    text = re.sub(r"(?m)^(?:remote:)? +[~^]+\s*\n", "", text)
    frame = r'(?m)^(.*  )File "(?!.*/application/app\.py).*\n(?:\1  .*\n)*'
    return re.sub(r"(?m)^(.*  )\.\.\.\n(?:\1\.\.\.\n)+", r"\1...\n", re.sub(frame, r"\1...\n", text))


def svg(text: str, title: str) -> str:
    """Return a picture of a terminal that shows a text with its colours."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True,
                      color_system="standard", legacy_windows=False)
    for line in text.splitlines():
        style = "bold" if line.startswith("$ ") else ""
        console.print(Text.from_ansi(line, style=style), overflow="fold", highlight=False)
    picture = console.export_svg(title=title, code_format=SVG, unique_id="flaskflex")
    return re.sub("(?m)[ \t]+$", "", picture)


def build_stage(folder: Path) -> Stage:
    """Make a host, a clone of its empty project, and a virtualenv with Flask."""
    environ = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environ.update({
        "HOME": str(folder), "PATH": f"{folder}/env/bin:/usr/bin:/bin", "VIRTUAL_ENV": f"{folder}/env",
        "LANG": "C.UTF-8", "TERM": "xterm", "COLUMNS": str(COLUMNS), "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2012-02-20T12:00:00Z", "GIT_COMMITTER_DATE": "2012-02-20T12:00:00Z"})
    stage = Stage(folder, environ)
    for name, value in (("user.name", "A Student"), ("user.email", "student@example.org"),
                        ("init.defaultBranch", "main"), ("color.ui", "never")):
        stage.run("git", "config", "--global", name, value)
    (folder / "host").mkdir()
    stage.run("python3", str(SCRIPT), "host", NAME, cwd="host")
    stage.run("git", "clone", f"{folder}/host/{NAME}.git")
    stage.run("python3", "-m", "venv", "env")
    stage.run("env/bin/pip", "install", "flask")
    shutil.copy(SCRIPT, stage.clone)
    (stage.clone / ".gitignore").write_text("__pycache__/\n")
    return stage


def terminal_pictures(stage: Stage) -> Dict[str, str]:
    """Return the pictures of terminals by their names: the tutorial, with two changes that do not run."""
    pictures = {"first-run.svg": svg(stage.show("python flaskflex.py"), "python flaskflex.py")}
    stage.commit(WORKS, "Initial deployment")
    stage.run("git", "push", cwd=NAME)
    stage.run("python", "flaskflex.py", "check", cwd=NAME)  # fetches flup
    stage.commit(NEEDS_A_PACKAGE, "Write pages in Markdown")
    pictures["failing-check.svg"] = svg(stage.show("python flaskflex.py check"), "python flaskflex.py check")
    stage.commit(NEEDS_A_SETTING, "Let visitors log in")
    pictures["refused-push.svg"] = svg(stage.show("git push --quiet"), "git push")
    stage.commit(WORKS, "Hello again")
    return pictures


# A browser that asks for nothing but the page.
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--window-size=800,200",
)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def take_browser_picture(stage: Stage, picture: Path) -> None:
    """Serve the project, and save what a browser shows of it as a PNG file."""
    port = free_port()
    command = ["python", "flaskflex.py", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=stage.clone, env=stage.environ, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as serve:
        try:
            assert serve.stdout
            assert any(line.startswith(b"Serving") for line in serve.stdout)
            stage.run(*CHROMIUM, f"--user-data-dir={stage.folder}/browser", f"--screenshot={picture}",
                      f"http://127.0.0.1:{port}/")
        finally:
            serve.terminate()


def png_size(content: bytes) -> Tuple[int, int]:
    """Return the width and the height of a PNG file; raise ValueError if nothing is on it."""
    pixels, place = b"", 8
    while place < len(content):  # chunks: length, kind, data, checksum
        length, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"IDAT":
            pixels += content[place + 8:place + 8 + length]
        place += length + 12
    if len(set(zlib.decompress(pixels))) < 16:  # letters have many shades
        raise ValueError("the page is blank")
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def why_no_pictures() -> str:
    """Return why no pictures can be made here, "" if they can."""
    if not shutil.which("chromium"):
        return "chromium is not installed (Debian's package chromium)"
    return why_not() or ""


def make_pictures(folder: Path) -> None:
    """Make all pictures in a folder."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-pictures-", dir="/tmp") as name:
        stage = build_stage(Path(name))
        for picture, text in terminal_pictures(stage).items():
            (folder / picture).write_text(text, encoding="utf-8")
        take_browser_picture(stage, folder / "page.png")


def differences(made: Path, kept: Path) -> List[str]:
    """Return the names of the pictures that show something else in one folder than in the other."""
    different = []
    for picture in sorted(made.iterdir()):
        other = kept / picture.name
        contents = [path.read_bytes() for path in (picture, other) if path.exists()]
        if picture.suffix == ".png":
            shown: List[object] = [png_size(content) for content in contents]
        else:
            shown = [*contents]
        if len(shown) < 2 or shown[0] != shown[1]:
            different.append(picture.name)
    return different


def main(arguments: List[str]) -> int:
    """Make the pictures, or compare them with those in docs/; return the exit status."""
    reason = why_no_pictures()
    if reason:
        print(f"No pictures: {reason}", file=sys.stderr)
        return 1
    if arguments != ["--check"]:
        make_pictures(DOCS)
        return 0
    with tempfile.TemporaryDirectory(prefix="flaskflex-made-", dir="/tmp") as name:
        make_pictures(Path(name))
        different = differences(Path(name), DOCS)
        for picture in different:
            print(f"docs/{picture} is out of date: python tests/pictures.py makes it anew")
            if picture.endswith(".svg"):
                subprocess.run(["diff", DOCS / picture, Path(name, picture)])
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
