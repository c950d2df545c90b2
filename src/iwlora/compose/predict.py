"""Predictions of a pool: the mean of what the chosen sources predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from iwlora.compose.backbone import SharedBackbone
from iwlora.compose.one_pass import SharedModel, passes
from iwlora.compose.pool import Pool, shared_task
from iwlora.compose.prototypes import embeddings, load_prototypes, weights_by_distance
from iwlora.errors import IwloraError, raise_all
from iwlora.extras import name_missing_extra
from iwlora.inputs.tables.reading import Reading
from iwlora.results import layout
from iwlora.tasks.kinds.contract import Evaluation, Prediction
from iwlora.tasks.task import Task
from iwlora.training.external_settings import check_external_settings
from iwlora.training.prediction.input_rows import InputRows, cells_of_column
from iwlora.training.prediction.new_rows import (
    OnBad,
    evaluate_versions,
    load_for_rows,
    predict_file,
)
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

SOURCES = "sources"
"""The column of the input that names the sources of each row, and that of the output."""

Subset = tuple[str, ...]


@name_missing_extra()
def predict(
    path: str | Path,
    source: str | Path,
    output: str | Path,
    trust_remote_code: bool = False,
    *,
    use: Sequence[str] | None = None,
    input_format: str | None = None,
    id_column: str | None = None,
    max_rows: int | None = None,
    on_bad: OnBad = "refuse",
) -> Path:
    """Predict the rows of a file with a pool.

    A source is computed for those rows alone that use it, and the files of a source that no row
    uses are not read. The output has a column with the names of the sources of each row.

    Args:
        path: The folder of the pool.
        source: The file with the rows; a column ``sources`` names those of each row, such as
            ``a,c``.
        output: The file to write.
        trust_remote_code: As for :func:`iwlora.load_trained`.
        use: The names of the sources, for all rows; None: as the column says, or all.
        input_format: As for :func:`iwlora.predict`, as all the following.
        id_column: The column with the id of each row.
        max_rows: Predict the first rows only.
        on_bad: What becomes of rows that cannot be read.

    Returns:
        ``output`` as a path.

    Raises:
        IwloraError: As :func:`iwlora.predict`; and for a source that is unknown or was changed.
    """
    check_external_settings()
    pool = Pool.load(path)
    chosen = pool.chosen(use)

    def task_of(file: str) -> Task:
        name = chosen[0] if use is not None else _first_used(pool, file)
        return shared_task(RunDir.finished(pool.folder_of(name)))

    def compute(given: InputRows) -> list[Prediction]:
        subsets = _subsets(pool, chosen, given, use is not None)
        task = shared_task(RunDir.finished(pool.folder_of(subsets[0][0])))
        predictions: list[Prediction] = [{} for _ in subsets]
        members = Members(pool, trust_remote_code)
        for subset, evaluation, numbers in members.evaluate(given.rows, subsets):
            computed = task.kind.predictions(evaluation, probabilities=True)
            for row, prediction in zip(numbers, computed, strict=True):
                first, *others = prediction.items()
                named = (SOURCES, ",".join(subset))
                predictions[row] = dict([first, named, *others])
        return predictions

    return predict_file(
        task_of,
        Reading(),
        source,
        output,
        compute,
        input_format=input_format,
        id_column=id_column,
        max_rows=max_rows,
        extra_column=SOURCES,
        on_bad=on_bad,
    )


class Members:
    """Computes what sources of a pool predict: those of one pass together, the others in turn."""

    def __init__(self, pool: Pool, trust_remote_code: bool = False) -> None:
        self._pool, self._trust = pool, trust_remote_code
        self._backbone = SharedBackbone()

    def evaluate(
        self, rows: datasets.Dataset, subsets: Sequence[Subset]
    ) -> list[tuple[Subset, Evaluation, list[int]]]:
        """(subset, the mean of its sources, numbers of the rows) of each subset that rows use.

        Args:
            rows: The text columns.
            subsets: The names of the sources of each row, sorted.
        """
        numbers: dict[Subset, list[int]] = {}
        for row, subset in enumerate(subsets):
            numbers.setdefault(subset, []).append(row)
        parts = {subset: rows.select(chosen) for subset, chosen in numbers.items()}
        of_sources = self.outputs(parts)
        return [
            (
                subset,
                self.combine(subset, of_sources[subset], self.features(part, subset)),
                numbers[subset],
            )
            for subset, part in parts.items()
        ]

    def outputs(
        self, parts: Mapping[Subset, datasets.Dataset]
    ) -> dict[Subset, dict[str, Evaluation]]:
        """What each source of each subset computes for the subset's rows, on the shared scale."""
        computed: dict[Subset, dict[str, Evaluation]] = {subset: {} for subset in parts}
        used = sorted({name for subset in parts for name in subset})
        for runs in passes({name: self._pool.source(name) for name in used}):
            model, processor, versions = self._load(runs)
            host = next(iter(runs.values()))
            for subset, rows in parts.items():
                chosen = [name for name in runs if name in subset]
                if not chosen:
                    continue
                evaluations = evaluate_versions(
                    host, model, processor, rows, partial(versions, chosen)
                )
                for name, evaluation in evaluations.items():
                    task = stored_task(runs[name])
                    outputs = task.kind.on_shared_scale(evaluation.outputs)
                    computed[subset][name] = replace(evaluation, schema=task, outputs=outputs)
        return computed

    def _load(
        self, runs: Mapping[str, RunDir]
    ) -> tuple[Any, Any, Callable[[Iterable[str]], Iterable[str]]]:
        """(the model, the processor, what gives its versions) of sources of one pass."""
        first, *others = runs
        model, processor = load_for_rows(runs[first], self._trust, self._backbone.load)
        if not others:
            return model, processor, list
        shared = SharedModel(runs[first].recipe().method, model)
        shared.add(first, model)
        for name in others:
            shared.add(name, load_for_rows(runs[name], self._trust, self._backbone.load)[0])
        return model, processor, shared.versions

    def features(self, rows: datasets.Dataset, subset: Subset) -> Any:
        """What the weights of rows depend on: embeddings, or nothing but their number.

        Args:
            rows: The text columns.
            subset: Names of sources, of which one says how rows are embedded; all say the same.
        """
        if self._pool.record.weights == "mean":
            return np.empty((len(rows), 0))
        run = RunDir.finished(self._pool.folder_of(subset[0]))
        return embeddings(run, rows, self._trust, self._backbone.load)

    def combine(
        self, subset: Subset, of_sources: Mapping[str, Evaluation], features: Any
    ) -> Evaluation:
        """The mean of what the sources of a subset computed for rows with these features."""
        record, first = self._pool.record, of_sources[subset[0]]
        kind = shared_task(RunDir.finished(self._pool.folder_of(subset[0]))).kind
        if record.weights == "mean":
            weights = np.full((len(subset), len(features)), 1 / len(subset))
        else:
            folders = [self._pool.folder_of(name) for name in subset]
            prototypes = [load_prototypes(folder / layout.PROTOTYPES) for folder in folders]
            weights = weights_by_distance(prototypes, features)
        outputs = [of_sources[name].outputs for name in subset]
        mean = kind.average(outputs, weights, record.average or "probabilities")
        return replace(first, outputs=mean)


