"""Comparison folders with plausible numbers, measurements, and plans of a tiny comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from comparison_folders import (  # noqa: F401
    comparison_in,
    comparison_of,
    folder,
    sensitivity,
    sensitivity_of,
)
from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.recipe import load_plan


@pytest.fixture
def make_plan(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Callable[..., Plan]:
    """Plans LoRA and IW-LoRA over two seeds on a tiny model; keywords change the recipe.

    A keyword that is None removes a field.
    """

    def load(**changes: Any) -> Plan:
        settings = {
            "model": str(tiny_bert),
            "task": reviews,
            "methods": [{"name": "lora", "rank": 4}, {"name": "iw-lora", "rank": 4}],
            "seeds": [0, 1],
            "train": {"epochs": 1, "max_length": 32},
        }
        path = tmp_path / "plan.yaml"
        given = {key: value for key, value in (settings | changes).items() if value is not None}
        path.write_text(yaml.safe_dump(given))
        return load_plan(str(path))

    return load
