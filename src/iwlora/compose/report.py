"""The scores of a pool: of its sources and of subsets, and what each source adds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets

from iwlora.compare.number_format import counted
from iwlora.compose.pool import Pool, shared_task
from iwlora.compose.predict import Members, Subset
from iwlora.compose.report_text import Addition, PoolReport, Source
from iwlora.compose.weight_averages import (
    WEIGHT_AVERAGES,
    averaged_weights,
    check_weight_averages,
)
from iwlora.errors import IwloraError, listed, raise_all
from iwlora.extras import name_missing_extra
from iwlora.inputs.tables.reading import Reading
from iwlora.results.fingerprint import Fingerprint, of_scoring
from iwlora.results.run import Run, RunResult, load_run
from iwlora.tasks import Task
from iwlora.tasks.floors.margin import JackknifedScore, group_rows, jackknifed
from iwlora.tasks.kinds.contract import Evaluation, Prediction
from iwlora.training.floors.scores import oriented_margin
from iwlora.training.prediction.input_rows import read_input
from iwlora.training.prediction.new_rows import evaluate_rows

_MOST_SOURCES = 4
"""Of pools with more sources not every subset is scored: each source, all, and all but each."""


@name_missing_extra()
def report(
    path: str | Path,
    use: Sequence[Sequence[str]] = (),
    rows: str | Path | None = None,
    trust_remote_code: bool = False,
    weight_averages: bool = False,
) -> PoolReport:
    """The scores of each source, of subsets, and what each source adds.

    The predictions that the runs stored are averaged where all sources were scored on the same
    rows. Labeled rows of a file are predicted.

    Args:
        path: The folder of the pool.
        use: Further subsets to score, where a pool has more than four sources.
        rows: A file with labeled rows to score subsets on; None: those of the runs.
        trust_remote_code: As for :func:`iwlora.load_trained`.
        weight_averages: Score averages of the sources' weights too, in place of predictions.

    Raises:
        IwloraError: The folder is no pool, its weights cannot be averaged, a source was changed, a
            name is unknown, or the rows cannot be read or have no labels.
    """
    pool = Pool.load(path)
    wanted = _subsets(pool, use)
    if weight_averages:
        check_weight_averages(pool)
    runs = {name: load_run(pool.source(name).path) for name in pool.names}
    sources = [Source(name, run.result, len(run.prediction_rows())) for name, run in runs.items()]
    task = shared_task(pool.source(pool.names[0]))
    members = Members(pool, trust_remote_code)
    if rows is not None:
        scored = _of_file(pool, members, task, str(rows))
        about = f"On the {counted(len(scored.labels), 'row')} of {rows}."
    else:
        stored = _stored(runs, task)
        if pool.record.weights == "prototypes" and task.kind.reads_images:
            stored = (
                "The weights by prototypes need the images, which runs do not store: give labeled "
                "rows with --rows FILE to score subsets."
            )
        if isinstance(stored, str):
            return PoolReport(pool, sources, stored, {}, (), task.metrics[0])
        scored = stored
        split = sources[0].result.evaluated_on
        about = (
            f"On the {counted(len(scored.labels), 'row')} ({split}) that all sources were scored "
            "on. What chose options or epochs by these rows has seen them."
        )
    features = members.features(scored.rows, pool.names)
    combined = {
        subset: task.kind.predictions(members.combine(subset, scored.evaluations, features))
        for subset in wanted
    }
    averages = {}
    for way, how in WEIGHT_AVERAGES.items() if weight_averages else ():
        loaded = averaged_weights(pool, pool.names, how, trust_remote_code)
        evaluation = evaluate_rows(pool.source(pool.names[0]), *loaded, scored.rows)
        averages[way] = scored.metrics(task.kind.predictions(evaluation))
    return PoolReport(
        pool,
        sources,
        about,
        metrics={subset: scored.metrics(found) for subset, found in combined.items()},
        additions=_additions(pool, scored, combined),
        primary=task.metrics[0],
        weight_averages=averages,
    )


@dataclass(frozen=True)
class _ScoredRows:
    """Labeled rows.

    Args:
        task: Its metrics are computed.
        rows: The text columns.
        labels: The label of each row, as a file of predictions has it.
        evaluations: What each source computes for the rows.
    """

    task: Task
    rows: Any
    labels: Sequence[str]
    evaluations: Mapping[str, Evaluation]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The metrics of predictions for all rows."""
        return self._of_rows(predictions, range(len(self.labels)), self.task)

    def jackknifed(self, predictions: Sequence[Prediction]) -> JackknifedScore:
        """The primary metric, with what an interval over rows needs."""
        primary = self.task.metrics[0]
        alone = replace(self.task, metrics=(primary,))
        texts = [list(map(str, self.rows[name][:])) for name in self.task.text]
        return jackknifed(
            lambda rows: self._of_rows(predictions, rows, alone)[primary], group_rows(texts)
        )

    def _of_rows(
        self, predictions: Sequence[Prediction], rows: Iterable[int], task: Task
    ) -> dict[str, float]:
        cells = [
            {"label": self.labels[row], **{k: _cell(v) for k, v in predictions[row].items()}}
            for row in rows
        ]
        return task.kind.rescore(task, cells)


