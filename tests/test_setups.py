"""Every user's setup: their package index, their settings for pip and Python, their home, their disk."""
from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import pytest
from conftest import Environ, Flaskflex, Git, run, without_coverage
from helpers import (
    assert_prepared, assert_refused, light_virtualenv, load_flaskflex, site_packages, snapshot,
    untouched, write,
)
from installing import certified, other_python, python_of, read_files, serving, start, tool, written_files

pytestmark = pytest.mark.once

flaskflex_module: Any = load_flaskflex()
NOBODYS_HOST = "packages.invalid"


class Company(NamedTuple):
    """A package index of a company's own: its address, the folder that it serves, what it was asked for."""

    address: str
    folder: Path
    asked: List[str]

    def environ(self, environ: Environ) -> Environ:
        """An environment in which nothing but this index is known, and nothing has been fetched yet."""
        plain = {name: value for name, value in environ.items() if not name.startswith(("PIP_", "UV_"))}
        return {
            **plain, "XDG_CACHE_HOME": str(Path(environ["HOME"], "cache")), "no_proxy": "127.0.0.1,localhost",
            "PIP_INDEX_URL": f"{self.address}/simple/", "PIP_EXTRA_INDEX_URL": f"{self.address}/empty/",
            "PIP_FIND_LINKS": str(self.folder / "empty"), "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0",
        }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ) -> Path:
    """A folder that can be served as a package index, with the pinned wheels of flaskflex in it."""
    folder = tmp_path_factory.mktemp("index")
    pins = write(folder / "pins.txt", flaskflex_module.GITPYTHON_PINS)
    run(python_of(virtualenv), "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
        "--require-hashes", "-r", pins, "-d", folder / "files", cwd=folder, env=session_environ)
    for wheel in (folder / "files").iterdir():
        name = wheel.name.split("-")[0].lower().replace("_", "-")
        link = f'<a href="../../files/{wheel.name}">{wheel.name}</a>\n'
        write(folder / "simple" / name / "index.html", link)
    write(folder / "empty" / "index.html")
    return folder


@pytest.fixture
def company(wheels: Path, tmp_path: Path) -> Iterator[Company]:
    """The index, served for one test, which may change it."""
    shutil.copytree(wheels, tmp_path / "index")
    with serving(tmp_path / "index") as (address, asked):
        yield Company(address, tmp_path / "index", asked)


def wheels_asked(company: Company) -> List[str]:
    """The distributions whose wheels were fetched from the index, sorted."""
    paths = [line.split("/files/")[1] for line in company.asked if "/files/" in line]
    return sorted(path.split("-")[0].lower() for path in paths)


ALL_WHEELS = ["gitdb", "gitpython", "smmap", "typing_extensions"]


# --- where GitPython is fetched from ---


def index_in_the_environment(company: Company, environ: Environ) -> None:
    """What Company.environ() sets already."""


def extra_index_in_the_environment(company: Company, environ: Environ) -> None:
    environ["PIP_INDEX_URL"], environ["PIP_EXTRA_INDEX_URL"] = (
        environ["PIP_EXTRA_INDEX_URL"], environ["PIP_INDEX_URL"])


def index_in_pip_conf(company: Company, environ: Environ) -> None:
    settings = [f"{name[4:].lower().replace('_', '-')} = {environ.pop(name)}"
                for name in list(environ) if name.startswith("PIP_")]
    write(Path(environ["XDG_CONFIG_HOME"], "pip", "pip.conf"), "\n".join(["[global]", *settings, ""]))


