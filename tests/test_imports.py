"""Who may import whom: data flows one way, and what needs no torch does not import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from iwlora.methods import METHODS

SOURCE = Path(__file__).parents[1] / "src" / "iwlora"

# Each line may import what it names, itself, and nothing else of the package.
FREE = ("errors", "files", "notation")
MODELS = (*FREE, "sites")
MEASURING = (*MODELS, "sensitivity.*")
WEIGHING = (*MEASURING, "importance", "ranks")
PENALISING = (*WEIGHING, "penalty.*")
ATTACHING = (*PENALISING, "methods", "methods.*")
TASKS = (*FREE, "tasks", "tasks.*")
# Training sees methods through their contract only.
CONTRACT = ("methods", "methods.base", "methods.budget", "methods.saved")
RECIPES = (*MEASURING, *TASKS, *CONTRACT, "training.*")
RECORDS = (
    *(*FREE, "sensitivity.record", "sensitivity.tables"),
    *("bench.result", "bench.reading", "bench.records"),
)
WORDS = (*RECORDS, "bench.stats", "bench.analysis")
DRAWN = (*WORDS, "bench.tables", "bench.updates", "bench.plots", "bench.heatmaps")
ALLOWED = {
    "__init__": (*PENALISING, "methods.saved", "training.*"),
    "__main__": ("cli",),
    "errors": (),
    "files": ("errors",),
    "notation": ("errors",),
    "sites": MODELS,
    "sensitivity.record": FREE,
    "sensitivity.*": MEASURING,
    "ranks": FREE,
    "importance": WEIGHING,
    "penalty.*": PENALISING,
    "methods.*": ATTACHING,
    "methods": ATTACHING,
    "tasks": TASKS,
    "tasks.*": TASKS,
    "training": (),
    "training.*": RECIPES,
    "bench": (),
    "bench.places": (),
    "bench.arms": RECIPES,
    "bench.search": RECIPES,
    "bench.plan": (
        *(*RECIPES, "bench.arms", "bench.places"),
        *("bench.result", "bench.search"),
    ),
    "bench.former": (*RECIPES, "bench.places", "bench.plan", "bench.search"),
    "bench.warm": FREE,
    "bench.executors": (*FREE, "bench.warm"),
    "bench.ray": (*FREE, "bench.executors"),
    "bench.grid": (
        *(*RECIPES, "bench.search", "bench.plan"),
        *("bench.former", "bench.executors"),
    ),
    "bench.question": (*RECIPES, "bench.plan", "bench.stats"),
    "bench.progress": (*RECIPES, "bench.plan", "bench.tables"),
    "bench.estimate": (*RECIPES, "bench.plan", "bench.tables"),
    "bench.result": FREE,
    "bench.reading": FREE,
    "bench.records": RECORDS,
    "bench.stats": RECORDS,
    "bench.averages": RECORDS,
    "bench.bootstrap": FREE,
    "bench.sources": RECORDS,
    "bench.analysis": (*RECORDS, "bench.stats", "bench.bootstrap"),
    "bench.words": WORDS,
    "bench.budgets": (*RECORDS, "bench.stats"),
    "bench.tuning": (*WORDS, "bench.bootstrap", "bench.places"),
    "bench.remarks": (*RECORDS, "bench.stats", "bench.budgets", "bench.tuning"),
    "bench.tables": (*WORDS, "bench.bootstrap", "bench.budgets", "bench.remarks", "bench.words"),
    "bench.summary": (*WORDS, "bench.budgets", "bench.remarks", "bench.words", "bench.tables"),
    "bench.texts": (*WORDS, "bench.remarks", "bench.words", "bench.tables"),
    "bench.updates": RECORDS,
    "bench.plots": (*RECORDS, "bench.stats"),
    "bench.heatmaps": (*RECORDS, "bench.plots"),
    "bench.svg": (),
    "bench.pictures": DRAWN,
    "bench.report": (
        *DRAWN,
        "bench.remarks",
        "bench.sources",
        "bench.summary",
        "bench.svg",
        "bench.texts",
        "bench.pictures",
    ),
    "sensitivity": (),
    "penalty": (),
    "testing": (*RECIPES, "methods.*", "testing.*"),
    "testing.*": (*RECIPES, "methods.*", "testing.*"),
    "cli": ("*",),
    "cli.*": ("*",),
}
# What a module computes with: importance and the penalty work on any (A, B, scaling).
LIBRARIES = {
    "importance": {"torch", "transformers", "peft", "accelerate", "datasets"},
    "ranks": {"torch", "transformers", "peft", "accelerate", "datasets"},
    "penalty.gram": {"transformers", "peft", "accelerate", "datasets"},
    "sensitivity.estimators": {"transformers", "peft", "accelerate", "datasets"},
    "sensitivity.record": {"torch", "transformers", "peft", "numpy"},
    "sensitivity.tables": {"torch", "transformers", "peft"},
    "bench.*": {"torch", "transformers", "peft", "accelerate", "datasets"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """The absolute names of what is imported anywhere, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole.removeprefix("iwlora.") in MODULES
                yield whole if is_module else str(node.module)


