"""All formats say the same: the same scores, caveats, missing runs and verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.formats.latex import escape, latex
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.formats.terminal import terminal_text
from iwlora.results.comparison import load
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick


def change_result(run: Path, **changes: object) -> None:
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_all_formats_have_the_same_numbers(written: Path) -> None:
    lora = load(written).values("lora", "accuracy")
    mean, sd = 100 * np.mean(list(lora.values())), 100 * np.std(list(lora.values()), ddof=1)
    content = content_of(written)
    texts = all_texts(content)
    for text in texts.values():
        assert f"{mean:.2f} ± {sd:.2f}" in text
        assert "22,713,986" in text
        assert "12.5 s" in text
        assert "5 min 13 s" in text
        assert "1.21 GiB" in text
        assert "last checkpoint" in text
        assert "Not known yet. 3 seeds are too few: a test needs 7 or more." in text
    for text in (texts["Markdown"], texts["HTML"]):
        assert "No verdict yet: with 3 seeds no test can reach p" in text
    assert rf"{mean:.2f} $\pm$ {sd:.2f}" in latex(content)
    full = next(line for line in markdown(content).splitlines() if line.startswith("| full"))
    assert " – " in full, "full fine-tuning has no adapter parameters"


def test_memory_that_runs_share_is_shown_with_their_number(folder: Path) -> None:
    for run in (folder / "full").glob("seed-*"):
        change_result(run, other_runs=7)
    for name, text in all_texts(content_of(folder)).items():
        assert "1.21 GiB (8 runs)" in text, name


def test_sizes_of_a_mixture_are_a_table(folder: Path) -> None:
    layer = {"name": "encoder.layer.0", "depth": 0}
    for number, run in enumerate(sorted((folder / "lora").glob("seed-*"))):
        prefix = {**layer, "kind": "prefix", "rank": 4 + number % 2, "parameters": 100}
        biases = {**layer, "kind": "bitfit", "rank": None, "parameters": 30}
        change_result(run, ranks=[prefix, biases])
    content = content_of(folder)
    (section,) = content.sections
    sizes = section.files["sizes"]
    assert sizes.rows == [["lora", "encoder.layer.0", "prefix 4 to 5, bitfit", "130"]]
    assert "prefix 4 to 5, bitfit" in all_texts(content)["HTML"]


def test_every_table_is_the_same_in_every_format(written: Path) -> None:
    content = content_of(written)
    texts = all_texts(content)
    (section,) = content.sections
    assert [table.title for table in section.tables] == ["Results", "Differences from lora"]
    assert content.overall is not None
    for table in (*section.tables, content.overall):
        for cell in (cell for row in table.rows for cell in row):
            assert cell.replace("[", r"\[").replace("]", r"\]") in texts["Markdown"]
            assert cell in texts["HTML"]
            if table is not content.overall:
                assert escape(cell) in latex(content)


def test_missing_runs_shrink_n_and_are_listed(folder: Path) -> None:
    (folder / "adalora" / "seed-2" / "result.json").unlink()
    for seed in range(3):
        (folder / "full" / f"seed-{seed}" / "result.json").unlink()
    content = content_of(folder)
    summary = json.loads(summary_json(content))
    arms = {arm["label"]: arm for arm in summary["arms"]}
    assert arms["adalora"]["metrics"]["accuracy"]["n"] == 2
    assert arms["full"]["metrics"] == {}
    assert len(summary["missing"]) == 4
    for text in all_texts(content).values():
        assert "2 of 3" in text
        assert "0 of 3" in text
        assert "adalora, seed 2" in text
        assert "nan" not in text.lower().replace("finance", "")


def test_a_missing_baseline_leaves_nothing_to_compare(folder: Path) -> None:
    for seed in range(3):
        (folder / "lora" / f"seed-{seed}" / "result.json").unlink()
    content = content_of(folder)
    assert content.verdict.endswith(
        "Nothing to compare: no other arm shares a finished seed with lora."
    )
    assert content.overall is None
    assert content.sections[0].differences is None


def test_different_environments_are_pointed_out(folder: Path) -> None:
    warning = "their times and memory cannot be compared"
    assert warning not in all_texts(content_of(folder))["HTML"]
    path = folder / "lora" / "seed-0" / "environment.json"
    path.write_text(json.dumps({"processor": "another CPU"}))
    content = content_of(folder)
    assert content.sections[0].environment["processor"] == ["a CPU", "another CPU"]
    assert warning in all_texts(content)["HTML"]
    assert "gpu" not in content.sections[0].environment, "unknown values are left out"


def test_parameters_that_differ_between_seeds_are_a_range(folder: Path) -> None:
    change_result(folder / "adalora" / "seed-1", adapter_parameters=280_000)
    assert "280,000–294,912" in markdown(content_of(folder))


def test_resumed_runs_and_notes_are_in_every_format(folder: Path) -> None:
    change_result(folder / "lora" / "seed-0", train_seconds=9.0, resumed_at_step=40)
    change_result(folder / "lora" / "seed-1", train_seconds=9.0, notes=["7 rows <b>left out</b>"])
    content = content_of(folder)
    for text in all_texts(content).values():
        assert "2 min 42 s" in text, "the mean of 9 s and 314 s"
        assert "lora, seed 0 was resumed at step 40" in text
        assert "7 rows" in text


def test_terminal_tables_are_aligned_and_narrow(written: Path) -> None:
    lines = terminal_text(content_of(written)).splitlines()
    rows = [line for line in lines if line.startswith(("arm", "full", "lora", "adalora", "iw-"))]
    assert len(rows) == 10, "the costs follow below the scores"
    for band in (rows[:5], rows[5:]):
        assert len({len(row) for row in band}) == 1
        assert len(band[0]) <= 100
