"""Whether what a run left is what it left, and its inputs what it was computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iwlora import tasks
from iwlora.errors import IwloraError, is_of_system
from iwlora.extras import name_missing_extra
from iwlora.inputs.places import check_folder, entries, files_below
from iwlora.results import layout
from iwlora.results.comparison.designs import DesignRecord, DesignSummary, LayerMeasurements
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.results.comparison.record import ComparisonRecord
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import (
    Fingerprint,
    RowDigests,
    differences,
    joined,
    load_fingerprint,
    unverified,
)
from iwlora.results.run import RunResult, Status, read_environment, read_predictions
from iwlora.results.run.image_scores import ImageScores
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.state import best_epoch
from iwlora.training.state.checkpoints import Seal, damage, fingerprint_in
from iwlora.training.state.export_record import ExportRecord
from iwlora.training.state.intact import Check, check_document, check_log, check_yaml
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

_RELATIVE_ERROR = 1e-6  # of a metric that is computed again


@name_missing_extra()
def verify(path: str | Path, inputs: bool = False) -> list[Check]:
    """Compute every digest of a run, or of the runs of a comparison or search of designs, again.

    Args:
        path: The folder of the run, comparison or search, finished or not; or what
            ``iwlora export`` wrote.
        inputs: Whether to read the data and the model again too, without the cache of digests.

    Returns:
        A check for each file, each checkpoint, the metrics and, with ``inputs``, the inputs.
        "unknown" is what an older version wrote, which stored no digest, and what nothing stored
        determines; only the former ``matters``.

    Raises:
        IwloraError: The folder holds none of these.

    Example:
        >>> {check.state for check in verify("runs/a")}
        {'intact'}
    """
    if (Path(path) / layout.COMPARISON).is_file():
        return _compared(Path(path), inputs)
    if (Path(path) / layout.DESIGN).is_file():
        return _searched(Path(path), inputs)
    run = RunDir(Path(path))
    if (run.path / layout.EXPORT).is_file():
        if inputs:
            raise IwloraError(f"{path} was exported, without the recipe of its run; verify the run")
        check_folder(run.path)
        return list(_exported(run.path))
    if not (run.path / layout.RECIPE).is_file():
        raise IwloraError(
            f"{path} is neither a run nor a comparison nor a search of designs nor an exported "
            f"folder: it has no {layout.RECIPE}, no {layout.COMPARISON}, no {layout.DESIGN} and no "
            f"{layout.EXPORT}"
        )
    check_folder(run.path)
    try:
        result = run.result()
    except IwloraError as error:
        checks = [Check(layout.RESULT, "changed", str(error))]
    else:
        checks = list(_finished(run, result) if result else _begun(run))
    checks += _checkpoints(run)
    return [*checks, *(_inputs(run) if inputs else ())]


def _compared(folder: Path, inputs: bool) -> list[Check]:
    """The runs of a comparison, with those of its search, and what belongs to none of them."""
    check_folder(folder)
    runs = sorted(file.parent for file in files_below(folder) if file.name == layout.RECIPE)
    checks = [check for run in runs for check in _below(folder, run, inputs)]
    try:
        record = ComparisonRecord.load(folder / layout.COMPARISON)
    except IwloraError as error:
        return [Check(layout.COMPARISON, "changed", str(error)), *checks]
    if (folder / layout.FLOORS).is_file():
        floors = check_document(folder / layout.FLOORS, layout.FLOORS, ComparisonFloors.load)
        checks.append(floors)
    missing = [run.relative_to(folder).as_posix() for run in _missing(folder, record, runs)]
    return [*checks, *(Check(name, "missing", "the comparison plans it") for name in missing)]


def _missing(folder: Path, record: ComparisonRecord, runs: Sequence[Path]) -> Iterator[Path]:
    """The runs that should be there and are not.

    Where a rule ends the draws, an arm needs those before its last one and no others.
    """
    for label in record.methods:
        arm = [layout.run_folder(folder, label, seed) for seed in record.seeds]
        if record.stop or record.race:
            last = max((number for number, run in enumerate(arm) if run in runs), default=-1)
            arm = arm[: last + 1]
        yield from (run for run in arm if run not in runs)


def _searched(folder: Path, inputs: bool) -> list[Check]:
    """The comparisons of a search of designs, and what it decided.

    ``found.yaml`` is a recipe for its user to edit: nothing is stored about its bytes.
    """
    check_folder(folder)
    checks = [_checked(layout.DESIGN, lambda: DesignRecord.load(folder / layout.DESIGN))]
    if (folder / layout.PROXIES).is_file():
        proxies = check_document(folder / layout.PROXIES, layout.PROXIES, LayerMeasurements.load)
        checks.append(proxies)
    stages = [stage for stage in entries(folder / layout.STAGES) if stage.is_dir()]
    checks += [check for stage in stages for check in _below(folder, stage, inputs)]
    path = folder / layout.SUMMARY_JSON
    if not path.is_file():
        return checks  # no stage has ended
    checks.append(check_document(path, layout.SUMMARY_JSON, DesignSummary.load))
    if checks[-1].state == "intact":
        summary = DesignSummary.load(path)
        used = dict.fromkeys(run.folder for stage in summary.stages for run in stage.runs)
        missing = [name for name in used if not (folder / name).is_dir()]
        checks += [Check(name, "missing", "its score decided a stage") for name in missing]
    return checks


def _below(folder: Path, part: Path, inputs: bool) -> Iterator[Check]:
    """The checks of a run or comparison below a folder, with its place in the names."""
    for check in verify(part, inputs):
        yield replace(check, name=f"{part.relative_to(folder).as_posix()}: {check.name}")


def _finished(run: RunDir, result: RunResult) -> Iterator[Check]:
    """The result, each file that it lists, files that were added, and the metrics."""
    yield check_document(run.path / layout.RESULT, layout.RESULT, RunResult.load)
    yield from _listed(run.path, result.files)
    if result.files:
        for name in sorted(run.file_digests().keys() - result.files.keys()):
            yield Check(name, "changed", "it was not there when the run ended")
    scores = layout.generated_folder(run.path) / layout.IMAGE_SCORES
    if scores.is_file():
        name = scores.relative_to(run.path).as_posix()
        yield check_document(scores, name, ImageScores.load)
    try:
        task = stored_task(run)
    except IwloraError as error:
        yield Check("metrics", "unknown", str(error))
        return
    for path in entries(run.path / layout.PREDICTIONS):
        if path.suffix == ".csv":
            yield from _metrics(run, result, task, path.stem)


def _exported(folder: Path) -> Iterator[Check]:
    """The files of an exported folder; what was added to it later is somebody else's."""
    yield check_document(folder / layout.EXPORT, layout.EXPORT, ExportRecord.load)
    try:
        files = ExportRecord.load(folder / layout.EXPORT).files
    except IwloraError as error:
        if is_of_system(error):
            raise
        return  # it is named already
    yield from _listed(folder, files)


