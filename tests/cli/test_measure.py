"""``iwlora measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import call
from iwlora import Sensitivity
from iwlora.training.recipe import build
from iwlora.training.run import train


@pytest.fixture(scope="module")
def measured(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("measure") / "new" / "importance.json"
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    batches = ["--max-batches", "3", "--tolerance", "0"]
    arguments = ["--model", str(tiny_bert), *task, "train.max_length=32", "train.batch_size=8"]
    return out, [*arguments, "--out", str(out), *batches]


@pytest.mark.quick
def test_measure(measured: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    out, arguments = measured
    outcome = call(capsys, "measure", *arguments)
    assert outcome.code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == [
        f"importance.{ending}" for ending in ("json", "png", "svg")
    ]
    assert (out.with_suffix(".png")).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in out.with_suffix(".svg").read_text()

    sensitivity = Sensitivity.load(out)
    assert sensitivity.batches == 3
    assert len(sensitivity.values) == 12
    total = sum(sensitivity.values.values())
    lines = [line.split() for line in outcome.out.splitlines()]
    rows = [line for line in lines if line and line[-1] in sensitivity.values]
    ranked = sorted(sensitivity.values, key=lambda name: -sensitivity.values[name])
    assert [row[-1] for row in rows] == ranked
    for share, value, error, name in rows:
        assert float(share.rstrip("%")) / 100 == pytest.approx(
            sensitivity.values[name] / total, abs=5.1e-5
        )
        assert float(value) == pytest.approx(sensitivity.values[name], rel=1e-3)
        assert float(error) == pytest.approx(sensitivity.stderr[name], rel=0.06)
    assert "3 batches" in outcome.out
    assert str(out) in outcome.out


def test_measure_is_what_a_run_measures(
    measured: tuple[Path, list[str]],
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, arguments = measured
    assert call(capsys, "measure", *arguments).code == 0
    method = {"name": "iw-lora", "measure": "before", "max_batches": 3, "tolerance": 0}
    usual = {**settings["train"], "batch_size": 8, "precision": "auto"}
    train(build({**settings, "method": method, "train": usual}), tmp_path)
    assert Sensitivity.load(tmp_path / "sensitivity.json").values == Sensitivity.load(out).values
