"""A comparison folder as the training code leaves it, with plausible random numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

KINDS = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
MEANS = {"full": 0.620, "lora": 0.652, "adalora": 0.641, "iw-lora": 0.655}


def make_sensitivity(blocks: int = 6, kinds: Sequence[str] = KINDS) -> Sensitivity:
    rng = np.random.default_rng(7)
    sites = tuple(
        SiteSensitivity(f"layer.{d}.{k}", k, d, 384, 384, float(rng.gamma(3.0)), 0.1)
        for d in range(blocks)
        for k in kinds
    )
    return Sensitivity(sites, "exact", 24, 0.015, True, 12.5)


def make_result(label: str, seed: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    adapters = None if label == "full" else 294_912
    result = {
        "method": label,
        "label": label,
        "model": "builtin/minilm",
        "task": "glue/rte",
        "seed": seed,
        "metrics": {"accuracy": accuracy, "f1": accuracy - 0.02, "loss": 1.3 - accuracy},
        "primary_metric": "accuracy",
        "evaluated_on": "validation",
        "selected_on": "last checkpoint",
        "trainable_parameters": 22_713_986 if adapters is None else adapters + 770,
        "adapter_parameters": adapters,
        "head_parameters": 770,
        "train_seconds": 312.0 + seed,
        "measure_seconds": 12.5 if label.startswith("iw-lora") else 0.0,
        "examples_per_second": 23.9,
        "peak_memory_bytes": 1_300_000_000,
        "train_examples": 2490,
        "epochs": 3.0,
        "learning_rate": 2e-4,
        "rank": None if adapters is None else 8,
        "resumed_at_step": 0,
        "notes": [],
    }
    return result | changes


def write_run(folder: Path, result: dict[str, Any]) -> None:
    rng = np.random.default_rng(result["seed"] + 1)
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = [
        {
            "step": step,
            "epoch": step / 78,
            "loss": 0.5 + 0.2 * np.exp(-step / 80) + rng.normal(0, 0.02),
            "learning_rate": 2e-4,
        }
        for step in range(5, 235, 5)
    ]
    for epoch in (1, 2, 3):
        scores = {n: v - 0.03 * (3 - epoch) for n, v in result["metrics"].items()}
        place = {"step": 78 * epoch, "epoch": epoch, "split": "validation", "evaluation": True}
        lines.append(place | scores)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    environment = {
        "python": "3.11.7",
        "torch": "2.13.0",
        "processor": "a CPU",
        "cores": 2,
        "gpu": None,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": result["model"]}))
    if result["measure_seconds"]:
        make_sensitivity().save(folder / "sensitivity.json")
    (folder / "result.json").write_text(json.dumps(result))


def write_comparison(
    folder: Path, arms: Sequence[str] = tuple(MEANS), seeds: int = 3, **changes: Any
) -> Path:
    rng = np.random.default_rng(3)
    plan = {"model": "builtin/minilm", "task": "glue/rte"}
    plan |= {field: changes[field] for field in plan if field in changes}
    text = yaml.safe_dump(plan | {"methods": list(arms), "seeds": list(range(seeds))})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.yaml").write_text(text)
    for seed in range(seeds):
        common = rng.normal(0, 0.012)
        for label in arms:
            hits = round(277 * (MEANS.get(label, 0.65) + common + rng.normal(0, 0.008)))
            result = make_result(label, seed, hits / 277, **changes)
            write_run(folder / label / f"seed-{seed}", result)
    return folder


@pytest.fixture
def sensitivity() -> Sensitivity:
    return make_sensitivity()


@pytest.fixture
def sensitivity_of() -> Callable[..., Sensitivity]:
    return make_sensitivity


@pytest.fixture
def comparison_in() -> Callable[..., Path]:
    return write_comparison


@pytest.fixture(scope="session")
def comparison_of() -> Callable[..., Path]:
    return write_comparison


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four arms, three seeds, everything finished."""
    return write_comparison(tmp_path / "comparison")