def first_match(name: str, table: dict[str, object]) -> str | None:
    if name in table:
        return name
    return next((pattern for pattern in table if fnmatch(name, pattern)), None)


def strays(name: str, tree: ast.AST) -> list[str]:
    """What the module ``name`` imports against the direction."""
    line = first_match(name, dict(ALLOWED))
    assert line is not None, f"{name} has no place in the direction of imports yet"
    found = []
    for imported in imports(tree):
        if imported == "iwlora" and name != "cli":
            found.append(imported)
        elif imported.startswith("iwlora."):
            inner = imported.removeprefix("iwlora.")
            if inner != name and not any(fnmatch(inner, good) for good in ALLOWED[line]):
                found.append(imported)
    return found


def foreign(name: str, tree: ast.AST) -> list[str]:
    """The libraries that the module ``name`` imports and has no business with."""
    line = first_match(name, dict(LIBRARIES))
    refused = LIBRARIES[line] if line and name != "bench.plan" else set()
    return [imported for imported in imports(tree) if imported.split(".")[0] in refused]


def named_methods(tree: ast.AST) -> list[int]:
    """Lines where something is compared with the name of a method."""
    lines = []
    for node in ast.walk(tree):
        constants: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)):
                    constants += [node.left, right]
                elif isinstance(right, (ast.Tuple, ast.List, ast.Set)):
                    constants += right.elts
        elif isinstance(node, ast.MatchValue):
            constants.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            constants += node.args if node.func.attr in ("startswith", "endswith") else []
        for constant in constants:
            if isinstance(constant, ast.Constant) and constant.value in METHODS:
                lines.append(constant.lineno)
    return lines


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def test_all_modules_are_seen() -> None:
    assert len(MODULES) == len(list(SOURCE.rglob("*.py"))) > 40
    assert {"cli", "sites", "methods", "methods.lora", "training.run", "bench.plan"} <= set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    assert strays(name, parsed(name)) == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_libraries_stay_where_they_belong(name: str) -> None:
    assert foreign(name, parsed(name)) == []


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if name.startswith(("training", "bench", "cli")))
)
def test_no_method_is_treated_by_name(name: str) -> None:
    assert named_methods(parsed(name)) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sites", "from iwlora.methods import METHODS"),
        ("sites", "def f():\n    from iwlora import cli"),
        ("sensitivity.measure", "import iwlora.importance"),
        ("importance", "from iwlora.penalty.gram import penalty"),
        ("penalty.apply", "from iwlora.methods.lora import Lora"),
        ("methods.lora", "from iwlora.training.recipe import Recipe"),
        ("methods.lora", "from iwlora.tasks import load"),
        ("tasks.spec", "from iwlora.sites import sites"),
        ("training.run", "from iwlora.methods.adalora import AdaLora"),
        ("training.rundir", "from iwlora.bench import records"),
        ("bench.records", "from iwlora.training.rundir import RunDir"),
        ("bench.stats", "from iwlora.bench.report import write_report"),
        ("bench.report", "from iwlora import train"),
        ("errors", "from iwlora.files import write_text"),
    ],
)
def test_a_wrong_import_is_noticed(name: str, code: str) -> None:
    assert strays(name, ast.parse(code))
    assert not strays(name, ast.parse("import json\nfrom pathlib import Path"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("bench.report", "import torch"),
        ("bench.stats", "def f():\n    from torch import nn"),
        ("importance", "from transformers import Trainer"),
        ("penalty.gram", "import peft.tuners"),
    ],
)
def test_a_wrong_library_is_noticed(name: str, code: str) -> None:
    assert foreign(name, ast.parse(code))
    assert not foreign("training.run", ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "if recipe.method.name == 'lora': pass",
        "x = 'adalora' != name",
        "x = name in ('lora', 'iw-lora')",
        "match name:\n    case 'full': pass",
        "x = name.startswith('lora')",
    ],
)
def test_a_method_treated_by_name_is_noticed(code: str) -> None:
    assert named_methods(ast.parse(code))
    assert not named_methods(ast.parse(code.replace("lora", "x").replace("full", "x")))


LIGHT = (
    "iwlora",
    "iwlora.cli",
    "iwlora.errors",
    "iwlora.tasks",
    "iwlora.bench.result",
    "iwlora.bench.records",
    "iwlora.bench.stats",
    "iwlora.bench.tables",
    "iwlora.bench.plots",
    "iwlora.bench.report",
)


def torch_after(statement: str) -> str:
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_old_results_render_without_torch() -> None:
    assert torch_after(f"import {', '.join(LIGHT)}") == "False"
    assert torch_after("import torch") == "True"


def test_the_public_names_are_there() -> None:
    import iwlora

    for name in iwlora.__all__:
        assert getattr(iwlora, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'measur'"):
        iwlora.__getattr__("measur")
