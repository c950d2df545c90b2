"""Results from several places as comparisons: folders of runs or comparisons, tables of scores."""

from __future__ import annotations

import csv
import os
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.inputs.lines import read_lines
from iwlora.inputs.places import check_folder, inside
from iwlora.results import layout
from iwlora.results.comparison.load import Comparison, load
from iwlora.results.comparison.one_task import (
    by_task,
    checked,
    comparisons_of,
    keys_of_comparison,
)
from iwlora.results.comparison.record import Vary, strictest
from iwlora.results.comparison.score_tables import COLUMNS, read_scores
from iwlora.results.file_digests import is_own, note_own
from iwlora.results.formats import Document
from iwlora.results.run import load_run
from iwlora.results.writing import output_folder


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
    return tuple(_merged(group, vary) for group in by_task(parts, keys_of_comparison))


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
    return comparisons_of(path, [load_run(folder) for folder in folders], vary)


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
    return checked(merged, [*vary, *(field for part in parts for field in part.vary)])


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
        runs=tuple(run.relabeled(names[run.result.label]) for run in part.runs),
        missing=tuple((names[label], seed, status) for label, seed, status in part.missing),
        baseline=names.get(part.baseline or ""),
    )
