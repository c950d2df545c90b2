"""Reports with their figures; one that is written once, which the tests never change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from comparison_folders import write_comparison
from conftest import drawn_figures
from iwlora.compare.report.write import write_report


@pytest.fixture(autouse=True)
def _drawn_figures() -> Iterator[None]:
    with drawn_figures():
        yield


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four arms and three seeds, with its report."""
    folder = write_comparison(tmp_path_factory.mktemp("report") / "comparison")
    with drawn_figures():
        write_report(folder)
    return folder
