"""Study rows: labeled training rows that no run trains on, and that every run is scored on.

The official validation split is often small. A study that trains on few of many labeled rows can
be scored on thousands of the others, for the price of a forward pass.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from iwlora.errors import IwloraError
from iwlora.tasks.held_out.stratified_groups import grouped_split
from iwlora.tasks.task import STUDY, Task

STUDY_SEED = 20_000
"""Of the choice of the study rows: the same for every arm and draw."""
ROWS_FOR_DRAWS = 1.5
"""With fewer rows than this times those of a draw, draws have most of their rows in common."""


def with_study_rows(
    task: Task,
    score_rows: int | Literal["all"],
    draw_rows: int | None,
    group: str | None = None,
) -> Task:
    """The task with a split ``study``, reserved from its training rows.

    The rows are chosen like held-out rows: rows with equal texts, or an equal ``group``, stay
    together, and each class has its share.

    Args:
        task: The whole task, before its training rows are limited.
        score_rows: How many rows; all: those that ``ROWS_FOR_DRAWS`` times ``draw_rows`` leave.
        draw_rows: The training rows of the largest draw; None: all that remain.
        group: A column whose equal values stay together.

    Raises:
        IwloraError: Too few training rows would remain.
    """
    rows = task.splits["train"]
    count = score_rows
    if count == "all":
        if draw_rows is None:
            raise IwloraError(
                "task.score_rows=all needs task.max_train: without it every row is trained on; "
                "give task.max_train=2000, or a number of rows to score"
            )
        count = len(rows) - math.ceil(ROWS_FOR_DRAWS * draw_rows)
    needed = draw_rows or 1
    if not 0 < count <= len(rows) - needed:
        raise IwloraError(
            f"task.score_rows={score_rows}: of the {len(rows):,} training rows of {task.name}, "
            f"{needed:,} are needed to train, so {max(0, len(rows) - needed):,} at most can be "
            "scored; give fewer, or a smaller task.max_train"
        )
    train, study = grouped_split(rows, task.text, task.kind, count / len(rows), STUDY_SEED, group)
    note = (
        f"{STUDY}: {len(study):,} training rows that no run trains on are scored; this is not the "
        "official score"
    )
    if draw_rows and len(train) < ROWS_FOR_DRAWS * draw_rows:
        note += (
            f". Draws of {draw_rows:,} rows come from {len(train):,} others, so they share most of "
            "their training rows: their scores differ less than those of other data would"
        )
    splits = {**task.splits, "train": train, STUDY: study}
    return replace(task, splits=splits, notes=(*task.notes, note))
