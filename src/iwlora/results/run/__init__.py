"""A run: its result, how it stands while there is none, and the files in its folder."""

from iwlora.results.run.folder import Run, load_run, read_environment, read_predictions
from iwlora.results.run.result import (
    Amount,
    Count,
    FloorScore,
    Label,
    LabelScore,
    Name,
    RunResult,
    SiteRank,
)
from iwlora.results.run.status import Status, describe_status, state_of

__all__ = [
    "Amount",
    "Count",
    "FloorScore",
    "Label",
    "LabelScore",
    "Name",
    "Run",
    "RunResult",
    "SiteRank",
    "Status",
    "describe_status",
    "load_run",
    "read_environment",
    "read_predictions",
    "state_of",
]