def _listed(folder: Path, files: Mapping[str, str]) -> Iterator[Check]:
    """The files of which a digest is stored."""
    for name, digest in files.items():
        if not (folder / name).is_file():
            yield Check(name, "missing")
        else:
            is_same = file_digest(folder / name, use_cache=False) == digest
            yield Check(name, "intact" if is_same else "changed")


def _metrics(run: RunDir, result: RunResult, task: tasks.Task, split: str) -> Iterator[Check]:
    """The metrics of a split, computed again from its stored predictions."""
    name = f"metrics of {layout.predictions_file(Path(), split)}"
    suffix = split.removeprefix(str(result.evaluated_on))
    try:
        scores = task.kind.rescore(task, read_predictions(layout.predictions_file(run.path, split)))
    except (IwloraError, ValueError, KeyError, TypeError) as error:
        yield Check(name, "changed", f"the predictions cannot be read ({error})")
        return
    wrong, undetermined = [], []
    for metric in dict.fromkeys((*task.metrics, "loss", *scores)):
        stored = result.metrics.get(metric + suffix)
        if stored is None:
            continue
        if metric not in scores:
            undetermined.append(metric)
        elif not math.isclose(scores[metric], stored, rel_tol=_RELATIVE_ERROR, abs_tol=1e-12):
            wrong.append(f"{metric} is {scores[metric]:.6g}, and the result says {stored:.6g}")
    if scores:
        yield Check(name, "changed" if wrong else "intact", "; ".join(wrong))
    if undetermined:
        reason = "the stored predictions do not determine it"
        yield Check(f"{', '.join(undetermined)} in the {name}", "unknown", reason, matters=False)


