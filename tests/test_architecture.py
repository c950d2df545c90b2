"""Who may import whom, what imports no heavy library, and how large files and folders get."""

from __future__ import annotations

import ast
import graphlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from iwlora.methods import METHODS
from lines_of_code import SOURCE, count, lines_of_code

ROOT = SOURCE.parents[1]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


# --- imports ---


STUDY = ROOT / "study" / "src" / "iwlora_study"


def lint_imports(source: Path, project: Path = ROOT, *, beside: Path | None = None) -> str:
    """What import-linter prints about the package in a folder, by the contracts of a project."""
    code = "import sys; from importlinter import cli; cli.lint_imports(sys.argv[1], no_cache=True)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(project / "pyproject.toml")],
        cwd=source,
        env={"PYTHONPATH": os.pathsep.join(map(str, filter(None, (source, beside)))), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_imports_keep_the_contracts() -> None:
    printed = lint_imports(SOURCE.parent)
    assert "Contracts: 6 kept, 0 broken." in printed, printed


def test_wrong_imports_and_circles_are_noticed(tmp_path: Path) -> None:
    """Lazy imports and imports for type hints count; so do libraries that come in indirectly."""
    planted = {
        "sensitivity/capture.py": "def planted():\n    from iwlora.training import run\n",
        "tasks/registry.py": "from iwlora.sites import sites\n",
        "penalty/gram.py": "if TYPE_CHECKING:\n    from iwlora.penalty.apply import Penalty\n",
        "results/layout.py": "def planted():\n    import torch\n",
        "importance.py": "import peft.tuners\n",
        "sensitivity/estimators.py": "def planted():\n    from transformers import Trainer\n",
    }
    copy = tmp_path / "iwlora"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in planted.items():
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write(f"\nfrom typing import TYPE_CHECKING\n{code}")
    printed = lint_imports(tmp_path)
    assert "Contracts: 0 kept, 6 broken." in printed, printed
    for imported in (
        "iwlora.sensitivity.capture -> iwlora.training.run",
        "iwlora.tasks.registry -> iwlora.sites",
        ".gram -> .apply",
        "iwlora.results.layout -> torch",
        "iwlora.importance -> peft",
        "iwlora.sensitivity.estimators -> transformers",
    ):
        assert imported in printed


def test_the_study_keeps_its_contracts(tmp_path: Path) -> None:
    """The library never imports the study; reports of the study need no torch."""
    printed = lint_imports(SOURCE.parent, ROOT / "study", beside=STUDY.parent)
    assert "Contracts: 3 kept, 0 broken." in printed, printed
    planted = {"__init__.py": "", "runner/__init__.py": "", "a.py": "import iwlora_study.b\n"}
    planted |= {"b.py": "import iwlora_study.a\n", "runner/page.py": "import torch\n"}
    for name, code in planted.items():
        file = tmp_path / "iwlora_study" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
    (tmp_path / "iwlora").mkdir()
    (tmp_path / "iwlora" / "__init__.py").write_text("import iwlora_study\n", encoding="utf-8")
    printed = lint_imports(tmp_path, ROOT / "study")
    assert "Contracts: 0 kept, 3 broken." in printed, printed


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or an empty list."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_in_a_circle() -> None:
    """Stricter than import-linter's contract: a folder's own ``__init__`` counts as a module."""
    import grimp

    graph = grimp.build_graph("iwlora", exclude_type_checking_imports=False, cache_dir=None)
    assert graph.modules == set(MODULES)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert circle(imports) == []
    assert circle({**imports, "iwlora.errors": {"iwlora.training.run"}})


LIGHT = (
    "iwlora",
    "iwlora.cli",
    "iwlora.errors",
    "iwlora.tasks",
    "iwlora.results.comparison",
    "iwlora.results.comparison.combined",
    "iwlora.compare.statistics.analysis",
    "iwlora.compare.report.write",
    "iwlora.compare.report.figures.plots",
)


def torch_after(statement: str) -> str:
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_old_results_render_without_torch() -> None:
    assert torch_after(f"import {', '.join(LIGHT)}") == "False"
    assert torch_after("import torch") == "True"


@pytest.mark.slow
def test_every_module_can_be_imported_on_windows() -> None:
    """``fcntl`` and ``resource`` exist on POSIX systems only."""
    code = (
        "import importlib, pkgutil, sys\n"
        "import peft, torch, transformers\n"  # they may import what they like
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import iwlora\n"
        "for module in pkgutil.walk_packages(iwlora.__path__, 'iwlora.'):\n"
        "    if module.name != 'iwlora.__main__':\n"
        "        importlib.import_module(module.name)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


# --- methods by name ---


def named_methods(tree: ast.AST) -> Iterator[int]:
    """Lines where something is compared with the name of a method."""
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
                yield constant.lineno


def test_no_method_is_treated_by_name() -> None:
    assert len(MODULES) > 150
    for name, path in MODULES.items():
        if name.startswith(("iwlora.training", "iwlora.compare", "iwlora.cli")):
            lines = list(named_methods(ast.parse(path.read_text(encoding="utf-8"))))
            assert not lines, f"{path}, lines {lines}"


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
    assert list(named_methods(ast.parse(code)))
    assert not list(named_methods(ast.parse(code.replace("lora", "x").replace("full", "x"))))


# --- sizes ---


def test_lines_of_code_leave_out_docstrings_comments_and_blank_lines() -> None:
    text = '"""Text."""\n\ndef f():\n    """Two\n    lines."""\n    # no\n    return (1,\n 2)\n'
    assert lines_of_code(text) == 3
    assert lines_of_code('x = """a\nb"""') == 2


def test_files_and_folders_stay_small() -> None:
    counts = count()
    assert len(counts) == len(MODULES)
    counts |= count(STUDY)
    too_long = {path: lines for path, lines in counts.items() if lines > 300}
    assert not too_long
    folders = {path.parent for path in counts}
    assert all(len(list(folder.glob("*.py"))) <= 12 for folder in folders)
