"""Where the server looks for the application."""
from . import create_app

app = create_app()
