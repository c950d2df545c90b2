"""The report: complete, self-contained, small, and deaf to what names try to inject."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.html import write_report
from iwlora.compare.report.text_formats import markdown, terminal_table
from iwlora.compare.statistics.analysis import analyse
from iwlora.errors import IwloraError
from iwlora.results.loading import load

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\" onload=alert(1) \"|`$_$"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def terminal(folder: Path) -> str:
    return terminal_table(analyse([load(folder)]))


def written(folder: Path) -> str:
    return markdown(analyse([load(folder)]))


def check_markdown_tables(lines: list[str]) -> None:
    """Every row of a table has as many cells as its head."""
    width = 0
    for line in lines:
        if not line.startswith("|"):
            width = 0
        elif "|---" in line or not width:
            width = width or line.count("|")
        elif line.startswith("| arm "):
            width = line.count("|")
        assert not width or line.count("|") == width, line


def test_the_modules_import_without_torch_or_matplotlib() -> None:
    modules = "records, stats, plots, tables, texts, analysis, report"
    code = (
        f"from iwlora.compare import {modules}; import sys; "
        "heavy = {'torch', 'transformers', 'peft', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_a_report_needs_no_torch_and_no_pyplot(folder: Path) -> None:
    code = (
        "import sys; from iwlora.compare.report.html import write_report; "
        "write_report(sys.argv[1]); "
        "found = {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules); "
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_the_summary_recounts_from_the_result_files(folder: Path) -> None:
    write_report(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["primary_metric"] == "accuracy"
    assert summary["missing"] == []
    scores = {}
    for arm in summary["arms"]:
        paths = [folder / arm["label"] / f"seed-{seed}" / "result.json" for seed in range(3)]
        results = [json.loads(path.read_text()) for path in paths]
        values = [result["metrics"]["accuracy"] for result in results]
        scores[arm["label"]] = np.array(values)
        found = arm["metrics"]["accuracy"]
        assert found["n"] == 3
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["sd"] == pytest.approx(np.std(values, ddof=1))
        assert list(found["by_seed"].values()) == values
        assert arm["train_seconds"] == {"0": 312.0, "1": 313.0, "2": 314.0}
    for pair in summary["differences"]:
        assert pair["baseline"] == "lora"
        difference = scores[pair["arm"]] - scores["lora"]
        assert pair["summary"]["mean"] == pytest.approx(difference.mean())
    assert [pair["arm"] for pair in summary["differences"]] == ["full", "adalora", "iw-lora"]


def test_all_tables_tell_the_same_numbers(folder: Path) -> None:
    page = Page(write_report(folder).read_text())
    lora = load(folder).values("lora", "accuracy")
    mean, sd = 100 * np.mean(list(lora.values())), 100 * np.std(list(lora.values()), ddof=1)
    score = f"{mean:.2f} ± {sd:.2f}"
    for text in (
        terminal(folder),
        (folder / "summary.md").read_text(),
        page.words,
    ):
        assert score in text
        assert "22,713,986" in text
        assert "12.5 s" in text
        assert "5 min 13 s" in text
        assert "1.21 GiB" in text
        assert "last checkpoint" in text
        assert "Open, no winner is called: 3 seeds cannot reach p" in text
    rows = (folder / "summary.md").read_text().splitlines()
    full = next(row for row in rows if row.startswith("| full"))
    assert " – " in full, "full fine-tuning has no adapter parameters"
    check_markdown_tables(rows)


def test_missing_runs_shrink_n_and_are_listed(folder: Path) -> None:
    (folder / "adalora" / "seed-2" / "result.json").unlink()
    for seed in range(3):
        (folder / "full" / f"seed-{seed}" / "result.json").unlink()
    page = Page(write_report(folder).read_text())
    summary = json.loads((folder / "summary.json").read_text())
    arms = {arm["label"]: arm for arm in summary["arms"]}
    assert arms["adalora"]["metrics"]["accuracy"]["n"] == 2
    assert arms["full"]["metrics"] == {}
    assert len(summary["missing"]) == 4
    for text in (
        terminal(folder),
        (folder / "summary.md").read_text(),
        page.words,
    ):
        assert "2 of 3" in text
        assert "0 of 3" in text
        assert "adalora, seed 2" in text
    assert "nan" not in terminal(folder).lower()


def test_nothing_finished_is_an_error_and_leaves_nothing_behind(folder: Path) -> None:
    for path in folder.glob("*/*/result.json"):
        path.unlink()
    assert "no run has finished yet" in terminal(folder)
    with pytest.raises(IwloraError, match=r"no run of .* has finished yet"):
        write_report(folder)
    assert not (folder / "report.html").exists()
    assert not (folder / "summary.json").exists()


def test_a_missing_baseline_leaves_nothing_to_compare(folder: Path) -> None:
    for seed in range(3):
        (folder / "lora" / f"seed-{seed}" / "result.json").unlink()
    write_report(folder)
    assert "Nothing to compare" in json.loads((folder / "summary.json").read_text())["verdict"]


def test_the_page_is_one_small_file_that_asks_for_nothing(folder: Path) -> None:
    path = write_report(folder)
    text = path.read_text()
    page = Page(text)
    assert path.stat().st_size < 3_000_000
    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    assert len(page.all("img")) == 4, "scores, costs, curves, importance"
    for attributes in page.all("img"):
        assert attributes["alt"]
        kind, _, data = str(attributes["src"]).partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert not re.search(r"href=\"(?!#)|url\((?!#)|<script", svg)
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]*", "", text))
    assert "prefers-color-scheme: dark" in text
    assert all("scope" in attributes for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 4


def test_a_long_grid_stays_under_three_megabytes(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    arms = [f"iw-lora-{i}" for i in range(6)]
    folder = comparison_in(tmp_path / "c", arms=arms, seeds=8)
    for path in folder.glob("*/*/metrics.jsonl"):
        rng = np.random.default_rng(0)
        lines = [{"step": i, "loss": float(rng.normal())} for i in range(1, 401)]
        path.write_text("\n".join(map(json.dumps, lines)))
    assert write_report(folder).stat().st_size < 3_000_000


def test_names_are_text_wherever_they_appear(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    label = EVIL.replace("/", "")
    folder = comparison_in(
        tmp_path / "c", arms=["iw-lora", label], seeds=2, model=EVIL, task=EVIL,
        evaluated_on=EVIL, measure_seconds=1.0,
    )  # fmt: skip
    for place in folder.glob("*/*"):
        (place / "environment.json").write_text(json.dumps({EVIL: EVIL}))
        (place / "metrics.jsonl").unlink()
    (folder / label / "seed-1" / "result.json").unlink()
    (folder / label / "seed-1" / "status.json").write_text(json.dumps({"state": EVIL}))
    page = Page(write_report(folder).read_text())
    assert not page.all("script")
    assert all(str(a["src"]).startswith("data:image/svg") for a in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
    assert page.words.count(EVIL) >= 5
    assert label in page.words
    text = written(folder)
    assert "<script" not in text
    assert "<img" not in text
    rows = [re.sub(r"\\.", "", row) for row in text.splitlines() if row.startswith("|")]
    assert len(rows) == 4 + 3 + 4
    check_markdown_tables(rows)


def test_the_report_is_the_same_every_time(folder: Path) -> None:
    def snapshot() -> dict[str, bytes]:
        write_report(folder)
        paths = [folder / name for name in ("report.html", "summary.json", "summary.md")]
        return {path.name: path.read_bytes() for path in [*paths, *folder.glob("figures/*")]}

    first = snapshot()
    assert {"metric.svg", "metric.png", "curves.svg", "importance-iw-lora.svg"} <= set(first)
    assert snapshot() == first


def test_a_single_run_gets_a_report_too(folder: Path) -> None:
    run = folder / "iw-lora" / "seed-1"
    page = Page(write_report(run).read_text())
    assert "one seed tells nothing about spread" in page.words
    assert "±" not in page.words.split("Results")[1].split("Figures")[0].split("loss")[1]
    assert len(page.all("img")) == 2
    assert (run / "figures" / "importance-iw-lora.png").exists()
    assert "model: builtin/minilm" in page.words


def test_different_machines_are_pointed_out(folder: Path) -> None:
    assert "do not compare" not in Page(write_report(folder).read_text()).words
    path = folder / "lora" / "seed-0" / "environment.json"
    path.write_text(json.dumps({"processor": "another"}))
    words = Page(write_report(folder).read_text()).words
    assert "do not compare" in words
    assert "a CPU" in words
    assert "another" in words


def test_parameters_that_differ_between_seeds_are_a_range(folder: Path) -> None:
    path = folder / "adalora" / "seed-1" / "result.json"
    result = json.loads(path.read_text()) | {"adapter_parameters": 280_000}
    path.write_text(json.dumps(result))
    assert "280,000–294,912" in written(folder)


def test_the_time_of_a_resumed_run_is_unknown_and_notes_are_told(folder: Path) -> None:
    for seed, changes in ((0, {"resumed_at_step": 40}), (1, {"notes": ["7 rows <b>left out</b>"]})):
        path = folder / "lora" / f"seed-{seed}" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train_seconds": 9.0} | changes))
    page = Page(write_report(folder).read_text())
    summary = json.loads((folder / "summary.json").read_text())
    lora = next(arm for arm in summary["arms"] if arm["label"] == "lora")
    assert lora["train_seconds"] == {"0": None, "1": 9.0, "2": 314.0}
    for text in (
        terminal(folder),
        (folder / "summary.md").read_text(),
        page.words,
    ):
        assert "2 min 42 s" in text  # the mean of 9 s and 314 s
        assert "lora, seed 0 was resumed at step 40" in text
        assert "7 rows" in text
    assert not page.all("b")
    assert "gpu" not in page.words


def test_the_terminal_table_is_aligned_and_narrow(folder: Path) -> None:
    lines = terminal(folder).splitlines()
    rows = [line for line in lines if line.startswith(("arm", "full", "lora", "adalora", "iw-"))]
    for band in (rows[:5], rows[5:]):
        assert len({len(row) for row in band}) == 1
        assert len(band[0]) <= 100
