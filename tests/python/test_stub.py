"""The hand-written stub names the arguments that the compiled functions have.

stubtest sees no signature in a compiled function; the first line of its docstring holds one.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import recfuse
from recfuse import _core

Arguments = tuple[list[str], list[str]]  # positional, keyword-only


def arguments_of(function: ast.FunctionDef) -> Arguments:
    return [a.arg for a in function.args.args], [a.arg for a in function.args.kwonlyargs]


def stub_functions(text: str) -> dict[str, Arguments]:
    """Return the arguments of every function and method, by dotted name."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = arguments_of(node)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.decorator_list:
                    found[f"{node.name}.{method.name}"] = arguments_of(method)
    return found


def compiled_arguments(module: Any, name: str) -> Arguments:
    target = module
    for part in name.split("."):
        target = getattr(target, part)
    signature = target.__doc__.splitlines()[0]
    (function,) = ast.parse(f"def {signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return arguments_of(function)


STUB = stub_functions(Path(recfuse.__file__).with_name("_core.pyi").read_text())


@pytest.mark.parametrize("name", STUB)
def test_the_stub_has_the_compiled_arguments(name: str) -> None:
    assert STUB[name] == compiled_arguments(_core, name)


def test_a_wrong_stub_would_be_seen() -> None:
    stub = stub_functions("def set_isa(isa: str) -> None: ...")
    assert stub["set_isa"] != compiled_arguments(_core, "set_isa")
