"""The fast tier, ``make quick``: it has a test for each public name and each command."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import iwlora
from cli.test_main import COMMANDS

TESTS = Path(__file__).parent
RUNNERS = {"call", "spawn", "refused", "main"}


def is_quick(mark: ast.expr) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "quick" for node in ast.walk(mark))


def quick_tests(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """The test functions that are marked, or all of them where the module is."""
    whole = any(
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "pytestmark"
        and is_quick(node.value)
        for node in module.body
    )
    tests = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))
    for test in tests:
        marked = whole or any(map(is_quick, test.decorator_list))
        if marked and test.name.startswith("test_"):
            yield test


def imported(module: ast.Module) -> dict[str, tuple[str, str]]:
    """Local name -> (module, name in it), for everything that is imported by name."""
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def covered(module: ast.Module) -> Iterator[str]:
    """Public names that quick tests of a module use, and the commands that they run."""
    names = imported(module)
    public = {origin: name for name, origin in iwlora._HOME.items()}
    for test in quick_tests(module):
        for node in ast.walk(test):
            if isinstance(node, ast.Name) and node.id in names:
                origin = names[node.id]
                yield origin[1] if origin[0] == "iwlora" else public.get(origin, "")
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "iwlora":
                yield node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in RUNNERS:
                for constant in ast.walk(node):
                    if isinstance(constant, ast.Constant) and constant.value in COMMANDS:
                        yield f"command {constant.value}"


@pytest.mark.quick
def test_every_public_name_and_command_has_a_quick_test() -> None:
    tested = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in covered(ast.parse(path.read_text(encoding="utf-8")))
    }
    needed = set(iwlora.__all__) | {f"command {command}" for command in COMMANDS}
    assert needed - tested == set()


@pytest.mark.quick
def test_only_marked_tests_count() -> None:
    text = (
        "from iwlora import measure\n"
        "from iwlora.training.run import train as run_recipe\n"
        "@pytest.mark.quick\ndef test_quick():\n    run_recipe(1)\n    main(['tasks'])\n"
        "def test_slow():\n    measure(1)\n    main(['train'])\n"
    )
    assert set(covered(ast.parse(text))) - {""} == {"train", "command tasks"}
    text += "pytestmark = pytest.mark.quick\n"
    assert {"measure", "command train"} <= set(covered(ast.parse(text)))
