"""What idle projects cost a machine that hosts them: memory, and time to make one and to reload Apache."""
from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import List

from apache import eventually
from conftest import hermetic_environ
from machine_host import HostMachine, running_host_machine


WAITING = "import flask, time; time.sleep(1000)"


def memory(host: HostMachine, which: str) -> float:
    """Return the memory of those processes that pgrep finds in MB, shared pages counted once (Pss)."""
    pss = host.run(f"cat $(pgrep {which} | sed 's|.*|/proc/&/smaps_rollup|') 2>/dev/null || true")  # some end
    return sum(map(int, re.findall(r"^Pss: +(\d+) kB", pss, re.MULTILINE))) / 1024


def resident_memory(host: HostMachine) -> float:
    """Return the memory in MB of one of ten processes that wait with Flask in them, as piku's do."""
    host.run("for n in 0 1 2 3 4 5 6 7 8 9; do "
             f"/srv/prepared/bin/python -c '{WAITING}' >/dev/null 2>&1 & done")
    time.sleep(5)
    taken = memory(host, "-f '^/srv/prepared/bin/python'") / 10
    host.run("pkill -f '^/srv/prepared/bin/python'")
    return taken


def reload_seconds(host: HostMachine) -> float:
    """Return how long Apache takes to read its files again: until it says that it goes on."""
    log = "/var/log/apache2/error.log"
    before = host.run(f"cat {log}").count("resuming normal operations")
    started = time.perf_counter()
    host.run("apache2ctl graceful")
    assert eventually(lambda: host.run(f"cat {log}").count("resuming normal operations") > before)
    return time.perf_counter() - started


def compare_idle(count: int) -> List[str]:
    """Make so many projects; return lines that say what they cost."""
    with tempfile.TemporaryDirectory() as name, running_host_machine(
            Path(name, "machine"), hermetic_environ(Path(name, "home"))) as host:
        host.add("first")
        reload_seconds(host)
        before, seconds = memory(host, "-x apache2"), []
        for number in range(count):
            started = time.perf_counter()
            host.host(f"p{number}", "--domain", f"p{number}.example.org")
            seconds.append(time.perf_counter() - started)
        reload = reload_seconds(host)
        running = host.run("ps -eo user= | grep -c '^p[0-9]' || true").strip()
        return [
            f"{count} idle projects: {memory(host, '-x apache2') - before:.1f} MB more in Apache "
            f"({before:.1f} MB with one), {running} processes of projects",
            f"{count} processes that wait, one for each project: {count * resident_memory(host):.0f} MB",
            f"make one: median {statistics.median(seconds):.2f} s, "
            f"the last ten {statistics.mean(seconds[-10:]):.2f} s",
            f"reload Apache: {reload:.2f} s",
        ]


if __name__ == "__main__":
    print("\n".join(compare_idle(int(sys.argv[1]) if sys.argv[1:] else 200)))
