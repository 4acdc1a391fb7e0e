"""As much of a database extension as a list needs: models subclass db.Model and are known to db."""
import sqlite3
from typing import Any, List, Type

from flask import Flask


class Database:
    def __init__(self, app: Flask) -> None:
        self.app = app
        self.models: List[Type[Any]] = []
        database = self

        class Model:
            def __init_subclass__(cls) -> None:
                database.models.append(cls)

        self.Model = Model

    def execute(self, statement: str, *values: str) -> List[Any]:
        with sqlite3.connect(self.app.config["DATABASE_URI"]) as connection:
            return connection.execute(statement, values).fetchall()

    def create_all(self) -> None:
        assert self.models, "a second db has been made, which no model knows"
        for model in self.models:
            self.execute(f"CREATE TABLE IF NOT EXISTS {model.__name__.lower()} (title TEXT)")
