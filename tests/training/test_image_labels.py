"""Several classes or a number for an image: from a table to predictions, a report and an export."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

import iwlora
from iwlora.compare.report.write import write_report
from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec, load
from iwlora.training.suggestion.look import look_at_data
from runs import predictions, recipe
from tiny_images import draw, save_tiny_vit

COUNT = 24


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of discs (odd numbers) and squares; those of every third number are called big."""
    folder = tmp_path_factory.mktemp("tables")
    rows = {"tags": ["photo,tags"], "flags": ["photo,disc,big"], "sizes": ["photo,score"]}
    for n in range(COUNT):
        draw(folder / "img" / f"{n}.png", n, bool(n % 2))
        tags = [name for name, has in (("disc", n % 2), ("big", n % 3 == 0)) if has]
        rows["tags"].append(f"img/{n}.png,{';'.join(tags)}")
        rows["flags"].append(f"img/{n}.png,{n % 2},{int(n % 3 == 0)}")
        rows["sizes"].append(f"img/{n}.png,{100 * (n % 2) + n / 8}")
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vit(tmp_path_factory.mktemp("models") / "vit")


@pytest.fixture(scope="module")
def runs(tables: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("tags", "sizes"):
        task = {"train": str(tables / f"{name}.csv")}
        iwlora.train(recipe(tiny_vit, task, epochs=4, batch_size=4), folder / name)
    return {name: folder / name for name in ("tags", "sizes")}


def metrics_of(run: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((run / "result.json").read_text())["metrics"]
    return metrics


def merged_logits(run: Path, tables: Path, names: Sequence[str], folder: Path) -> Any:
    """What transformers alone computes with the merged export."""
    iwlora.export(run, folder, merge=True)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    images = [Image.open(tables / name).convert("RGB") for name in names]
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
    with torch.inference_mode():
        return model(**pixels).logits.numpy()


def predicted(run: Path, source: Path, output: Path) -> list[dict[str, str]]:
    with iwlora.predict(run, source, output).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_several_classes_for_an_image(
    runs: dict[str, Path], tables: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    spec = {"train": str(tables / "tags.csv")}
    described = " ".join(look_at_data(recipe(tiny_vit, spec)).split())
    assert "image-multi-label, metrics micro_f1, macro_f1, accuracy" in described
    assert "if it does not, give task.kind={name: image-multi-label, separator:" in described
    flags = load(TaskSpec(train=str(tables / "flags.csv"), label=["disc", "big"]), seed=0)
    tags = load(TaskSpec(**spec, labels=["disc", "big"]), seed=0)
    for split in ("train", "validation"):
        assert flags.splits[split]["label"][:] == tags.splits[split]["label"][:]
    run, result = runs["tags"], metrics_of(runs["tags"])
    rows = predictions(run)
    both = [
        (set(ast.literal_eval(r["label"])), set(ast.literal_eval(r["prediction"]))) for r in rows
    ]
    hits, wrong = (sum(map(len, (f(a, b) for a, b in both))) for f in (set.__and__, set.__xor__))
    assert result["micro_f1"] == pytest.approx(2 * hits / (2 * hits + wrong) if hits else 0.0)
    names = [row["photo"] for row in rows]
    logits = merged_logits(run, tables, names, tmp_path / "merged")
    stored = [[float(row[f"logit_{name}"]) for name in ("big", "disc")] for row in rows]
    np.testing.assert_allclose(logits, stored, rtol=1e-4, atol=1e-5)
    found = {row["photo"]: row for row in predicted(run, tables / "tags.csv", tmp_path / "p.csv")}
    for name, row in zip(names, logits, strict=True):
        for label, logit in zip(("big", "disc"), row, strict=True):
            probability = float(found[name][f"probability_{label}"])
            assert probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    assert "macro_f1" in write_report(run).read_text()


def test_a_number_for_an_image(runs: dict[str, Path], tables: Path, tmp_path: Path) -> None:
    run, rows = runs["sizes"], predictions(runs["sizes"])
    names = [row["photo"] for row in rows]
    true, found = (np.array([float(row[k]) for row in rows]) for k in ("label", "prediction"))
    assert true.tolist() == [
        100 * (n % 2) + n / 8 for n in (int(Path(name).stem) for name in names)
    ]
    metrics = metrics_of(run)
    assert metrics["rmse"] == pytest.approx(np.sqrt(((true - found) ** 2).mean()))
    assert metrics["pearson"] == pytest.approx(np.corrcoef(true, found)[0, 1], abs=1e-6)
    logits = merged_logits(run, tables, names, tmp_path / "merged")
    np.testing.assert_allclose(logits[:, 0], found, rtol=1e-4)
    again = {r["photo"]: r for r in predicted(run, tables / "sizes.csv", tmp_path / "p.csv")}
    np.testing.assert_allclose([float(again[n]["prediction"]) for n in names], found, rtol=1e-5)
    assert "rmse" in write_report(run).read_text()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "SHA-256 of the images of train" in card
    assert not re.search("tokens|texts", card)


def test_images_are_predicted_wherever_they_are_named(
    runs: dict[str, Path],
    tables: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder has no column of the table's name; paths that come through a pipe are relative to
    the current folder."""
    of_folder = predicted(runs["sizes"], tables / "img", tmp_path / "folder.csv")
    known = {row["photo"]: row["prediction"] for row in of_folder}
    assert known.keys() == {f"{n}.png" for n in range(COUNT)}
    monkeypatch.chdir(tables / "img")
    piped = io.BytesIO(b"photo\n3.png\n4.png\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped))
    iwlora.predict(runs["sizes"], "-", "-")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["photo"] for row in rows} == {"3.png", "4.png"}
    for row in rows:
        assert float(row["prediction"]) == pytest.approx(float(known[row["photo"]]), rel=1e-5)
    piped = io.BytesIO(b"photo\n../tags.csv\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped))
    with pytest.raises(IwloraError, match=r"standard input, line 2: .* leads out of"):
        iwlora.predict(runs["sizes"], "-", "-")