def proxy(company: Company, environ: Environ) -> None:
    """The host of the index is known to the proxy alone."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        environ[name] = environ[name].replace(company.address, f"http://{NOBODYS_HOST}")
    environ.update(PIP_PROXY=company.address, PIP_TRUSTED_HOST=NOBODYS_HOST)


def proxy_of_the_whole_system(company: Company, environ: Environ) -> None:
    proxy(company, environ)
    environ.update(http_proxy=environ.pop("PIP_PROXY"), no_proxy="")


@pytest.mark.parametrize("setting", [
    index_in_the_environment, extra_index_in_the_environment, index_in_pip_conf, proxy,
    proxy_of_the_whole_system,
], ids=lambda setting: str(setting.__name__))
def test_gitpython_is_fetched_from_the_users_index(
    setting: Callable[[Company, Environ], None], company: Company, environ: Environ, project: Path,
    flaskflex: Flaskflex,
) -> None:
    own = company.environ(environ)
    setting(company, own)
    result = flaskflex(env=own)
    assert result.status == 0, result
    assert wheels_asked(company) == ALL_WHEELS
    assert all(f"http://{NOBODYS_HOST}/" in line for line in company.asked) == ("proxy" in setting.__name__)
    assert_prepared(project, environ)


def test_gitpython_is_fetched_from_uvs_index_where_there_is_no_pip(
    company: Company, environ: Environ, tmp_path: Path, project: Path
) -> None:
    own = company.environ(environ)
    own.update(UV_DEFAULT_INDEX=own["PIP_INDEX_URL"], UV_CACHE_DIR=str(tmp_path / "uv"),
               PATH=os.pathsep.join([os.path.dirname(tool("uv")), own["PATH"]]))
    bare = tmp_path / "env"
    run(tool("uv"), "venv", "-q", "--python", os.path.realpath(sys.executable), bare, cwd=tmp_path, env=own)
    result = start(python_of(bare), "flaskflex.py", cwd=project, env={**own, "VIRTUAL_ENV": str(bare)})
    assert result.status == 0, result
    assert wheels_asked(company) == ALL_WHEELS
    assert_prepared(project, environ)


@pytest.mark.parametrize("trusted", [True, False])
def test_the_users_certificates_are_respected(
    trusted: bool, wheels: Path, tmp_path: Path, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    certificate, context = certified(tmp_path, environ)
    with serving(wheels, context=context) as (address, asked):
        company = Company(address.replace("127.0.0.1", "localhost"), wheels, asked)
        # pip tells the reason when it tries again; what it says behind a URL is not shown.
        own = {**company.environ(environ), "PIP_RETRIES": "1"}
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
            own.pop(name, None)
        if trusted:
            own["PIP_CERT"] = str(certificate)
        result = flaskflex(env=own)
    if trusted:
        assert result.status == 0, result
        assert wheels_asked(company) == ALL_WHEELS
    else:
        assert_refused(result, "GitPython", "could not be fetched", "certificate")
        assert is_as_cloned(project, environ)


def is_as_cloned(project: Path, environ: Environ) -> bool:
    """True if nothing has been committed or staged yet, and nothing is there but the download."""
    command = ["git", "status", "--porcelain", "--branch", "--untracked-files=all"]
    status = run(*command, cwd=project, env=environ)
    return status.startswith("## No commits yet on main") and status.splitlines()[1:] == ["?? flaskflex.py"]


def test_a_wheel_that_was_tampered_with_is_refused(
    company: Company, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    wheel = next((company.folder / "files").glob("smmap-*"))
    wheel.write_bytes(wheel.read_bytes() + b"!")
    own = company.environ(environ)
    with untouched(project):
        result = flaskflex(env=own)
    assert_refused(result, "GitPython", "could not be fetched", "hash")
    assert snapshot(Path(own["XDG_CACHE_HOME"])).keys() == {"flaskflex"}


# --- settings that are made for something else ---


@pytest.fixture(scope="module")
def expected(
    tmp_path_factory: pytest.TempPathFactory, virtualenv: Path, session_environ: Environ
) -> Dict[str, bytes]:
    """The four files, as they are written where nothing is set up in any unusual way."""
    return written_files(tmp_path_factory.mktemp("expected"), virtualenv, session_environ)


# What somebody may have told pip about their other work, all that can be told together. ELSEWHERE stands for
# a folder.
PIP_SETTINGS: Dict[str, Dict[str, str]] = {
    "where and how to install, and to say little": {
        "target": "ELSEWHERE", "user": "yes", "require-virtualenv": "yes",
        "requirement": "ELSEWHERE/pins.txt", "constraint": "ELSEWHERE/pins.txt",
        "no-binary": ":all:", "pre": "yes", "ignore-installed": "yes", "upgrade": "yes",
        "quiet": "3", "format": "json", "no-color": "yes", "no-input": "yes",
    },
    "what to leave out, and to say much": {
        "exclude": "flask", "path": "ELSEWHERE", "dry-run": "yes",
        "verbose": "2", "log": "ELSEWHERE/log", "report": "ELSEWHERE/report",
    },
}


def set_for_pip(settings: Dict[str, str], where: str, own: Environ, elsewhere: Path) -> None:
    """Settings for pip, in the environment or in a file of the user's."""
    write(elsewhere / "pins.txt", "smmap==0.1\n")
    settings = {name: value.replace("ELSEWHERE", str(elsewhere)) for name, value in settings.items()}
    if where == "environment":
        own.update({f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()})
    else:
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        write(Path(own["XDG_CONFIG_HOME"], "pip", "pip.conf"), "[global]\n" + "".join(lines))


