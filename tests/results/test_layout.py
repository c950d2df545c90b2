"""One file knows the names of all stored files and folders."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iwlora
from iwlora.results import layout

pytestmark = pytest.mark.quick

SOURCE = Path(iwlora.__file__).parent
NAMES = [value for name, value in vars(layout).items() if name.isupper() and name[0] != "_"]
FILES = [re.escape(name) for name in NAMES if isinstance(name, str) and "." in name]
FOLDERS = {name for name in NAMES if isinstance(name, str) and "." not in name}
"""Ordinary words too: such a string is the name of a folder only as a part of a path."""
NAMED = re.compile(
    rf"(?<![\w.-])({'|'.join(FILES)})(?![\w.])|checkpoint-|(^|/)(seed-|lr-)|(^|/)(search|former)/"
)


def strings(tree: ast.AST) -> Iterator[Any]:
    """The strings that are not docstrings; parts of f-strings one by one."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        node.value
        for parent in ast.walk(tree)
        if isinstance(parent, documented)
        for node in parent.body
        if isinstance(node, ast.Expr)
    }
    for node in ast.walk(tree):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_string and node not in docstrings:
            yield node


def parts_of_paths(tree: ast.AST) -> set[ast.AST]:
    """What is joined to a path by ``/`` or compared with a path's name."""
    operands: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            operands.append(node.right)
        if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".name"):
            operands += node.comparators
    return {inner for operand in operands for inner in ast.walk(operand)}


def spelled(code: str) -> list[tuple[int, str]]:
    """(line, text) of each string in the code that names a stored file or folder."""
    tree = ast.parse(code)
    joined = parts_of_paths(tree)
    return [
        (node.lineno, node.value)
        for node in strings(tree)
        if NAMED.search(node.value) or (node in joined and node.value.split("/")[0] in FOLDERS)
    ]


def test_no_other_file_spells_a_stored_name() -> None:
    lines = [
        f"{path.relative_to(SOURCE)}:{line}: {text[:60]!r}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "results" / "layout.py"
        for line, text in spelled(path.read_text(encoding="utf-8"))
    ]
    assert lines == [], "take the name from iwlora.results.layout"


@pytest.mark.parametrize(
    "code",
    [
        'path = folder / "result.json"',
        'path = folder / "adapter"',
        'path = folder / f"adapter/{name}"',
        'NAME = "status.json"',
        'raise ValueError(f"{folder} has no recipe.yaml")',
        'path = f"{arm}/seed-{seed}"',
        'path = arm / f"seed-{seed}"',
        'path = comparison / label / "search/lr-0.1"',
        'found = checkpoints.glob("checkpoint-*")',
        'is_adapter = path.name == "adapter"',
    ],
)
def test_a_name_that_is_spelled_elsewhere_is_noticed(code: str) -> None:
    assert spelled(code)


@pytest.mark.parametrize(
    "code",
    [
        '"""Writes result.json."""',
        'def f() -> None:\n    """Reads ``recipe.yaml``."""',
        'name = "adapter"',
        'template = "report.html.jinja"',
        'problem = "search.lr: give three learning rates"',
    ],
)
def test_documentation_and_other_words_pass(code: str) -> None:
    assert not spelled(code)


# --- where runs lie ---


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_trials_are_no_runs(tmp_path: Path) -> None:
    reported = layout.run_folder(tmp_path, "lora", 0)
    trial = layout.trial_folder(tmp_path, "lora", 1e-3, 7)
    superseded = layout.superseded_run_folder(tmp_path, "lora", 1e-2, 0)
    for run in (reported, trial, superseded):
        touch(run / layout.RESULT)
    assert layout.finished_runs(tmp_path) == [reported]
    assert layout.finished_runs(trial.parent) == [trial], "asked for by name"


def test_trials_of_an_arm_without_runs_are_none_either(tmp_path: Path) -> None:
    touch(layout.trial_folder(tmp_path / "c", "lora", 1e-3, 7) / layout.RESULT)
    touch(tmp_path / "c" / layout.COMPARISON)
    assert layout.finished_runs(tmp_path) == []


def test_a_run_finds_its_comparison(tmp_path: Path) -> None:
    comparison = tmp_path / "c"
    trial = layout.trial_folder(comparison, "lora", 1e-3, 7)
    assert layout.comparison_of(trial) is None
    touch(comparison / layout.COMPARISON)
    assert layout.comparison_of(trial) == comparison
    assert layout.comparison_of(layout.run_folder(comparison, "lora", 0)) == comparison
    assert layout.comparison_of(tmp_path / "run") is None


@pytest.mark.parametrize("inside", ["search", "search/runs", "lr/search/seed-1", "a/search/lr-0.1"])
def test_a_folder_of_the_user_may_be_named_search(tmp_path: Path, inside: str) -> None:
    run = tmp_path / inside / "a"
    touch(run / layout.RESULT)
    assert layout.finished_runs(tmp_path) == [run]
    assert layout.finished_runs(tmp_path / inside) == [run]


def test_every_name_at_the_top_of_a_folder_is_protected() -> None:
    inside = {layout.PART_SUFFIX, layout.SEAL, layout.BEST_EPOCH, layout.TRAINABLE, layout.EXPORT}
    inside |= {layout.ADALORA_STATE, layout.AVERAGE, layout.PARTIAL_SENSITIVITY, layout.CARD}
    inside |= {layout.START, layout.PROTOTYPES}
    assert {name for name in NAMES if isinstance(name, str)} - inside <= layout.OWN_NAMES
