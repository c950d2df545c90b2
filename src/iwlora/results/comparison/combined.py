"""Results from several places as comparisons: folders of runs or comparisons, tables of scores."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from iwlora.errors import IwloraError, raise_all
from iwlora.inputs.formulas import restore_formula
from iwlora.inputs.lines import read_lines
from iwlora.inputs.places import check_folder, inside
from iwlora.inputs.yaml_json import read_utf8, validation_errors
from iwlora.results import layout
from iwlora.results.comparison.equal_inputs import (
    mixed_arms,
    unequal_scoring,
    unequal_starts,
    unequal_training_rows,
)
from iwlora.results.comparison.load import Comparison, load
from iwlora.results.comparison.record import Vary, strictest
from iwlora.results.file_digests import is_own, note_own
from iwlora.results.fingerprint import MODEL_PARTS, of_scoring
from iwlora.results.formats import Document, content_digest
from iwlora.results.run import Run, RunResult, load_run
from iwlora.results.writing import output_folder

COLUMNS = ("method", "task", "seed", "score")
OPTIONAL = (
    *("metric", "model", "trainable_parameters", "adapter_parameters", "peak_memory_bytes"),
    *("train_seconds", "measure_seconds", "train_examples"),
)


class Sources(Document):
    """``sources.yaml``: which results a folder combines, and the arm to compare with.

    Arms may differ in the fields ``vary`` of the training data.
    """

    format_name: ClassVar[str] = "sources"

    sources: list[str]
    baseline: str | None = None
    vary: Vary = Field(default_factory=list)


def load_parts(
    sources: Sequence[str | os.PathLike[str]],
    vary: Sequence[str] = (),
    combining: tuple[Path, ...] = (),
) -> tuple[Comparison, ...]:
    """The results of all sources, as one comparison for each task and model.

    Runs with the same scored rows, class names and model, by their digests, are on one task even if
    their files had other names. Arms of the same name from two sources get the names of their
    sources appended.

    Args:
        sources: Each the folder of a run, of several runs, or of a comparison, or a CSV file with
            the columns method, task, seed and score.
        vary: The fields of the training data in which arms may differ.
        combining: The folders whose ``sources.yaml`` named these sources.

    Raises:
        IwloraError: A source cannot be read, holds no finished run or has a link that leads out
            of it; or runs on one task are scored differently, or have other training rows without
            ``vary``.
    """
    parts: list[Comparison] = []
    for path in map(Path, sources):
        if path.is_dir():
            check_folder(path)  # before anything is read through a link
        stored = _stored_sources(path)
        if stored is not None:
            if path.resolve() in combining:
                raise IwloraError(
                    f"{path / layout.SOURCES} names its own folder as a source of itself"
                )
            _check_named(path, stored)
            declared = (*vary, *stored.vary)
            inner_sources = [path / source for source in stored.sources]
            inner = load_parts(inner_sources, declared, (*combining, path.resolve()))
            parts += [replace(part, baseline=stored.baseline or part.baseline) for part in inner]
        elif path.suffix == ".csv" and path.is_file():
            parts += read_scores(path)
        else:
            parts += _read_folder(path, vary)
    return tuple(_merged(group, vary) for group in _by_task(parts, _keys_of_part))


def holds_results(path: Path) -> bool:
    """Whether a file or a folder holds results, finished or not, and not data to train on.

    A table does if it has a column ``method`` and one of task, seed and score.
    """
    if path.is_dir():
        stored = (layout.SOURCES, layout.COMPARISON, layout.RECIPE, layout.RESULT)
        return any((path / name).exists() for name in stored) or bool(layout.finished_runs(path))
    if path.suffix != ".csv":
        return False
    try:
        header = next((line for _, line in read_lines(str(path))), "")
        named = set(COLUMNS).intersection(next(csv.reader([header]), []))
    except (IwloraError, csv.Error):  # reading it as data says what is wrong
        return False
    return COLUMNS[0] in named and len(named) > 1


def save_sources(
    folder: Path,
    sources: Sequence[str | os.PathLike[str]],
    baseline: str | None = None,
    vary: Sequence[str] = (),
) -> None:
    """Write which sources a folder combines, so that its report can be written again.

    Raises ``IwloraError`` for a folder that holds anything but a comparison of some of them.
    """
    paths = [str(Path(source).resolve()) for source in sources]
    folder = output_folder(folder, "comparison")
    stored = _stored_sources(folder)
    if stored is None and folder.is_dir() and any(folder.iterdir()):
        raise IwloraError(
            f"{folder} is not empty and holds no comparison of results; choose another folder"
        )
    if stored is not None and not {str(Path(name).resolve()) for name in stored.sources} <= set(
        paths
    ):
        raise IwloraError(f"{folder} compares other results; choose another folder")
    Sources(sources=paths, baseline=baseline, vary=list(vary)).save(folder / layout.SOURCES)
    note_own(folder / layout.SOURCES)


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
    return _of_runs(path, [Run(None, score) for score in scores.values()])


def _score(row: dict[str, Any]) -> RunResult:
    """A row as a result; raises ``ValidationError`` for a wrong number or name."""
    known: dict[str, Any] = {"metric": "score", "model": "any model"}
    cells: dict[str, Any] = row | {
        name: restore_formula(cell) for name, cell in row.items() if isinstance(cell, str)
    }
    known |= {name: cells[name] for name in OPTIONAL if cells.get(name)}
    return RunResult.from_score(**{name: cells[name] for name in COLUMNS}, **known)


def _stored_sources(folder: Path) -> Sources | None:
    """The sources of a folder that combines results; None for any other."""
    file = folder / layout.SOURCES
    return Sources.load(file) if file.is_file() else None


def _check_named(folder: Path, stored: Sources) -> None:
    """Raise ``IwloraError`` for results outside of a folder that the user has not named."""
    if is_own(folder / layout.SOURCES):
        return
    for source in stored.sources:
        try:
            if not inside(folder, source).exists():  # version 0.1.0 wrote names as they were given
                raise IwloraError(f"{source} is not in {folder}")
        except IwloraError as error:
            names = " ".join(map(shlex.quote, stored.sources))
            raise IwloraError(
                f"{folder / layout.SOURCES}: {error}; if you trust these results, name them: "
                f"iwlora compare {names} --out {shlex.quote(str(folder))}"
            ) from None


def _read_folder(path: Path, vary: Sequence[str]) -> list[Comparison]:
    """The comparison in a folder, or its single run, or all finished runs below it."""
    folders = layout.finished_runs(path)
    if path in folders or (path / layout.COMPARISON).exists() or not folders:
        return [load(path)]  # raises, with the reason, if there is nothing to load
    return _of_runs(path, [load_run(folder) for folder in folders], vary)


def _of_runs(folder: Path, runs: Sequence[Run], vary: Sequence[str] = ()) -> list[Comparison]:
    """The runs as comparisons, one for each task and model."""
    return [_of_one_task(folder, group, vary) for group in _by_task(runs, _keys_of_run)]


Item = TypeVar("Item", Run, Comparison)


def _by_task(items: Sequence[Item], keys_of: Callable[[Item], list[object]]) -> list[list[Item]]:
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


def _keys_of_part(part: Comparison) -> list[object]:
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
    return _checked(Comparison(folder, first.model, first.task, arms, seeds, kept, missing), vary)


def _checked(part: Comparison, vary: Sequence[str]) -> Comparison:
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


def _merged(parts: Sequence[Comparison], vary: Sequence[str]) -> Comparison:
    """Comparisons on one task and model as one, with the arms of all."""
    if len(parts) == 1:
        return parts[0]
    count = Counter(arm for part in parts for arm in part.arms)
    parts = [_renamed(part, {arm for arm in part.arms if count[arm] > 1}) for part in parts]
    arms = [arm for part in parts for arm in part.arms]
    if len(set(arms)) < len(arms):
        names = ", ".join(dict.fromkeys(str(part.folder) for part in parts))
        raise IwloraError(f"two of the sources {names} have the same name and the same arms")
    baselines = {part.baseline for part in parts if part.baseline}
    merged = Comparison(
        parts[0].folder,
        parts[0].model,
        parts[0].task,
        tuple(arms),
        tuple(sorted({seed for part in parts for seed in part.seeds})),
        tuple(run for part in parts for run in part.runs),
        tuple(missing for part in parts for missing in part.missing),
        remarks=(*(remark for part in parts for remark in part.remarks), *_other_names(parts)),
        baseline=baselines.pop() if len(baselines) == 1 else None,
        stop=strictest(part.stop for part in parts),  # draws that ended by a rule need its test
    )
    return _checked(merged, [*vary, *(field for part in parts for field in part.vary)])


def _other_names(parts: Sequence[Comparison]) -> list[str]:
    """A remark on each source whose task or model has another name than the first's."""
    return [
        f"{part.folder}: {part.title} has the scored rows, class names and model of "
        f"{parts[0].title}, and is counted as the same task"
        for part in parts
        if (part.task, part.model) != (parts[0].task, parts[0].model)
    ]


def _renamed(part: Comparison, arms: Collection[str]) -> Comparison:
    """The comparison with the name of its source appended to the names of some arms."""
    source = part.folder.name.removesuffix(".csv") or part.folder
    names = {arm: f"{arm} ({source})" if arm in arms else arm for arm in part.arms}
    return replace(
        part,
        arms=tuple(names.values()),
        runs=tuple(run.relabelled(names[run.result.label]) for run in part.runs),
        missing=tuple((names[label], seed, status) for label, seed, status in part.missing),
        baseline=names.get(part.baseline or ""),
    )