@pytest.mark.real_pip
@pytest.mark.parametrize("where", ["environment", "pip.conf"])
@pytest.mark.parametrize("settings", PIP_SETTINGS.values(), ids=PIP_SETTINGS)
def test_settings_for_pip_change_neither_the_freeze_nor_the_fetch(
    settings: Dict[str, str], where: str, tmp_path: Path, company: Company, environ: Environ, project: Path,
    flaskflex: Flaskflex, expected: Dict[str, bytes],
) -> None:
    own = company.environ(environ)
    set_for_pip(settings, where, own, tmp_path / "elsewhere")
    result = flaskflex(env=own)
    assert result.status == 0, result
    assert "Fetched     GitPython" in result.out
    assert read_files(project) == expected
    assert_prepared(project, environ)


@pytest.mark.real_pip
@pytest.mark.parametrize("setting", [
    {"prefix": "ELSEWHERE"}, {"root": "ELSEWHERE"}, {"python": "/nowhere/python"},
], ids=lambda setting: str(next(iter(setting))))
def test_settings_that_no_pip_can_fetch_with_are_refused_and_do_not_change_the_freeze(
    setting: Dict[str, str], tmp_path: Path, company: Company, environ: Environ, project: Path,
    flaskflex: Flaskflex, expected: Dict[str, bytes],
) -> None:
    """Or they are respected, where a pip can."""
    own = company.environ(environ)
    set_for_pip(setting, "environment", own, tmp_path / "elsewhere")
    before = snapshot(project)
    result = flaskflex(env=own)
    if result.status:
        assert_refused(result, "GitPython", "could not be fetched", "--no-commit")
        assert snapshot(project) == before
        result = flaskflex("--no-commit", env=own)
    assert result.status == 0, result
    assert read_files(project) == expected


# --- settings for Python ---

NO_UTF_8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

