"""A comparison on the codes of images, scored by held-out NLL, where lower is better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from commands import call, execute_in_process
from image_drawings import save_images, save_model
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison import load

METHODS = [
    {"name": "prompt-generator", "tokens": 2},
    {"name": "lora", "rank": 2},
    {"name": "iw-lora", "rank": 2},
    "bitfit",
    "full",
    {"name": "full", "from_scratch": True, "label": "from-scratch"},
]


@pytest.mark.slow
def test_methods_are_ranked_by_the_lower_nll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute_in_process(monkeypatch)
    settings = {
        "model": str(save_model(tmp_path / "model")),
        "task": {"train": str(save_images(tmp_path / "images")), "kind": {"name": "image-tokens"}},
        "methods": METHODS,
        "seeds": [0, 1],
        "unequal_budgets": True,
        "train": {"epochs": 4, "lr": 1e-2, "batch_size": 8, "precision": "fp32"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    done = call(capsys, "compare", tmp_path / "r.yaml", "--out", tmp_path / "out", "--quiet")
    assert done.code == 0, done.err
    comparison = load(tmp_path / "out")
    assert len(comparison.scores("from-scratch")) == 2
    analysis = analyze([comparison])
    for row in analysis.tasks[0].differences:
        of_arm, of_first = comparison.scores(row.arm), comparison.scores("lora")
        assert row.differences == pytest.approx({k: of_arm[k] - of_first[k] for k in (0, 1)})
    for run in comparison.runs:
        (floor,) = [f for f in run.result.floors if f.name == "untuned model"]
        # The margin is above 0 where the run has the lower NLL.
        above = floor.metrics["nll"] - run.result.metrics["nll"]
        assert floor.margin == pytest.approx(above, abs=1e-5)
    floors = {f.metrics["nll"] for run in comparison.runs for f in run.result.floors}
    assert len(floors) == 1, "all runs are compared with one untuned model"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('<figure class="sample">') == len(METHODS)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["lower_is_better"] is True
    assert "lower is better" in (tmp_path / "out" / "summary.md").read_text()
