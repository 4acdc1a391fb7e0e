"""The members."""
from typing import Optional

from extensions import login_manager

MEMBERS = {"ada": "Ada"}


@login_manager.user_loader
def load_user(name: str) -> Optional[str]:
    return MEMBERS.get(name)