# The PYTHONPATH that begins with an empty entry, a dot, and the project.
PYTHON_SETTINGS: Dict[str, Dict[str, str]] = {
    "PYTHONPATH": {"PYTHONPATH": ":.:PROJECT:/nowhere"},
    "PYTHONSAFEPATH, PYTHONHOME and PYTHONOPTIMIZE": {
        "PYTHONSAFEPATH": "1", "PYTHONHOME": sys.base_prefix, "PYTHONOPTIMIZE": "2",
    },
    "PYTHONWARNINGS": {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONWARNDEFAULTENCODING": "1"},
    "no UTF-8, and PYTHONIOENCODING": {**NO_UTF_8, "PYTHONIOENCODING": "ascii", "LANG": "C"},
}


@pytest.mark.real_pip
@pytest.mark.parametrize("settings", PYTHON_SETTINGS.values(), ids=PYTHON_SETTINGS)
def test_settings_for_python_change_nothing(
    settings: Dict[str, str], company: Company, environ: Environ, project: Path, flaskflex: Flaskflex,
    expected: Dict[str, bytes],
) -> None:
    """The project holds modules of the names that matter, and its folder has no plain name."""
    renamed = project.rename(project.parent / "projét ☃")
    for name in ("argparse", "git", "gitdb", "json", "pip", "typing"):
        write(renamed / f"{name}.py", f"raise SystemExit('the {name} of the project was imported')\n")
    own = company.environ(environ)
    own.update({name: value.replace("PROJECT", str(renamed)) for name, value in settings.items()})
    result = flaskflex(cwd=renamed, script=renamed / "flaskflex.py", env=own)
    assert result.status == 0, result
    assert result.err == ""
    assert read_files(renamed) == expected
    assert_prepared(renamed, environ)


def test_pythonhome_does_not_harm_the_freeze_by_another_python(
    tmp_path: Path, environ: Environ, project: Path
) -> None:
    """It is made for the Python that runs flaskflex, and would break any other."""
    run(other_python(), "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path, env=environ)
    own = {**environ, "PYTHONHOME": sys.base_prefix, "VIRTUAL_ENV": str(tmp_path / "env")}
    result = start(os.path.realpath(sys.executable), "flaskflex.py", cwd=project, env=own)
    assert result.status == 0, result
    assert_prepared(project, environ)


def test_without_utf_8_a_folder_of_any_name_becomes_a_relative_path(
    tmp_path: Path, virtualenv: Path, environ: Environ, project: Path
) -> None:
    own = light_virtualenv(tmp_path / "env", virtualenv)
    package = project / "bibliothèque"
    metadata = "Metadata-Version: 2.1\nName: library\nVersion: 1.0\n"
    write(site_packages(own) / "library-1.0.dist-info" / "METADATA", metadata)
    write(site_packages(own) / "library-1.0.dist-info" / "direct_url.json",
          f'{{"url": "{package.as_uri()}", "dir_info": {{"editable": true}}}}')
    package.mkdir()
    environ.update(NO_UTF_8, VIRTUAL_ENV=str(own))
    result = start(python_of(own), "flaskflex.py", cwd=project, env=environ)
    assert result.status == 0, result
    lines = (project / "req.txt").read_text(encoding="utf-8").splitlines()
    assert ["-e", "./bibliothèque"] in [shlex.split(line) for line in lines if line.startswith("-e")]


# --- the home and the cache ---


def permission_bits_count() -> List[str]:
    """The beginning of a command that file permissions hold for, even where root runs the tests."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root runs the tests, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def no_home(home: Path, environ: Environ) -> Path:
    del environ["HOME"]
    return Path(environ["XDG_CACHE_HOME"])


def read_only_home(home: Path, environ: Environ) -> None:
    home.chmod(0o555)
    del environ["XDG_CACHE_HOME"], environ["XDG_CONFIG_HOME"], environ["XDG_DATA_HOME"]


def read_only_cache(home: Path, environ: Environ) -> None:
    write(Path(environ["XDG_CACHE_HOME"], "flaskflex", "something"))
    Path(environ["XDG_CACHE_HOME"], "flaskflex").chmod(0o555)


def a_file_in_place_of_the_cache(home: Path, environ: Environ) -> None:
    write(Path(environ["XDG_CACHE_HOME"]))


def a_file_in_place_of_flaskflexs_folder(home: Path, environ: Environ) -> None:
    write(Path(environ["XDG_CACHE_HOME"], "flaskflex"))


def empty_cache_variable(home: Path, environ: Environ) -> Path:
    environ["XDG_CACHE_HOME"] = ""
    return home / ".cache"


# Each gives the folder that the cache is to lie in, or none where it cannot be kept.
HOMES = [no_home, read_only_home, read_only_cache, a_file_in_place_of_the_cache,
         a_file_in_place_of_flaskflexs_folder, empty_cache_variable]


@pytest.mark.parametrize("arrange", HOMES, ids=lambda arrange: str(arrange.__name__))
def test_it_works_whatever_becomes_of_the_home(
    arrange: Callable[[Path, Environ], Optional[Path]], virtualenv: Path, company: Company, environ: Environ,
    project: Path,
) -> None:
    home, own = Path(environ["HOME"]), company.environ(environ)
    temporary = Path(own["TMPDIR"])
    cache = arrange(home, own)
    command = [*permission_bits_count(), python_of(virtualenv), "flaskflex.py"]
    result = start(*command, cwd=project, env=own)
    assert result.status == 0, result
    assert_prepared(project, environ)
    assert list(temporary.iterdir()) == []
    if cache:
        assert [path.name.split("-")[0] for path in (cache / "flaskflex").iterdir()] == ["GitPython"]
    else:  # fetched again each time, then
        assert start(*command, "-m", "again", cwd=project, env=own).status == 0
    assert "~" not in os.listdir(project)
    home.chmod(0o755)


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_the_cache_never_lies_in_the_folder_that_one_stands_in(
    home: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may run as a user whom nothing else knows."""
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    assert flaskflex_module.cache_folder({}, windows=False).is_absolute()


# --- a cache that was left half-written ---


# A pip that is half done when flaskflex is killed.
HALF_A_PIP = """\
import os, signal, sys
if "install" in sys.argv:
    package = os.path.join(sys.argv[sys.argv.index("--target") + 1], "git")
    os.makedirs(package)
    with open(os.path.join(package, "__init__.py"), "w") as file:
        file.write("raise SystemExit('half a GitPython was used')")
    os.kill(os.getppid(), signal.SIGKILL)
"""


def test_what_a_killed_run_has_fetched_is_never_used(
    tmp_path: Path, company: Company, environ: Environ, project: Path, flaskflex: Flaskflex
) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    write(site_packages(tmp_path / "env") / "pip" / "__main__.py", HALF_A_PIP)
    own = company.environ(environ)
    killed = start(python_of(tmp_path / "env"), "flaskflex.py", cwd=project,
                   env={**own, "VIRTUAL_ENV": str(tmp_path / "env")})
    assert killed.status == -signal.SIGKILL, killed
    assert list(Path(own["XDG_CACHE_HOME"]).rglob("git/__init__.py"))
    assert is_as_cloned(project, environ)
    result = flaskflex(env=own)
    assert result.status == 0, result
    assert wheels_asked(company) == ALL_WHEELS
    assert_prepared(project, environ)


# --- a full disk ---

# Runs in a mount namespace of its own: the disk is gone when this ends. $1 is the room left, in pages.
ON_A_FULL_DISK = """
set -e
mount -t tmpfs -o size=4m tmpfs "$DISK"
cp -a "$PROJECT" "$DISK/project"
mkdir "$DISK/tmp"
cd "$DISK/project"
free=$(( $(stat -f -c %a .) - $1 ))
head -c $(( free * $(stat -f -c %S .) )) /dev/zero > "$DISK/filling"
ls -A . .git > "$RESULTS/before"
TMPDIR="$DISK/tmp" "$PYTHON" flaskflex.py > "$RESULTS/out" 2> "$RESULTS/err" || echo $? > "$RESULTS/status"
ls -A . .git > "$RESULTS/after"
rm "$DISK/filling"
git status --porcelain > "$RESULTS/git-status"
"$PYTHON" flaskflex.py > "$RESULTS/again" 2>&1 || true
git fsck --no-dangling
git show --stat --format= > "$RESULTS/committed"
"""


@pytest.mark.parametrize("room", [0, 1, 3, 6, 20])
def test_a_full_disk_is_told_and_the_next_run_does_the_work(
    room: int, tmp_path: Path, virtualenv: Path, environ: Environ, project: Path
) -> None:
    namespace = ["unshare", "--mount"] + (["--map-root-user"] if os.geteuid() else [])
    asked = [*namespace, "true"]
    if not shutil.which("unshare") or subprocess.run(asked, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a disk of its own cannot be had")
    results = tmp_path / "results"
    for folder in (results, tmp_path / "disk"):
        folder.mkdir()
    places = {"DISK": str(tmp_path / "disk"), "RESULTS": str(results), "PROJECT": str(project),
              "PYTHON": str(python_of(virtualenv))}
    run(*namespace, "sh", "-c", ON_A_FULL_DISK, "sh", room, cwd=tmp_path,
        env={**without_coverage(environ), **places})
    told = {path.name: path.read_text() for path in results.iterdir()}
    if "status" in told:
        assert told["status"] == "1\n", told
        what, _, how = told["err"].partition("flaskflex: error: ")[2].partition("\n")
        assert what and how, told
        assert "index.lock" not in told["after"] and ".flaskflex-" not in told["after"], told
    assert "Traceback" not in told["err"], told
    if room == 0:
        assert told["before"] == told["after"], told
        assert told["git-status"] == "?? flaskflex.py\n", told
        assert "No space left" in told["err"], told
    assert "4 files changed" in told["committed"], told


# --- Windows and macOS, as far as another system can tell ---


def test_the_paths_of_windows(tmp_path: Path) -> None:
    interpreter, cache_folder = flaskflex_module.interpreter, flaskflex_module.cache_folder
    assert interpreter(tmp_path, windows=True) == tmp_path / "Scripts" / "python.exe"
    assert interpreter(tmp_path, windows=False) == tmp_path / "bin" / "python"
    assert cache_folder({"LOCALAPPDATA": str(tmp_path)}, windows=True) == tmp_path / "flaskflex"
    assert cache_folder({"LOCALAPPDATA": str(tmp_path)}, windows=False) != tmp_path / "flaskflex"
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}, windows=False) == tmp_path / "flaskflex"
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}, windows=True) != tmp_path / "flaskflex"
    write(tmp_path / "python.exe")  # conda's place
    assert interpreter(tmp_path, windows=True) == tmp_path / "python.exe"


def test_the_activation_of_a_virtualenv_on_windows(tmp_path: Path) -> None:
    command = flaskflex_module.activate_command(tmp_path / "env", windows=True)
    assert command == str(tmp_path / "env" / "Scripts" / "activate")


def test_the_settings_of_git_on_windows_and_macos_together(
    environ: Environ, project: Path, virtualenv: Path, git: Git, flaskflex: Flaskflex
) -> None:
    for name, value in {
        "core.ignoreCase": "true", "core.precomposeUnicode": "true", "core.protectNTFS": "true",
        "core.symlinks": "false", "core.fileMode": "false", "core.autocrlf": "true",
    }.items():
        git("config", name, value)
    result = flaskflex()
    assert result.status == 0, result
    assert_prepared(project, environ)
    git("checkout", "--force", "--", ".")  # with CRLF, and no execute bits that git would look at
    with untouched(project):
        assert "Nothing" in flaskflex().out
