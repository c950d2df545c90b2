"""A search of designs on a random model of 12 layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_study import save_model as save_tiny

BUDGET = 10_000


@pytest.fixture(scope="session")
def deep_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with 12 layers."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return save_tiny(folder, num_hidden_layers=12)


@pytest.fixture
def settings(deep_bert: Path, reviews: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """The recipe of a small search; keywords replace fields of ``design``."""

    def make(**design: Any) -> dict[str, Any]:
        chosen = {"order": ["grouping", "allocation"], "draws": [8, 16], "lr": 1e-2, **design}
        return {
            "model": str(deep_bert),
            "task": dict(reviews),
            "budget": BUDGET,
            "method": {
                "strategies": [["pfeiffer"], ["pfeiffer", "lora"], ["bitfit", "lora"], ["lora"]]
            },
            "train": {"max_steps": 1, "batch_size": 8, "max_length": 32, "precision": "fp32"},
            "design": chosen,
            "confirm": None,
        }

    return make
