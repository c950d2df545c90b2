"""The inputs of a run as a fingerprint, and what happens when they are not what they were.

``docs/stored-files.md`` has the table of what is compared when, and what follows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import datasets

from iwlora import distributed, tasks
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import (
    MODEL_PARTS,
    NUMERICS_VERSION,
    PROCESSES,
    Fingerprint,
    RowDigests,
    differences,
    joined,
    load_fingerprint,
    other_versions,
    recipe_part,
    unverified,
)
from iwlora.results.formats import VERSIONS, content_digest
from iwlora.results.run import RunResult
from iwlora.tasks.kinds.contract import IMAGE, Processor
from iwlora.tasks.splits import FILE, LINE
from iwlora.training.model.model_files import model_files, model_folder, revision
from iwlora.training.recipe import Recipe
from iwlora.training.state.run_folder import RunDir

logger = logging.getLogger("iwlora")

UNVERIFIED = (
    "cannot be verified: a version of iwlora without fingerprints wrote it, so changes of data, "
    "model or recipe since then would not be noticed"
)
_LIBRARIES = ("torch", "transformers", "peft")
_ROWS_AT_A_TIME = 1000


def fingerprint_of(
    recipe: Recipe, task: tasks.Task, use_cache: bool = True
) -> tuple[Fingerprint, RowDigests]:
    """The fingerprint of a run with this recipe and these rows, and the digests of the rows.

    Args:
        recipe: The recipe.
        task: The task that the recipe names, loaded.
        use_cache: Whether the digests of large files may come from the cache of this machine.
    """
    rows = row_digests(task)
    parts = {
        **rows.parts,
        "class names": content_digest([*task.labels]),
        **model_parts(recipe.model, use_cache, task.kind.processor),
        "recipe": _recipe_part(recipe),
        "seed": str(recipe.train.seed),
        "numerics": str(NUMERICS_VERSION),
        PROCESSES: str(distributed.world_size()),
    }
    versions = {name: installed for name in _LIBRARIES if (installed := _version(name))}
    folder = model_folder(recipe.model)
    if folder and (name := revision(folder)):
        versions[recipe.model] = f"revision {name}"
    sources = {split: _source(recipe, split) for split in task.splits}
    return Fingerprint(parts=parts, sources=sources, versions=versions), rows


def row_digests(task: tasks.Task) -> RowDigests:
    """Digests of the texts (all columns but the label), and of the labels, of each split.

    Of an image the text is the digest of its file. Where a row is in its file is no part of it.
    """
    return RowDigests.of_splits(
        {
            split: (
                _rows(dataset, set(dataset.column_names) - {"label", FILE, LINE, IMAGE}),
                _rows(dataset, {"label"}),
            )
            for split, dataset in task.splits.items()
        }
    )


def _rows(dataset: datasets.Dataset, columns: Collection[str]) -> Iterator[bytes]:
    """The values of some columns with their names, row by row, as JSON."""
    names = sorted(columns)
    for table in dataset.select_columns(names).with_format("arrow").iter(_ROWS_AT_A_TIME):
        for values in zip(*(table.column(name).to_pylist() for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            yield json.dumps(row, sort_keys=True, default=_as_text).encode()


def model_parts(
    model: str, use_cache: bool = True, processor: Processor = "tokenizer"
) -> dict[str, str]:
    """The parts of a fingerprint that are files of the model; none if it is not on this machine."""
    folder = model_folder(model)
    if folder is None:
        return {}
    files = model_files(folder)
    groups = dict(zip(MODEL_PARTS, files, strict=False))
    groups[processor] = processor
    return {
        part: content_digest(
            {str(path.relative_to(folder)): file_digest(path, use_cache) for path in files[group]}
        )
        for part, group in groups.items()
    }


def bind(run: RunDir, recipe: Recipe, task: tasks.Task) -> Fingerprint:
    """Tie a run to its inputs before its first step.

    The fingerprint is written into the folder of a run that has done no work yet.

    Raises:
        IwloraError: The run has done work, and an input is not what it was then.
    """
    now, rows = fingerprint_of(recipe, task)
    path, rows_path = run.path / layout.FINGERPRINT, run.path / layout.ROW_DIGESTS
    stored = load_fingerprint(path) if run.has_work() else None
    if stored is not None:
        rows_before = RowDigests.load_if_intact(rows_path)
        if changed := differences(stored, now, rows_before, rows, ignored=()):
            raise IwloraError(
                f"the run in {run.path} cannot be resumed, because its inputs changed since it "
                f"began: {joined(changed)}; restore them, or train into another folder"
            )
        warn_of_the_rest(stored, now, run.path)
        rows.save(rows_path)  # they are those of the beginning, and the file may be damaged
        return stored
    if run.has_work():
        logger.warning(f"the beginning of the run in {run.path} {UNVERIFIED}")
        now = now.model_copy(update={"since_beginning": False})
    rows.save(rows_path)
    now.save(path)
    return now


def check_artifact(made_from: Fingerprint | None, now: Fingerprint, name: str) -> None:
    """Raise ``IwloraError`` for a checkpoint or a measurement of another run.

    One without a fingerprint was made by an older version: it is accepted in a run that an older
    version began.
    """
    if made_from is None:
        if now.since_beginning:
            raise IwloraError(
                f"{name} has no fingerprint, so it does not belong to this run; remove it"
            )
        return
    if changed := differences(made_from, now, ignored=()):
        raise IwloraError(f"{name} belongs to another run: {joined(changed)}; remove it")


def check_finished(run: RunDir, recipe: Recipe, result: RunResult) -> None:
    """Raise ``IwloraError`` if an input of a finished run is not what it was."""
    if result.fingerprint is None:
        logger.warning(f"the run in {run.path} {UNVERIFIED}")
        return
    try:
        now, rows = fingerprint_of(recipe, tasks.load(recipe.task, recipe.train.seed))
    except IwloraError as error:
        raise IwloraError(
            f"{error}\nthe run in {run.path} is finished, and its inputs can no longer be read; "
            f"'iwlora report {run.path}' shows its result"
        ) from None
    check_result(run, result.fingerprint, now, rows)


def check_result(run: RunDir, stored: Fingerprint, now: Fingerprint, rows: RowDigests) -> None:
    """As :func:`check_finished`, for a fingerprint of the inputs as they are."""
    rows_before = RowDigests.load_if_intact(run.path / layout.ROW_DIGESTS)
    if changed := differences(stored, now, rows_before, rows):
        raise IwloraError(
            f"the run in {run.path} is finished, and its inputs changed since it began: "
            f"{joined(changed)}; restore them, or train into another folder "
            f"('iwlora report {run.path}' shows the result for the former inputs)"
        )
    warn_of_the_rest(stored, now, run.path)


def check_backbone(run: RunDir, model: str, fingerprint: Fingerprint | None) -> None:
    """Raise ``IwloraError`` if the pretrained model is not the one that a run's adapter is for."""
    if fingerprint is None:
        logger.warning(f"the run in {run.path} {UNVERIFIED}")
        return
    parts = {name: fingerprint.parts[name] for name in MODEL_PARTS if name in fingerprint.parts}
    before = fingerprint.model_copy(update={"parts": parts})
    now = Fingerprint(parts=model_parts(model))
    if changed := differences(before, now):
        raise IwloraError(
            f"the adapter of the run in {run.path} belongs to another model than {model}: "
            f"{joined(changed)}; restore the model that it was trained on"
        )


