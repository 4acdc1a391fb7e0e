"""What dispatch.fcgi does when it is not Apache that starts it."""
from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator

import pytest

TEMPLATE = Path(__file__).resolve().parent.parent / "templates" / "dispatch.fcgi"


@contextlib.contextmanager
def nothing() -> Iterator[int]:
    with open(os.devnull, "rb") as file:
        yield file.fileno()


@contextlib.contextmanager
def pipe() -> Iterator[int]:
    read, write = os.pipe()
    os.close(write)
    yield read
    os.close(read)


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    master, slave = os.openpty()
    yield slave
    os.close(slave)
    os.close(master)


@contextlib.contextmanager
def file() -> Iterator[int]:
    with open(__file__, "rb") as opened:
        yield opened.fileno()


@contextlib.contextmanager
def connection() -> Iterator[int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs.fileno()


@pytest.mark.parametrize("stdin", [nothing, pipe, terminal, file, connection])
def test_started_by_hand_it_says_in_one_line_what_it_is_for(
    stdin: Callable[[], ContextManager[int]], tmp_path: Path
) -> None:
    with stdin() as number:
        done = by_hand(tmp_path, stdin=number)
    assert_explained(done)


def test_started_without_a_standard_input_it_says_the_same(tmp_path: Path) -> None:
    assert_explained(by_hand(tmp_path, preexec_fn=lambda: os.close(0)))


def by_hand(tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Start the script in a project that has nothing else: no virtualenv, no application."""
    script = tmp_path / "public_html" / "dispatch.fcgi"
    script.parent.mkdir()
    script.write_bytes(TEMPLATE.read_bytes())
    environ: Dict[str, str] = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(script)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=60, **options,
    )


def assert_explained(done: subprocess.CompletedProcess[bytes]) -> None:
    said = done.stderr.decode()
    assert done.returncode == 1
    assert done.stdout == b""
    assert said.count("\n") == 1
    assert "Apache" in said and "flask --app application/app.py run" in said
