"""Predictions of a pool are the mean of those of its sources."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from iwlora.compose import backbone
from iwlora.compose.compose import compose
from iwlora.compose.predict import predict
from iwlora.errors import IwloraError
from iwlora.training.prediction.new_rows import load_for_rows
from iwlora.training.prediction.new_rows import predict as predict_run
from iwlora.training.run import train
from runs import as_foreign, logits, recipe

pytestmark = pytest.mark.quick


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def probabilities(rows: Sequence[dict[str, str]]) -> Any:
    return np.array(
        [[float(row[f"probability_{name}"]) for name in ("neg", "pos")] for row in rows]
    )


def test_the_mean_of_the_probabilities_of_single_runs(
    runs: Path, pool: Path, tmp_path: Path
) -> None:
    rows = str(runs / "scored.csv")
    single = [
        probabilities(table(predict_run(runs / name, rows, tmp_path / f"{name}.csv")))
        for name in "abc"
    ]
    answers = table(predict(pool, rows, tmp_path / "all.csv"))
    expected = np.mean(single, axis=0)
    assert np.ptp(single, axis=0).max() > 1e-3, "else the runs do not differ"
    assert np.abs(probabilities(answers) - expected).max() < 1e-6
    assert [row["prediction"] for row in answers] == [
        ("neg", "pos")[k] for k in expected.argmax(axis=1)
    ]
    assert {row["sources"] for row in answers} == {"a,b,c"}


def test_the_mean_of_logits(runs: Path, pool: Path, tmp_path: Path) -> None:
    of_logits = compose([pool], tmp_path / "pool", average="logits")
    answers = table(
        predict(of_logits, str(runs / "scored.csv"), tmp_path / "x.csv", use=["a", "b"])
    )
    expected = softmax(np.mean([logits(runs / name) for name in "ab"], axis=0), axis=1)
    assert np.abs(probabilities(answers) - expected).max() < 1e-6


def test_each_row_names_its_sources(
    runs: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources that no row names are not even loaded."""
    loaded: list[str] = []

    def load(run: Any, *arguments: Any) -> Any:
        loaded.append(run.path.name)
        return load_for_rows(run, *arguments)

    monkeypatch.setattr("iwlora.compose.predict.load_for_rows", load)
    rows, sources = table(runs / "scored.csv"), ["a", "c, a", "c"] * 4
    file = tmp_path / "rows.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "sources"])
        writer.writerows([row["text"], used] for row, used in zip(rows, sources, strict=False))
    answers = table(predict(pool, file, tmp_path / "answers.csv"))
    assert [row["sources"] for row in answers] == ["a", "a,c", "c"] * 4
    assert loaded == ["a", "c"]
    for used in ("a", "a,c", "c"):
        whole = predict(pool, str(runs / "scored.csv"), tmp_path / "x.csv", use=used.split(","))
        chosen = [number for number, row in enumerate(answers) if row["sources"] == used]
        expected = probabilities(table(whole))[chosen]
        assert np.abs(probabilities([answers[n] for n in chosen]) - expected).max() < 1e-6


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_nothing_is_read_of_a_source_that_no_row_uses(
    runs: Path, pool: Path, tmp_path: Path, ending: str
) -> None:
    """Not even of the first one, whose classes may be in another order since it was changed."""
    changed, file = tmp_path / "changed", tmp_path / f"rows.{ending}"
    shutil.copytree(pool, changed)
    texts = [row["text"] for row in table(runs / "scored.csv")]
    if ending == "csv":
        file.write_text("\n".join(["text,sources", *(f'"{text}",b' for text in texts)]) + "\n")
    else:
        rows = [{"text": text, "sources": ["c", "b"][row % 2 :]} for row, text in enumerate(texts)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = predict(changed, file, tmp_path / "expected.csv").read_bytes()
    as_foreign(changed / "sources" / "a", labels=["pos", "neg"])
    assert predict(changed, file, tmp_path / "answers.csv").read_bytes() == expected
    shutil.rmtree(changed / "sources" / "a")
    assert predict(changed, file, tmp_path / "again.csv").read_bytes() == expected


def test_wrong_names_are_refused_before_a_model_is_loaded(
    runs: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwlora.compose.predict.load_for_rows", None)
    out = tmp_path / "answers.csv"
    with pytest.raises(IwloraError, match=r"--use: unknown source 'd'.*accepted: a, b, c"):
        predict(pool, str(runs / "scored.csv"), out, use=["a", "d"])
    with pytest.raises(IwloraError, match="--use names no source"):
        predict(pool, str(runs / "scored.csv"), out, use=[])
    file = tmp_path / "rows.csv"
    file.write_text('text,sources\ngood,a\nbad,\nfine,"a,x"\n', encoding="utf-8")
    with pytest.raises(IwloraError) as error:
        predict(pool, file, out)
    assert "line 3, column 'sources' names no source" in str(error.value)
    assert "line 4, column 'sources': unknown source 'x'" in str(error.value)
    with pytest.raises(IwloraError, match="leave out --use, or rename the column"):
        predict(pool, file, out, use=["a"])
    with pytest.raises(IwloraError, match="is no pool"):
        predict(runs / "a", file, out)
    assert not out.exists()


def test_the_backbone_is_read_once(
    runs: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = backbone.load_backbone

    def count(model: str, *arguments: Any) -> Any:
        read.append(model)
        return load(model, *arguments)

    monkeypatch.setattr(backbone, "load_backbone", count)
    predict(pool, str(runs / "scored.csv"), tmp_path / "x.csv")
    assert len(read) == 1


def test_numbers_are_averaged_in_their_units(tiny_bert: Path, tmp_path: Path) -> None:
    """Each run has a scale of its own: the mean of logits would be another number."""
    for name, (low, high) in {"a": (0, 1), "b": (100, 300)}.items():
        lines = [f"a {'good' if k % 2 else 'bad'} film,{(low, high)[k % 2]}" for k in range(12)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,stars", *lines]) + "\n")
        task = {
            "train": str(tmp_path / f"{name}.csv"),
            "validation": str(tmp_path / f"{name}.csv"),
            "text": "text",
            "label": "stars",
            "kind": {"name": "regression"},
        }
        method = {"a": "lora", "b": "head"}[name]
        train(recipe(tiny_bert, task, method, epochs=1), tmp_path / "runs" / name)
    sources = [tmp_path / "runs" / name for name in "ab"]
    pool = compose(sources, tmp_path / "pool")
    rows = str(tmp_path / "a.csv")
    single = [
        [float(row["prediction"]) for row in table(predict_run(run, rows, tmp_path / "x.csv"))]
        for run in sources
    ]
    answers = [
        float(row["prediction"]) for row in table(predict(pool, rows, tmp_path / "both.csv"))
    ]
    assert np.mean(single[1]) - np.mean(single[0]) > 50
    assert np.allclose(answers, np.mean(single, axis=0), rtol=1e-6)
    with pytest.raises(IwloraError, match="numbers, which are averaged as they are"):
        compose(sources, tmp_path / "other", average="logits")
