"""A comparison: which runs there should be, what its search chose, and what has finished.

What is missing is listed, and never counted as zero.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError, raise_all
from iwlora.inputs.places import check_folder
from iwlora.results import layout
from iwlora.results.comparison.equal_inputs import (
    unequal_scoring,
    unequal_starts,
    unequal_training_rows,
)
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.results.comparison.record import (
    ComparisonRecord,
    Crash,
    LearningRateChoice,
    Search,
    StoppingRule,
)
from iwlora.results.formats import read_log
from iwlora.results.run import Run, describe_status, load_run


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds on one model and task: the finished runs, and what is missing and why.

    ``missing`` holds (label, seed, status) of each planned run that has no score, ``remarks``
    what a reader must know: arms whose search is weak, runs that crashed and were tried again.
    ``searched`` is None where how the learning rates were found is not known, ``baseline`` where
    none was named. Arms differ in the fields ``vary`` of the training data, as was declared. With
    a rule ``stop``, ``seeds`` are the most, and only draws that began and failed are missing.
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
    stop: StoppingRule | None = None

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
    if record.of_design_stage:
        raise IwloraError(
            f"{folder} is a stage of a search of designs, whose choices differ between draws; see "
            f"the report of the search, in the folder above {root.parent}"
        )
    floors = ComparisonFloors.of(root)
    runs: list[Run] = []
    missing: list[tuple[str, int, str]] = []
    problems: list[str] = []
    for label, seed in product(record.methods, record.seeds):
        run_folder = layout.run_folder(root, label, seed)
        try:
            if record.stop and not run_folder.exists():
                continue
            if not (run_folder / layout.RESULT).exists():
                missing.append((label, seed, describe_status(run_folder)))
                continue
            run = floors.beside(load_run(run_folder), root)
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
        record.stop,
    )


def _crashes(path: Path) -> list[str]:
    """Which runs crashed, one sentence for each; the last line may have been cut short."""
    records = read_log(path, cut_short=True) if path.exists() else ()
    crashes = (Crash.parse(record, origin) for origin, record in records)
    return list({crash.run: str(crash) for crash in crashes}.values())


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
