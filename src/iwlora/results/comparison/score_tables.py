"""Tables of scores that others made, as CSV files: their rows as comparisons."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, raise_all
from iwlora.inputs.formulas import restore_formula
from iwlora.inputs.yaml_json import read_utf8, validation_errors
from iwlora.results.comparison.load import Comparison
from iwlora.results.comparison.one_task import comparisons_of
from iwlora.results.run import Run, RunResult

COLUMNS = ("method", "task", "seed", "score")
OPTIONAL = (
    *("metric", "model", "trainable_parameters", "adapter_parameters", "peak_memory_bytes"),
    *("train_seconds", "measure_seconds", "train_examples"),
)


def read_scores(path: Path) -> list[Comparison]:
    """The comparisons in a CSV file, one for each task and model.

    Columns: method, task, seed and score, and those of ``OPTIONAL`` that are known. Raises
    ``IwloraError`` with the first lines that cannot be read.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_utf8(path).removeprefix("\ufeff"), newline=""))
        rows = list(reader)
    except csv.Error as error:
        raise IwloraError(f"cannot read {path} ({error})") from None
    absent = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if absent:
        raise IwloraError(
            f"{path}: no column {', '.join(absent)}; required are {', '.join(COLUMNS)}, optional "
            f"{', '.join(OPTIONAL)}"
        )
    scores: dict[tuple[str, str, str, int], RunResult] = {}
    problems: list[str] = []
    for number, row in enumerate(rows, start=2):
        origin = f"{path}, line {number}"
        try:
            with validation_errors(origin):
                score = _score(row)
        except IwloraError as error:
            problems.append(str(error))
            continue
        key = score.task, score.model, score.label, score.seed
        if key in scores:
            problems.append(f"{origin}: {score.label}, seed {score.seed} comes twice")
        scores[key] = score
    if not rows:
        problems.append(f"{path} has no rows")
    raise_all(problems)
    return comparisons_of(path, [Run(None, score) for score in scores.values()])


def _score(row: dict[str, Any]) -> RunResult:
    """A row as a result; raises ``ValidationError`` for a wrong number or name."""
    known: dict[str, Any] = {"metric": "score", "model": "any model"}
    cells: dict[str, Any] = row | {
        name: restore_formula(cell) for name, cell in row.items() if isinstance(cell, str)
    }
    known |= {name: cells[name] for name in OPTIONAL if cells.get(name)}
    return RunResult.from_score(**{name: cells[name] for name in COLUMNS}, **known)
