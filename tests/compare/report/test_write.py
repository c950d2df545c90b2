"""The files of a report: recounted from the results, equal every time, written without torch."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.formats.runs_csv import runs_csv
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.formats.terminal import terminal_text
from iwlora.compare.report.write import write_report
from iwlora.errors import IwloraError
from report_pages import Page, content_of

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_reports_need_no_torch_and_no_pyplot(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    """matplotlib and jinja2 are imported only to draw and to write the page."""
    code = """
import sys
from iwlora.compare.report.content import build_content
from iwlora.compare.report.formats import latex, markdown, runs_csv, summary_json, terminal
from iwlora.compare.report.write import write_report
def check(*names):
    loaded = set(names) & set(sys.modules)
    assert not loaded, loaded
check('torch', 'transformers', 'peft', 'datasets', 'matplotlib', 'jinja2', 'scipy.stats')
write_report(sys.argv[1])
check('torch', 'transformers', 'peft', 'datasets', 'matplotlib.pyplot')
"""
    folder = comparison_in(tmp_path / "c", arms=("lora", "iw-lora"), seeds=1)
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


@pytest.mark.quick
def test_the_summary_recounts_from_the_result_files(written: Path) -> None:
    summary = json.loads((written / "summary.json").read_text())
    assert summary["format"] == "iwlora-summary/2"
    assert summary["primary_metric"] == "accuracy"
    assert summary["missing"] == []
    scores = {}
    for arm in summary["arms"]:
        paths = [written / arm["label"] / f"seed-{seed}" / "result.json" for seed in range(3)]
        results = [json.loads(path.read_text()) for path in paths]
        values = [result["metrics"]["accuracy"] for result in results]
        scores[arm["label"]] = np.array(values)
        accuracy = arm["metrics"]["accuracy"]
        assert accuracy["n"] == 3
        assert accuracy["mean"] == pytest.approx(np.mean(values))
        assert accuracy["sd"] == pytest.approx(np.std(values, ddof=1))
        assert list(accuracy["by_seed"].values()) == values
        assert arm["train_seconds"] == {"0": 312.0, "1": 313.0, "2": 314.0}
    for pair in summary["differences"]:
        assert pair["baseline"] == "lora"
        difference = scores[pair["arm"]] - scores["lora"]
        assert pair["summary"]["mean"] == pytest.approx(difference.mean())
    assert [pair["arm"] for pair in summary["differences"]] == ["full", "adalora", "iw-lora"]


@pytest.mark.quick
def test_the_summary_keeps_the_fields_of_version_0_1_0(written: Path) -> None:
    summary = json.loads((written / "summary.json").read_text())
    assert set(summary) == {
        *(
            "format",
            "answers",
            "verdict",
            "baseline",
            "overall",
            "model",
            "task",
            "seeds",
            "primary_metric",
        ),
        *("evaluated_on", "selected_on", "lower_is_better", "arms", "differences", "search"),
        *("remarks", "missing", "vary", "verified"),
    }
    assert set(summary["arms"][0]) == {
        *("label", "method", "learning_rates", "metrics", "trainable_parameters"),
        *("adapter_parameters", "train_seconds", "measure_seconds", "examples_per_second"),
        *("peak_memory_bytes", "budget_ratio", "unequal_budget", "updates"),
        *("training_data", "train_examples", "floors"),
    }
    assert set(summary["differences"][0]) == {
        *("arm", "baseline", "metric", "seeds", "summary", "p_value", "p_adjusted", "family"),
        *("outcome", "seeds_needed", "seeds_and_examples", "rows", "rows_needed"),
    }
    assert set(summary["differences"][0]["seeds_and_examples"]) == {
        *("mean", "low", "high", "examples"),
    }
    assert set(summary["overall"][0]) == {
        *("arm", "tasks", "pairs", "seeds", "difference", "p_value", "p_adjusted", "family"),
        *("interquartile_mean", "improvement", "by_seed", "seeds_needed", "outcome"),
    }


@pytest.mark.quick
def test_a_comparison_of_version_0_1_0_gives_the_same_numbers(tmp_path: Path) -> None:
    """Only sentences may differ from the summary that version 0.1.0 wrote."""
    with tarfile.open(FIXTURES / "version-0.1.0.tar.xz") as archive:
        members = [m for m in archive if m.name.startswith("./runs/compared/")]
        archive.extractall(tmp_path, members, filter="data")
    folder = tmp_path / "runs" / "compared"
    content = content_of(folder)
    before, now = (
        # Versions of NumPy and SciPy differ in the last digits.
        json.loads(text, parse_float=lambda number: float(f"{float(number):.10g}"))
        for text in ((folder / "summary.json").read_text(), summary_json(content))
    )
    # The report now says that measurements of 0.1.0 did not reach their tolerance, and that its
    # runs cannot be verified.
    assert [len(summary["remarks"]) for summary in (before, now)] == [4, 6]
    for summary in (before, now):
        del summary["verdict"], summary["remarks"]
    assert (now.pop("lower_is_better"), now.pop("vary"), now.pop("verified")) == (False, [], False)
    for arm in now["arms"]:
        assert arm.pop("floors") == []
        assert (arm.pop("training_data"), set(arm.pop("train_examples").values())) == ({}, {32})
    assert len(now.pop("answers")) == 3
    for pair in now["differences"]:
        assert (pair.pop("rows"), pair.pop("rows_needed")) == (16, None)
    for choice in now["search"].values():
        assert choice.pop("rule") == "best-score"
        added = [choice.pop(name) for name in ("low", "high", "added", "options", "max_steps")]
        assert added == [None, None, [], {}, None]
        for trial in choice["trials"]:
            assert (trial.pop("one_class"), trial.pop("steps")) == (False, None)
            assert trial.pop("options") == {}
    assert now == before
    rows = [
        list(csv.reader(text.splitlines()))
        for text in (runs_csv(content), (folder / "summary.csv").read_text())
    ]
    column = rows[0][0].index("train_examples")
    assert {row.pop(column) for row in rows[0]} == {"train_examples", "32"}
    assert rows[0] == rows[1]


def test_a_copy_of_the_runs_gives_the_same_report(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written, copy, ignore=shutil.ignore_patterns("report.html", "summary.*"))
    write_report(copy)
    names = [f"summary.{suffix}" for suffix in ("json", "md", "csv", "tex")]
    names += ["report.html", *(str(path.relative_to(copy)) for path in copy.glob("figures/*"))]
    for name in names:
        path = str(copy).encode(), str(written).encode()  # in the command to copy
        assert (copy / name).read_bytes().replace(*path) == (written / name).read_bytes(), name
    assert {"figures/metric.png", "figures/importance-iw-lora.svg"} <= set(names)


def test_nothing_finished_is_an_error_and_leaves_nothing_behind(folder: Path) -> None:
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    assert "no run has finished yet" in terminal_text(content_of(folder))
    with pytest.raises(IwloraError, match=r"no run of .* has finished yet"):
        write_report(folder)
    assert not (folder / "report.html").exists()
    assert not (folder / "summary.json").exists()


@pytest.mark.quick
def test_a_single_run_gets_a_report_too(written: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(written / "iw-lora" / "seed-1", run)
    page = Page(write_report(run).read_text())
    assert "one seed says nothing about the spread between seeds" in page.text
    assert "±" not in page.text.split("Results")[1].split("Figures")[0].split("loss")[1]
    assert len(page.all("img")) == 2
    assert (run / "figures" / "importance-iw-lora.png").exists()
    assert "model: builtin/minilm" in page.text


@pytest.mark.quick
def test_the_time_of_a_resumed_run_is_unknown(folder: Path) -> None:
    path = folder / "lora" / "seed-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resumed_at_step": 40}))
    summary = json.loads(summary_json(content_of(folder)))
    lora = next(arm for arm in summary["arms"] if arm["label"] == "lora")
    assert lora["train_seconds"] == {"0": None, "1": 313.0, "2": 314.0}
