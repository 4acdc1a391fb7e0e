"""How long flaskflex takes, beside the same work typed by hand, by cookiecutter and by copier.

And how many requests a second the dispatch.fcgi that it writes serves, and what a push to a host takes.

    tox run -e benchmark

It tests nothing: machines are shared and noisy, so it compares pair by pair in one run, A B C D A B C D,
and prints medians and ratios.
"""
from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

from benchmark_check import compare_checks
from benchmark_machine import compare_idle
from benchmark_pushed import compare_pushed
from benchmark_served import compare_served
from conftest import IDENTITY, SCRIPT, Environ, hermetic_environ, run

PACKAGES = (7, 100, 500)
FILES = (10, 100_000)
TEMPLATES = SCRIPT.parent / "templates"
WRITTEN = {"flx": ".flx", "htaccess": "public_html/.htaccess", "dispatch.fcgi": "public_html/dispatch.fcgi"}

BY_HAND = """\
python -m pip freeze > req.txt
mkdir -p public_html
cp {templates}/flx .flx
cp {templates}/htaccess public_html/.htaccess
cp {templates}/dispatch.fcgi public_html/dispatch.fcgi
git add .flx public_html req.txt
git commit --quiet -m 'Prepare for deployment' || true
"""


class Spent(NamedTuple):
    """What one command took: seconds on the clock, and the peak memory of its largest process in MiB."""

    seconds: float
    memory: float


