"""The floors of a task, scored beside the stored predictions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from iwlora.errors import IwloraError
from iwlora.results.metric_direction import oriented
from iwlora.results.run import FloorScore
from iwlora.tasks import Task
from iwlora.tasks.floors.bag_of_words import bounded_rows
from iwlora.tasks.floors.floor import Floor
from iwlora.tasks.floors.margin import JackknifedScore, group_rows, jackknifed, margin


@dataclass(frozen=True)
class TaskFloors:
    """The floors of a task on a bounded part of its first reported split.

    Args:
        task: The task.
        rows: The numbers of the scored rows that are compared.
        groups: Those rows, as positions among them, in groups that stay together.
        floors: What simple rules predict for them.
    """

    task: Task
    rows: Sequence[int]
    groups: list[list[int]]
    floors: list[Floor]

    @classmethod
    def of(
        cls,
        task: Task,
        group: str | None = None,
        known: list[Floor] | None = None,
        constant: bool = False,
        most_rows: int | None = None,
    ) -> TaskFloors:
        """The floors that need no model, or floors that are known already.

        Args:
            task: The task, with its training rows.
            group: The column whose equal values keep rows together, if the rows have it.
            known: What :meth:`of` or another rule gave for the same rows.
            constant: Only the best constant, for kinds that would fit a model of the words too.
            most_rows: Compare this many rows, where that is fewer than the kind's own limit.
        """
        if task.metrics[0] == "perplexity":
            task = replace(task, kind=task.kind.scoring_targets())
        split = task.splits[task.reported[0]]
        texts = [_as_texts(split[name][:]) for name in task.text]
        most, most_characters = task.kind.floor_limits
        rows = bounded_rows(texts, min(most, most_rows or most), most_characters)
        scored = split.select(rows)
        columns = [[column[row] for row in rows] for column in texts]
        if group in split.column_names:
            columns = [scored[group][:]]
        train, kind = task.splits["train"], task.kind
        if known is not None:
            floors = known
        elif constant and kind.has_constant_floor:
            floors = [kind.constant_floor(task, train["label"][:], len(rows))]
        else:
            floors = kind.floors(task, train, scored)
        return cls(task, rows, group_rows(columns), floors)

    def beside(self, predictions: Sequence[Mapping[str, str]]) -> list[FloorScore]:
        """The scores of the floors, and the margins of a run above them.

        Older versions did not store the perplexity of each row beside generated texts: such runs
        have no floors.

        Args:
            predictions: The rows of the run's stored file of predictions.

        Raises:
            IwloraError: They are not as many as the scored rows.
        """
        kind, primary = self.task.kind, self.task.metrics[0]
        self._check(predictions)
        if not self.floors or not self._has_scores(predictions):
            return []
        references, of_run = self._of_run(predictions)
        scores = []
        for floor in self.floors:
            values = [row["prediction"] for row in floor.predictions]
            metrics = kind.prediction_scores(self.task, references, values)
            of_floor = self._jackknifed(references, values)
            scores.append(
                FloorScore(
                    name=floor.name,
                    trivial=floor.trivial,
                    rows=len(self.rows),
                    metrics=metrics,
                    **oriented_margin(primary, of_run, of_floor),
                )
            )
        return scores

    def half_width(self, predictions: Sequence[Mapping[str, str]]) -> float | None:
        """Half of the 95% interval of a run's primary metric over the compared rows.

        None for too few rows, and for a score that no row changes, such as 100%.

        Args:
            predictions: As in :meth:`beside`.
        """
        self._check(predictions)
        if not self._has_scores(predictions):
            return None
        _, of_run = self._of_run(predictions)
        zero = JackknifedScore(0.0, np.zeros_like(of_run.left_out))
        interval = margin(of_run, zero)
        return None if interval.high is None else (interval.high - interval.value or None)

    def _check(self, predictions: Sequence[Mapping[str, str]]) -> None:
        scored = len(self.task.splits[self.task.reported[0]])
        if len(predictions) != scored:
            raise IwloraError(
                f"{len(predictions):,} predictions of {scored:,} scored rows are stored; restore "
                "the file of predictions, or repeat the run"
            )

    def _has_scores(self, predictions: Sequence[Mapping[str, str]]) -> bool:
        """Whether a run stored what its primary metric is computed from."""
        return not self.task.kind.scores_targets or self.task.metrics[0] in predictions[0]

    def _of_run(
        self, predictions: Sequence[Mapping[str, str]]
    ) -> tuple[list[Any], JackknifedScore]:
        """(references, score) of a run on the compared rows."""
        pairs = [self.task.kind.stored_pair(predictions[row]) for row in self.rows]
        references, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
        return references, self._jackknifed(references, predicted)

    def _jackknifed(self, references: Sequence[Any], predictions: Sequence[Any]) -> JackknifedScore:
        """Scores of the primary metric alone: others may take long."""
        primary = self.task.metrics[0]
        schema = replace(self.task, metrics=(primary,))

        def score(rows: Sequence[int]) -> float:
            parts = ([values[row] for row in rows] for values in (references, predictions))
            return self.task.kind.prediction_scores(schema, *parts)[primary]

        return jackknifed(score, self.groups)


def constant_score(task: Task, split: str) -> tuple[str, float] | None:
    """The name and the primary metric of what predicts the same for every row of a split.

    None for kinds of tasks that have no such prediction.
    """
    kind, rows, metric = task.kind, task.splits[split], task.metrics[0]
    if not kind.has_constant_floor:
        return None
    floor = kind.constant_floor(task, task.splits["train"]["label"][:], len(rows))
    references = [kind.readable_label(task, label) for label in rows["label"]]
    predictions = [row["prediction"] for row in floor.predictions]
    scores = kind.prediction_scores(task, references, predictions)
    return (floor.name, scores[metric]) if metric in scores else None


def _as_texts(column: Sequence[Any]) -> Sequence[str]:
    return [cell if isinstance(cell, str) else " ".join(cell) for cell in column]


def oriented_margin(
    metric: str, of_run: JackknifedScore, of_floor: JackknifedScore
) -> dict[str, float | None]:
    """The fields of a margin, positive where the run is better."""
    difference = margin(of_run, of_floor)
    ends = (difference.low, difference.high)
    low, high = sorted(oriented(metric, end) for end in ends if end is not None) or (None, None)
    return {"margin": oriented(metric, difference.value), "low": low, "high": high}
