"""The tables of docs/results.md say what the recorded scores beside the benchmarks say."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from iwlora.compare.statistics.sequential import verdicts
from iwlora.design.report.tables import effect_table
from iwlora.design.report.text import summary_text
from iwlora.results.comparison.designs import DesignSummary
from iwlora.results.comparison.record import StoppingRule

ROOT = Path(__file__).parents[2]
SECTIONS = ROOT / "study" / "others"
RECORDED = ROOT / "benchmarks" / "recorded"


def lines_of_tables(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_pools_are_printed_from_their_record(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    script("pools").main([])
    printed = lines_of_tables(capsys.readouterr().out.partition("| cell |")[0])
    assert len(printed) > 8
    assert lines_of_tables((SECTIONS / "20-pools.md").read_text(encoding="utf-8")) == printed


@pytest.mark.parametrize("rows", [100, 1000])
def test_generative_transfer_agrees_with_its_record(rows: int) -> None:
    """Means and intervals of Student's t, computed here from the scores of the runs."""
    file = RECORDED / f"image-transfer-{rows}.csv.gz"
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    with gzip.open(file, "rt", encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            scores[row["method"]][row["seed"]] = float(row["score"])
    page = (SECTIONS / "10-generative-transfer.md").read_text(encoding="utf-8")
    table = page.partition(f"\n{rows // 10} images of each digit:")[2].partition("\n\n| ")[2]
    shown = {}
    for line in lines_of_tables(table.partition("\n\n")[0]):
        arm, _, _, score, difference, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        shown[arm] = (score, difference)
    assert shown.keys() >= scores.keys()
    for arm, found in scores.items():
        values = np.array(list(found.values()))
        assert shown[arm][0] == f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"
        if arm != "lora":
            apart = values - np.array([scores["lora"][seed] for seed in found])
            low, high = stats.t.interval(0.95, len(apart) - 1, apart.mean(), stats.sem(apart))
            assert shown[arm][1] == f"{apart.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


@pytest.mark.parametrize(
    ("section", "record", "baseline", "most"),
    [
        ("40-images", "images", "lora", 40),
        ("30-design", "design-sst2-confirmation", "found", 12),
        ("31-design-entailment", "design-entailment-confirmation", "found", 8),
    ],
)
def test_sequential_verdicts_agree_with_their_record(
    section: str, record: str, baseline: str, most: int
) -> None:
    """Means, intervals and verdicts, computed here from the scores of the runs."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    with gzip.open(RECORDED / f"{record}.csv.gz", "rt", encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            scores[row["arm"]][row["seed"]] = float(row["accuracy"])
    page = (SECTIONS / f"{section}.md").read_text(encoding="utf-8")
    lines = lines_of_tables(page.partition("\n| arm | ")[2])[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {arm for arm, *_ in cells} == scores.keys()
    paths = {
        arm: [score - scores[baseline][seed] for seed, score in of_arm.items()]
        for arm, of_arm in scores.items()
        if arm != baseline
    }
    found = verdicts(paths, StoppingRule(difference=1.0, max_seeds=most))
    for arm, _, _, draws, accuracy, difference, p, verdict, *_ in cells:
        values = np.array([*scores[arm].values()])
        assert draws == str(len(values))
        assert accuracy == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
        if arm != baseline:
            of = found[arm]
            assert difference == f"{of.mean:+.2f} [{of.low:+.2f}, {of.high:+.2f}]"
            assert p == f"{of.p_difference:.3f}"
            assert verdict == {"open": "no verdict"}.get(of.outcome, of.outcome)


@pytest.mark.parametrize(
    ("section", "record"),
    [("30-design", "design-sst2"), ("31-design-entailment", "design-entailment")],
)
def test_the_search_of_designs_is_printed_from_its_record(section: str, record: str) -> None:
    text = gzip.decompress((RECORDED / f"{record}.json.gz").read_bytes()).decode()
    summary = DesignSummary.parse(json.loads(text), Path(f"{record}.json.gz"))
    page = (SECTIONS / f"{section}.md").read_text(encoding="utf-8")
    assert f"```\n{summary_text(summary)}\n```" in page
    effects = effect_table(summary)
    assert [line for line in lines_of_tables(page) if line.startswith("| group ")] == [
        f"| {' | '.join(row)} |" for row in effects.rows
    ]
