"""Run folders -> records. What is missing stays missing: it is listed, never counted as zero."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from iwlora.errors import IwloraError
from iwlora.inputs.documents import fields, read_text, status, validated
from iwlora.inputs.yaml_json import parse_yaml
from iwlora.results.run import Label, Name, Result, Score
from iwlora.results.sensitivity import Sensitivity


def _distinct(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("each may be listed only once")
    return items


@dataclass(frozen=True)
class Run:
    """One finished run: its validated ``result.json``, and its folder where it has one."""

    folder: Path | None
    result: Score

    def _file(self, name: str) -> Path | None:
        path = self.folder / name if self.folder else None
        return path if path and path.is_file() else None

    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; empty without one, ``IwloraError`` for a broken line."""
        path = self._file("metrics.jsonl")
        if path is None:
            return []
        return [
            fields(f"{path}, line {number}", line)
            for number, line in enumerate(read_text(path).splitlines(), start=1)
            if line.strip()
        ]

    def sensitivity(self) -> Sensitivity | None:
        """What the run measured before training; None for a method that measures nothing."""
        path = self._file("sensitivity.json")
        return Sensitivity.load(path) if path else None

    def environment(self) -> dict[str, Any]:
        """``environment.json``: versions and machine; empty without one."""
        path = self._file("environment.json")
        return fields(path, read_text(path)) if path else {}

    def recipe(self) -> str | None:
        """``recipe.yaml`` as it stands."""
        path = self._file("recipe.yaml")
        return read_text(path) if path else None

    def predictions(self) -> tuple[list[str], list[str]] | None:
        """(labels, predictions) of the scored rows; None where these were not kept as classes."""
        path = self._file(f"predictions/{self.result.evaluated_on}.csv")
        if path is None:
            return None
        rows = list(csv.DictReader(read_text(path).splitlines()))
        if not rows or not {"label", "prediction"} <= set(rows[0]):
            return None
        return [row["label"] for row in rows], [row["prediction"] for row in rows]


class Tried(BaseModel):
    """One trial of a search for a learning rate."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    lr: float
    seed: int
    state: str
    score: float | None
    seconds: float | None


class Choice(BaseModel):
    """The learning rate that an arm's search has found; ``remark`` says where it is weak."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    lr: float | None
    inside: bool
    remark: str | None
    metric: Name | None
    trials: list[Tried]


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds on one model and task: the finished runs, and what is missing and why.

    ``missing`` holds (label, seed, status) of each planned run that has no score, ``remarks``
    what a reader must know: arms whose search is weak, runs that crashed and were tried again.
    ``searched`` is None where how the learning rates were found is not known, ``baseline`` where
    none was named.
    """

    folder: Path
    model: str
    task: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    missing: tuple[tuple[str, int, str], ...]
    searched: bool | None = None
    search: Mapping[str, Choice] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    baseline: str | None = None

    @property
    def title(self) -> str:
        """The task, and the model where it is known."""
        return f"{self.task} with {self.model}" if self.model else self.task

    def of(self, label: str) -> tuple[Run, ...]:
        """The finished runs of one arm, in the order of the seeds."""
        return tuple(run for run in self.runs if run.result.label == label)

    def values(self, label: str, metric: str) -> dict[int, float]:
        """{seed: value} of a metric in one arm; a seed without a finite value is absent."""
        results = [run.result for run in self.of(label)]
        return {r.seed: r.metrics[metric] for r in results if metric in r.metrics}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any run reports, the primary one first."""
        names = {run.result.primary_metric: None for run in self.runs}
        names |= {name: None for run in self.runs for name in run.result.metrics}
        return tuple(names)


