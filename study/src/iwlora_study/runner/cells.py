"""The cells of the study: recipes of ``iwlora compare``, in the order of their file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.inputs.yaml_json import read_mapping
from iwlora.results.formats import content_digest

SEARCH_DRAWS = 3  # of iwlora compare, where a recipe names no search.seeds


@dataclass(frozen=True)
class Cell:
    """One comparison: arms in one regime, which is a task, its rows, and a number of steps."""

    path: Path
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The stem of its file, such as ``01-sst2-50-steps-starts``."""
        return self.path.stem

    @property
    def digest(self) -> str:
        """Of its settings: scores of other settings are not those of this cell."""
        return content_digest(self.settings)

    @property
    def needs_glue(self) -> bool:
        """Whether its task is read from a folder in the layout of GLUE."""
        return str(self.settings["task"]["name"]).startswith("glue/")

    @property
    def regime(self) -> str:
        """Its task, rows, flipped labels, budget and steps in words."""
        return regime(self.settings)

    def runs(self) -> tuple[int, int]:
        """(trials of all arms, without those that widen a grid; reported runs).

        An arm that searches options too has as many trials as ``search.max_steps`` allows.
        """
        arms, search = len(self.settings["methods"]), self.settings["search"]
        draws = len(search.get("seeds", range(SEARCH_DRAWS)))
        trials = len(search["lr"]) * draws
        if search.get("options"):
            trials = search["max_steps"] // self.settings["train"]["max_steps"]
        return arms * trials, arms * len(self.settings["seeds"])


def load_cells(folder: Path) -> list[Cell]:
    """The cells of a folder in the order in which they run.

    Raises:
        IwloraError: A file is no mapping.
    """
    return [Cell(path, read_mapping(path)) for path in sorted(folder.glob("*.yaml"))]


def regime(settings: Mapping[str, Any]) -> str:
    """What a cell's recipe says of its regime.

    >>> regime({"task": {"name": "glue/sst2", "max_train": 250, "flip_labels": 0.2}, "methods": [],
    ...         "budget": 13824, "train": {"max_steps": 50, "batch_size": 16}})
    'glue/sst2, 250 rows, 20% of labels flipped, 13,824 parameters, 50 steps of 16'
    """
    task, train = settings["task"], settings["train"]
    parts = [str(task["name"]), f"{task['max_train']:,} rows"]
    if "grammar_seed" in task:
        parts.append(f"grammar seed {task['grammar_seed']}")
    if "grammar_depth" in task:
        parts.append(f"grammar depth {task['grammar_depth']}")
    if task.get("flip_labels"):
        parts.append(f"{task['flip_labels']:.0%} of labels flipped")
    if settings.get("budget"):
        parts.append(f"{settings['budget']:,} parameters")
    shares = {method.get("share") for method in settings["methods"] if isinstance(method, Mapping)}
    fractions = {share for share in shares if isinstance(share, str)}
    if len(fractions) == 1:
        parts.append(f"{fractions.pop()} of the parameters of rank 8")
    return ", ".join([*parts, f"{train['max_steps']} steps of {train['batch_size']}"])


@dataclass(frozen=True)
class Cost:
    """Processor seconds on one core: of a training step of 32 rows, and of a scored row."""

    step: float
    scored_row: float


COSTS = {
    "glue/sst2": Cost(step=0.42, scored_row=0.007),
    "glue/mrpc": Cost(step=1.15, scored_row=0.019),
    "glue/rte": Cost(step=1.4, scored_row=0.023),
    "builtin/entailment": Cost(step=0.51, scored_row=0.007),
}
"""MiniLM in float32 on an AMD EPYC with AVX2 alone. The costs on SST-2 were measured; the
others are scaled from them by the lengths of the texts."""
SETUP = 2.0
"""Of a run: reading the model and the rows, and writing the result."""


def predicted_core_minutes(cell: Cell) -> float:
    """Processor minutes of all runs of a cell, without trials that widen a grid.

    Σ over runs of steps · (seconds a step) + (scored rows) · (seconds a row) + set-up.
    """
    task, train = cell.settings["task"], cell.settings["train"]
    cost = COSTS[task["name"]]
    trials, reported = cell.runs()
    training = train["max_steps"] * cost.step * train["batch_size"] / 32 + SETUP
    held_out = cell.settings["search"].get("holdout", 0.1) * task["max_train"]
    scored = task["score_rows"] + task.get("max_test", task.get("max_validation", 0))
    rows = trials * held_out + reported * scored
    return float((trials + reported) * training + rows * cost.scored_row) / 60


def plan_table(cells: Sequence[Cell]) -> str:
    """The cells with their runs and what they are predicted to take, as a Markdown table."""
    lines = ["| cell | regime | arms | trials + runs | core-minutes |", "|---|---|--:|--:|--:|"]
    for cell in cells:
        trials, reported = cell.runs()
        arms, minutes = len(cell.settings["methods"]), predicted_core_minutes(cell)
        lines.append(
            f"| {cell.name} | {cell.regime} | {arms} | {trials} + {reported} | {minutes:.0f} |"
        )
    total = sum(map(predicted_core_minutes, cells))
    return "\n".join([*lines, f"| all |  |  |  | {total:.0f} ({total / 60:.1f} core-hours) |"])
