"""The best epoch is kept, chosen on held-out training rows; a reported split is scored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwlora import train
from iwlora.tasks.kinds.classification import Classification
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import KeepBestEpoch
from runs import evaluations, recipe, weights, with_options


def parameters(model: Any, names: Any) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach().clone() for name in names}


def watch(monkeypatch: pytest.MonkeyPatch, *accuracies: float) -> list[dict[str, Tensor]]:
    """Let the epochs have these scores; will hold their parameters, and those kept at the end."""
    seen: list[dict[str, Tensor]] = []
    scores = iter(accuracies)

    class Seeing(KeepBestEpoch):
        def on_evaluate(self, *args: Any, metrics: Any = None, **kwargs: Any) -> None:
            seen.append(parameters(self._attached.model, self._attached.trainable))
            super().on_evaluate(*args, metrics={"eval_accuracy": next(scores)}, **kwargs)

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            super().on_train_end(*args, **kwargs)
            seen.append(parameters(self._attached.model, self._attached.trainable))

    monkeypatch.setattr(prepare_module, "KeepBestEpoch", Seeing)
    return seen


def kept(seen: list[dict[str, Tensor]]) -> list[bool]:
    """Of each epoch, whether its parameters are those at the end."""
    *epochs, last = seen
    return [all(torch.equal(last[name], one[name]) for name in last) for one in epochs]


def test_the_best_epoch_is_kept(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch, 0.5, 0.9, 0.9, 0.7)
    result = train(recipe(tiny_bert, {**reviews, "selection": 0.25}, epochs=4), tmp_path / "run")
    assert result["selected_on"] == "best epoch on 25% of train"
    assert kept(seen) == [False, True, False, False]
    written = [record["split"] for record in evaluations(tmp_path / "run")]
    assert written == ["selection"] * 4
    assert any("lora_B" in name for name in weights(tmp_path / "run"))


def test_an_epoch_before_the_last_pruning_is_not_the_best(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would score with more parameters than the adapter has that is saved."""
    seen = watch(monkeypatch, 0.9, 0.8, 0.5, 0.5)
    wanted = recipe(tiny_bert, {**reviews, "selection": 0.25}, "adalora", epochs=4, lr=3e-2)
    wanted = with_options(wanted, t_final=0.3)  # the last of 20 steps that prunes is the 14th
    result = train(wanted, tmp_path / "run")
    assert kept(seen) == [False, False, True, False]
    singular = [value for name, value in seen[-1].items() if "lora_E" in name]
    left = sum(int(value.count_nonzero()) for value in singular)
    assert left == sum(one["rank"] for one in result["ranks"]) == 4 * 12


def test_a_reported_split_is_read_once(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    score = Classification.score

    def counted(self: Any, evaluation: Any, predictions: Any) -> dict[str, float]:
        sizes.append(len(evaluation.rows))
        return score(self, evaluation, predictions)

    monkeypatch.setattr(Classification, "score", counted)
    train(recipe(tiny_bert, {**reviews, "selection": 0.25}, epochs=2), tmp_path / "run")
    assert sizes == [22, 22, 32], "rows with equal texts are not divided"
    sizes.clear()
    train(recipe(tiny_bert, reviews, epochs=2), tmp_path / "last")
    assert sizes == [32]
