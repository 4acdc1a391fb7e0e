"""What check costs, through Apache and over FastCGI, beside the freeze and the application's own start."""
from __future__ import annotations

import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Dict, List

from apache import why_not
from conftest import Environ, hermetic_environ, make_virtualenv, run
from deployed import NAME, deploy

FREEZE = ["-I", "-m", "pip", "freeze", "--local"]
START = ["-c", "from flask.cli import ScriptInfo; ScriptInfo('application/app.py').load_app()"]


def compare_checks(pairs: int) -> None:
    """Print the medians of check's two ways, and what each costs over the longer of freeze and start."""
    if why_not():
        print(f"check: not measured, {why_not()}")
        return
    with tempfile.TemporaryDirectory(prefix="flaskflex-benchmark-") as name:
        folder = Path(name)
        environ = hermetic_environ(folder / "home")
        virtualenv = make_virtualenv(folder / "env", environ, "flask", "flup==1.0.3")
        environ["VIRTUAL_ENV"] = str(virtualenv)
        project = deploy(folder, virtualenv, environ) / NAME
        text = (project / "flaskflex.py").read_text("utf-8")
        nowhere = re.sub("(?m)^MODULE_FOLDERS = .*", 'MODULE_FOLDERS = ("/nowhere",)', text)
        assert nowhere != text
        (project / "without_apache.py").write_text(nowhere, "utf-8")
        commands = {"freeze": FREEZE, "start": START, "through Apache": ["flaskflex.py", "check"],
                    "over FastCGI": ["without_apache.py", "check"]}
        spent: Dict[str, List[float]] = {name: [] for name in commands}
        for _ in range(pairs):
            for name, arguments in commands.items():
                command = [str(virtualenv / "bin" / "python"), *arguments]
                spent[name].append(seconds(command, project, environ))
        least = [max(pair) for pair in zip(spent["freeze"], spent["start"])]
        print("check, over the longer of pip freeze and the application's own start:")
        for name in ("through Apache", "over FastCGI"):
            over = statistics.median(one - other for one, other in zip(spent[name], least))
            print(f"    {name:<14}{statistics.median(spent[name]):8.3f} s   {over:+.3f} s", flush=True)


def seconds(command: List[str], cwd: Path, environ: Environ) -> float:
    """Run a command that succeeds, and return how long it took."""
    started = time.perf_counter()
    run(*command, cwd=cwd, env=environ)
    return time.perf_counter() - started
