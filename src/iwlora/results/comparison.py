"""A comparison: which runs there should be, what its search chose, and what has finished.

What is missing is listed, and never counted as zero.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from iwlora.errors import IwloraError, raise_all
from iwlora.inputs.places import check_folder
from iwlora.results import layout
from iwlora.results.fingerprint import (
    Fingerprint,
    differences,
    joined,
    of_scoring,
    of_training,
)
from iwlora.results.formats import VERSIONS, Document, StoredModel, append_record, read_log
from iwlora.results.run import Count, Label, Name, Run, RunResult, describe_status, load_run

TRAINING_DATA = ("task.max_train", "task.train", "task.mix", "train.sampler")
"""The fields of a recipe in which arms may differ, if ``vary`` of their comparison names them."""


def distinct(items: list[Any]) -> list[Any]:
    """The items; ``ValueError`` if one is listed twice."""
    if len(set(items)) < len(items):
        raise ValueError("each may be listed only once")
    return items


def _of_training_data(fields: list[str]) -> list[str]:
    if other := [field for field in fields if field not in TRAINING_DATA]:
        raise ValueError(f"arms may differ in {', '.join(TRAINING_DATA)}, not in {other[0]}")
    return fields


Vary = Annotated[list[str], AfterValidator(_of_training_data)]


class ComparisonRecord(Document):
    """``comparison.yaml``: which runs there should be, and the recipe that they came from.

    Args:
        model: The backbone of all runs.
        task: The title of their task.
        methods: The labels of the arms.
        seeds: The seeds of each arm.
        searched: Whether each arm searched its learning rate; None if that is not known.
        baseline: The label of the arm that the others are compared with.
        vary: The fields of ``TRAINING_DATA`` in which arms may differ.
        recipe: The settings as the user gave them.
        recipe_format: The version of the recipe format (see :mod:`iwlora.results.formats`) whose
            defaults the runs follow. A comparison begun by an older version keeps it: its
            remaining runs follow the same defaults, see ``Recipe.with_former_defaults``.
    """

    format_name: ClassVar[str] = "comparison"

    model: Name
    task: Name
    methods: Annotated[list[Label], AfterValidator(distinct), Field(min_length=1)]
    seeds: Annotated[list[int], AfterValidator(distinct), Field(min_length=1)]
    searched: bool | None = None
    baseline: str | None = None
    vary: Vary = Field(default_factory=list)
    recipe_format: Count = VERSIONS["recipe"]
    recipe: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 belongs to recipes of version 1."""
        return {**fields, "recipe_format": 1} if version == 1 else fields

    @property
    def of_whole_recipes(self) -> bool:
        """Whether its arms are recipes of runs, which may differ in more than their methods."""
        return "recipes" in self.recipe

    @property
    def follows_former_defaults(self) -> bool:
        """Whether its runs follow the defaults of an older version."""
        return self.recipe_format < VERSIONS["recipe"]


class Crash(Document):
    """A record of ``failures.jsonl``: a run that crashed, with the last line that it printed."""

    format_name: ClassVar[str] = "failures"

    run: str
    label: str
    seed: int
    trial: bool
    exit: int
    error: str
    tried_again: bool

    def append(self, path: Path) -> None:
        """Add the record to a file."""
        append_record(path, self.format_name, self.fields())

    def __str__(self) -> str:
        ending = "was tried again" if self.tried_again else "is not counted"
        return f"{self.run} crashed (exit {self.exit}) and {ending}"


State = Literal["waiting", "running", "done", "failed", "diverged", "not begun"]
"""How a run of a comparison stands."""


class Trial(StoredModel):
    """One trial: its learning rate and seed, its scores on the held-out rows, its cost.

    ``state`` is "not begun" if the search ran out of time before this trial.
    """

    lr: float
    seed: int
    state: State
    score: float | None = None
    loss: float | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, lr: float, seed: int, result: RunResult | None, state: State) -> Trial:
        """The trial that has this result; one whose score is not a finite number has failed."""
        if result is None:
            return cls(lr=lr, seed=seed, state=state)
        seconds = (result.train_seconds or 0.0) + (result.measure_seconds or 0.0)
        if result.score is None:
            return cls(lr=lr, seed=seed, state="failed", seconds=seconds)
        loss = result.metrics.get("loss")
        return cls(lr=lr, seed=seed, state="done", score=result.score, loss=loss, seconds=seconds)


class LearningRateChoice(StoredModel):
    """The learning rate that the search of an arm chose; ``remark`` says why it is uncertain.

    ``lr`` is None if no trial finished. ``inside`` is True if the best learning rate is neither
    the smallest nor the largest that was tried, and no trial is missing.
    """

    lr: float | None
    inside: bool
    remark: str | None
    metric: Name | None
    trials: list[Trial]


