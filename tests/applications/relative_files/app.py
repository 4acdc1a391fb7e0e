"""An application that reads and writes files by relative paths, as it did on its author's machine."""
import sqlite3

from flask import Flask

app = Flask(__name__)

with open("greeting.txt") as file:
    GREETING = file.read().strip()


@app.route("/")
def index() -> str:
    with open("visits.txt", "a") as file:
        file.write("one more\n")
    connection = sqlite3.connect("todo.db")
    connection.execute("create table if not exists todo (what text)")
    connection.close()
    return GREETING
