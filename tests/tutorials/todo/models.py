"""What the list is made of."""
from typing import List

from app import db


class Todo(db.Model):
    def __init__(self, title: str) -> None:
        self.title = title

    @classmethod
    def all(cls) -> "List[Todo]":
        return [cls(*row) for row in db.execute("SELECT title FROM todo")]

    def save(self) -> None:
        db.execute("INSERT INTO todo VALUES (?)", self.title)