class Search(Document):
    """``search.json`` of a comparison: {label: the learning rate chosen for this arm}."""

    format_name: ClassVar[str] = "search"

    arms: dict[Label, LearningRateChoice] = Field(default_factory=dict)

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had the arms at the top."""
        return {"arms": fields} if version == 1 else fields


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds on one model and task: the finished runs, and what is missing and why.

    ``missing`` holds (label, seed, status) of each planned run that has no score, ``remarks``
    what a reader must know: arms whose search is weak, runs that crashed and were tried again.
    ``searched`` is None where how the learning rates were found is not known, ``baseline`` where
    none was named. Arms differ in the fields ``vary`` of the training data, as was declared.
    """

    folder: Path
    model: str
    task: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    missing: tuple[tuple[str, int, str], ...]
    searched: bool | None = None
    search: Mapping[str, LearningRateChoice] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    baseline: str | None = None
    vary: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The task, and the model where it is known."""
        return f"{self.task} with {self.model}" if self.model else self.task

    def of(self, label: str) -> tuple[Run, ...]:
        """The finished runs of one arm, in the order of the seeds."""
        return tuple(run for run in self.runs if run.result.label == label)

    def training_data(self, label: str) -> dict[str, Any]:
        """{field: value} of the training data of an arm, for the fields ``vary``."""
        return next((run.settings(self.vary) for run in self.of(label)), {})

    @property
    def is_verified(self) -> bool:
        """Whether all runs are known to have the same scored rows, class names and backbone.

        They were compared when the comparison was read, where there are fingerprints.
        """
        return bool(self.runs) and all(run.result.fingerprint for run in self.runs)

    def values(self, label: str, metric: str) -> dict[int, float]:
        """{seed: value} of a metric in one arm; a seed without a finite value is absent."""
        results = [run.result for run in self.of(label)]
        return {r.seed: r.metrics[metric] for r in results if metric in r.metrics}

    def scores(self, label: str) -> dict[int, float]:
        """{seed: value of the primary metric} in one arm; empty if no run has finished."""
        return self.values(label, self.metrics[0]) if self.runs else {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any run reports, the primary one first."""
        names = {run.result.primary_metric: None for run in self.runs}
        names |= {name: None for run in self.runs for name in run.result.metrics}
        return tuple(names)


def load_comparison(folder: str | os.PathLike[str]) -> Comparison:
    """The comparison in ``folder``, whose runs lie at ``<label>/seed-<n>/``.

    Raises ``IwloraError`` that lists the first damaged ``result.json``, those that belong to
    another model, task, label or seed, and those scored differently from the first.
    """
    root = Path(folder)
    path = root / layout.COMPARISON
    if not path.exists():
        raise IwloraError(
            f"{folder} is no comparison (no {layout.COMPARISON}); see 'iwlora compare'"
        )
    record = ComparisonRecord.load(path)
    runs: list[Run] = []
    missing: list[tuple[str, int, str]] = []
    problems: list[str] = []
    for label, seed in product(record.methods, record.seeds):
        run_folder = layout.run_folder(root, label, seed)
        try:
            if not (run_folder / layout.RESULT).exists():
                missing.append((label, seed, describe_status(run_folder)))
                continue
            run = load_run(run_folder)
        except IwloraError as error:
            problems.append(str(error))
            continue
        expected = {"model": record.model, "label": label, "seed": seed}
        if not {"task.train", "task.mix"}.intersection(record.vary):  # they name the task
            expected["task"] = record.task
        problems += [
            f"{run_folder / layout.RESULT} belongs to another comparison: its {field} is "
            f"{getattr(run.result, field)!r}, {layout.COMPARISON} says {value!r}"
            for field, value in expected.items()
            if getattr(run.result, field) != value
        ]
        if run.result.score is None:
            metric = run.result.primary_metric
            missing.append((label, seed, f"finished, but its {metric} is not a finite number"))
        else:
            runs.append(run)
    problems += unequal_scoring(runs)
    problems += [f"{root}: {line}" for line in unequal_training_rows(runs, record.vary)]
    other_starts = unequal_starts(runs, record.vary)
    if not record.of_whole_recipes:
        problems += [f"{root}: {line}" for line in other_starts]
    raise_all(problems)
    search = Search.load(root / layout.SEARCH).arms if (root / layout.SEARCH).exists() else {}
    uncertain = [choice.remark for choice in search.values() if choice.remark]
    return Comparison(
        root,
        record.model,
        record.task,
        tuple(record.methods),
        tuple(record.seeds),
        tuple(runs),
        tuple(missing),
        record.searched,
        search,
        (*uncertain, *other_starts, *_crashes(root / layout.FAILURES)),
        record.baseline,
        tuple(record.vary),
    )


def _crashes(path: Path) -> list[str]:
    """Which runs crashed, one sentence for each; the last line may have been cut short."""
    records = read_log(path, cut_short=True) if path.exists() else ()
    crashes = (Crash.parse(record, origin) for origin, record in records)
    return list({crash.run: str(crash) for crash in crashes}.values())


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


def unverified_runs(comparison: Comparison) -> list[str]:
    """A remark on runs whose inputs are not on record, if there are any.

    Scores from tables have no inputs to compare, and nothing is claimed of them.
    """
    runs = [run for run in comparison.runs if run.folder]
    unknown = [run for run in runs if run.result.fingerprint is None]
    if not unknown:
        return []
    return [
        f"{len(unknown)} of {len(runs)} runs cannot be verified: a version of iwlora without "
        "fingerprints wrote them, so whether they have the same scored rows, class names and "
        "model is not known"
    ]


def load(folder: str | os.PathLike[str]) -> Comparison:
    """A comparison folder, or a single run folder as a comparison of one arm and one seed.

    Raises ``IwloraError`` for any other folder, and for a link that leads out of it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise IwloraError(f"no such folder: {folder}")
    check_folder(root)  # before anything is read through a link
    if (root / layout.COMPARISON).exists():
        return load_comparison(root)
    if not any((root / name).exists() for name in (layout.RESULT, layout.RECIPE, layout.STATUS)):
        raise IwloraError(
            f"{folder} is neither a run (no {layout.RESULT}) nor a comparison (no "
            f"{layout.COMPARISON}); make one with 'iwlora train' or 'iwlora compare'"
        )
    run = load_run(root)
    result = run.result
    return Comparison(root, result.model, result.task, (result.label,), (result.seed,), (run,), ())
