"""Results from anywhere as comparisons: folders of runs or of comparisons, a table of scores."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iwlora.errors import IwloraError
from iwlora.inputs.documents import fields, read_text
from iwlora.inputs.paths import check_links, settled
from iwlora.inputs.yaml_json import parse_yaml, to_yaml
from iwlora.results.comparison import Comparison, Run, load, load_run, unequal_starts
from iwlora.results.run import Score
from iwlora.results.writing import write_text

SOURCES = "sources.yaml"
COLUMNS = ("method", "task", "seed", "score")
COSTS = ("trainable_parameters", "adapter_parameters", "peak_memory_bytes")
SECONDS = ("train_seconds", "measure_seconds")
OPTIONAL = ("metric", "model", *COSTS, *SECONDS)


def load_parts(
    sources: Sequence[str | os.PathLike[str]], combining: tuple[Path, ...] = ()
) -> tuple[Comparison, ...]:
    """What the sources hold, as one comparison for each task and model.

    A source is the folder of a run, of several runs, or of a comparison, or a CSV file with the
    columns method, task, seed and score. Arms of the same name from two sources are told apart
    by the sources' names. Raises ``IwloraError`` for sources that cannot be read, that hold no
    finished run, or whose runs on one task are scored differently. ``combining`` are the folders
    whose sources these are.
    """
    found: list[tuple[str, Comparison]] = []
    for source in sources:
        path = Path(source)
        stored = _combined(path)
        if stored is not None:
            if path.resolve() in combining:
                raise IwloraError(f"{path / SOURCES} names its own folder as a source of itself")
            below, baseline = stored
            inner = load_parts(below, (*combining, path.resolve()))
            parts = [replace(one, baseline=baseline or one.baseline) for one in inner]
            found += [(one.folder.name, one) for one in parts]
        elif path.suffix == ".csv" and path.is_file():
            found += [(path.stem, one) for one in read_scores(path)]
        else:
            found += [(path.name or str(path), one) for one in _folder(path)]
    groups: dict[tuple[str, str], list[tuple[str, Comparison]]] = {}
    for name, one in found:
        groups.setdefault((one.task, one.model), []).append((name, one))
    return tuple(_merged(group) for group in groups.values())


def remember(
    folder: Path, sources: Sequence[str | os.PathLike[str]], baseline: str | None = None
) -> None:
    """Write which sources a folder combines, so that its report can be written again.

    Raises ``IwloraError`` for a folder that holds anything but a comparison of some of them.
    """
    paths = [str(Path(source).resolve()) for source in sources]
    folder = settled(folder)
    if folder.exists() and not folder.is_dir():
        raise IwloraError(f"{folder} is a file; give a folder for the comparison")
    before = _combined(folder)
    if before is None and folder.is_dir() and any(folder.iterdir()):
        raise IwloraError(
            f"{folder} is not empty and holds no comparison of results; choose another folder"
        )
    if before is not None and not set(before[0]) <= set(paths):
        raise IwloraError(f"{folder} compares other results; choose another folder")
    check_links(folder)
    write_text(folder / SOURCES, to_yaml({"sources": paths, "baseline": baseline}))


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
            head = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IwloraError(f"cannot read {path} ({error})") from None
    absent = [name for name in COLUMNS if name not in head]
    if absent:
        raise IwloraError(
            f"{path}: no column {', '.join(absent)}; wanted are {', '.join(COLUMNS)}, and if known "
            f"{', '.join(OPTIONAL)}"
        )
    scores: dict[tuple[str, str, str, int], Score] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        try:
            score = _score(row)
        except (ValueError, TypeError) as error:
            problems.append(f"{path}, line {number}: {_told(error)}")
            continue
        key = score.task, score.model, score.label, score.seed
        if key in scores:
            problems.append(f"{path}, line {number}: {score.label}, seed {score.seed} comes twice")
        scores[key] = score
    if not rows:
        problems.append(f"{path} has no rows")
    if problems:
        raise IwloraError("\n".join(problems))
    groups: dict[tuple[str, str], list[Score]] = {}
    for (task, model, _, _), score in scores.items():
        groups.setdefault((task, model), []).append(score)
    return [_of_runs(path, [Run(None, one) for one in group]) for group in groups.values()]


def _combined(path: Path) -> tuple[list[str], str | None] | None:
    """The sources of a folder that was made from others, and the baseline that was named."""
    file = path / SOURCES
    if not file.is_file():
        return None
    stored = fields(file, read_text(file), partial(parse_yaml, origin="it"))
    sources, baseline = stored.get("sources"), stored.get("baseline")
    if not isinstance(sources, list) or not all(isinstance(one, str) for one in sources):
        raise IwloraError(f"{file} is damaged: it has no list of sources")
    if not isinstance(baseline, str | None):
        raise IwloraError(f"{file} is damaged: its baseline is no name")
    return sources, baseline


def _folder(path: Path) -> list[Comparison]:
    """The comparison in a folder, or its single run, or all finished runs below it."""
    if (path / "comparison.yaml").exists() or (path / "result.json").exists():
        return [load(path)]
    below = sorted(file.parent for file in path.rglob("result.json") if "search" not in file.parts)
    if not below:
        return [load(path)]  # which says what is wrong with it
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in map(load_run, below):
        groups.setdefault((run.result.task, run.result.model), []).append(run)
    return [_of_runs(path, group) for group in groups.values()]


def _of_runs(folder: Path, runs: Sequence[Run]) -> Comparison:
    first = runs[0].result
    arms = tuple(dict.fromkeys(run.result.label for run in runs))
    seeds = tuple(sorted({run.result.seed for run in runs}))
    there = {(run.result.label, run.result.seed) for run in runs}
    if len(there) < len(runs):
        raise IwloraError(
            f"{folder} holds several runs of one label and seed; give each folder by itself, or "
            "set label in their recipes"
        )
    gone = [(arm, seed, "not there") for arm in arms for seed in seeds if (arm, seed) not in there]
    scored = tuple(run for run in runs if run.result.score is not None)
    bad = [(r.result.label, r.result.seed, "no finite score") for r in runs if r not in scored]
    return Comparison(folder, first.model, first.task, arms, seeds, scored, (*gone, *bad))


def _merged(group: Sequence[tuple[str, Comparison]]) -> Comparison:
    """Comparisons on one task and model as one, with the arms of all."""
    if len(group) == 1:
        return group[0][1]
    labels = [arm for _, one in group for arm in one.arms]
    runs: list[Run] = []
    arms: list[str] = []
    missing: list[tuple[str, int, str]] = []
    remarks: list[str] = []
    named: set[str] = set()
    for name, one in group:
        called = {arm: f"{arm} ({name})" if labels.count(arm) > 1 else arm for arm in one.arms}
        if set(called.values()) & set(arms):
            raise IwloraError(f"two sources are named {name} and both have {', '.join(one.arms)}")
        arms += called.values()
        runs += [_relabelled(run, called[run.result.label]) for run in one.runs]
        missing += [(called[label], seed, status) for label, seed, status in one.missing]
        remarks += one.remarks
        named |= {called[arm] for arm in one.arms if arm == one.baseline}
    differing = {
        field: {str(getattr(run.result, field)) for run in runs}
        for field in ("primary_metric", "evaluated_on", "selected_on")
    }
    problems = [
        f"the sources do not compare: their {field} is {' and '.join(sorted(values))}"
        for field, values in differing.items()
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
        tuple(sorted({seed for _, one in group for seed in one.seeds})),
        tuple(runs),
        tuple(missing),
        remarks=(*remarks, *unequal_starts(runs)),
        baseline=named.pop() if len(named) == 1 else None,
    )


def _relabelled(run: Run, label: str) -> Run:
    return replace(run, result=run.result.model_copy(update={"label": label}))


def _score(row: dict[str, Any]) -> Score:
    """A row as a score; raises ``ValueError`` for what is no number or no name."""
    metric = row.get("metric") or "score"
    known = {name: row.get(name) for name in OPTIONAL if row.get(name)}
    return Score(
        method=row["method"],
        label=row["method"],
        model=str(known.get("model", "")) or "any model",
        task=row["task"],
        seed=int(row["seed"]),
        metrics={metric: float(row["score"])},
        primary_metric=metric,
        **{name: int(str(known[name])) for name in COSTS if name in known},  # type: ignore[arg-type]
        **{name: float(str(known[name])) for name in SECONDS if name in known},  # type: ignore[arg-type]
    )


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error)
