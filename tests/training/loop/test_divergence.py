"""Runs whose loss or gradients become NaN or infinite stop with a reason and count as diverged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from iwlora.errors import Diverged, IwloraError
from iwlora.training.loop.divergence import check_outputs
from iwlora.training.recipe import build
from iwlora.training.run import train
from runs import recipe, status, with_options


def spoiled(model: Path, folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model with other weights."""
    copy = Path(shutil.copytree(model, folder / "spoiled"))
    tensors = load_file(copy / "model.safetensors")
    spoil(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def overflowing(tensors: dict[str, torch.Tensor]) -> None:
    """Finite weights whose products are infinite."""
    for name in tensors:
        if name.endswith("dense.weight"):
            tensors[name] *= 1e25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_weights_are_refused_by_name(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, value: float
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["embeddings.word_embeddings.weight"][-1, 3] = value

    model = spoiled(tiny_bert, tmp_path, spoil)
    with pytest.raises(IwloraError, match=r"1 of \d+ values of its .*word_embeddings.weight"):
        train(recipe(model, reviews), tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((name, {}) for name in ("full", "lora", "adalora", "prefix")),
        ("houlsby", {"bottleneck": 4}),
        *(("iw-lora", {"measure": "in-flight", "estimator": e}) for e in ("exact", "lora")),
    ],
)
def test_overflow_ends_a_run_with_step_rows_and_advice(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    model = spoiled(tiny_bert, tmp_path, overflowing)
    run_recipe = recipe(model, reviews, "lora")
    settings = {**run_recipe.settings(), "method": {"name": method, **options}}
    with pytest.raises(Diverged, match=r"is nan in step 1: .*lower train.lr.* counted from 0: \d"):
        train(build(settings), tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "diverged"
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_measurement_that_overflows_names_its_rows(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    run_recipe = recipe(spoiled(tiny_bert, tmp_path, overflowing), reviews, "iw-lora")
    run_recipe = with_options(run_recipe, measure="before")
    with pytest.raises(
        Diverged, match=r"calibration batch 0: .* its rows in the training"
    ) as error:
        train(run_recipe, tmp_path / "run")
    rows = re.findall(r"\d+", str(error.value).rsplit("counted from 0: ", 1)[1])
    assert len(rows) == 12
    assert all(int(row) < 96 for row in rows)
    assert status(tmp_path / "run")["state"] == "diverged"


def test_eva_on_inputs_that_overflow(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    run_recipe = recipe(spoiled(tiny_bert, tmp_path, overflowing), reviews, "eva")
    with pytest.raises(Diverged, match="no principal directions"):
        train(run_recipe, tmp_path / "run")


@pytest.mark.parametrize("method", ["lora", "adalora", "iw-lora"])
def test_a_learning_rate_that_is_absurd(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    run_recipe = recipe(tiny_bert, reviews, method, lr=1e30)
    with pytest.raises(Diverged):
        train(run_recipe, tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "diverged"


def test_nan_outputs_are_not_scored(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_outputs("test", {"logits": torch.ones(3).numpy(), "ids": torch.arange(3).numpy()})
    with pytest.raises(Diverged, match="the model's logits for the test split contain NaN"):
        check_outputs("test", {"logits": torch.tensor([1.0, float("nan")]).numpy()})

    def broken(self: Any, rows: Any) -> dict[str, Any]:
        return {"logits": torch.full((len(rows), 2), float("nan")).numpy()}

    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.final_outputs", broken)
    with pytest.raises(Diverged, match="validation split"):
        train(recipe(tiny_bert, reviews, epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
