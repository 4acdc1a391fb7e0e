"""A plain folder of modules that import each other, as many first applications do.

The models say `from app import db`: were this module imported twice, there would be two of them.
"""
from typing import Dict

from flask import Flask

app = Flask(__name__)
db: Dict[str, str] = {}

import models  # noqa: E402 (it needs db)


@app.route("/")
def index() -> str:
    return "one db" if db is models.db and db["greeting"] == models.GREETING else "two of them"
