"""The README is true: its tutorial is run here as it stands, and it explains each line of the templates."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, List

import pytest
from conftest import SCRIPT, Environ, run
from installing import serving

README = SCRIPT.parent / "README.rst"
TEMPLATES = SCRIPT.parent / "templates"

pytestmark = pytest.mark.real_pip


def section(title: str) -> str:
    """The text of one of the README's sections, which are underlined with dashes."""
    parts = re.split(r"^(.+)\n-{5,}\n", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))[title]


def blocks(text: str, opening: str) -> List[str]:
    """The indented blocks that follow a line such as `::`, without their indentation."""
    found = re.findall(rf"^{re.escape(opening)}\n\n((?:(?:    .*)?\n)+)", text, re.MULTILINE)
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in found]


def code_lines(text: str) -> List[str]:
    """The lines of a template that do something: neither blank nor a comment nor the module's docstring."""
    text = re.sub(r'\A(#!.*\n)"""(?s:.*?)"""\n', r"\1", text)
    return [line for line in text.split("\n") if line and not re.match(r"\s*#(?!!)", line)]


def test_each_line_of_the_templates_is_explained() -> None:
    explained = "".join(blocks(section("What is written, and why"), "::")).split("\n")
    templates = [TEMPLATES / name for name in ("flx", "htaccess", "dispatch.fcgi")]
    lines = [line for path in templates for line in code_lines(path.read_text(encoding="utf-8"))]
    assert [line for line in explained if line] == lines


def test_each_promise_names_tests_that_exist() -> None:
    promises = section("What flaskflex promises about your files").split("\n- ")[1:]
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    existing = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE))
    for promise in promises:
        named = re.findall(r"``(test_\w+)``", promise)
        assert named and existing.issuperset(named), promise


@pytest.fixture
def download() -> Iterator[str]:
    """The address at which this flaskflex.py can be downloaded, on loopback."""
    with serving(SCRIPT.parent) as (address, _):
        yield f"{address}/flaskflex.py"


@pytest.fixture
def host(tmp_path: Path, environ: Environ) -> Path:
    """The home of the project's user on a host, set up as the README's section says."""
    home = tmp_path / "host"
    home.mkdir()
    commands, hook = blocks(section("A host of your own"), ".. code-block:: sh")
    run("bash", "-ec", commands, cwd=home, env=environ)
    script = home / "yourprojectname.git" / "hooks" / "post-receive"
    script.parent.mkdir(exist_ok=True)  # GIT_TEMPLATE_DIR is empty here
    script.write_text(hook, encoding="utf-8")
    script.chmod(0o755)
    return home


def test_the_tutorial_deploys_and_the_host_serves_each_version(
    tmp_path: Path, environ: Environ, host: Path, download: str
) -> None:
    commands = "".join(blocks(section("Tutorial: deploying your application"), ".. code-block:: sh"))
    address = str(host / "yourprojectname.git")
    commands = commands.replace("ssh://git@host.example.org/yourprojectname", address)
    commands = commands.replace("https://host.example.org/flaskflex.py", download)
    for name in [name for name in environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        del environ[name]
    student = tmp_path / "student"
    (tmp_path / "home" / ".ssh").mkdir()
    student.mkdir()
    del environ["VIRTUAL_ENV"]
    shown = run("bash", "-ec", commands, cwd=student, env=environ)

    assert "ssh-ed25519" in shown
    assert re.search(r"^ +ok   GET / answers 200 OK", shown, re.MULTILINE)
    served = host / "yourprojectname"
    assert "Better than ever" in (served / "application" / "app.py").read_text(encoding="utf-8")
    installed = run(served / ".venv" / "bin" / "python", "-I", "-m", "pip", "freeze", cwd=served, env=environ)
    asked = (served / "req.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(line for line in asked if not line.startswith("#")) == sorted(installed.splitlines())
    assert (served / "public_html" / "dispatch.fcgi").stat().st_mode & 0o777 == 0o755