class _Plan(BaseModel):
    """The part of ``comparison.yaml`` that says which runs there should be."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: Name
    task: Name
    searched: bool | None = None
    baseline: str | None = None
    methods: Annotated[list[Label], AfterValidator(_distinct), Field(min_length=1)]
    seeds: Annotated[list[int], AfterValidator(_distinct), Field(min_length=1)]


def load_run(folder: str | os.PathLike[str]) -> Run:
    """The finished run in ``folder``; ``IwloraError`` when it is unfinished or damaged."""
    path = Path(folder) / "result.json"
    if not path.exists():
        raise IwloraError(
            f"{folder} holds no finished run ({status(Path(folder))}); "
            "finish it with 'iwlora train'"
        )
    return Run(Path(folder), validated(path, fields(path, read_text(path)), Result))


def load_comparison(folder: str | os.PathLike[str]) -> Comparison:
    """The comparison in ``folder``, whose runs lie at ``<label>/seed-<n>/``.

    Raises ``IwloraError`` with every damaged ``result.json``, every one that belongs to another
    model, task, label or seed, and every one scored differently from the first.
    """
    root = Path(folder)
    path = root / "comparison.yaml"
    if not path.exists():
        raise IwloraError(f"{folder} is no comparison (no comparison.yaml); see 'iwlora compare'")
    plan = validated(path, fields(path, read_text(path), partial(parse_yaml, origin="it")), _Plan)
    runs: list[Run] = []
    missing: list[tuple[str, int, str]] = []
    problems: list[str] = []
    for label in plan.methods:
        for seed in plan.seeds:
            place = root / label / f"seed-{seed}"
            try:
                if not (place / "result.json").exists():
                    missing.append((label, seed, status(place)))
                    continue
                run = load_run(place)
            except IwloraError as error:
                problems.append(str(error))
                continue
            planned = {"model": plan.model, "task": plan.task, "label": label, "seed": seed}
            problems += _foreign(run, planned, runs[0] if runs else None)
            if run.result.score is None:
                name = run.result.primary_metric
                missing.append((label, seed, f"finished, but its {name} is not a finite number"))
            else:
                runs.append(run)
    problems += [f"{root}: {line}" for line in unequal_starts(runs)]
    if problems:
        raise IwloraError("\n".join(problems))
    search = _search(root / "search.json")
    crashes = _crashes(root / "failures.jsonl")
    return Comparison(
        root,
        plan.model,
        plan.task,
        tuple(plan.methods),
        tuple(plan.seeds),
        tuple(runs),
        tuple(missing),
        plan.searched,
        search,
        (*(one.remark for one in search.values() if one.remark), *crashes),
        plan.baseline,
    )


def _search(path: Path) -> dict[str, Choice]:
    stored = fields(path, read_text(path)) if path.exists() else {}
    return {label: validated(path, found, Choice) for label, found in stored.items()}


def _crashes(path: Path) -> list[str]:
    """Which runs crashed, one sentence for each; the last line may have been cut short."""
    lines = read_text(path).splitlines() if path.exists() else []
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("}"):
            continue
        told = fields(f"{path}, line {number}", line)
        ending = "was tried again" if told.get("tried_again") else "is not counted"
        found[str(told.get("run"))] = (
            f"{told.get('run')} crashed (exit {told.get('exit')}) and {ending}"
        )
    return list(found.values())


def _foreign(run: Run, planned: dict[str, Any], first: Run | None) -> list[str]:
    """Why this run does not belong into its comparison, one line for each reason."""
    path = (run.folder or Path()) / "result.json"
    found = run.result.model_dump()
    lines = [
        f"{path} belongs to another comparison: its {field} is {found[field]!r}, "
        f"comparison.yaml says {value!r}"
        for field, value in planned.items()
        if found[field] != value
    ]
    if first is not None and first.folder:
        alike = first.result.model_dump(include={"primary_metric", "evaluated_on", "selected_on"})
        lines += [
            f"{path} does not compare: its {field} is {found[field]!r}, that of "
            f"{first.folder / 'result.json'} is {value!r}"
            for field, value in alike.items()
            if found[field] != value
        ]
    return lines


def unequal_starts(runs: Sequence[Run]) -> list[str]:
    """Where runs of one seed did not see the same data in the same order from the same head."""
    lines = []
    for name, what in (
        ("data_digest", "the same data in the same order"),
        ("head_digest", "the same initial head"),
    ):
        first: dict[int, Run] = {}
        for run in runs:
            own = getattr(run.result, name)
            other = first.setdefault(run.result.seed, run) if own else run
            if own and getattr(other.result, name) != own:
                lines.append(
                    f"{run.result.label} and {other.result.label} did not start alike at seed "
                    f"{run.result.seed}: not {what}"
                )
    return lines


def load(folder: str | os.PathLike[str]) -> Comparison:
    """A comparison folder, or a single run folder as a comparison of one arm and one seed."""
    root = Path(folder)
    if not root.is_dir():
        raise IwloraError(f"no such folder: {folder}")
    if (root / "comparison.yaml").exists():
        return load_comparison(root)
    if not any((root / name).exists() for name in ("result.json", "recipe.yaml", "status.json")):
        raise IwloraError(
            f"{folder} is neither a run (no result.json) nor a comparison (no comparison.yaml); "
            "make one with 'iwlora train' or 'iwlora compare'"
        )
    run = load_run(root)
    found = run.result
    return Comparison(root, found.model, found.task, (found.label,), (found.seed,), (run,), ())
