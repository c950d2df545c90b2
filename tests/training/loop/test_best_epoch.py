"""The best epoch is kept, chosen on held-out training rows; a reported split is scored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interruptions import Killed, kill_at
from iwlora import train
from iwlora.errors import IwloraError
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


def score_epochs(scores: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the epochs have these scores, also when a resumed run repeats them."""

    class Scored(KeepBestEpoch):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            metrics = {"eval_accuracy": scores[round(state.epoch) - 1]}
            super().on_evaluate(args, state, control, **{**kwargs, "metrics": metrics})

    monkeypatch.setattr(prepare_module, "KeepBestEpoch", Scored)


@pytest.mark.quick
def test_early_stopping_ends_a_run_and_a_resumed_one_at_the_same_epoch(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2 stays the best for 2 epochs: the run ends after epoch 4 of 9."""
    score_epochs([0.1, 0.5, 0.4, 0.5, 0.9], monkeypatch)
    task = {**reviews, "selection": 0.25}
    asked = recipe(with_dropout, task, epochs=9, early_stopping=2, save_steps=4, batch_size=18)
    whole = train(asked, tmp_path / "whole")
    assert whole["epochs"] == 4
    note = "early stopping ended the training after epoch 4 of 9, 2 after the best"
    assert note in whole["notes"]
    last = evaluations(tmp_path / "whole")[-1]["step"]
    assert last % 4 == 0
    assert not (tmp_path / "whole" / "checkpoints" / f"checkpoint-{last}").exists()
    for killed in (7, 15):  # before the best epoch ends, and in the epoch at whose end it stops
        with monkeypatch.context() as interrupted:
            kill_at(killed, interrupted)
            with pytest.raises(Killed):
                train(asked, tmp_path / "resumed")
    resumed = train(asked, tmp_path / "resumed")
    assert resumed["resumed_at_step"] == 12
    assert resumed["epochs"] == 4
    expected, after = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(after[name], expected[name]) for name in expected)


@pytest.mark.quick
def test_early_stopping_needs_a_selection_split(tiny_bert: Path, reviews: dict[str, str]) -> None:
    with pytest.raises(IwloraError, match=r"early_stopping=2 was given without task\.selection"):
        recipe(tiny_bert, reviews, early_stopping=2)
