"""The table in docs/budgets.md is what the command prints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("budgets", ROOT / "benchmarks" / "budgets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "models",
    [
        "deberta-v3-base",
        pytest.param("deberta-v3-base,roberta-large,t5-base", marks=pytest.mark.slow),
    ],
)
def test_the_page_has_what_is_printed(
    command: ModuleType, capsys: pytest.CaptureFixture[str], models: str
) -> None:
    command.main(["--models", models])
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "budgets.md").read_text(encoding="utf-8")
    assert printed in page, "run 'python benchmarks/budgets.py' and put its output there"
    assert "| rank 2: 331,776 (+11%) | rank 4: 663,552 (+11%) | rank 8: 1,327,104 |" in printed


def test_published_shapes(command: ModuleType) -> None:
    """Parameters as the models' own publications round them."""
    for name, published in (
        ("deberta-v3-base", 184e6),
        ("roberta-large", 355e6),
        ("t5-base", 223e6),
    ):
        model = command.skeleton(name)
        assert command.backbone_parameters(model) == pytest.approx(published, rel=0.01)


def test_another_budget(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--models", "t5-base", "--budgets", "100,1%"])
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("| lora,"))
    assert row.endswith("| no size fits | rank 5: 2,027,520 (-9%) |")
