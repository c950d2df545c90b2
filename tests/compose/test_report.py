"""The report of a pool: scores of subsets, computed from what the runs stored."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from commands import snapshot
from compose.conftest import write_rows
from iwlora.compose.compose import compose
from iwlora.compose.report import report
from iwlora.errors import IwloraError
from iwlora.training.run import train
from runs import logits, predictions, recipe

pytestmark = pytest.mark.quick


def test_every_subset_is_scored_on_the_stored_rows(runs: Path, pool: Path) -> None:
    before = snapshot(pool)
    found = report(pool)
    assert snapshot(pool) == before
    labels = np.array([row["label"] == "pos" for row in predictions(runs / "a")], dtype=int)
    single = {name: softmax(logits(runs / name), axis=1) for name in "abc"}
    subsets = [s for size in (1, 2, 3) for s in combinations("abc", size)]
    assert list(found.metrics) == subsets
    for subset in subsets:
        mean = np.mean([single[name] for name in subset], axis=0)
        scores = found.metrics[subset]
        assert np.isclose(scores["accuracy"], (mean.argmax(axis=1) == labels).mean())
        assert np.isclose(scores["loss"], -np.log(mean[np.arange(len(labels)), labels]).mean())
    for added in found.additions:
        without = tuple(name for name in "abc" if name != added.name)
        difference = found.metrics["a", "b", "c"]["accuracy"] - found.metrics[without]["accuracy"]
        assert np.isclose(added.margin, difference)
        assert added.low is not None
        assert added.high is not None
        assert added.low <= added.margin <= added.high
    text = str(found)
    assert "On the 16 rows (validation) that all sources were scored on." in text
    assert text.count("\n| a, c ") == 1


def test_rows_of_a_file_give_the_scores_of_the_same_stored_rows(runs: Path, pool: Path) -> None:
    stored, computed = report(pool), report(pool, rows=runs / "scored.csv")
    for subset, scores in stored.metrics.items():
        assert computed.metrics[subset] == pytest.approx(scores, abs=1e-6)
    assert "On the 16 rows of " in str(computed)


def test_sources_with_other_scored_rows(runs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "d.csv", ("bad", "good"), "some")
    task = {"train": str(rows), "validation": str(rows), "text": "text", "label": "mood"}
    train(recipe(tiny_bert, task, "head", epochs=1), tmp_path / "d")
    pool = compose([runs / "a", tmp_path / "d"], tmp_path / "pool")
    found = report(pool)
    assert not found.metrics
    assert "a and d were scored on other rows" in str(found)
    assert "--rows FILE" in str(found)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("text,mood\ngood,pos\nbad,nix\n", encoding="utf-8")
    with pytest.raises(
        IwloraError, match=r"line 3: the label holds 'nix'; the classes are neg and"
    ):
        report(pool, rows=wrong)
    wrong.write_text("text\ngood\n", encoding="utf-8")
    with pytest.raises(IwloraError, match="has no labels; give a file with the column mood"):
        report(pool, rows=wrong)


def test_of_many_sources_each_is_left_out_once(runs: Path, tmp_path: Path) -> None:
    sources = [f"{name}{k}={runs / name}" for name in "abc" for k in range(2)]
    found = report(compose(sources, tmp_path / "pool"), use=[["c1", "a0"]])
    sizes = [len(subset) for subset in found.metrics]
    assert sizes == [1] * 6 + [2] + [5] * 6 + [6]
    assert ("a0", "c1") in found.metrics
    with pytest.raises(IwloraError, match="unknown source 'x'"):
        report(tmp_path / "pool", use=[["x"]])
