"""The table of what was measured: what it holds, and what its reader refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from iwlora.advice.evidence import COLUMNS, Evidence, Table, evidence_csv, read_evidence
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick


def row(**changes: object) -> Evidence:
    """A row with an interval; the fields may be others."""
    fields: dict[str, object] = {
        "choice": "rank-1-everywhere",
        "baseline": "rank-8-everywhere",
        "task": "glue/sst2",
        "kind": "classification",
        "model": "builtin/minilm",
        "training_rows": 2000,
        "flipped_labels": 0.0,
        "steps": 189,
        "adapter_parameters": 41472,
        "share_of_rank_8": 0.125,
        "difference": 0.5,
        "low": 0.1,
        "high": 0.9,
        "draws": 10,
        "verdict": "better",
        "source": "a test",
    }
    return Evidence.model_validate(fields | changes)


def test_the_shipped_table_is_valid_and_says_what_its_sources_say() -> None:
    table = read_evidence()
    results = (Path(__file__).parents[2] / "docs" / "first-study.md").read_text(encoding="utf-8")
    stated = [row for row in table.rows if row.source.startswith("docs/first-study.md")]
    assert len(stated) > 25
    for found in stated:
        assert f"{found.low:+.2f} to {found.high:+.2f}" in results, found.sentence()
        assert f"{found.difference:.2f}" in results
    for found in table.rows:
        if found.verdict == "lead":  # the two means are in the source
            of_choice, _, of_baseline = found.source.partition(" minus ")
            means = [
                float(t.rpartition("accuracy ")[2].split()[0]) for t in (of_choice, of_baseline)
            ]
            assert found.difference == pytest.approx(means[0] - means[1], abs=1e-9)


def test_the_page_quotes_rows_of_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "advise.md").read_text(encoding="utf-8")
    page = " ".join(page.split())
    table, whole = read_evidence(), "rank-8-everywhere"
    for choice in (
        "rank-1-everywhere",
        "query-value",
        "last-third",
        "last-block",
        "without-unimportant-sites",
        "without-random-sites",
    ):
        found = table.find(choice, whole, "classification", "builtin/minilm", training_rows=2000)
        assert found is not None
        assert re.search(
            rf"{abs(found.difference):.2f} (points )?(more|less)[^()]*"
            rf"\({found.low:+.2f} to {found.high:+.2f}\)".replace("+", r"\+"),
            page,
        ), found.sentence()


def test_written_rows_are_read_back(tmp_path: Path) -> None:
    rows = [
        row(),
        row(verdict="lead", low=None, high=None, training_rows=None, source='a "b", c'),
        row(flipped_labels=0.4),
        row(verdict="worse", difference=-0.5, low=-0.9, high=-0.1, steps=None),
    ]
    file = tmp_path / "evidence.csv"
    file.write_text(evidence_csv(rows), encoding="utf-8")
    assert read_evidence(file).rows == tuple(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("draws", "seeds", 1), "unknown column 'seeds'"),
        (lambda text: text.replace("draws", "seeds", 1), "no column 'draws'"),
        (lambda text: text.replace("steps", "draws", 1), "two columns 'draws'"),
        (lambda text: text.replace(",better,", ",best,"), "line 2: verdict='best'"),
        (lambda text: text.replace("classification", "classes"), "unknown kind of task 'classes'"),
        (lambda text: text.replace(",0.1,0.9,", ",-0.1,0.9,"), "verdict=better was given, and"),
        (lambda text: text.replace(",0.1,0.9,", ",0.6,0.9,"), "an interval around difference=0.5"),
        (lambda text: text.replace(",0.1,0.9,", ",,,"), "low=None, high=None was given"),
        (lambda text: text.replace(",better,", ",lead,"), "for a lead, which has no interval"),
        (lambda text: text.replace(",10,better", ",0,better"), "draws=0: "),
        (lambda text: text.replace(",2000,0.0,", ",2000,40,"), "flipped_labels='40'"),
        (lambda text: text.replace(",2000,0.0,", ",2000,,"), "flipped_labels=''"),
        (lambda text: text.replace("flipped_labels,", ""), "no column 'flipped_labels'"),
        (lambda text: text.replace(",a test", ","), "source=''"),
        (lambda text: text.replace(",a test", ""), "15 cells instead of 16"),
    ],
)
def test_what_the_reader_refuses(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "evidence.csv"
    text = evidence_csv([row()])
    assert change(text) != text
    file.write_text(change(text), encoding="utf-8")
    with pytest.raises(IwloraError) as refused:
        read_evidence(file)
    assert message in str(refused.value)


def test_the_row_that_says_most_is_found() -> None:
    lead = row(verdict="lead", low=None, high=None, draws=99)
    few, many = row(draws=6), row(draws=20, model="another")
    table = Table([lead, few, many])
    question = ("rank-1-everywhere", "rank-8-everywhere", "classification")
    assert table.find(*question) is many
    assert table.find(*question, model="builtin/minilm") is few
    assert table.find(*question, share=0.24) is many
    assert table.find(*question, share=0.26) is None
    assert table.find("rank-1-everywhere", "rank-8-everywhere", "regression") is None
    assert table.choices("rank-8-everywhere", "classification") == ["rank-1-everywhere"]
    assert len(COLUMNS) == 16
