"""Whether a run's files are what the run left, and its inputs what it was computed from."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iwlora import tasks
from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.inputs.places import check_folder
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import RowDigests, differences, load_fingerprint, unverified
from iwlora.results.run import RunResult
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.state.artifacts import stored_task
from iwlora.training.state.checkpoints import damage
from iwlora.training.state.fingerprint import fingerprint_of
from iwlora.training.state.run_folder import RunDir

State = Literal["intact", "changed", "missing", "unknown"]

_RELATIVE_ERROR = 1e-6  # of a metric that is computed again


@dataclass(frozen=True)
class Check:
    """The state of one thing; ``detail`` says what is wrong with it."""

    name: str
    state: State
    detail: str = ""


@name_missing_extra()
def verify(path: str | Path, inputs: bool = False) -> list[Check]:
    """Compute every digest of a run again.

    Args:
        path: The folder of the run, finished or not.
        inputs: Whether to read the data and the model again too, without the cache of digests.

    Returns:
        A check for each file, each checkpoint, the metrics and, with ``inputs``, the inputs.
        "unknown" is what an older version wrote, which stored no digest.

    Raises:
        IwloraError: The folder holds no run.

    Example:
        >>> {check.state for check in verify("runs/a")}
        {'intact'}
    """
    run = RunDir(Path(path))
    if not (run.path / layout.RECIPE).is_file():
        raise IwloraError(f"{path} is not the folder of a run: it has no {layout.RECIPE}")
    check_folder(run.path)
    try:
        result = run.result()
    except IwloraError as error:
        checks = [Check(layout.RESULT, "changed", str(error))]
    else:
        checks = list(_files(run, result)) if result else list(_begun(run))
    checks += _checkpoints(run)
    return [*checks, *(_inputs(run) if inputs else ())]


def _files(run: RunDir, result: RunResult) -> Iterator[Check]:
    """The result, each file that it lists, files that were added, and the metrics."""
    if result.digest is None:
        yield Check(layout.RESULT, "unknown", "an older version wrote it, without digests")
    else:
        yield Check(layout.RESULT, "intact")
    for name, digest in result.files.items():
        path = run.path / name
        if not path.is_file():
            yield Check(name, "missing")
        elif file_digest(path, use_cache=False) != digest:
            yield Check(name, "changed")
        else:
            yield Check(name, "intact")
    if result.files:
        for name in sorted(run.file_digests().keys() - result.files.keys()):
            yield Check(name, "changed", "it was not there when the run ended")
    yield from _metrics(run, result)


def _metrics(run: RunDir, result: RunResult) -> Iterator[Check]:
    """The metrics of the stored predictions, for kinds whose predictions determine them."""
    try:
        task = stored_task(run)
    except IwloraError as error:
        yield Check("metrics", "unknown", str(error))
        return
    for split in sorted(path.stem for path in (run.path / layout.PREDICTIONS).glob("*.csv")):
        name = f"metrics of {layout.predictions_file(Path(), split)}"
        try:
            with layout.predictions_file(run.path, split).open(
                encoding="utf-8", newline=""
            ) as stream:
                rows = list(csv.DictReader(stream))
            scores = task.kind.rescore(task, rows)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            yield Check(name, "changed", f"the predictions cannot be read ({error})")
            continue
        suffix = split.removeprefix(str(result.evaluated_on))
        wrong = [
            f"{metric} is {value:.6g}, and the result says {stored:.6g}"
            for metric, value in scores.items()
            if (stored := result.metrics.get(metric + suffix)) is not None
            and not math.isclose(value, stored, rel_tol=_RELATIVE_ERROR, abs_tol=1e-12)
        ]
        if scores:
            yield Check(name, "changed" if wrong else "intact", "; ".join(wrong))


def _begun(run: RunDir) -> Iterator[Check]:
    """What a run that is not finished goes on from."""
    readers = ((layout.FINGERPRINT, load_fingerprint), (layout.SENSITIVITY, Sensitivity.load))
    for name, read in readers:
        path = run.path / name
        try:
            stored = read(path) if path.is_file() else None
        except IwloraError as error:
            yield Check(name, "changed", str(error))
            continue
        if stored is not None:
            yield Check(name, "intact")
        elif name == layout.FINGERPRINT:
            yield Check(name, "unknown" if run.has_work() else "missing")


def _checkpoints(run: RunDir) -> Iterator[Check]:
    for folder in sorted(run.checkpoints.glob("*")):
        if layout.checkpoint_step(folder) is None:
            continue
        reason = damage(folder)
        name = folder.relative_to(run.path).as_posix()
        yield Check(name, "changed" if reason else "intact", reason or "")


def _inputs(run: RunDir) -> Iterator[Check]:
    """Recipe, data and model, read again."""
    try:
        result = run.result()
        stored = (result and result.fingerprint) or load_fingerprint(run.path / layout.FINGERPRINT)
        if stored is None:
            yield Check("inputs", "unknown", "an older version began the run, without digests")
            return
        recipe = run.recipe()
        task = tasks.load(recipe.task, recipe.train.seed)
        now, rows = fingerprint_of(recipe, task, use_cache=False)
    except IwloraError as error:
        yield Check("inputs", "missing", str(error))
        return
    changed = differences(stored, now, RowDigests.load(run.path / layout.ROW_DIGESTS), rows)
    yield from (Check("inputs", "changed", clause) for clause in changed)
    yield from (Check(name, "missing") for name in unverified(stored, now))
    if not changed:
        yield Check("inputs", "intact")
