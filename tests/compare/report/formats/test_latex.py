"""LaTeX tables: names with special characters are printed as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.compare.report.formats.latex import escape, latex
from report_pages import content_of

pytestmark = pytest.mark.quick


def test_special_characters_are_escaped() -> None:
    assert escape("a_b & 5% {x} \\input ~^$#") == (
        r"a\_b \& 5\% \{x\} \textbackslash{}input \textasciitilde{}\textasciicircum{}\$\#"
    )


def test_every_row_has_the_cells_of_its_head(written: Path) -> None:
    tables = latex(content_of(written)).split(r"\begin{table}")[1:]
    assert len(tables) == 2, "scores and differences"
    for table in tables:
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) in (4, 5)
        assert len({row.count(" & ") for row in rows}) == 1