def _first_used(pool: Pool, file: str) -> str:
    """A source that a row of the file names; the first one if none does."""
    cells = cells_of_column(file, SOURCES)
    named = (name for cell in cells for name in source_names(cell) if name in pool.names)
    return next(named, pool.names[0])


def _subsets(pool: Pool, chosen: Subset, given: InputRows, is_given: bool) -> list[Subset]:
    """The sources of each row."""
    if given.extra is None:
        return [chosen] * len(given.rows)
    if is_given:
        raise IwloraError(
            f"--use and a column {SOURCES!r} in the input were given; leave out --use, or rename "
            "the column"
        )
    subsets, problems = list[Subset](), list[str]()
    for line, cell in zip(given.places["line"], given.extra, strict=True):
        try:
            subsets.append(pool.chosen(source_names(cell), f"line {line}, column {SOURCES!r}"))
        except IwloraError as error:
            problems.append(str(error))
    raise_all(problems)
    return subsets


def source_names(cell: Any) -> list[str]:
    """The names in a cell: a list, or text with commas between.

    >>> source_names("a, c"), source_names(["a"]), source_names(None)
    (['a', 'c'], ['a'], [])
    """
    parts = cell if isinstance(cell, list) else str(cell or "").split(",")
    return [name for part in parts if (name := str(part).strip())]
