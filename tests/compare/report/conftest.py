"""One written report that the tests read and never change."""

from __future__ import annotations

from pathlib import Path

import pytest

from comparison_folders import write_comparison
from iwlora.compare.report.write import write_report


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four arms and three seeds, with its report."""
    folder = write_comparison(tmp_path_factory.mktemp("report") / "comparison")
    write_report(folder)
    return folder
