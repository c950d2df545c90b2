"""The HTML page: complete, self-contained, small, and safe against names that inject markup."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iwlora.compare.report.write import write_report
from report_pages import Page, content_of, page_without_images

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\" onload=alert(1) \"|`$_$"


@pytest.mark.quick
def test_the_page_is_one_small_file_that_requests_nothing(written: Path) -> None:
    path = written / "report.html"
    text = path.read_text()
    page = Page(text)
    assert path.stat().st_size < 3_000_000
    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    assert len(page.all("img")) == 5, "scores, differences, costs, learning curves, importance"
    for attributes in page.all("img"):
        assert attributes["alt"]
        prefix, _, data = str(attributes["src"]).partition(",")
        assert prefix == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert not re.search(r"href=\"(?!#)|url\((?!#)|<script", svg)
    assert not re.search(r"https?://", re.sub(r"base64,[^\"]*", "", text))
    assert "prefers-color-scheme: dark" in text
    assert all("scope" in attributes for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) == 4


def test_a_large_comparison_stays_under_three_megabytes(
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
    label = HOSTILE.replace("/", "")
    folder = comparison_in(
        tmp_path / "c", arms=["iw-lora", label], seeds=2, model=HOSTILE, task=HOSTILE,
        evaluated_on=label, measure_seconds=1.0,
    )  # fmt: skip
    for run in folder.glob("*/*"):
        (run / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
        (run / "metrics.jsonl").unlink()
    (folder / label / "seed-1" / "result.json").unlink()
    (folder / label / "seed-1" / "status.json").write_text(json.dumps({"state": HOSTILE}))
    page = Page(write_report(folder).read_text())
    assert not page.all("script")
    assert all(str(a["src"]).startswith("data:image/svg") for a in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
    assert page.text.count(HOSTILE) >= 5
    assert label in page.text

    markdown = (folder / "summary.md").read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown
    rows = [re.sub(r"\\.", "", row) for row in markdown.splitlines() if row.startswith("|")]
    assert len(rows) == 4 + 3 + 4
    for table in (rows[:4], rows[4:7], rows[7:]):
        assert len({row.count("|") for row in table}) == 1, "every row has the cells of its head"


@pytest.mark.quick
def test_notes_of_runs_are_text(folder: Path) -> None:
    path = folder / "lora" / "seed-1" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"notes": ["7 <b>rows</b>"]}))
    page = page_without_images(content_of(folder))
    assert "7 <b>rows</b>" in page.text
    assert not page.all("b")
