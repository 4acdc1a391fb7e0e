"""Which virtualenv flaskflex freezes, and what it says where there is none."""
from __future__ import annotations

import os
import re
import shutil
import sys
import venv
from pathlib import Path
from typing import Callable, Dict, List, Optional

import pytest
from conftest import Environ, Flaskflex, run
from helpers import (
    add_distribution, assert_prepared, assert_refused, light_virtualenv, site_packages, snapshot, untouched,
    write,
)


@pytest.fixture
def places(tmp_path: Path, virtualenv: Path) -> Dict[str, Path]:
    """Folders by their names: virtualenvs with a package of that name, and Pythons with none."""
    places = {"shared": virtualenv, "base": tmp_path / "base"}
    for name in ("one", "two", "three"):
        places[name] = light_virtualenv(tmp_path / name, virtualenv)
        add_distribution(places[name], name, "1.0")
    (tmp_path / "base" / "bin").mkdir(parents=True)
    (tmp_path / "base" / "bin" / "python").symlink_to(os.path.realpath(virtualenv / "bin" / "python"))
    (tmp_path / "alias").symlink_to("one")
    places["alias"] = tmp_path / "alias"
    return places


# (--venv, VIRTUAL_ENV, whose Python runs flaskflex, which one is taken, which one the warning names too)
PRECEDENCE = [
    ("one", "two", "three", "one", None),
    ("one", None, "base", "one", None),
    (None, "one", "base", "one", None),
    (None, "one", "one", "one", None),
    (None, "one", "two", "one", "two"),
    (None, "alias", "one", "alias", None),
    (None, None, "one", "one", None),
    (None, "", "one", "one", None),
]


@pytest.mark.parametrize("named, active, running, taken, warned", PRECEDENCE)
def test_the_virtualenv_is_the_named_the_active_or_the_running_one(
    named: Optional[str], active: Optional[str], running: str, taken: str, warned: Optional[str],
    places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex,
) -> None:
    environ.pop("VIRTUAL_ENV")
    if active is not None:
        environ["VIRTUAL_ENV"] = str(places[active]) if active else ""
    arguments = ["--venv", places[named]] if named else []
    result = flaskflex("-n", *arguments, python=places[running] / "bin" / "python")
    assert result.status == 0, result
    assert f"Virtualenv  {places[taken]} (Python {'.'.join(map(str, sys.version_info[:3]))})" in result.out
    assert f"+{places[taken].resolve().name}==1.0" in result.out
    warnings = [line for line in result.err.splitlines() if "no Flask" not in line]
    if warned:
        assert len(warnings) == 1
        assert f"taking {places[taken]} (" in warnings[0] and str(places[warned]) in warnings[0]
    else:
        assert warnings == []


