"""How .flx is read: the oddities of real files, and each kind of trouble with the number of its line."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Dict, List, Tuple

import pytest
from conftest import SCRIPT, Environ, run
from deployed import Item, copy_deployed, item, read_items
from helpers import load_flaskflex


@pytest.fixture(scope="module")
def flaskflex_module() -> ModuleType:
    """flaskflex.py as a module, for its parser, which is more than check shows of it."""
    return load_flaskflex()


Line = Tuple[int, str, str]

FORMS: Dict[str, Tuple[str, List[Line]]] = {
    "an empty file": ("", []),
    "nothing but blanks and comments": ("\n  \n\t\n# a comment\n   # another\n#[setup]\n", []),
    "a line of each section": (
        "[replace]\na TOKEN DB_HOST\n[permission]\na 755\n[setup]\nmake\n[deploy]\nmake new\n",
        [(2, "replace", "a TOKEN DB_HOST"), (4, "permission", "a 755"), (6, "setup", "make"),
         (8, "deploy", "make new")],
    ),
    "repeated sections, in the file's order": (
        "[deploy]\none\n[setup]\ntwo\n[deploy]\nthree\n[setup]\n[deploy]\nfour\n",
        [(2, "deploy", "one"), (4, "setup", "two"), (6, "deploy", "three"), (9, "deploy", "four")],
    ),
    "tabs, runs of spaces and trailing blanks": (
        "\t[permission]  \t\n  a\t\t755 \t \n", [(2, "permission", "a\t\t755")],
    ),
    "CRLF": ("[deploy]\r\none\r\n\r\n# two\r\nthree\r\n", [(2, "deploy", "one"), (5, "deploy", "three")]),
    "no newline at the end": ("[deploy]\none", [(2, "deploy", "one")]),
    "a section at the very end": ("[deploy]", []),
    "lines before any section": ("one\n\n[deploy]\ntwo\n", [(1, "", "one"), (4, "deploy", "two")]),
    "# inside a command": (
        "[deploy]\necho '# kept' > a # kept too\n  # not kept\n",
        [(2, "deploy", "echo '# kept' > a # kept too")],
    ),
    "commands that an ini parser would mangle": (
        "[deploy]\nA=1 make -j2 | tee log.txt\nmake: %(x)s ; ${y}\n  continued = not\n[ -f a ] && make\n"
        "echo [setup]\n",
        [(2, "deploy", "A=1 make -j2 | tee log.txt"), (3, "deploy", "make: %(x)s ; ${y}"),
         (4, "deploy", "continued = not"), (5, "deploy", "[ -f a ] && make"), (6, "deploy", "echo [setup]")],
    ),
    "the same line twice": ("[deploy]\none\none\n", [(2, "deploy", "one"), (3, "deploy", "one")]),
    "an unknown section": ("[permittion]\na 755\n", [(2, "permittion", "a 755")]),
    "letters outside ASCII": (
        "[deploy]\necho żółć\u2028\u00a0x\n", [(2, "deploy", "echo żółć\u2028\u00a0x")],
    ),
}


@pytest.mark.parametrize("text, lines", FORMS.values(), ids=list(FORMS))
def test_lines_are_read_with_their_sections_and_numbers(
    text: str, lines: List[Line], flaskflex_module: ModuleType
) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert [tuple(line) for line in flaskflex_module.parse_flx(text.encode(encoding))] == lines


def test_template_is_read_as_what_it_says(flaskflex_module: ModuleType) -> None:
    text = (SCRIPT.parent / "templates" / "flx").read_text()
    lines = flaskflex_module.parse_flx(text.encode())
    assert [line.section for line in lines] == ["setup"] + ["deploy"] * 3 + ["permission"] * 2
    for line in lines:
        assert text.split("\n")[line.number - 1] == line.text


# --- trouble ---

NO_TROUBLE = """\
[replace]
public_html/dispatch.fcgi FLX_PROJECT_NAME PROJECT_NAME
application/settings.py\tFLX_HOST\t\tDB_HOST
./application/settings.py PROJECT_NAME DB_USER
application/../application/settings.py x DB_PASSWORD
[permission]
public_html/dispatch.fcgi 755
public_html/ 711
. 750
[setup]
python3 -m venv .venv
echo "pip is not called here, and --user is no option of echo's"
[deploy]
.venv/bin/pip install -r req.txt
.venv/bin/python -m pip install --requirement=more/req.txt --upgrade
sudo -u me --user me true
pip list && apt install --user
=======
[deploy]
"""

# Each line of a section that has something against it, and words of what is said: a line that cannot be read
# fails, and one that can is warned about.
TROUBLE: List[Tuple[str, str, str]] = [
    ("", "make", "section"),
    ("permittion", "public_html 755", "permittion"),
    ("Deploy", "make", "Deploy"),
    ("replace", "application/settings.py TOKEN", "PATH TOKEN VARIABLE"),
    ("replace", "application/settings.py TOKEN DB_HOST more", "PATH TOKEN VARIABLE"),
    ("replace", "application/settings.py TOKEN DB_PORT", "DB_PASSWORD"),
    ("replace", "application/settings.py TOKEN db_host", "DB_HOST"),
    ("replace", "application/missing.py TOKEN DB_HOST", "application/missing.py is not in the project"),
    ("replace", "application/untracked.py TOKEN DB_HOST", "application/untracked.py is not in the project"),
    ("replace", "../outside TOKEN DB_HOST", "../outside is not in the project"),
    ("replace", "/etc/passwd TOKEN DB_HOST", "/etc/passwd is not in the project"),
    ("replace", "application/../../copy TOKEN DB_HOST", "application/../../copy is not in the project"),
    ("permission", "public_html", "PATH MODE"),
    ("permission", "public_html 755 more", "PATH MODE"),
    ("permission", "public_html 758", "octal"),
    ("permission", "public_html 75", "octal"),
    ("permission", "public_html u+x", "octal"),
    ("permission", "public_html ７５５", "octal"),
    ("permission", "missing 755", "missing is not in the project"),
    ("permission", ".. 755", ".. is not in the project"),
    ("deploy", "<<<<<<< HEAD", "conflict"),
    ("permission", ">>>>>>> topic", "conflict"),
    ("setup", "pip install --user flask", "--user"),
    ("setup", "\"$HOME/.venv/bin/pip3\" -q --no-input install --user flask", "--user"),
    ("deploy", "pip install -r req.txt -I --install-option=\"--user\"", "--install-option"),
    ("deploy", "python3 -m pip install -r req.txt --user", "--user"),
    ("deploy", "pip3.11  install\t--user -r req.txt", "--user"),
    ("deploy", "pip --quiet install --user -r req.txt", "--user"),
    ("deploy", ".venv/bin/pip install -r requirements.txt", "requirements.txt is not in the project"),
    ("deploy", ".venv/bin/pip install --requirement ../req.txt", "../req.txt is not in the project"),
]


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, deployed: Path, session_environ: Environ
) -> Dict[int, Item]:
    """What check says of a .flx with all that trouble and as much that is right: by the line's number."""
    project = copy_deployed(deployed, tmp_path_factory.mktemp("flx"))
    (project / "more").mkdir()
    (project / "more" / "req.txt").touch()
    (project / "application" / "settings.py").touch()
    text = "".join(f"[{section}]\n{line}\n" if section else f"{line}\n" for section, line, _ in TROUBLE)
    (project / ".flx").write_text(text + NO_TROUBLE, encoding="utf-8")
    environ = {**session_environ, "VIRTUAL_ENV": str(virtualenv), "GIT_EDITOR": "true"}
    run("git", "add", ".", cwd=project, env=environ)
    run("git", "-c", "user.name=me", "-c", "user.email=me", "commit", "-q", "-m", "All kinds of lines",
        cwd=project, env=environ)
    (project / "application" / "untracked.py").touch()
    (project / ".flx").write_text("not what is committed")
    out = run(virtualenv / "bin" / "python", "flaskflex.py", "check", cwd=project, env=environ, check=False)
    numbered = {}
    for told in read_items(out):
        number = re.match(r"\.flx, line (\d+): ", told.text)
        if number:
            assert int(number[1]) not in numbered, out
            numbered[int(number[1])] = told
    return numbered


