"""Which results are on one task, and whether these can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TypeVar

from iwlora.errors import IwloraError, raise_all
from iwlora.results.comparison.equal_inputs import (
    mixed_arms,
    unequal_scoring,
    unequal_starts,
    unequal_training_rows,
)
from iwlora.results.comparison.load import Comparison
from iwlora.results.fingerprint import MODEL_PARTS, of_scoring
from iwlora.results.formats import content_digest
from iwlora.results.run import Run

Item = TypeVar("Item", Run, Comparison)


def comparisons_of(folder: Path, runs: Sequence[Run], vary: Sequence[str] = ()) -> list[Comparison]:
    """The runs as comparisons, one for each task and model."""
    return [_of_one_task(folder, group, vary) for group in by_task(runs, _keys_of_run)]


def by_task(items: Sequence[Item], keys_of: Callable[[Item], list[object]]) -> list[list[Item]]:
    """The items in groups: two that share a key are on one task."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        keys = keys_of(item)
        group: list[Item] = next((groups[key] for key in keys if key in groups), [])
        group.append(item)
        for key in keys:
            groups.setdefault(key, group)
    return list({id(group): group for group in groups.values()}.values())


def _keys_of_run(run: Run) -> list[object]:
    """The names of task and model, and the digest of what is scored if it is known."""
    result = run.result
    keys: list[object] = [(result.task, result.model)]
    if result.fingerprint and result.evaluated_on:
        scored = of_scoring(result.fingerprint, result.evaluated_on).parts
        if scored.keys() >= set(MODEL_PARTS):  # else the model is known by its name only
            keys.append((result.primary_metric, result.evaluated_on, content_digest(scored)))
    return keys


def keys_of_comparison(part: Comparison) -> list[object]:
    """The names of task and model, and the digest of what is scored if it is known."""
    of_runs = (key for run in part.runs[:1] for key in _keys_of_run(run)[1:])
    return [(part.task, part.model), *of_runs]


def _of_one_task(folder: Path, on_task: Sequence[Run], vary: Sequence[str]) -> Comparison:
    first = on_task[0].result
    runs = {(run.result.label, run.result.seed): run for run in on_task}
    if len(runs) < len(on_task):
        raise IwloraError(
            f"{folder} holds several runs of one label and seed; give each folder by itself, or "
            "set label in their recipes"
        )
    arms = tuple(dict.fromkeys(label for label, _ in runs))
    seeds = tuple(sorted({seed for _, seed in runs}))
    scored = {key: run for key, run in runs.items() if run.result.score is not None}
    missing = tuple(
        (*key, "no finite score" if key in runs else "not there")
        for key in product(arms, seeds)
        if key not in scored
    )
    kept = tuple(scored.values())
    raise_all(mixed_arms(kept))
    return checked(Comparison(folder, first.model, first.task, arms, seeds, kept, missing), vary)


def checked(part: Comparison, vary: Sequence[str]) -> Comparison:
    """The comparison with remarks on its runs, and with those of ``vary`` in which its arms differ.

    Raises ``IwloraError`` if the runs cannot be compared.
    """
    raise_all([*unequal_scoring(part.runs), *unequal_training_rows(part.runs, vary)])
    remarks = (*part.remarks, *unequal_starts(part.runs, vary))
    values = [run.settings(vary) for run in part.runs]
    differing = [
        f for f in dict.fromkeys(vary) if any(v.get(f) != values[0].get(f) for v in values)
    ]
    return replace(part, remarks=remarks, vary=tuple(differing))
