"""The mean of the last weights against an explicit mean, with resuming, best epochs and pruning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from interruptions import Killed, kill_at
from iwlora import train
from iwlora.errors import IwloraError
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.trainer import FineTuningTrainer
from runs import evaluations, logged, recipe, weights, with_options

STEPS = 12
"""Two epochs of 96 rows in batches of 16."""


class Recording(FineTuningTrainer):
    """Keeps the trained parameters after each step, and those that are saved."""

    steps: ClassVar[list[dict[str, Tensor]]] = []

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_callback(_Record(self._now))

    def _now(self) -> dict[str, Tensor]:
        return {name: self._module.get_parameter(name).detach().clone() for name in self._trainable}

    def fit(self, checkpoint: Path | None) -> None:
        super().fit(checkpoint)
        Recording.steps.append(self._now())


class _Record(TrainerCallback):
    def __init__(self, now: Any) -> None:
        self._now = now

    def on_step_end(self, *_: Any, **__: Any) -> None:
        Recording.steps.append(self._now())


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Will hold the parameters after each step of each run, and those at its end."""
    monkeypatch.setattr(prepare_module, "FineTuningTrainer", Recording)
    monkeypatch.setattr(Recording, "steps", [])
    return Recording.steps


def is_mean(found: dict[str, Tensor], steps: Sequence[dict[str, Tensor]]) -> bool:
    """Whether parameters are the mean of those after some steps, computed in float64."""
    means = {name: torch.stack([step[name].double() for step in steps]).mean(0) for name in found}
    return all(torch.allclose(found[name].double(), means[name], atol=1e-7) for name in found)


@pytest.mark.quick
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_mean_of_the_last_steps_is_scored_and_saved(
    method: str,
    with_dropout: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    recorded: list[dict[str, Tensor]],
) -> None:
    task = {**reviews, "test": reviews["validation"]}
    asked = recipe(with_dropout, task, method, average_last=5)
    result = train(asked, tmp_path / "run")
    assert result["selected_on"] == "mean of the last 5 steps"
    *steps, last = recorded
    assert len(steps) == STEPS
    assert is_mean(last, steps[-5:])
    assert not is_mean(last, steps[-4:]), "another number of steps is another mean"
    saved = [*weights(tmp_path / "run").values()]
    for name, value in last.items():
        assert any(torch.equal(value, one) for one in saved if one.shape == value.shape), name
    scored = evaluations(tmp_path / "run")
    assert [record["step"] for record in scored] == [6, 12]
    assert scored[-1]["loss"] == pytest.approx(result["metrics"]["loss"], rel=1e-5)
    assert scored[-1]["accuracy"] == result["metrics"]["accuracy"]


def test_training_is_the_same_without_it(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, recorded: list[dict[str, Tensor]]
) -> None:
    """Also after an epoch that was scored with its mean."""
    task = {**reviews, "selection": 0.25}
    losses = []
    for name, last in (("plain", None), ("mean", 3)):
        train(recipe(with_dropout, task, average_last=last), tmp_path / name)
        records = logged(tmp_path / name)
        losses.append([record["loss"] for record in records if "grad_norm" in record])
    half = len(recorded) // 2
    pairs = list(zip(recorded[: half - 1], recorded[half:-1], strict=True))
    assert all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)
    assert losses[0] == losses[1]
    assert not all(torch.equal(recorded[half - 1][n], recorded[-1][n]) for n in recorded[-1])


@pytest.mark.parametrize("selection", [None, 0.25])
def test_a_resumed_run_has_the_same_mean(
    selection: float | None,
    with_dropout: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resumed within the steps that are averaged, of the first epoch and of the last."""
    task = reviews if selection is None else {**reviews, "selection": selection}
    asked = recipe(with_dropout, task, average_last=4, save_steps=1)
    whole = train(asked, tmp_path / "whole")
    for step in (4, 9) if selection else (11,):
        kill_at(step, monkeypatch)
        with pytest.raises(Killed):
            train(asked, tmp_path / "resumed")
        monkeypatch.undo()
    resumed = train(asked, tmp_path / "resumed")
    assert resumed["resumed_at_step"] == (9 if selection else 11)
    assert resumed["metrics"] == whole["metrics"]
    expected, after = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    assert evaluations(tmp_path / "resumed") == evaluations(tmp_path / "whole")


def test_of_the_best_epoch_its_own_mean_is_kept(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, recorded: list[dict[str, Tensor]]
) -> None:
    asked = recipe(with_dropout, {**reviews, "selection": 0.25}, epochs=3, average_last=2)
    result = train(asked, tmp_path / "run")
    assert result["selected_on"] == "best epoch on 25% of train, mean of its last 2 steps"
    *steps, last = recorded
    per_epoch = len(steps) // 3
    ends = [per_epoch, 2 * per_epoch, 3 * per_epoch]
    losses = [record["accuracy"] for record in evaluations(tmp_path / "run")]
    best = losses.index(max(losses))
    assert is_mean(last, steps[ends[best] - 2 : ends[best]])


def test_what_was_pruned_stays_pruned(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, recorded: list[dict[str, Tensor]]
) -> None:
    """Of ten steps, those since the last selection are averaged: step 8 to 12."""
    asked = with_options(
        recipe(tiny_bert, reviews, "adalora", lr=3e-2, average_last=10), t_final=4, delta_t=2
    )
    result = train(asked, tmp_path / "run")
    *steps, last = recorded
    assert is_mean(last, steps[-5:])
    singular = [value for name, value in last.items() if "lora_E" in name]
    left = sum(int(value.count_nonzero()) for value in singular)
    assert left == sum(one["rank"] for one in result["ranks"]) == 4 * 12
    before = [value for name, value in steps[-6].items() if "lora_E" in name]
    assert sum(int(value.count_nonzero()) for value in before) > left


@pytest.mark.quick
def test_more_steps_than_there_are_are_refused(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    asked = recipe(tiny_bert, reviews, average_last=13)
    with pytest.raises(IwloraError, match="the training has 12 optimizer steps; take at most 12"):
        train(asked, tmp_path / "run")
    asked = recipe(tiny_bert, {**reviews, "selection": 0.25}, average_last=6)
    with pytest.raises(IwloraError, match="each epoch has a mean of its own, of 5 optimizer st"):
        train(asked, tmp_path / "selection")
    with pytest.raises(IwloraError, match="sharded weights are not averaged"):
        recipe(tiny_bert, reviews, average_last=2, shard=True)
