"""Which project flaskflex prepares, and where it refuses to."""
from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Callable, Dict, List

import pytest
from conftest import Environ, Flaskflex, Git, run
from helpers import FILES, assert_prepared, assert_refused, untouched, write

NOBODY = 65534


# --- the root ---


@pytest.mark.parametrize("started_in, arguments", [
    ("yourprojectname/deep/er", []),
    (".", ["-C", "yourprojectname"]),
    (".", ["-C", "yourprojectname/deep/er"]),
    ("yourprojectname/deep", ["--directory", "er"]),
])
def test_the_root_of_the_project_is_found(
    started_in: str, arguments: List[str],
    tmp_path: Path, project: Path, environ: Environ, flaskflex: Flaskflex,
) -> None:
    (project / "deep" / "er").mkdir(parents=True)
    result = flaskflex(*arguments, cwd=tmp_path / started_in)
    assert result.status == 0
    assert f"Project     {project} (branch main)" in result.out
    assert_prepared(project, environ)


def test_a_link_into_the_project_leads_to_the_projects_own_index(
    tmp_path: Path, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    """And not to that of the repository in which the link lies."""
    git("init", "-q", tmp_path)
    write(tmp_path / "of the outer one")
    git("add", "of the outer one", cwd=tmp_path)
    (project / "deep").mkdir()
    (tmp_path / "link").symlink_to(project / "deep")
    with untouched(tmp_path / ".git"):
        result = flaskflex("-C", "link", cwd=tmp_path)
    assert result.status == 0, result
    assert f"Project     {project} (branch main)" in result.out
    assert_prepared(project, environ)


@pytest.mark.parametrize("name", ["zażółć gęślą 日本", "it's 100% \"[a-z]*\"", "$HOME", "line\nbreak"])
def test_the_path_of_the_project_may_be_any(
    name: str, project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    renamed = project.rename(project.parent / name)
    result = flaskflex(cwd=renamed, script=renamed / "flaskflex.py")
    assert result.status == 0, result
    assert_prepared(renamed, environ)


# --- the kinds of projects ---


def linked_worktree(project: Path, git: Git) -> Path:
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", "-b", "other", "../linked")
    return project.parent / "linked"


def worktree_of_a_bare_repository(project: Path, git: Git) -> Path:
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("clone", "-q", "--bare", ".", "../bare.git")
    git("worktree", "add", "-q", "-b", "other", "../linked", cwd=project.parent / "bare.git")
    return project.parent / "linked"


def submodule(project: Path, git: Git) -> Path:
    git("init", "-q", "-b", "main", "../whole")
    git("commit", "-q", "--allow-empty", "-m", "first")
    allowed = ["-c", "protocol.file.allow=always"]
    git("-C", "../whole", *allowed, "submodule", "--quiet", "add", "../yourprojectname", "part")
    return project.parent / "whole" / "part"


def sha256_repository(project: Path, git: Git) -> Path:
    git("init", "-q", "--object-format=sha256", "../sha256")
    write(project.parent / "sha256" / "README", "staged\n")
    git("add", "README", cwd=project.parent / "sha256")
    return project.parent / "sha256"


def index_version_4(project: Path, git: Git) -> Path:
    git("config", "feature.manyFiles", "true")
    git("add", "flaskflex.py")
    assert (project / ".git" / "index").read_bytes()[:8] == b"DIRC\0\0\0\4"
    return project


def split_index(project: Path, git: Git) -> Path:
    git("config", "core.splitIndex", "true")
    git("add", "flaskflex.py")
    git("commit", "-q", "-m", "first")
    git("update-index", "--split-index")
    assert list((project / ".git").glob("sharedindex.*"))
    return project


def sparse_checkout(project: Path, git: Git) -> Path:
    write(project / "application" / "app.py")
    write(project / "documentation" / "index.rst")
    git("add", "application", "documentation")
    git("commit", "-q", "-m", "first")
    git("sparse-checkout", "set", "--sparse-index", "application")
    return project


def branch_without_a_commit(project: Path, git: Git) -> Path:
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("checkout", "-q", "--orphan", "fresh")
    return project


@pytest.mark.parametrize("kind", [
    linked_worktree, worktree_of_a_bare_repository, submodule, sha256_repository, index_version_4,
    split_index, sparse_checkout, branch_without_a_commit,
])
def test_every_kind_of_work_tree_is_prepared(
    kind: Callable[[Path, Git], Path], project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    folder = kind(project, git)
    staged = git("diff", "--cached", cwd=folder)
    result = flaskflex(cwd=folder)
    assert result.status == 0, result
    branch = git("branch", "--show-current", cwd=folder).strip()
    assert f"Project     {folder} (branch {branch})" in result.out
    assert_prepared(folder, environ)
    assert git("diff", "--cached", cwd=folder) == staged


def test_a_detached_head_is_prepared_with_a_warning(
    project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("checkout", "-q", "--detach")
    first = git("rev-parse", "HEAD").strip()
    result = flaskflex()
    assert result.status == 0
    assert re.search("warning: .*detached", result.err)
    assert f"(detached at {first[:7]})" in result.out
    assert_prepared(project, environ)
    assert git("rev-parse", "main", "HEAD^").split() == [first, first]


@pytest.mark.parametrize("variables", [
    {"GIT_DIR": ".git"},
    {"GIT_DIR": ".git", "GIT_WORK_TREE": "."},
    {"GIT_INDEX_FILE": ".git/index"},
    {"GIT_OBJECT_DIRECTORY": ".git/objects"},
    {"GIT_DIR": ".git", "GIT_COMMON_DIR": ".git", "GIT_PREFIX": "deep/", "GIT_INDEX_FILE": ".git/index"},
])
def test_what_git_sets_for_its_hooks_does_not_lead_to_another_repository(
    variables: Dict[str, str], tmp_path: Path, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    other = tmp_path / "other"
    git("init", "-q", other)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=other)
    misleading = {name: str(other / path) for name, path in variables.items()}
    with untouched(other):
        result = flaskflex(env={**environ, **misleading})
    assert result.status == 0
    assert f"Project     {project} " in result.out
    assert_prepared(project, environ)


# --- the refusals ---


@pytest.mark.parametrize("folder, words", [
    ("plain", "not in a git repository"),
    (".", "cd yourprojectname"),
    ("host.git", "bare"),
    ("yourprojectname/.git", ".git"),
    ("yourprojectname/.git/objects", ".git"),
    ("nowhere", "nowhere is not a folder"),
    ("yourprojectname/flaskflex.py", "flaskflex.py is not a folder"),
])
def test_what_is_not_a_work_tree_is_refused(
    folder: str, words: str, tmp_path: Path, flaskflex: Flaskflex
) -> None:
    (tmp_path / "plain").mkdir()
    with untouched(tmp_path):
        result = flaskflex("--force", "-C", tmp_path / folder, cwd=tmp_path)
    assert_refused(result, words)


def test_from_elsewhere_the_way_to_the_clone_is_right_too(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    elsewhere = project / "application"
    elsewhere.mkdir()
    result = flaskflex("-C", "../..", cwd=elsewhere)
    hint, = re.findall("Go to the clone: (.*)$", result.err, re.MULTILINE)
    assert run("sh", "-c", f"{hint} && pwd", cwd=elsewhere, env=environ) == f"{project}\n"


def test_a_committed_file_that_git_has_lost_is_refused(
    project: Path, git: Git, flaskflex: Flaskflex
) -> None:
    assert flaskflex().status == 0
    name = git("rev-parse", "HEAD:.flx").strip()
    (project / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with untouched(project):
        assert_refused(flaskflex(), "lost the committed .flx", "git fsck")


def conflict(project: Path, git: Git) -> None:
    """Make a branch `other` that does not go together with `main`."""
    write(project / "text", "base\n")
    git("add", "text")
    git("commit", "-q", "-m", "base")
    git("checkout", "-q", "-b", "other")
    write(project / "text", "theirs\n")
    git("commit", "-q", "-a", "-m", "theirs")
    git("checkout", "-q", "main")
    write(project / "text", "ours\n")
    git("commit", "-q", "-a", "-m", "ours")


def apply_mail(git: Git) -> None:
    git("format-patch", "-q", "-1", "-o", "..", "other")
    git("am", "../0001-theirs.patch", check=False)


IN_PROGRESS: Dict[str, Callable[[Git], object]] = {
    "merge": lambda git: git("merge", "other", check=False),
    "merge, not committed": lambda git: git("merge", "--no-commit", "--no-ff", "-s", "ours", "other"),
    "rebase": lambda git: git("rebase", "other", check=False),
    "rebase, by patches": lambda git: git("rebase", "--apply", "other", check=False),
    "am": apply_mail,
    "cherry-pick": lambda git: git("cherry-pick", "other", check=False),
    "revert": lambda git: git("revert", "--no-edit", "HEAD^", check=False),
}


@pytest.mark.parametrize("activity, linked", [
    *((activity, False) for activity in IN_PROGRESS), ("merge", True), ("rebase", True),
])
def test_what_is_under_way_is_refused_and_the_way_out_works(
    activity: str, linked: bool, project: Path, environ: Environ, git: Git, flaskflex: Flaskflex
) -> None:
    conflict(project, git)
    folder = project
    if linked:
        git("worktree", "add", "-q", "-b", "linked", "../linked", "main")
        folder = project.parent / "linked"
    IN_PROGRESS[activity](lambda *arguments, **options: git(*arguments, cwd=folder, **options))
    with untouched(project, folder):
        result = flaskflex(cwd=folder)
        assert flaskflex("--dry-run", cwd=folder).status == 0  # what commits nothing does no harm
        assert "under way" not in flaskflex("check", "--timeout=1", cwd=folder).err
    assert_refused(result, "is under way")
    way_out = re.findall(r"git ([\w-]+ --abort)", result.err)
    assert len(way_out) == 1
    git(*way_out[0].split(), cwd=folder)
    assert flaskflex("-n", cwd=folder).status == 0


@pytest.fixture
def unknown(git: Git, environ: Environ) -> Environ:
    """The environment of somebody whom git does not know, and is not to guess."""
    git("config", "user.useConfigOnly", "true")
    return {name: value for name, value in environ.items() if not name.endswith(("_NAME", "_EMAIL"))}


def test_without_an_identity_nothing_is_written(
    project: Path, unknown: Environ, flaskflex: Flaskflex
) -> None:
    with untouched(project):
        result = flaskflex(env=unknown)
    assert_refused(result, "who you are", "git config --global user.email")


@pytest.mark.parametrize("option", ["-n", "--no-commit"])
def test_without_an_identity_all_but_the_commit_is_done(
    option: str, unknown: Environ, flaskflex: Flaskflex
) -> None:
    assert flaskflex(option, env=unknown).status == 0


def test_without_git_it_says_how_to_get_it(
    project: Path, tmp_path: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with untouched(project):
        result = flaskflex(env={**environ, "PATH": str(empty)})
    assert_refused(result, "git is not installed", "apt install git")


def test_somebody_elses_repository_is_refused_with_gits_own_advice(
    project: Path, environ: Environ, flaskflex: Flaskflex
) -> None:
    if os.geteuid() == 0:
        for path in (project, project / ".git"):
            shutil.chown(path, NOBODY, NOBODY)
    else:  # only root can give a folder away; git's own tests do this instead
        environ = {**environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    with untouched(project):
        result = flaskflex(env=environ)
    assert_refused(result, "dubious ownership", "git config --global --add safe.directory")
    assert run("git", "config", "--get", "safe.directory", cwd=Path("/"), env=environ, check=False) == ""


def test_an_empty_clone_has_nothing_but_what_it_was_given(project: Path, flaskflex: Flaskflex) -> None:
    assert flaskflex().status == 0
    left = {str(path.relative_to(project)) for path in project.rglob("*") if ".git" not in path.parts}
    assert left == {"flaskflex.py", "public_html", *FILES}
