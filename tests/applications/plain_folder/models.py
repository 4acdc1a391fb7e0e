"""A module beside app.py that needs what app.py makes."""
from app import db

GREETING = "hello"
db["greeting"] = GREETING
