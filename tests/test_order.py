"""flaskflex.py reads from top to bottom: what is used stands above, and nothing is long."""
from __future__ import annotations

import ast
from typing import Iterator, List, Set, Tuple

from conftest import SCRIPT

SOURCE = SCRIPT.read_text(encoding="utf-8")
MODULE = ast.parse(SOURCE)
LONGEST_FUNCTION, MOST_PARAMETERS, LONGEST_LINE = 40, 4, 110

FUNCTIONS = [node for node in ast.walk(MODULE) if isinstance(node, ast.FunctionDef)]

# The functions that take more parameters, each with a comment that gives the reason.
MANY_PARAMETERS: Set[str] = {"deploy", "take_push"}


def names_of(node: ast.AST, context: type) -> Iterator[str]:
    """Return the names that are loaded, or stored, anywhere in a part of the program."""
    found = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return (name.id for name in found if isinstance(name.ctx, context))


def definitions() -> Iterator[Tuple[str, int]]:
    """Return the names that the module defines, each with its line. (Imports stand above all else.)"""
    for node in MODULE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield from ((name, node.lineno) for name in names_of(node, ast.Store))


def test_what_is_used_stands_above_its_first_user() -> None:
    """So a section uses only those above it. The templates are data: they come last, for all to use."""
    home = dict(definitions())
    templates = SOURCE[:SOURCE.index("\n# --- the templates")].count("\n") + 1
    wrong = []
    for node in MODULE.body:
        parameters = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        for name in {*names_of(node, ast.Load)} - {*names_of(node, ast.Store)} - parameters:
            if node.lineno < home.get(name, 0) < templates:
                wrong.append(f"line {node.lineno} uses {name}, which stands below it, in line {home[name]}")
    assert not wrong, "\n".join(wrong)


def test_no_function_is_long() -> None:
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in FUNCTIONS]
    assert [(name, length) for name, length in lengths if length > LONGEST_FUNCTION] == []


def parameters_of(node: ast.FunctionDef) -> List[str]:
    """Return the names of a function's parameters, but for the object or class that a method belongs to."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def test_no_function_takes_many_parameters_without_a_reason() -> None:
    assert {node.name for node in FUNCTIONS if len(parameters_of(node)) > MOST_PARAMETERS} == MANY_PARAMETERS


def test_no_line_is_long() -> None:
    assert [line for line in SOURCE.splitlines() if len(line) > LONGEST_LINE] == []
