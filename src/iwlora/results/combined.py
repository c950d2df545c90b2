"""Results from several places as comparisons: folders of runs or comparisons, tables of scores."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from iwlora.errors import IwloraError
from iwlora.inputs.paths import check_links, normalize_path
from iwlora.results import layout
from iwlora.results.comparison import Comparison
from iwlora.results.formats import Document
from iwlora.results.loading import load, unequal_starts
from iwlora.results.run import Run, RunResult, load_run

COLUMNS = ("method", "task", "seed", "score")
COSTS = ("trainable_parameters", "adapter_parameters", "peak_memory_bytes")
SECONDS = ("train_seconds", "measure_seconds")
OPTIONAL = ("metric", "model", *COSTS, *SECONDS)


class Sources(Document):
    """``sources.yaml``: which results a folder combines, and the arm to compare with."""

    format_name: ClassVar[str] = "sources"

    sources: list[str]
    baseline: str | None = None


def load_parts(
    sources: Sequence[str | os.PathLike[str]], combining: tuple[Path, ...] = ()
) -> tuple[Comparison, ...]:
    """The results of all sources, as one comparison for each task and model.

    Arms of the same name from two sources get the names of their sources appended.

    Args:
        sources: Each the folder of a run, of several runs, or of a comparison, or a CSV file with
            the columns method, task, seed and score.
        combining: The folders whose ``sources.yaml`` named these sources.

    Raises:
        IwloraError: A source cannot be read or holds no finished run, or runs on one task are
            scored differently.
    """
    named: list[tuple[str, Comparison]] = []
    for source in sources:
        path = Path(source)
        stored = _stored_sources(path)
        if stored is not None:
            if path.resolve() in combining:
                raise IwloraError(
                    f"{path / layout.SOURCES} names its own folder as a source of itself"
                )
            inner = load_parts(stored.sources, (*combining, path.resolve()))
            parts = [replace(part, baseline=stored.baseline or part.baseline) for part in inner]
            named += [(part.folder.name, part) for part in parts]
        elif path.suffix == ".csv" and path.is_file():
            named += [(path.stem, part) for part in read_scores(path)]
        else:
            named += [(path.name or str(path), part) for part in _read_folder(path)]
    groups: dict[tuple[str, str], list[tuple[str, Comparison]]] = {}
    for name, part in named:
        groups.setdefault((part.task, part.model), []).append((name, part))
    return tuple(_merged(group) for group in groups.values())


def save_sources(
    folder: Path, sources: Sequence[str | os.PathLike[str]], baseline: str | None = None
) -> None:
    """Write which sources a folder combines, so that its report can be written again.

    Raises ``IwloraError`` for a folder that holds anything but a comparison of some of them.
    """
    paths = [str(Path(source).resolve()) for source in sources]
    folder = normalize_path(folder)
    if folder.exists() and not folder.is_dir():
        raise IwloraError(f"{folder} is a file; give a folder for the comparison")
    stored = _stored_sources(folder)
    if stored is None and folder.is_dir() and any(folder.iterdir()):
        raise IwloraError(
            f"{folder} is not empty and holds no comparison of results; choose another folder"
        )
    if stored is not None and not set(stored.sources) <= set(paths):
        raise IwloraError(f"{folder} compares other results; choose another folder")
    check_links(folder)
    Sources(sources=paths, baseline=baseline).save(folder / layout.SOURCES)


def read_scores(path: Path) -> list[Comparison]:
    """The comparisons in a CSV file, one for each task and model.

    Columns: method, task, seed and score, and if known metric, model, trainable_parameters,
    adapter_parameters, peak_memory_bytes, train_seconds and measure_seconds. Raises
    ``IwloraError`` with every line that cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            header = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IwloraError(f"cannot read {path} ({error})") from None
    absent = [name for name in COLUMNS if name not in header]
    if absent:
        raise IwloraError(
            f"{path}: no column {', '.join(absent)}; required are {', '.join(COLUMNS)}, optional "
            f"{', '.join(OPTIONAL)}"
        )
    scores: dict[tuple[str, str, str, int], RunResult] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        try:
            score = _score(row)
        except (ValueError, TypeError) as error:
            problems.append(f"{path}, line {number}: {_reason(error)}")
            continue
        key = score.task, score.model, score.label, score.seed
        if key in scores:
            problems.append(f"{path}, line {number}: {score.label}, seed {score.seed} comes twice")
        scores[key] = score
    if not rows:
        problems.append(f"{path} has no rows")
    if problems:
        raise IwloraError("\n".join(problems))
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for (task, model, _, _), score in scores.items():
        groups.setdefault((task, model), []).append(score)
    return [_of_runs(path, [Run(None, score) for score in group]) for group in groups.values()]