def _additions(
    pool: Pool, scored: _ScoredRows, combined: Mapping[Subset, Sequence[Prediction]]
) -> list[Addition]:
    if len(pool.names) < 2:
        return []
    together = scored.jackknifed(combined[pool.names])
    primary = scored.task.metrics[0]
    found = []
    for name in pool.names:
        without = scored.jackknifed(combined[_without(pool.names, name)])
        margin = oriented_margin(primary, together, without)
        found.append(Addition(name, margin["margin"] or 0.0, margin["low"], margin["high"]))
    return found


def _subsets(pool: Pool, use: Sequence[Sequence[str]]) -> list[Subset]:
    """The subsets to score, the small ones first."""
    names = pool.names
    wanted = {pool.chosen(chosen) for chosen in use}
    if len(names) <= _MOST_SOURCES:
        sizes = range(1, len(names) + 1)
        wanted |= {subset for size in sizes for subset in combinations(names, size)}
    else:
        wanted |= {(name,) for name in names} | {_without(names, name) for name in names} | {names}
    return sorted(wanted, key=lambda subset: (len(subset), subset))


def _without(names: Subset, name: str) -> Subset:
    return tuple(other for other in names if other != name)


def _stored(runs: Mapping[str, Run], task: Task) -> _ScoredRows | str:
    """The rows that all runs were scored on, and what they stored; or why that is not possible."""
    instead = "give labeled rows with --rows FILE to score subsets"
    scored_on = {name: _scored_rows(run.result) for name, run in runs.items()}
    first = next(iter(runs))
    others = [name for name in runs if scored_on[name] != scored_on[first]]
    if others:
        return (
            f"{first} and {listed(others)} were scored on other rows, so there are no rows "
            f"on which their predictions can be averaged; {instead}."
        )
    rows = {name: run.prediction_rows() for name, run in runs.items()}
    outputs = {name: task.kind.stored_outputs(task, of_run) for name, of_run in rows.items()}
    if any(of_run is None for of_run in outputs.values()) or not all(rows.values()):
        return f"The runs did not store what is averaged; {instead}."
    texts = {
        column: [row[_text_column(column, row)] for row in rows[first]] for column in task.text
    }
    dataset = datasets.Dataset.from_dict(texts)
    evaluations = {
        name: Evaluation(task, dataset, dataset, of_run or {}, None)
        for name, of_run in outputs.items()
    }
    return _ScoredRows(task, dataset, [row["label"] for row in rows[first]], evaluations)


def _scored_rows(result: RunResult) -> dict[str, str]:
    fingerprint = result.fingerprint or Fingerprint(parts={})
    return of_scoring(fingerprint, str(result.evaluated_on)).parts


def _text_column(name: str, row: Mapping[str, str]) -> str:
    """The column of a text in stored predictions, which have columns of their own."""
    return f"text_{name}" if f"text_{name}" in row else name


def _of_file(pool: Pool, members: Members, task: Task, file: str) -> _ScoredRows:
    """The labeled rows of a file, predicted by each source."""
    given = read_input(file, task, None, None, Reading())
    if not given.labels:
        raise IwloraError(
            f"--rows {file} has no labels; give a file with the column "
            f"{listed(list(task.label_columns))}"
        )
    labels, problems = list[str](), list[str]()
    for line, *cells in zip(given.places["line"], *given.labels.values(), strict=True):
        value = cells[0] if len(cells) == 1 else dict(zip(given.labels, cells, strict=True))
        try:
            label = task.kind.parse_label(value)
            if task.kind.has_classes:
                for name in task.kind.class_names(label):
                    if name not in task.labels:
                        raise ValueError(f"holds {name!r}; the classes are {listed(task.labels)}")
            labels.append(_cell(label))
        except ValueError as error:
            problems.append(f"{file}, line {line}: the label {error}")
    raise_all(problems)
    evaluations = members.outputs({pool.names: given.rows})[pool.names]
    return _ScoredRows(task, given.rows, labels, evaluations)


def _cell(value: Any) -> Any:
    """As a file of predictions has it: a list is JSON."""
    return json.dumps(value) if isinstance(value, list) else value
