"""The picture in docs/: the demo's page as a real browser shows it, served by `flaskflex.py serve`.

    python tests/pictures.py

It needs Apache with mod_fcgid, and Debian's chromium.
"""
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from apache import why_not

SCRIPT = Path(__file__).resolve().parent.parent / "flaskflex.py"
PICTURE = SCRIPT.parent / "docs" / "hello.png"

# A browser that asks for nothing but the page.
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--window-size=800,200",
)


def why_no_picture() -> str:
    """Why no picture can be taken here, "" if it can."""
    if not shutil.which("chromium"):
        return "chromium is not installed (Debian's package chromium)"
    return why_not() or ""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def take_picture(project: Path, picture: Path) -> None:
    """Serve a project, and save what a browser shows of it as a PNG file."""
    port = free_port()
    command = [sys.executable, str(SCRIPT), "serve", "-C", str(project), "--venv", str(project / ".venv"),
               "--port", str(port)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as serve, \
            tempfile.TemporaryDirectory(prefix="flaskflex-browser-") as profile:
        try:
            assert serve.stdout and serve.stdout.readline().startswith(b"Serving")
            subprocess.run([*CHROMIUM, f"--user-data-dir={profile}", f"--screenshot={picture}",
                            f"http://127.0.0.1:{port}/"], check=True, timeout=120,
                           env={"PATH": os.environ["PATH"], "HOME": profile},
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            serve.send_signal(signal.SIGINT)


def main() -> int:
    """Build the demo and take its picture, or say why none can be taken here; return the exit status."""
    reason = why_no_picture()
    if reason:
        print(f"No picture: {reason}")
        return 0
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flaskflex-demo-") as folder:
        subprocess.run([sys.executable, str(SCRIPT), "-C", folder, "demo", "demo"], check=True)
        take_picture(Path(folder, "demo"), PICTURE)
    print(f"{PICTURE.relative_to(SCRIPT.parent)}: {PICTURE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
