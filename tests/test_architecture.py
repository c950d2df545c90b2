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

# What a module computes with: importance and the penalty work on any (A, B, scaling).
LIBRARIES = {
    "importance": {"torch", "transformers", "peft", "accelerate", "datasets"},
    "rank_pattern": {"torch", "transformers", "peft", "accelerate", "datasets"},
    "penalty.gram": {"transformers", "peft", "accelerate", "datasets"},
    "sensitivity.estimators": {"transformers", "peft", "accelerate", "datasets"},
    "results.*": {"torch", "transformers", "peft", "accelerate", "datasets", "numpy"},
    "sensitivity.text_tables": {"torch", "transformers", "peft"},
    "compare.statistics.*": {"torch", "transformers", "peft", "accelerate", "datasets"},
    "compare.report.*": {"torch", "transformers", "peft", "accelerate", "datasets"},
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


def foreign(name: str, tree: ast.AST) -> list[str]:
    """The libraries that the module ``name`` imports and has no business with."""
    line = first_match(name, dict(LIBRARIES))
    refused = LIBRARIES[line] if line else set()
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
    assert {"cli", "sites", "methods", "training.run", "compare.plan.recipe"} <= set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_libraries_stay_where_they_belong(name: str) -> None:
    assert foreign(name, parsed(name)) == []


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if name.startswith(("training", "compare", "cli")))
)
def test_no_method_is_treated_by_name(name: str) -> None:
    assert named_methods(parsed(name)) == []


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("compare.report.html", "import torch"),
        ("compare.statistics.paired_tests", "def f():\n    from torch import nn"),
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
    "iwlora.results.loading",
    "iwlora.results.combined",
    "iwlora.compare.statistics.analysis",
    "iwlora.compare.report.html",
    "iwlora.compare.report.figures.plots",
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
