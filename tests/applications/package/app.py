"""The application of a package: its modules are found by relative imports."""
from flask import Flask

from .pages.front import pages

app = Flask(__name__)
app.register_blueprint(pages)
