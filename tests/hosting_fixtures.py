"""Fixtures of the tests of hosting: an sshd, and projects before and after their first push."""
from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from conftest import Environ, hermetic_environ
from hosting import Hosted, copy_hosted, make_hosted
from machine import Sshd, running_sshd


@pytest.fixture(scope="session")
def host_environ(tmp_path_factory: pytest.TempPathFactory) -> Environ:
    """The environment of the host's user."""
    return hermetic_environ(tmp_path_factory.mktemp("host-home"))


@pytest.fixture(scope="session")
def ssh(tmp_path_factory: pytest.TempPathFactory, host_environ: Environ) -> Iterator[Sshd]:
    """An sshd for the tests of hosting."""
    with running_sshd(tmp_path_factory.mktemp("ssh") / "sshd", host_environ) as sshd:
        yield sshd


@pytest.fixture(scope="session")
def unpushed(tmp_path_factory: pytest.TempPathFactory, host_environ: Environ) -> Hosted:
    """A project that nothing was pushed to, with an application in its clone; no test may change it."""
    return make_hosted(tmp_path_factory.mktemp("unpushed") / "project", host_environ)


@pytest.fixture(scope="session")
def pushed(tmp_path_factory: pytest.TempPathFactory, unpushed: Hosted, ssh: Sshd,
           host_environ: Environ) -> Hosted:
    """A project that is live; no test may change it."""
    hosted = copy_hosted(unpushed, tmp_path_factory.mktemp("pushed") / "project", host_environ, ssh)
    hosted.push()
    return hosted


@pytest.fixture
def new(tmp_path: Path, unpushed: Hosted, host_environ: Environ, ssh: Sshd) -> Hosted:
    """One test's own project before the first push."""
    return copy_hosted(unpushed, tmp_path / "own", host_environ, ssh)


@pytest.fixture
def live(tmp_path: Path, pushed: Hosted, host_environ: Environ, ssh: Sshd) -> Hosted:
    """One test's own project that is live."""
    return copy_hosted(pushed, tmp_path / "own", host_environ, ssh)
