"""Class weights and balanced draws: the loss and the rows that a recipe asks for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from interruptions import Killed, kill_at
from iwlora.errors import IwloraError
from iwlora.tasks.kinds.classification import Classification
from iwlora.training.class_balance import class_weights
from iwlora.training.load import load
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.run import train
from runs import recipe, weights

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def rare(reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The reviews with 48 rows of one class and 8 of the other to train on."""
    lines = Path(reviews["train"]).read_text().splitlines()
    many = [line for line in lines if line.endswith("neg")]
    few = [line for line in lines if line.endswith("pos")][:8]
    file = tmp_path_factory.mktemp("rare") / "train.csv"
    file.write_text("\n".join([lines[0], *many, *few]) + "\n")
    return {**reviews, "train": str(file)}


def test_balanced_weights_are_scikit_learn_s() -> None:
    rows = [0] * 90 + [2] * 9 + [1]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=rows)
    assert class_weights("balanced", ["a", "b", "c"], rows) == pytest.approx(expected)
    assert class_weights({"c": 5.0}, ["a", "b", "c"], rows) == (1.0, 1.0, 5.0)


def test_the_mean_loss_over_micro_batches_is_pytorch_s() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(12, 3), torch.randint(0, 3, (12,))
    kind = Classification().with_class_weights((0.5, 1.0, 7.0))
    expected = cross_entropy(logits, labels, weight=torch.tensor([0.5, 1.0, 7.0]))
    parts = [(SimpleNamespace(logits=logits[i : i + 5]), labels[i : i + 5]) for i in (0, 5, 10)]
    total = sum(kind.loss(*part) for part in parts)
    torch.testing.assert_close(total / sum(kind.count(part[1]) for part in parts), expected)
    assert kind.model_dump() == Classification().model_dump(), "a run's kind is stored as it was"


def test_every_class_is_drawn_equally_often_in_a_fixed_order() -> None:
    classes = [0] * 50 + [1] * 8 + [2] * 3
    sampler = EpochSampler(61, batch_size=8, seed=1, lengths=[1] * 61, classes=classes)
    for epoch in range(3):
        rows = sampler.epoch_rows(epoch)
        assert len(rows) == 61
        assert sorted(Counter(classes[row] for row in rows).values()) == [20, 20, 21]
        drawn = Counter(rows)
        for label in set(classes):  # the rows of a class take turns
            times = [drawn[row] for row in range(61) if classes[row] == label]
            assert max(times) - min(times) <= 1
        assert rows == EpochSampler(61, 8, 1, [1] * 61, classes).epoch_rows(epoch)
    assert sampler.epoch_rows(0) != sampler.epoch_rows(1)


def test_an_interrupted_run_equals_an_uninterrupted_one_and_names_its_weights(
    with_dropout: Path, rare: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(
        with_dropout,
        rare,
        "iw-lora",
        class_weights={"pos": 5},
        sampler="balanced",
        save_steps=2,
        accumulate=2,
    )
    whole = train(asked, tmp_path / "whole")
    assert (
        "the training loss is weighted by class (neg 1, pos 5); the reported losses are not"
        in whole["notes"]
    )
    kill_at(5, monkeypatch)
    with pytest.raises(Killed):
        train(asked, tmp_path / "resumed")
    monkeypatch.undo()
    assert train(asked, tmp_path / "resumed")["resumed_at_step"] == 4
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_an_interrupted_run_goes_on_with_the_rows_drawn_by_weights(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix = [{"train": reviews["validation"], "weight": 3}]
    asked = recipe(with_dropout, {**reviews, "mix": mix, "max_train": 32}, save_steps=2)
    whole = train(asked, tmp_path / "whole")
    counts = f"train: 8 rows of {reviews['train']} and 24 rows of {reviews['validation']}"
    assert f"{counts}, drawn with the weights 1, 3" in whole["notes"]
    kill_at(3, monkeypatch)
    with pytest.raises(Killed):
        train(asked, tmp_path / "resumed")
    monkeypatch.undo()
    assert train(asked, tmp_path / "resumed")["resumed_at_step"] == 2
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_weights_of_files_and_balanced_draws_are_refused_together(
    tiny_bert: Path, reviews: dict[str, str]
) -> None:
    mix: dict[str, Any] = {"train": reviews["validation"]}
    recipe(tiny_bert, {**reviews, "mix": [mix]}, sampler="balanced")
    with pytest.raises(IwloraError, match=r"task.mix has weights and train.sampler=balanced"):
        recipe(tiny_bert, {**reviews, "mix": [{**mix, "weight": 2}]}, sampler="balanced")


def test_what_does_not_fit_the_task_is_refused(tiny_bert: Path, reviews: dict[str, str]) -> None:
    with pytest.raises(IwloraError, match=r"class_weights: unknown class 'pso'; did you mean 'pos"):
        load(recipe(tiny_bert, reviews, class_weights={"pso": 2.0}))
    multi = {**reviews, "kind": "multi-label"}
    with pytest.raises(IwloraError, match="multi-label does not have one class for each row"):
        load(recipe(tiny_bert, multi, sampler="balanced"))
    with pytest.raises(IwloraError, match=r"train\.class_weights"):
        recipe(tiny_bert, reviews, class_weights={"pos": 0})
