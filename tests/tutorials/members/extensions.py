"""The extensions, which every other module may import."""
from tiny_login import LoginManager

login_manager = LoginManager()
