"""The scores of generated images in a report, against means that a test computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iwlora.compare.report.images.generated import image_score_table
from iwlora.compare.report.write import write_report
from iwlora.errors import IwloraError
from iwlora.results.comparison import load
from iwlora.results.run.image_scores import ImageScores


def save_scores(run: Path, distance: float, accuracy: float, extractor: str = "a model") -> Path:
    scores = ImageScores(
        extractor=extractor,
        classifier="logistic regression",
        images={"training": 24, "held-out": 8, "generated": 20},
        classes={"disc": 10, "square": 10},
        frechet_distance={"generated": distance, "training": 0.5},
        diversity={
            "generated": {"disc": distance, "square": distance + 2},
            "held-out": {"disc": 3.0, "square": 4.0},
        },
        accuracy={"generated": accuracy, "held-out": 0.9},
        left_out=[],
    )
    file = run / "generated" / "scores.json"
    file.parent.mkdir()
    scores.save(file)
    return file


def save_sheets(folder: Path) -> list[Path]:
    runs = sorted(folder.glob("*/seed-*"))
    for run in runs:
        (run / "predictions").mkdir(exist_ok=True)
        (run / "predictions" / "samples.jpg").write_bytes(b"jpeg")
    return runs


@pytest.mark.quick
def test_a_report_has_the_means_of_each_arm_beside_real_images(folder: Path) -> None:
    runs = save_sheets(folder)
    by_arm: dict[str, list[float]] = {}
    for number, run in enumerate(runs):
        if run.parent.name != runs[-1].parent.name and run.name != "seed-0":
            save_scores(run, 2.0 + number, 0.5)
            by_arm.setdefault(run.parent.name, []).append(2.0 + number)
    write_report(folder)
    table = image_score_table(load(folder))
    assert table is not None
    expected = {
        arm: [str(len(d)), f"{sum(d) / len(d):.3g}", "50.00", f"{sum(d) / len(d) + 1:.3g}"]
        for arm, d in by_arm.items()
    }
    assert {row[0]: row[1:] for row in table.rows} == {
        **expected,
        "real images": ["–", "0.5", "90.00", "3.5"],
    }
    assert "do not compare" not in table.caption
    unscored = runs[-1].parent.name
    page = (folder / "report.html").read_text(encoding="utf-8")
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    first = runs[-1].parent / "seed-0"
    for text in (page, summary):
        assert "Scores of generated images" in text
        assert f"the generated images of {unscored} have no scores yet" in text
        assert f"--count 200 --scores --out {first / 'generated'}" in text
    assert (folder / "tables" / "generated-images.csv").is_file()


def test_scores_of_other_features_do_not_compare(folder: Path) -> None:
    runs = save_sheets(folder)
    assert image_score_table(load(folder)) is None
    save_scores(runs[0], 1.0, 0.5)
    save_scores(runs[1], 1.0, 0.5, extractor="another model")
    table = image_score_table(load(folder))
    assert table is not None
    assert "do not compare them" in table.caption


def test_scores_that_were_changed_are_refused(folder: Path) -> None:
    file = save_scores(save_sheets(folder)[0], 1.0, 0.5)
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["accuracy"]["generated"] = 0.99
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(IwloraError, match="is damaged"):
        write_report(folder)
