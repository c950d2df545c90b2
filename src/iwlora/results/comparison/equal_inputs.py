"""Which runs may be compared: equal scored rows and backbones, equal data and heads at the start.

Each function returns the differences as sentences; none means that the runs compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from iwlora.results.comparison.record import TRAINING_DATA
from iwlora.results.fingerprint import (
    Fingerprint,
    differences,
    joined,
    of_scoring,
    of_training,
)
from iwlora.results.run import Run, RunResult


def unequal_scoring(runs: Sequence[Run]) -> list[str]:
    """Which runs are not scored as the first one is, a line for each difference."""
    fields = ("primary_metric", "evaluated_on", "selected_on")
    return _unequal_inputs(runs) + [
        f"{run} does not compare: its {field} is {getattr(run.result, field)!r}, that of "
        f"{runs[0]} is {getattr(runs[0].result, field)!r}"
        for run, field in product(runs, fields)
        if getattr(run.result, field) != getattr(runs[0].result, field)
    ]


def _unequal_inputs(runs: Sequence[Run]) -> list[str]:
    """Which runs have other scored rows, classes or another backbone than the first, by digest."""
    known = [run for run in runs if run.result.fingerprint]
    lines = []
    for run in known[1:]:
        split = run.result.evaluated_on or ""
        if clauses := _differences(known[0], run, partial(of_scoring, split=split)):
            lines.append(f"{run} does not compare with {known[0]}: {joined(clauses)}")
    return lines


def _differences(first: Run, run: Run, chosen: Callable[[Fingerprint], Fingerprint]) -> list[str]:
    """What differs in the chosen inputs of two runs; nothing where a fingerprint is missing."""
    before, now = first.result.fingerprint, run.result.fingerprint
    if before is None or now is None or not differences(chosen(before), chosen(now)):
        return []
    rows = first.row_digests(), run.row_digests()
    return differences(chosen(before), chosen(now), *rows)


def unequal_training_rows(runs: Sequence[Run], vary: Sequence[str] = ()) -> list[str]:
    """Where runs of one seed do not have the same training rows, by digest.

    Args:
        runs: The runs of all arms.
        vary: The fields of the training data that were declared: runs whose values differ may have
            other rows.
    """
    lines, fields = [], set[str]()
    first: dict[tuple[int, str], Run] = {}
    for run in (run for run in runs if run.result.fingerprint):
        other = first.setdefault(_start(run, vary), run)
        if clauses := _differences(other, run, of_training):
            lines.append(_started_apart(run, other, f"the same training rows ({joined(clauses)})"))
            fields |= _differing_training_data(run, other)
    if not lines:
        return []
    declared = ", ".join(field for field in TRAINING_DATA if field in fields)
    fix = (
        f"{declared} differs; if that is what you compare, declare it in the comparison's recipe, "
        f"or for results: iwlora compare FOLDER ... 'vary=[{declared}]' --out OTHER"
        if declared
        else "no field of their recipes differs, so a file was changed between the runs; train "
        "them on the same rows"
    )
    return [f"arms do not have the same training rows: {fix}", *lines]


def _differing_training_data(run: Run, other: Run) -> set[str]:
    settings, others = run.settings(TRAINING_DATA), other.settings(TRAINING_DATA)
    return {field for field in {**settings, **others} if settings.get(field) != others.get(field)}


def mixed_arms(runs: Sequence[Run]) -> list[str]:
    """Which arms hold runs of different training data, which no mean over seeds may pool."""
    lines = []
    first: dict[str, Run] = {}
    for run in (run for run in runs if run.result.fingerprint):
        other = first.setdefault(run.result.label, run)
        if differing := _differing_training_data(run, other):
            lines.append(
                f"{run} and {other} are no runs of one arm: their {', '.join(sorted(differing))} "
                "differ; give them different labels"
            )
    return lines


def unequal_starts(runs: Sequence[Run], vary: Sequence[str] = ()) -> list[str]:
    """Where runs of one seed did not see their data in the same order, or had another head."""
    conditions: dict[str, tuple[Callable[[RunResult], str | None], Sequence[str]]] = {
        "the same data in the same order": (lambda result: result.data_digest, vary),
        "the same initial head": (lambda result: result.head_digest, ()),
    }
    lines = []
    for condition, (digest, fields) in conditions.items():
        first: dict[tuple[int, str], Run] = {}
        for run in (run for run in runs if digest(run.result)):
            other = first.setdefault(_start(run, fields), run)
            if digest(run.result) != digest(other.result):
                lines.append(_started_apart(run, other, condition))
    return lines


def _start(run: Run, vary: Sequence[str]) -> tuple[int, str]:
    """What is the same for runs that must start alike: the seed, and the declared training data."""
    return run.result.seed, json.dumps(run.settings(vary), sort_keys=True, default=str)


def _started_apart(run: Run, other: Run, condition: str) -> str:
    return (
        f"{run.result.label} and {other.result.label} did not start alike at seed "
        f"{run.result.seed}: not {condition}"
    )


def unverified_runs(compared: Sequence[Run]) -> list[str]:
    """A remark on runs whose inputs are not on record, if there are any.

    Scores from tables have no inputs to compare, and nothing is claimed of them.
    """
    runs = [run for run in compared if run.folder]
    unknown = [run for run in runs if run.result.fingerprint is None]
    if not unknown:
        return []
    return [
        f"{len(unknown)} of {len(runs)} runs cannot be verified: a version of iwlora without "
        "fingerprints wrote them, so whether they have the same scored rows, class names and "
        "model is not known"
    ]
