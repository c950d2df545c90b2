"""Length, optimizer and schedule of a training: what the settings say is what is computed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.optimization import Adafactor

from interruptions import Killed, kill_at
from iwlora.errors import IwloraError
from iwlora.extras import MissingExtra
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import logged, recipe, weights, with_options

WARMUP, STEPS = 2, 20

SHAPES = {
    "linear": lambda part: 1 - part,
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "constant": lambda part: 1.0,
}


@pytest.mark.quick
@pytest.mark.parametrize("scheduler", SHAPES)
def test_steps_and_schedule(
    scheduler: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """96 rows are 6 steps an epoch; ``epochs`` does not count."""
    asked = recipe(
        tiny_bert, reviews, "head", epochs=1, max_steps=STEPS, scheduler=scheduler, warmup=0.1
    )
    result = train(asked, tmp_path / "run")
    assert result["epochs"] == STEPS / 6
    records = [record for record in logged(tmp_path / "run") if "learning_rate" in record]
    assert [record["step"] for record in records] == [10, 20]
    for record in records:
        # The logged rate is that of the step: the schedule after the steps before it.
        part = (record["step"] - 1 - WARMUP) / (STEPS - WARMUP)
        assert record["learning_rate"] == pytest.approx(1e-2 * SHAPES[scheduler](part), rel=1e-6)


def manual_adafactor(asked: Recipe, folder: Path) -> dict[str, torch.Tensor]:
    """Two epochs of the recipe in a loop of our own."""
    prepared = prepare(asked, RunDir.open(folder, asked), progress=False)
    model: Any = prepared.attached.model
    names = prepared.attached.trainable
    parameters = [model.get_parameter(name) for name in names]
    optimizer = Adafactor(parameters, lr=1e-2, relative_step=False, scale_parameter=False)
    loaded = prepared.loaded
    order = loaded.epoch_sampler()
    model.train()
    for epoch in range(2):
        rows = order.epoch_rows(epoch)
        for start in range(0, len(rows), order.batch_size):
            batch = loaded.collate(
                [loaded.encoded["train"][row] for row in rows[start : start + order.batch_size]]
            )
            loaded.task.kind.batch_loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    return {name: model.get_parameter(name).detach() for name in names}


def test_adafactor_is_that_of_transformers_at_the_rate_of_the_recipe(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    settings = {"optimizer": "adafactor", "scheduler": "constant", "warmup": 0, "max_grad_norm": 0}
    settings["fast_kernels"] = False  # Adafactor divides by the gradient, and so enlarges rounding
    asked = recipe(tiny_bert, reviews, "lora", **settings)
    expected = manual_adafactor(asked, tmp_path / "manual")
    prepared = prepare(asked, RunDir.open(tmp_path / "run", asked), progress=False)
    prepared.trainer.fit(None)
    for name, value in expected.items():
        trained = prepared.attached.model.get_parameter(name).detach()
        torch.testing.assert_close(trained, value, rtol=1e-4, atol=1e-5)


def test_without_clipping_the_routes_loss_and_gradient_agree_with_adafactor(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    settings = {"optimizer": "adafactor", "epochs": 1, "max_grad_norm": 0}
    base = recipe(tiny_bert, reviews, "iw-lora", **settings)
    trained = []
    for route in ("loss", "gradient"):
        train(with_options(base, alpha=0.3, route=route), tmp_path / route)
        trained.append(weights(tmp_path / route))
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-3, atol=1e-5)


def test_an_interrupted_run_with_other_settings_equals_an_uninterrupted_one(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(
        with_dropout,
        reviews,
        "adalora",
        max_steps=16,
        optimizer="adafactor",
        scheduler="cosine",
        gradient_checkpointing=True,
        save_steps=3,
    )
    asked = with_options(asked, delta_t=2)
    whole = train(asked, tmp_path / "whole")
    assert sum(site["rank"] for site in whole["ranks"]) == 4 * len(whole["ranks"]), "pruned to r"
    kill_at(8, monkeypatch)
    with pytest.raises(Killed):
        train(asked, tmp_path / "resumed")
    monkeypatch.undo()
    result = train(asked, tmp_path / "resumed")
    assert result["resumed_at_step"] == 6
    assert result["epochs"] == 16 / 6
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.quick
def test_a_dry_run_counts_max_steps(tiny_bert: Path, reviews: dict[str, str]) -> None:
    assert estimate_run_cost(recipe(tiny_bert, reviews, "head", max_steps=7)).steps == 7


@pytest.mark.quick
def test_what_does_not_go_together_is_refused(tiny_bert: Path, reviews: dict[str, str]) -> None:
    for changes, message in [
        ({"optimizer": "adafactor", "shard": True}, r"adafactor .* cannot be sharded"),
        ({"optimizer": "sgd"}, "train.optimizer=.sgd.*adafactor"),
        ({"scheduler": "step"}, "train.scheduler=.step.*cosine"),
        ({"max_steps": 0}, "train.max_steps=0"),
        ({"max_steps": 1.5}, "train.max_steps=1.5"),
    ]:
        with pytest.raises(IwloraError, match=message):
            recipe(tiny_bert, reviews, "lora", **changes)
    with pytest.raises(IwloraError, match="prefix cannot train with it: a block that is computed"):
        recipe(tiny_bert, reviews, "prefix", gradient_checkpointing=True)
    build({"model": "m", "task": "glue/rte", "method": "lora", "train": {"max_steps": None}})


@pytest.mark.quick
def test_a_missing_bitsandbytes_is_named(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"train\.optimizer=adamw_8bit needs .*bitsandbytes"):
        train(recipe(tiny_bert, reviews, "lora", optimizer="adamw_8bit"), tmp_path / "run")
