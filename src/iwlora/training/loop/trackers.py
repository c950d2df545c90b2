"""Trackers of experiments, through the Trainer's own ``report_to``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from iwlora.errors import IwloraError


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``IwloraError`` that names what to install for a tracker that is not there."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise IwloraError(
            f"train.report_to={list(names)}: {', '.join(absent)} is not installed; "
            f"pip install {' '.join(absent)}, or remove it"
        )
