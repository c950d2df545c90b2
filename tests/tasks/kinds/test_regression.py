"""Regression: what is learned, and predictions and scores in the units of the targets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.kinds.contract import Evaluation
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.splits import dataset_from_rows

pytestmark = pytest.mark.quick

TARGETS = [1990.0, 2000.0, 2020.0, 2006.0]
SCHEMA = TaskSchema("t", ("text",), (), Regression.default_metrics)


def evaluation(kind: Regression, z: Any) -> Evaluation:
    rows = dataset_from_rows(["text"], [(str(y), y) for y in TARGETS], kind)
    outputs = {"logits": np.asarray(z, dtype=np.float32)[:, None]}
    return Evaluation(SCHEMA, rows, rows, outputs, None)


def test_predictions_and_scores_are_in_the_units_of_the_targets() -> None:
    kind = Regression().fitted(TARGETS)
    z = np.array([0.5, -0.5, 1.0, 0.0])
    expected = np.mean(TARGETS) + np.std(TARGETS) * z
    scored = evaluation(kind, z)
    predictions = kind.predictions(scored)
    assert [row["prediction"] for row in predictions] == pytest.approx(expected.tolist())
    error = expected - TARGETS
    assert kind.score(scored, predictions) == pytest.approx(
        {
            "pearson": np.corrcoef(expected, TARGETS)[0, 1],
            "spearman": 0.4,
            "rmse": np.sqrt(np.square(error).mean()),
            "mae": np.abs(error).mean(),
            "loss": np.square(error).mean(),
        }
    )


def test_the_learned_targets_and_their_loss() -> None:
    kind = Regression().fitted(TARGETS)
    learned = (np.array(TARGETS) - np.mean(TARGETS)) / np.std(TARGETS)
    np.testing.assert_allclose(kind.targets(SCHEMA, TARGETS), learned)
    logits, labels = torch.tensor([[0.0], [3.0]]), torch.tensor([0.5, 0.5])
    outputs = SimpleNamespace(logits=logits)
    assert kind.loss(outputs, labels).item() == pytest.approx(0.25 + 6.25)
    huber = Regression(loss_function="huber", huber_delta=2.0)
    assert huber.loss(outputs, labels).item() == pytest.approx(0.125 + 2.0 * (2.5 - 1.0))


def test_what_is_learned_depends_on_no_unit() -> None:
    """So importance, learning rates and penalties mean the same for years and for 0 to 5."""
    other = [1e6 + 1e3 * year for year in TARGETS]
    learned, expected = (Regression().fitted(y).targets(SCHEMA, y) for y in (other, TARGETS))
    assert learned == pytest.approx(expected)


def test_targets_as_they_are() -> None:
    kind = Regression(standardize=False).fitted(TARGETS)
    assert kind.scaling is None
    assert kind.targets(SCHEMA, TARGETS) == TARGETS
    predictions = kind.predictions(evaluation(kind, [1.0, 2.0, 3.0, 4.0]))
    assert [row["prediction"] for row in predictions] == [1.0, 2.0, 3.0, 4.0]


def test_an_infinite_prediction_is_reported() -> None:
    kind = Regression(transform="log").fitted(TARGETS)
    with pytest.raises(IwloraError, match="not finite"):
        kind.score(evaluation(kind, [1e7, 0, 0, 0]), [])


def test_the_scale_is_that_of_the_rows_that_are_trained_on(tmp_path: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,score\n" + "".join(f"t {i},{i + 0.5}\n" for i in range(100)))
    for fields in ({}, {"max_train": 20}, {"selection": 0.3}, {"holdout": 0.5}):
        task = load(TaskSpec(train=str(path), **fields), seed=3)
        labels = task.splits["train"]["label"][:]
        assert task.kind.scaling is not None
        assert task.kind.scaling.mean == pytest.approx(np.mean(labels))
        assert task.kind.scaling.sd == pytest.approx(np.std(labels))
    assert load(TaskSpec(train=str(path), former_kind_defaults=True), 0).kind.scaling is None
    given = {"name": "regression", "standardize": True}
    explicit = TaskSpec(train=str(path), former_kind_defaults=True, kind=given)
    assert load(explicit, 0).kind.scaling is not None


def test_the_scale_is_no_option_of_a_recipe() -> None:
    with pytest.raises(
        ValueError, match=r"task\.kind\.target_scale follows from the training rows"
    ):
        TaskSpec(train="a.csv", kind={"name": "regression", "target_scale": {"mean": 1.0}})
    with pytest.raises(ValueError, match=r"\(accepted: metric, standardize, transform"):
        TaskSpec(name="glue/stsb", kind={"scale": 1})
