"""How long a push to a host takes, beside a push of the same commit to a bare repository, over ssh.

What the lines of .flx take themselves is measured apart, and taken away: [deploy] twice, in the trial and in
the site; on the first push once, with [setup].
"""
from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Dict, List

from conftest import IDENTITY, SCRIPT, Environ, hermetic_environ, run
from helpers import write
from hosting import NAME, Hosted
from machine import Sshd, running_sshd

HOST_PYTHON = "/usr/bin/python3"  # as on a host: pyenv's and others' take longer to start

APPLICATION = """\
from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return "Hello!"
"""


def flx_lines(section: str) -> List[str]:
    """Return the commands of a section of the .flx that flaskflex writes."""
    text = (SCRIPT.parent / "templates" / "flx").read_text(encoding="utf-8")
    lines = text.partition(f"[{section}]\n")[2].partition("\n[")[0].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def timed(*command: object, cwd: Path, environ: Environ) -> float:
    """Run a command once; return the seconds that it took."""
    started = time.perf_counter()
    run(*command, cwd=cwd, env=environ)
    return time.perf_counter() - started


def run_lines(section: str, cwd: Path, environ: Environ) -> float:
    """Run the lines of a section by themselves; return the seconds that they took."""
    return sum(timed("sh", "-c", line, cwd=cwd, environ=environ) for line in flx_lines(section))


def make_clone(folder: Path, environ: Environ) -> Hosted:
    """Make a host and a clone of its project, with an application and what flaskflex writes."""
    hosted = Hosted(folder, environ)
    (folder / "host").mkdir(parents=True)
    run(HOST_PYTHON, SCRIPT, "host", NAME, cwd=folder / "host", env=environ)
    run("git", "init", "-q", "--bare", "bare.git", cwd=folder, env=environ)
    run("git", "clone", "-q", hosted.repository, hosted.clone, cwd=folder, env=environ)
    for template, path in (("flx", ".flx"), ("htaccess", "public_html/.htaccess"),
                           ("dispatch.fcgi", "public_html/dispatch.fcgi")):
        mode = 0o755 if template == "dispatch.fcgi" else 0o644
        text = (SCRIPT.parent / "templates" / template).read_text(encoding="utf-8")
        write(hosted.clone / path, text, mode)
    write(hosted.clone / "req.txt", "flask\nflup==1.0.3\n")
    write(hosted.clone / "application" / "app.py", APPLICATION)
    hosted.git("add", ".")
    hosted.git("commit", "-q", "-m", "The application")
    return hosted


def push_pair(hosted: Hosted, sshd: Sshd) -> Dict[str, float]:
    """Push the same commit to a bare repository and to the host; return the seconds that each took."""
    return {
        name: timed("git", "push", "-q", sshd.url(path), "HEAD:main", cwd=hosted.clone,
                    environ=hosted.environ)
        for name, path in (("bare", hosted.folder / "bare.git"), ("host", hosted.repository))
    }


def compare_pushed(pairs: int) -> None:
    """Push, and print medians."""
    with tempfile.TemporaryDirectory(prefix="flaskflex-benchmark-") as name:
        folder = Path(name)
        environ = {**hermetic_environ(folder / "home"), **IDENTITY}
        with running_sshd(folder / "sshd", environ) as sshd:
            environ["GIT_SSH_COMMAND"] = sshd.ssh
            first, later = [], []
            for number in range(max(2, pairs // 3)):
                hosted = make_clone(folder / f"project{number}", environ)
                spent = push_pair(hosted, sshd)
                spent["lines"] = (run_lines("setup", hosted.clone, environ)
                                  + run_lines("deploy", hosted.clone, environ))
                subprocess.run(["rm", "-rf", str(hosted.clone / ".venv")], check=True)
                hosted.git("checkout", "-q", ".")
                first.append(spent)
            for _ in range(pairs):
                hosted.commit()
                spent = push_pair(hosted, sshd)
                spent["lines"] = 2 * run_lines("deploy", hosted.site, environ)
                later.append(spent)
    for title, rows in (("The first push:", first), ("A push of one changed line:", later)):
        print(title)
        for name in ("bare", "host", "lines"):
            print(f"    {name:<14}{statistics.median(row[name] for row in rows):8.3f} s", flush=True)
        over = statistics.median(row["host"] - row["bare"] - row["lines"] for row in rows)
        print(f"    {'over':<14}{over:8.3f} s over the bare push and the lines of .flx", flush=True)


if __name__ == "__main__":
    compare_pushed(9)