def test_the_virtualenv_that_a_tool_installed_flaskflex_in_is_not_the_applications(
    tmp_path: Path, places: Dict[str, Path], environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    tool = light_virtualenv(tmp_path / "tool", places["shared"])
    script = Path(shutil.copy(project / "flaskflex.py", site_packages(tool)))
    result = flaskflex("-n", python=tool / "bin" / "python", script=script)
    assert result.status == 0
    assert f"Virtualenv  {places['shared']} " in result.out
    assert result.err == ""
    environ.pop("VIRTUAL_ENV")
    assert_refused(flaskflex(python=tool / "bin" / "python", script=script), "no virtualenv is active")


def test_a_relative_name_counts_from_the_folder_that_the_run_is_about(
    project: Path, places: Dict[str, Path], tmp_path: Path, flaskflex: Flaskflex
) -> None:
    places["one"].rename(project / "env")
    result = flaskflex("-n", "-C", "yourprojectname", "--venv", "env", cwd=tmp_path)
    assert result.status == 0, result
    assert "+one==1.0" in result.out


def test_the_version_is_asked_for_where_nothing_notes_it(
    places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    noted = places["one"] / "pyvenv.cfg"
    lines = noted.read_text().splitlines()
    noted.write_text("\n".join(line for line in lines if not line.startswith("version")))
    result = flaskflex("-n", "--venv", places["one"])
    assert f"Virtualenv  {places['one']} (Python {'.'.join(map(str, sys.version_info[:3]))})" in result.out


# --- none, and wrong ones ---


def test_without_a_virtualenv_it_says_how_to_activate_one(
    project: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    environ.pop("VIRTUAL_ENV")
    with untouched(project):
        result = flaskflex(python=places["base"] / "bin" / "python")
    assert_refused(result, "no virtualenv is active", "source ", "/bin/activate", "--venv")


@pytest.mark.parametrize("name", [".venv", "env"])
def test_without_a_virtualenv_the_one_in_the_project_is_named_in_a_command_that_works(
    name: str, project: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    renamed = project.rename(project.parent / "it's a project")
    venv.create(renamed / name, symlinks=True)
    environ.pop("VIRTUAL_ENV")
    with untouched(renamed):
        result = flaskflex(
            cwd=renamed, script=renamed / "flaskflex.py", python=places["base"] / "bin" / "python"
        )
    assert_refused(result, "no virtualenv is active")
    command = "source " + result.err.strip().partition("source ")[2]
    printed = run("bash", "-c", f"{command} && which python", cwd=project.parent, env=environ, check=False)
    assert printed.strip() == str(renamed / name / "bin" / "python")


def test_without_a_virtualenv_one_beside_the_project_is_named(
    project: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    venv.create(project.parent / "env", symlinks=True)
    (project / "application").mkdir()
    environ.pop("VIRTUAL_ENV")
    result = flaskflex("-C", "application", python=places["base"] / "bin" / "python")
    assert_refused(result, f"beside your project; activate it: source {project.parent}/env/bin/activate")


TOOLS = [
    ("poetry.lock", "poetry env info --path"), ("Pipfile", "pipenv --venv"), ("hatch.toml", "hatch env find"),
]


@pytest.mark.parametrize("name, command", TOOLS)
def test_without_a_virtualenv_that_of_a_tool_is_named_in_a_command_that_works(
    name: str, command: str, tmp_path: Path, project: Path, places: Dict[str, Path], environ: Environ,
    flaskflex: Flaskflex,
) -> None:
    write(project / name)
    environ.pop("VIRTUAL_ENV")
    result = flaskflex(python=places["base"] / "bin" / "python")
    assert_refused(result, "no virtualenv is active", name)
    script = f'#!/bin/sh\ntest "{command}" = "${{0##*/}} $*" && echo {places["one"]}\n'
    write(tmp_path / "programs" / command.split()[0], script, 0o755)
    typed = "python flaskflex.py" + result.err.rstrip().rpartition("python flaskflex.py")[2]
    programs = f"{places['base']}/bin:{tmp_path}/programs:/usr/bin:/bin"
    printed = run("bash", "-c", f"{typed} --dry-run", cwd=project, env={**environ, "PATH": programs})
    assert "+one==1.0" in printed


def test_without_a_virtualenv_anywhere_it_says_how_to_make_one(
    project: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    environ.pop("VIRTUAL_ENV")
    result = flaskflex(python=places["base"] / "bin" / "python")
    env = project.parent / "env"
    assert_refused(result, f"make one: python3 -m venv {env} && source {env}/bin/activate && ")


def test_another_virtualenv_than_the_projects_own_is_warned_of(
    project: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    environ["VIRTUAL_ENV"] = str(places["one"])
    venv.create(project / ".venv", symlinks=True)
    words = f"though the project holds {project}/.venv"
    python = places["one"] / "bin" / "python"
    assert words in flaskflex("-n", python=python).err
    assert words not in flaskflex("-n", "--venv", places["one"], python=python).err
    (project / ".venv").rename(project / "other")
    (project / "env").symlink_to(places["one"])
    assert words not in flaskflex("-n", python=python).err


WRONG = {
    "not there": "not there",
    "an empty folder": "not a virtualenv",
    "a file": "a file",
    "a Python without its interpreter": "Python of the virtualenv",
}


@pytest.mark.parametrize("option", ["--venv", "VIRTUAL_ENV"])
@pytest.mark.parametrize("name, words", WRONG.items())
def test_one_that_is_named_and_is_none_is_an_error_that_says_so(
    name: str, words: str, option: str,
    project: Path, tmp_path: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex,
) -> None:
    (tmp_path / "an empty folder").mkdir()
    write(tmp_path / "a file")
    places["one"].rename(tmp_path / "a Python without its interpreter")
    for python in (tmp_path / "a Python without its interpreter" / "bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nowhere/python")
    named: List[object] = []
    if option == "--venv":
        named = ["--venv", tmp_path / name]
    else:
        environ["VIRTUAL_ENV"] = str(tmp_path / name)
    with untouched(project):
        result = flaskflex(*named)
    assert_refused(result, str(tmp_path / name), words)


@pytest.mark.parametrize("links", [True, False], ids=["links that lead nowhere", "no links"])
def test_a_python_that_is_gone_is_made_again_by_the_hint_and_nothing_beside_it_is_lost(
    links: bool, project: Path, tmp_path: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    own = tmp_path / "all of it" / "env"
    venv.create(own, symlinks=True)
    shutil.copytree(project, own, dirs_exist_ok=True)  # `python3 -m venv .` in a clone
    for python in (own / "bin").glob("python*"):
        python.unlink()
        if links:
            python.symlink_to("/nowhere/python")
    before = snapshot(own / ".git")
    result = flaskflex("--venv", own)
    assert_refused(result, f"{own} is gone")
    hint, = re.findall("^Make it again: (.*)$", result.err, re.MULTILINE)
    run("sh", "-ec", f"{hint} --without-pip", cwd=tmp_path, env=environ)
    assert snapshot(own / ".git") == before
    assert (own / "flaskflex.py").read_bytes() == (project / "flaskflex.py").read_bytes()
    assert run(own / "bin" / "python", "-c", "import sys; print(sys.prefix)", cwd=tmp_path,
               env=environ) == f"{own}\n"


def test_a_virtualenv_whose_pip_fails_is_refused_with_pips_words(
    project: Path, places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    (site_packages(places["one"]) / "pip").unlink()
    broken = site_packages(places["one"]) / "pip" / "__main__.py"
    write(broken, "raise SystemExit('this pip is out of order')\n")
    with untouched(project):
        result = flaskflex("--venv", places["one"])
    assert_refused(result, str(places["one"]), "this pip is out of order")


def test_a_pip_that_fails_without_a_word_is_not_explained_by_git(
    project: Path, places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    (site_packages(places["one"]) / "pip").unlink()
    write(site_packages(places["one"]) / "pip" / "__main__.py", "raise SystemExit(3)\n")
    with untouched(project):
        result = flaskflex("--venv", places["one"])
    assert_refused(result, "pip freeze failed", "It gave no reason.", "-m pip freeze")
    assert "git" not in result.err.replace(str(project.parent), "")


def test_a_python_that_ends_without_a_word_is_not_explained_by_git(
    project: Path, tmp_path: Path, places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    write(tmp_path / "silent" / "pyvenv.cfg")
    write(tmp_path / "silent" / "bin" / "python", "#!/bin/sh\nexit 1\n", 0o755)
    result = flaskflex("--venv", tmp_path / "silent")
    assert_refused(result, "does not run", "It gave no reason.")
    assert "git" not in result.err


@pytest.mark.parametrize("noted", ["", "version = 3.11.7"], ids=["its version is asked for", "it freezes"])
def test_an_interpreter_that_never_answers_ends_the_run(
    noted: str, project: Path, tmp_path: Path, places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    """Started by hand it would hang; the two minutes that it has are shortened."""
    script = project / "flaskflex.py"
    text = script.read_text()
    assert text.count("\nPYTHON_SECONDS = 120") == 1
    write(script, text.replace("\nPYTHON_SECONDS = 120", "\nPYTHON_SECONDS = 0.2"))
    places["one"].rename(tmp_path / "hanging")
    write(tmp_path / "hanging" / "pyvenv.cfg", noted)
    (tmp_path / "hanging" / "bin" / "python").unlink()
    write(tmp_path / "hanging" / "bin" / "python", "#!/bin/sh\nexec sleep 100\n", 0o755)
    with untouched(project):
        result = flaskflex("--venv", tmp_path / "hanging")
    assert_refused(result, str(tmp_path / "hanging"), "0.2 s")


def mkfifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_it_long(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 33)  # 8 GB, of which the disk holds nothing


@pytest.mark.parametrize("spoil", [mkfifo, make_it_long], ids=["a FIFO", "8 GB"])
def test_a_pyvenv_cfg_that_never_ends_is_not_read(
    spoil: Callable[[Path], None], project: Path, places: Dict[str, Path], flaskflex: Flaskflex
) -> None:
    spoil(places["one"] / "pyvenv.cfg")
    with untouched(project):
        assert_refused(flaskflex("--venv", places["one"]), str(places["one"] / "pyvenv.cfg"))


# --- modules of the project's ---

COMMON_NAMES = [
    "argparse", "difflib", "git", "importlib", "json", "pathlib", "pip", "subprocess", "tempfile", "typing",
]


@pytest.mark.parametrize("started_in", [".", "application"])
def test_modules_of_the_project_are_never_imported(
    started_in: str, project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    for folder in (project, project / "application"):
        for name in COMMON_NAMES:
            write(folder / f"{name}.py", f"raise SystemExit('the {name} of the project was imported')\n")
    result = flaskflex(cwd=project / started_in)
    assert result.status == 0, result
    assert_prepared(project, environ)


def test_settings_for_pip_and_python_paths_do_not_change_what_is_frozen(
    project: Path, tmp_path: Path, places: Dict[str, Path], environ: Environ, flaskflex: Flaskflex
) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "intruder-1.0.dist-info" / "METADATA", "Name: intruder\nVersion: 1.0\n")
    write(tmp_path / "pip.conf", "[freeze]\nexclude = one\n")
    searched = os.pathsep.join(filter(None, (str(elsewhere), environ.get("PYTHONPATH"))))
    environ.update(PYTHONPATH=searched, PIP_CONFIG_FILE=str(tmp_path / "pip.conf"), PIP_PATH=str(elsewhere))
    result = flaskflex("-n", "--venv", places["one"])
    assert result.status == 0, result
    assert "+one==1.0" in result.out
    assert "intruder" not in result.out


def test_a_virtualenv_with_the_systems_packages_gives_only_its_own(
    tmp_path: Path, virtualenv: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    own = light_virtualenv(tmp_path / "own", virtualenv)
    settings = own / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("packages = false", "packages = true"))
    add_distribution(own, "one", "1.0")
    result = flaskflex("-n", "--venv", own)
    lines = [line for line in result.out.splitlines() if re.search(r"\w==\w", line)]
    assert lines == ["+flup==1.0.3", "+one==1.0"]
