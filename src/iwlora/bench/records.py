"""Run folders -> records. What is missing stays missing: it is listed, never counted as zero."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from iwlora.bench.result import Label, Name, Result
from iwlora.errors import IwloraError
from iwlora.sensitivity.record import Sensitivity


def _distinct(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("each may be listed only once")
    return items


@dataclass(frozen=True)
class Run:
    """One finished run: its folder and its validated ``result.json``."""

    folder: Path
    result: Result

    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; empty without one, ``IwloraError`` for a broken line."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        return [
            _fields(f"{path}, line {number}", line)
            for number, line in enumerate(_text(path).splitlines(), start=1)
            if line.strip()
        ]

    def sensitivity(self) -> Sensitivity | None:
        """What the run measured before training; None for a method that measures nothing."""
        path = self.folder / "sensitivity.json"
        return Sensitivity.load(path) if path.exists() else None

    def environment(self) -> dict[str, Any]:
        """``environment.json``: versions and machine; empty without one."""
        path = self.folder / "environment.json"
        return _fields(path, _text(path)) if path.exists() else {}


@dataclass(frozen=True)
class Comparison:
    """Arms x seeds on one model and task: the finished runs, and what is missing and why.

    ``missing`` holds (label, seed, status) of each planned run that has no score.
    """

    folder: Path
    model: str
    task: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    missing: tuple[tuple[str, int, str], ...]

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
    methods: Annotated[list[Label], AfterValidator(_distinct), Field(min_length=1)]
    seeds: Annotated[list[int], AfterValidator(_distinct), Field(min_length=1)]


Schema = TypeVar("Schema", bound=BaseModel)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IwloraError(f"cannot read {path} ({error})") from None


def _fields(
    where: str | Path, text: str, parse: Callable[[str], Any] = json.loads
) -> dict[str, Any]:
    try:
        fields = parse(text)
    except (ValueError, yaml.YAMLError) as error:
        raise IwloraError(f"{where} is damaged or was cut short ({error})") from None
    if not isinstance(fields, dict):
        raise IwloraError(f"{where} holds a {type(fields).__name__}, not fields with names")
    return fields


def _validated(path: Path, fields: dict[str, Any], schema: type[Schema]) -> Schema:
    try:
        return schema.model_validate(fields)
    except ValidationError as invalid:
        problems = (
            f"{path}: {'.'.join(map(str, error['loc'])) or 'fields'}: {error['msg']}"
            + ("" if error["type"] == "missing" else f" (given: {error['input']!r:.80})")
            for error in invalid.errors()
        )
        raise IwloraError("\n".join(problems)) from None


def _status(folder: Path) -> str:
    path = folder / "status.json"
    if not path.exists():
        return "not started"
    stored = _fields(path, _text(path))
    words = ("no result.json; state", stored.get("state"), stored.get("error"))
    return ": ".join(" ".join(str(word).split()) for word in words if word)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """The finished run in ``folder``; ``IwloraError`` when it is unfinished or damaged."""
    path = Path(folder) / "result.json"
    if not path.exists():
        raise IwloraError(
            f"{folder} holds no finished run ({_status(Path(folder))}); "
            "finish it with 'iwlora train'"
        )
    return Run(Path(folder), _validated(path, _fields(path, _text(path)), Result))


def load_comparison(folder: str | os.PathLike[str]) -> Comparison:
    """The comparison in ``folder``, whose runs lie at ``<label>/seed-<n>/``.

    Raises ``IwloraError`` with every damaged ``result.json``, every one that belongs to another
    model, task, label or seed, and every one scored differently from the first.
    """
    root = Path(folder)
    path = root / "comparison.yaml"
    if not path.exists():
        raise IwloraError(f"{folder} is no comparison (no comparison.yaml); see 'iwlora compare'")
    plan = _validated(path, _fields(path, _text(path), yaml.safe_load), _Plan)
    runs: list[Run] = []
    missing: list[tuple[str, int, str]] = []
    problems: list[str] = []
    for label in plan.methods:
        for seed in plan.seeds:
            place = root / label / f"seed-{seed}"
            try:
                if not (place / "result.json").exists():
                    missing.append((label, seed, _status(place)))
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
    if problems:
        raise IwloraError("\n".join(problems))
    arms, seeds = tuple(plan.methods), tuple(plan.seeds)
    return Comparison(root, plan.model, plan.task, arms, seeds, tuple(runs), tuple(missing))


def _foreign(run: Run, planned: dict[str, Any], first: Run | None) -> list[str]:
    """Why this run does not belong into its comparison, one line for each reason."""
    path = run.folder / "result.json"
    found = run.result.model_dump()
    lines = [
        f"{path} belongs to another comparison: its {field} is {found[field]!r}, "
        f"comparison.yaml says {value!r}"
        for field, value in planned.items()
        if found[field] != value
    ]
    if first is not None:
        alike = first.result.model_dump(include={"primary_metric", "evaluated_on", "selected_on"})
        lines += [
            f"{path} does not compare: its {field} is {found[field]!r}, that of "
            f"{first.folder / 'result.json'} is {value!r}"
            for field, value in alike.items()
            if found[field] != value
        ]
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