def _begun(run: RunDir) -> Iterator[Check]:
    """What a run that is not finished goes on from, and what else lies in its folder."""
    yield check_yaml(run.path / layout.RECIPE, layout.RECIPE)
    documents: dict[str, Callable[[Path], object]] = {
        layout.ENVIRONMENT: read_environment,
        layout.STATUS: Status.load,
        layout.FINGERPRINT: Fingerprint.load,
        layout.ROW_DIGESTS: RowDigests.load,
        layout.SENSITIVITY: Sensitivity.load,
    }
    for name, read in documents.items():
        if (run.path / name).is_file():
            yield check_document(run.path / name, name, read)
        elif name in (layout.FINGERPRINT, layout.ROW_DIGESTS) and run.has_work():
            yield Check(name, "unknown", "an older version began the run, without digests")
        elif name != layout.SENSITIVITY:
            yield Check(name, "missing")
    for path in (run.metrics, run.checkpoints / layout.PENALTY):
        if path.is_file():
            yield check_log(path, path.relative_to(run.path).as_posix())
    best = run.checkpoints / layout.BEST_EPOCH
    if best.is_file():
        yield _checked(best.relative_to(run.path).as_posix(), lambda: best_epoch.load(best))
    for name in (layout.ADAPTER, layout.MODEL, *layout.PROCESSORS, layout.PREDICTIONS):
        if (run.path / name).is_dir():
            reason = "the run ended while it wrote its result, and writes it anew"
            yield Check(name, "unknown", reason, matters=False)


def _checked(name: str, read: Callable[[], object]) -> Check:
    """Whether something can be read, which raises ``IwloraError`` where it was changed."""
    try:
        read()
    except IwloraError as error:
        return Check(name, "changed", str(error))
    return Check(name, "intact")


def _checkpoints(run: RunDir) -> Iterator[Check]:
    """Each checkpoint, by the digests in its seal; it must be one of this run."""
    for folder in entries(run.checkpoints):
        if layout.checkpoint_step(folder) is None:
            continue
        name = folder.relative_to(run.path).as_posix()
        reason = damage(folder) or _of_another_run(run, folder)
        if reason:
            yield Check(name, "changed", reason)
        else:
            yield check_document(folder / layout.SEAL, name, Seal.load)


def _of_another_run(run: RunDir, checkpoint: Path) -> str | None:
    """Why a checkpoint does not belong to the run in whose folder it is."""
    try:
        fingerprint = load_fingerprint(run.path / layout.FINGERPRINT)
    except IwloraError as error:
        if is_of_system(error):
            raise
        return None  # it is named already
    made_from = fingerprint_in(checkpoint)
    if fingerprint is None or made_from is None:
        return None
    changed = differences(made_from, fingerprint, ignored=())
    return f"it belongs to another run: {joined(changed)}" if changed else None


def _inputs(run: RunDir) -> Iterator[Check]:
    """Recipe, data and model, read again."""
    from iwlora.training.state.fingerprint import fingerprint_of

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
    changed = differences(
        stored, now, RowDigests.load_if_intact(run.path / layout.ROW_DIGESTS), rows
    )
    yield from (Check("inputs", "changed", clause) for clause in changed)
    yield from (Check(name, "missing") for name in unverified(stored, now))
    if not changed:
        yield Check("inputs", "intact")
