"""The pictures of the first screen are small, and show the answers that the page names."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from PIL import Image

from documentation import ROOT
from report_pages import content_of

SCRIPT = runpy.run_path(str(ROOT / "docs" / "make_screenshots.py"))
ANSWERS = {
    "null-result": ("No difference from lora is shown", "Train lora: no other method is shown"),
    "clear-winner": ("Yes, in accuracy: iw-lora is better than lora.", "Train iw-lora: it is"),
    "nothing-learned": ("No: no method learned anything.", "None of these yet: lora learned"),
}


@pytest.mark.parametrize("name", SCRIPT["CASES"])
def test_the_pictures_show_what_the_page_says(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    SCRIPT["simulate"](SCRIPT["CASES"][name], folder)
    real, cost, choice = content_of(folder).answers
    starts = ANSWERS[name]
    assert real.short.startswith(starts[0])
    assert "as long as lora" in cost.short
    assert choice.short.startswith(starts[1])
    picture = ROOT / "docs" / "images" / f"report-{name}.png"
    assert picture.stat().st_size < 150_000
    with Image.open(picture) as image:
        assert image.width == 1200