def _stored_sources(folder: Path) -> Sources | None:
    """The sources of a folder that combines results; None for any other."""
    file = folder / layout.SOURCES
    return Sources.load(file) if file.is_file() else None


def _read_folder(path: Path) -> list[Comparison]:
    """The comparison in a folder, or its single run, or all finished runs below it."""
    if (path / layout.COMPARISON).exists() or (path / layout.RESULT).exists():
        return [load(path)]
    folders = layout.finished_runs(path)
    if not folders:
        return [load(path)]  # raises, with the reason
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in map(load_run, folders):
        groups.setdefault((run.result.task, run.result.model), []).append(run)
    return [_of_runs(path, group) for group in groups.values()]


def _of_runs(folder: Path, runs: Sequence[Run]) -> Comparison:
    first = runs[0].result
    arms = tuple(dict.fromkeys(run.result.label for run in runs))
    seeds = tuple(sorted({run.result.seed for run in runs}))
    present = {(run.result.label, run.result.seed) for run in runs}
    if len(present) < len(runs):
        raise IwloraError(
            f"{folder} holds several runs of one label and seed; give each folder by itself, or "
            "set label in their recipes"
        )
    absent = [(arm, s, "not there") for arm in arms for s in seeds if (arm, s) not in present]
    scored = tuple(run for run in runs if run.result.score is not None)
    bad = [(r.result.label, r.result.seed, "no finite score") for r in runs if r not in scored]
    return Comparison(folder, first.model, first.task, arms, seeds, scored, (*absent, *bad))


def _merged(group: Sequence[tuple[str, Comparison]]) -> Comparison:
    """Comparisons on one task and model as one, with the arms of all."""
    if len(group) == 1:
        return group[0][1]
    labels = [arm for _, part in group for arm in part.arms]
    runs: list[Run] = []
    arms: list[str] = []
    missing: list[tuple[str, int, str]] = []
    remarks: list[str] = []
    baselines: set[str] = set()
    for name, part in group:
        renamed = {arm: f"{arm} ({name})" if labels.count(arm) > 1 else arm for arm in part.arms}
        if set(renamed.values()) & set(arms):
            raise IwloraError(f"two sources are named {name} and both have {', '.join(part.arms)}")
        arms += renamed.values()
        runs += [_relabelled(run, renamed[run.result.label]) for run in part.runs]
        missing += [(renamed[label], seed, status) for label, seed, status in part.missing]
        remarks += part.remarks
        baselines |= {renamed[arm] for arm in part.arms if arm == part.baseline}
    values_of = {
        field: {str(getattr(run.result, field)) for run in runs}
        for field in ("primary_metric", "evaluated_on", "selected_on")
    }
    problems = [
        f"the sources do not compare: their {field} is {' and '.join(sorted(values))}"
        for field, values in values_of.items()
        if len(values) > 1
    ]
    if problems:
        raise IwloraError("\n".join(problems))
    first = group[0][1]
    return Comparison(
        first.folder,
        first.model,
        first.task,
        tuple(arms),
        tuple(sorted({seed for _, part in group for seed in part.seeds})),
        tuple(runs),
        tuple(missing),
        remarks=(*remarks, *unequal_starts(runs)),
        baseline=baselines.pop() if len(baselines) == 1 else None,
    )


def _relabelled(run: Run, label: str) -> Run:
    return replace(run, result=run.result.model_copy(update={"label": label}))


def _score(row: dict[str, Any]) -> RunResult:
    """A row as a result; raises ``ValueError`` for a wrong number or name."""
    known = {name: str(row[name]) for name in OPTIONAL if row.get(name)}
    return RunResult.from_score(
        method=row["method"],
        task=row["task"],
        seed=int(row["seed"]),
        metric=known.get("metric", "score"),
        score=float(row["score"]),
        model=known.get("model", "any model"),
        **{name: int(known[name]) for name in COSTS if name in known},
        **{name: float(known[name]) for name in SECONDS if name in known},
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)