def measure(command: List[str], cwd: Path, environ: Environ) -> Spent:
    """Run a command once, and say what it took."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command}: {errors.decode()}"
    return Spent(seconds, usage.ru_maxrss / 1024)


def make_virtualenv(path: Path, packages: int) -> None:
    """A virtualenv with so many distributions: pip freeze reads only their metadata, so there is no more."""
    venv.create(path, with_pip=True, symlinks=True)
    folder, = path.glob("lib/*/site-packages")
    for number in range(packages):
        info = folder / f"package_{number}-1.{number}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: package-{number}\nVersion: 1.{number}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "INSTALLER").write_text("pip\n", encoding="utf-8")
        (info / "RECORD").write_text("", encoding="utf-8")


def make_project(path: Path, files: int, environ: Environ) -> None:
    """A repository with so many tracked files, in folders of a thousand."""
    run("git", "init", "-q", "-b", "main", path, cwd=path.parent, env=environ)
    for number in range(files):
        file = path / f"folder{number // 1000}" / f"file{number % 1000}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{number}\n", encoding="utf-8")
    run("git", "add", ".", cwd=path, env=environ)
    run("git", "-c", "gc.auto=0", "commit", "-q", "-m", "files", cwd=path, env=environ)
    run("git", "gc", "-q", cwd=path, env=environ)
    run("git", "branch", "start", cwd=path, env=environ)


def reset(project: Path, environ: Environ, branch: str = "start") -> None:
    """Take the project to what a branch holds, by default to before the first run."""
    for path in (".flx", "public_html", "req.txt"):
        target = project / path
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    run("git", "reset", "-q", "--hard", branch, cwd=project, env=environ)
    run("git", "update-index", "-q", "--refresh", cwd=project, env=environ)


def cookiecutter_template(folder: Path) -> Path:
    """A cookiecutter template that writes the same files, with a hook for the rest."""
    target = folder / "cookie" / "{{cookiecutter.project}}"
    copy_templates(target)
    (folder / "cookie" / "cookiecutter.json").write_text('{"project": "project"}', encoding="utf-8")
    hook = folder / "cookie" / "hooks" / "post_gen_project.sh"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\n" + only_freeze_and_commit(), encoding="utf-8")
    return folder / "cookie"


def copier_template(folder: Path) -> Path:
    """A copier template that writes the same files, with tasks for the rest."""
    copy_templates(folder / "copier" / "files")
    tasks = "".join(f"  - {command!r}\n" for command in only_freeze_and_commit().splitlines())
    (folder / "copier" / "copier.yml").write_text(
        f"_subdirectory: files\n_templates_suffix: .jinja\n_tasks:\n{tasks}", encoding="utf-8"
    )
    return folder / "copier"


def copy_templates(target: Path) -> None:
    for name, path in WRITTEN.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATES / name, target / path)


def only_freeze_and_commit() -> str:
    """What is typed by hand, apart from what puts the templates into their places."""
    return "".join(line + "\n" for line in BY_HAND.splitlines() if not line.startswith(("mkdir", "cp ")))


Commands = Dict[str, List[str]]


def commands_for(project: Path, folder: Path) -> Commands:
    """The four ways to do the same work in a project, by name."""
    tools = Path(sys.executable).parent
    cookie, copier = cookiecutter_template(folder), copier_template(folder)
    return {
        "flaskflex": ["python", str(SCRIPT), "-C", str(project)],
        "by hand": ["sh", "-c", BY_HAND.format(templates=TEMPLATES)],
        "cookiecutter": [str(tools / "cookiecutter"), "--no-input", "--overwrite-if-exists",
                         "--output-dir", str(project.parent), str(cookie), f"project={project.name}"],
        "copier": [str(tools / "copier"), "copy", "--quiet", "--defaults", "--trust", "--overwrite",
                   str(copier), str(project)],
    }


def compare(commands: Commands, project: Path, environ: Environ, pairs: int,
            before: Callable[[str], None]) -> None:
    """Run the commands in turn, and print a line of medians and of ratios to the work typed by hand.

    before(NAME) puts the project into the state in which the command of that name is to find it.
    """
    spent: Dict[str, List[Spent]] = {name: [] for name in commands}
    for _ in range(pairs):
        for name, command in commands.items():
            before(name)
            spent[name].append(measure(command, project, environ))
    hand = [one.seconds for one in spent["by hand"]]
    for name, results in spent.items():
        seconds = [one.seconds for one in results]
        ratio = statistics.median(a / b for a, b in zip(seconds, hand))
        memory = max(one.memory for one in results)
        print(f"    {name:<14}{statistics.median(seconds):8.3f} s   ratio {ratio:5.2f}   {memory:6.0f} MiB",
              flush=True)


def started_alone(environ: Environ, folder: Path, pairs: int) -> None:
    """What --help, --version and the refusals that need no freeze take, over an empty Python program."""
    cases: List[Tuple[str, List[str], Environ]] = [
        ("--help", ["--help"], environ),
        ("--version", ["--version"], environ),
        ("no repository", ["-C", str(folder)], environ),
        ("no virtualenv", [], {**environ, "VIRTUAL_ENV": str(folder / "nowhere")}),
    ]
    for name, arguments, own in cases:
        over = []
        for _ in range(pairs):
            empty = measure(["python", "-c", "pass"], folder, environ).seconds
            started = time.perf_counter()
            subprocess.run(["python", str(SCRIPT), *arguments], cwd=folder, env=own, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            over.append(time.perf_counter() - started - empty)
        print(f"    {name:<14}{statistics.median(over):8.3f} s over an empty program", flush=True)


def main() -> None:
    """Build the inputs, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="how often each is run (9)")
    pairs = parser.parse_args().pairs
    compare_served(pairs)
    compare_checks(pairs)
    compare_pushed(pairs)
    if os.geteuid() == 0:
        print("\n".join(compare_idle(200)))
    with tempfile.TemporaryDirectory(prefix="flaskflex-benchmark-") as name:
        folder = Path(name)
        environ = {**hermetic_environ(folder / "home"), **IDENTITY}
        environ.pop("PYTHONPATH", None)
        path = environ["PATH"]
        for packages in PACKAGES:
            make_virtualenv(folder / f"env{packages}", packages)
        environ["PATH"] = f"{folder / 'env7' / 'bin'}:{path}"
        environ["VIRTUAL_ENV"] = str(folder / "env7")
        print("Nothing to freeze:")
        started_alone(environ, folder, pairs)
        for files in FILES:
            project = folder / f"files{files}" / "project"
            project.parent.mkdir()
            make_project(project, files, environ)
            commands = commands_for(project, project.parent)
            for packages in PACKAGES:
                environ["PATH"] = f"{folder / f'env{packages}' / 'bin'}:{path}"
                environ["VIRTUAL_ENV"] = str(folder / f"env{packages}")
                reset(project, environ)
                measure(commands["flaskflex"], project, environ)  # fills flaskflex's cache
                print(f"{packages} packages, {files:,} tracked files, first run:")
                compare(commands, project, environ, pairs, lambda name: reset(project, environ))
                for name in ("flaskflex", "by hand"):
                    reset(project, environ)
                    measure(commands[name], project, environ)
                    run("git", "branch", "-f", name.replace(" ", "-"), cwd=project, env=environ)
                print(f"{packages} packages, {files:,} tracked files, nothing to do:")
                again = {name: commands[name] for name in ("flaskflex", "by hand")}
                compare(again, project, environ, pairs,
                        lambda name: reset(project, environ, name.replace(" ", "-")))


if __name__ == "__main__":
    main()