def warn_of_the_rest(before: Fingerprint, now: Fingerprint, folder: Path) -> None:
    """Name the inputs that could not be compared, and libraries of another version."""
    if unread := unverified(before, now):
        logger.warning(f"{folder}: could not be read, and is not verified: {', '.join(unread)}")
    if others := other_versions(before, now):
        logger.warning(f"{folder} was begun with other versions: {joined(others)}")


def _recipe_part(recipe: Recipe) -> str:
    """Of what differs from the defaults, so that fields of later versions change nothing."""
    settings = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"label"})
    settings["method"] = {"name": recipe.method.name, **settings.get("method", {})}
    for name in ("seed", "cache_images"):  # a part of its own; and where an equal image comes from
        settings.get("train", {}).pop(name, None)
    return recipe_part(settings, VERSIONS["recipe"])


def _source(recipe: Recipe, split: str) -> str:
    """The name of the file that a split comes from, or of the task."""
    spec = recipe.task
    file = {"train": spec.train, "validation": spec.validation, "test": spec.test}.get(split)
    return Path(file).name if file else Path(spec.title).name if spec.train else str(spec.name)


def _as_text(value: Any) -> str:
    """What JSON has no notation for: bytes of images, times."""
    return value.hex() if isinstance(value, bytes) else repr(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