@pytest.mark.parametrize("index", range(len(TROUBLE)), ids=[line for _, line, _ in TROUBLE])
def test_trouble_is_told_with_the_number_of_its_line(index: int, found: Dict[int, Item]) -> None:
    number = 2 * index + 1  # the first line has no section above it, each of the others has its own
    section, line, words = TROUBLE[index]
    assert number in found, f"nothing is said about [{section}] {line}"
    unreadable = re.search("conflict|PATH MODE|PATH TOKEN", found[number].text)
    assert found[number].level == ("fail" if unreadable else "warn")
    assert words in found[number].text
    assert " ".join(line.split()) in " ".join(found[number].hint.split())  # tabs become spaces


def test_what_is_right_is_no_trouble(found: Dict[int, Item]) -> None:
    assert [item for number, item in found.items() if number >= 2 * len(TROUBLE)] == []


def test_sound_file_is_ok_whatever_its_line_endings(
    tmp_path: Path, deployed: Path, environ: Environ
) -> None:
    project = copy_deployed(deployed, tmp_path)
    flx = project / ".flx"
    flx.write_bytes(flx.read_bytes().replace(b"\n", b"\r\n").rstrip())
    run("git", "commit", "-q", "-m", "CRLF, and no newline at the end", ".flx", cwd=project, env=environ)
    out = run("python", "flaskflex.py", "check", cwd=project, env=environ)
    assert item(out, r"^\.flx").level == "ok"


@pytest.mark.parametrize("line", [
    "pip" + " -pip" * 25_000, "pip " * 25_000, "pip install" + " -r" * 25_000, "-" * 100_000, "[" * 100_000,
    "pip install -r" + "a" * 100_000, "pip." + "." * 100_000, "a " * 50_000,
], ids=lambda line: line[:16])
def test_long_line_is_read_in_no_time(line: str) -> None:
    # In a process of its own: a pattern whose time grows with the square could not be interrupted here.
    program = ("import sys, flaskflex as f; line = sys.stdin.read()\n"
               "for section in f.FLX_SECTIONS + ('',):\n"
               "    for found in f.parse_flx(f'[{section}]\\n{line}'.encode()):\n"
               "        f.flx_error(found) or f.flx_warning(found, set())\n")
    command = [sys.executable, "-c", program]
    subprocess.run(command, input=line.encode(), cwd=SCRIPT.parent, timeout=60, check=True)
