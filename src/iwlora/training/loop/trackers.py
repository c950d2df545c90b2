"""Trackers of experiments, through the Trainer's own ``report_to``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from iwlora.errors import IwloraError


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``IwloraError`` that names the packages to install for trackers that are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise IwloraError(
            f"train.report_to={list(names)}: {', '.join(missing)} is not installed; "
            f"pip install {' '.join(missing)}, or remove it"
        )
