"""docs/recipe-reference.md is what the code says, and has every field."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from iwlora.compare.plan.recipe import COMPARISON_FIELDS
from iwlora.methods import METHODS
from iwlora.training.recipe import Recipe
from iwlora.training.train_settings import TrainSettings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "recipe-reference.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_recipe_reference.py"))


def test_the_page_is_what_the_code_says(maker: dict[str, Any]) -> None:
    assert maker["page"]() == PAGE, "run: python docs/make_recipe_reference.py"


def test_every_field_has_a_row() -> None:
    """Counted without the program that writes the page."""
    names = [f"train.{name}" for name in TrainSettings.model_fields]
    names += [f"method.{name}" for method in METHODS.values() for name in method.model_fields]
    names += [name for name in Recipe.model_fields if name not in ("task", "method", "train")]
    names += COMPARISON_FIELDS
    missing = [name for name in names if f"\n| `{name}` | " not in PAGE]
    assert not missing
    assert "| `train.max_grad_norm` | `1.0` | a number from 0 | " in PAGE
    assert "**`lora`, " in PAGE
    for method in METHODS:
        assert f"`{method}`" in PAGE


def test_a_field_without_a_meaning_is_refused(maker: dict[str, Any]) -> None:
    class Options(BaseModel):
        rank: int = 8

    with pytest.raises(ValueError, match=r"Options\.rank has no docstring"):
        list(maker["fields"](Options))
