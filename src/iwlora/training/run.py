"""One run: recipe -> model -> method -> training -> result. Names no method."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from iwlora import distributed
from iwlora.errors import CannotWrite, Diverged, count_rows, os_error_text
from iwlora.extras import name_missing_extra
from iwlora.methods.budget import count_parameters
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.results.events import Report, ignore
from iwlora.results.run import (
    FloorScore,
    LabelScore,
    RunResult,
    SiteRank,
    read_predictions,
)
from iwlora.results.writing import follow_umask, reserve, write_errors
from iwlora.sites import Site, abbreviate_names
from iwlora.tasks import Task
from iwlora.tasks.kinds.images.collator import DIGEST
from iwlora.training.device import peak_memory, reset_peak_memory, resolve_precision, run_device
from iwlora.training.external_settings import check_external_settings, restoring_determinism
from iwlora.training.floors.scores import TaskFloors
from iwlora.training.image_generation.samples import write_samples
from iwlora.training.image_generation.source_model import make_missing_model
from iwlora.training.loop.interrupts import SaveOnInterrupt
from iwlora.training.loop.progress import print_above_bar
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.model.sharding import full_parameters, gathered
from iwlora.training.model.target_units import head_in_target_units
from iwlora.training.prediction.scored_splits import score_splits
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe
from iwlora.training.row_store.kept_images import remove_own_images
from iwlora.training.row_store.stored_rows import describe_kept
from iwlora.training.state.checkpoints import fingerprint_in, last_sealed
from iwlora.training.state.fingerprint import UNVERIFIED, check_artifact, check_finished
from iwlora.training.state.run_folder import RunDir

logger = logging.getLogger("iwlora")

_HASHED_ROWS = 1000


Joining = Callable[[FineTuningTrainer, SaveOnInterrupt], AbstractContextManager[None]]
"""A block in which a run trains; in it, runs of one process may compute their steps together."""


def _by_itself(trainer: FineTuningTrainer, _: SaveOnInterrupt) -> AbstractContextManager[None]:
    return nullcontext()


@name_missing_extra()
def train(
    recipe: Recipe,
    out: str | Path,
    progress: bool | Report = False,
    floors: str = "all",
    joined: Joining = _by_itself,
) -> dict[str, Any]:
    """Train and score what a recipe describes.

    A finished run is not repeated, and an interrupted one resumes from its last checkpoint. Ctrl-C
    (SIGINT) and SIGTERM end the training after a checkpoint of the current step, a second Ctrl-C at
    once.

    Args:
        recipe: the checked recipe.
        out: the folder of the run.
        progress: show a progress bar, and a line for each event; or a function that gets the
            events, texts with a ``name`` and ``fields``.
        floors: "all" compares the score with what simple rules reach, "constant" only with the best
            constant prediction where the kind of task has one, such as the most frequent class.
        joined: for runs of one process that compute their steps together: makes the block in which
            this one trains from its Trainer and from what ends it early.

    Returns:
        The contents of ``result.json``.

    Raises:
        IwloraError: bad input; before the training starts, where it can be known by then.
        Diverged: the loss or a gradient became NaN or infinite.
        KeyboardInterrupt: after Ctrl-C; its text says from where the run goes on.

    Example:
        >>> from iwlora import load_recipe
        >>> result = train(load_recipe("runs/a/recipe.yaml", ["method.rank=2"]), "runs/b")
        >>> result["adapter_parameters"], result["primary_metric"]
        (82944, 'accuracy')
    """
    check_external_settings(recipe.train.report_to)
    run_device()  # joins the processes that a launcher started
    make_missing_model(recipe.model, train)
    reset_peak_memory()
    run = distributed.run_on_main_process(lambda: RunDir.open(out, recipe))
    # If an older version began the run, the stored recipe has the defaults of that version.
    recipe = distributed.run_on_main_process(run.recipe)
    finished = distributed.run_on_main_process(run.result)
    if finished is not None:
        distributed.run_on_main_process(lambda: check_finished(run, recipe, finished))
        return finished.stored()
    report: Report = ignore
    if progress and distributed.rank() == 0:
        report = print_above_bar if progress is True else progress
    with run.alone(), restoring_determinism(recipe.train.deterministic):
        run.set_status("running")
        try:
            bar = progress is True
            result = run.finish(_train_and_score(recipe, run, bar, report, floors, joined))
        except BaseException as error:
            state = "diverged" if isinstance(error, Diverged) else "failed"
            with suppress(CannotWrite):  # the error itself must reach the user
                run.set_status(state, error=f"{type(error).__name__}: {error}")
            if isinstance(error, (CannotWrite, OSError)):
                reason = os_error_text(error) if isinstance(error, OSError) else str(error)
                raise CannotWrite(f"{reason}\n{run.kept()}") from error
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(run.kept()) from error
            raise
        distributed.barrier()
    return result.stored()


def _train_and_score(
    recipe: Recipe, run: RunDir, progress: bool, report: Report, floors: str, joined: Joining
) -> RunResult:
    settings = recipe.train
    with_floors, with_others = floors == "all", joined is not _by_itself
    prepared = prepare(recipe, run, progress, report, with_floors, with_others)
    loaded, attached, trainer = prepared.loaded, prepared.attached, prepared.trainer
    task, rows = loaded.task, len(loaded.task.splits["train"])
    counts = count_parameters(attached)
    reserve(run.path, settings.run_bytes(counts["trainable_parameters"]), "the run")
    signatures = task.kind.signatures(task.splits[task.reported[0]])
    steps_per_epoch = trainer.micro_batch_sampler.steps_per_epoch
    planned_epochs = settings.count_steps(steps_per_epoch) / steps_per_epoch
    order = trainer.epoch_sampler
    encoded = loaded.encoded["train"]
    column = DIGEST if DIGEST in encoded.column_names else "input_ids"
    data = data_digest(encoded, order, math.ceil(planned_epochs), column)
    digest = head_digest(attached)
    checkpoint = last_sealed(run.checkpoints)
    if checkpoint is not None:
        check_artifact(fingerprint_in(checkpoint), prepared.fingerprint, str(checkpoint))
    interrupts = SaveOnInterrupt(report)
    trainer.add_callback(interrupts)  # after those that add to a checkpoint
    with interrupts.listening(), joined(trainer, interrupts):
        trainer.fit(checkpoint)
    epochs = trainer.state.global_step / steps_per_epoch
    stopped: tuple[str, ...] = ()
    if epochs < planned_epochs:
        stopped = (
            f"early stopping ended the training after epoch {epochs:g} of {planned_epochs:g}, "
            f"{settings.early_stopping} after the best",
        )
    unverified: tuple[str, ...] = ()
    if not prepared.fingerprint.since_beginning:
        unverified = (f"the beginning of this run {UNVERIFIED}",)
    with gathered(attached.model, attached.trainable):
        without_gradient = _notes_without_gradient(attached)
        if distributed.rank() == 0:
            in_units = head_in_target_units(attached.model, task.kind.scaling)
            with in_units, write_errors("the trained parameters", run.path):
                for name in (layout.ADAPTER, layout.MODEL, *layout.PROCESSORS):
                    if (run.path / name).is_dir():  # left by a start that could not write all
                        shutil.rmtree(run.path / name)
                attached.save(run.path)
                run.tie_measurement(prepared.fingerprint)
                name = layout.processor(task.kind.processor)
                loaded.processor.save_pretrained(run.path / name)
                for name in (layout.ADAPTER, layout.MODEL):
                    if (run.path / name).is_dir():
                        follow_umask(run.path / name)
    metrics, label_scores = score_splits(trainer, run, loaded)
    write_samples(run.path, attached.model, loaded)
    distributed.run_on_main_process(lambda: remove_own_images(run.path))
    if kept := describe_kept(run.path)[0]:
        logger.info(kept)
    known = prepared.floors
    scored, half_width = distributed.run_on_main_process(
        lambda: _floor_scores(run, task, floors, known)
    )
    return RunResult(
        method=recipe.method.name,
        label=recipe.label or recipe.method.name,
        model=recipe.model,
        task=task.name,
        seed=settings.seed,
        metrics=metrics,
        primary_metric=task.metrics[0],
        half_width=half_width,
        signatures=signatures,
        label_scores={k: LabelScore.model_validate(v) for k, v in label_scores.items()},
        evaluated_on=task.reported[0],
        selected_on=_selected_on(recipe),
        trainable_parameters=counts["trainable_parameters"],
        adapter_parameters=attached.count(),  # counted again: a method may have pruned
        head_parameters=counts["head_parameters"],
        train_seconds=trainer.seconds,
        measure_seconds=prepared.measure_seconds,
        # The time of a resumed run has the steps after the checkpoint twice, or a second start.
        examples_per_second=None if checkpoint else rows * epochs / trainer.seconds,
        peak_memory_bytes=peak_memory(),
        other_runs=trainer.other_runs,
        train_examples=rows,
        left_out_rows={
            split: count_rows(row for row in task.bad_rows if row.split == split)
            for split in dict.fromkeys(row.split for row in task.bad_rows)
        },
        epochs=epochs,
        learning_rate=settings.lr,
        precision=resolve_precision(settings.requested_precision, run_device()),
        coverage=prepared.coverage,
        rank=prepared.size,
        ranks=_ranks(attached, loaded.sites),
        resumed_at_step=(checkpoint and layout.checkpoint_step(checkpoint)) or 0,
        data_digest=data,
        head_digest=digest,
        fingerprint=prepared.fingerprint,
        head_modules=list(loaded.head),
        kind={"name": task.kind.name, **task.kind.model_dump(mode="json")},
        labels=list(task.labels),
        text=list(task.text),
        label_columns=list(task.label_columns),
        task_metrics=list(task.metrics),
        floors=scored,
        notes=[
            *task.notes,
            *loaded.notes,
            *prepared.notes,
            *attached.notes(),
            *(prepared.frozen.notes if prepared.frozen else ()),
            *stopped,
            *without_gradient,
            *unverified,
        ],
    )


def _selected_on(recipe: Recipe) -> str:
    """What chose the parameters that are scored."""
    selection, last = recipe.task.selection, recipe.train.average_last
    mean = f"mean of the last {last} steps" if last and last > 1 else ""
    if selection:
        best = f"best epoch on {selection:.0%} of train"
        return f"{best}, {mean.replace('the', 'its')}" if mean else best
    return mean or "last checkpoint"


def _floor_scores(
    run: RunDir, task: Task, floors: str, known: TaskFloors | None
) -> tuple[list[FloorScore], float | None]:
    """What simple rules score on the first reported split, and the half width of the run there."""
    predictions = read_predictions(layout.predictions_file(run.path, task.reported[0]))
    constant = floors == "constant"
    of_task = known or TaskFloors.of(task, run.recipe().task.group, constant=constant)
    return of_task.beside(predictions), of_task.half_width(predictions)


def _notes_without_gradient(attached: Attached) -> list[str]:
    """Which low-rank updates training left at B = 0.

    Where it left all of them there, the learning rate may have been 0.
    """
    pairs = [pair for pair in attached.pairs if pair.rank]  # others are not adapted
    unchanged = [pair.name for pair in pairs if not pair.B.detach().any()]
    if not 0 < len(unchanged) < len(pairs):
        return []
    note = (
        f"{len(unchanged)} of {len(pairs)} matrices had no gradient in training, so their "
        f"adapters have no effect: {abbreviate_names(unchanged)}"
    )
    if distributed.rank() == 0:
        logger.warning(note)
    return [note]


def _ranks(attached: Attached, sites: list[Site]) -> list[SiteRank]:
    """The effective rank of each site, where the method gives them different ones.

    Those of a mixture are the sizes of its parts.
    """
    ranks = attached.ranks() if attached.ranks else {}
    return [
        *attached.parts,
        *(
            SiteRank(name=site.name, kind=site.kind, depth=site.depth, rank=ranks[site.name])
            for site in sites
            if ranks
        ),
    ]


def data_digest(rows: Any, order: EpochSampler, epochs: int, column: str = "input_ids") -> str:
    """A hash of the encoded training rows and of the order in which all epochs read them.

    Of the rows it takes the length of each, and of the first thousand what identifies them.

    Args:
        rows: The encoded rows.
        order: In which they are read.
        epochs: How many there are.
        column: With the token ids of each row, or with the digest of its image.
    """
    first = rows.select_columns([column])[: min(_HASHED_ROWS, len(rows))][column]
    identities = [[*bytes.fromhex(row)] if isinstance(row, str) else row for row in first]
    epochs_rows = map(order.epoch_rows, range(epochs))
    values = chain([rows["length"][:]], identities, epochs_rows)
    return _hash(np.asarray(numbers, dtype=np.int64) for numbers in values)


def head_digest(attached: Attached) -> str | None:
    """A hash of the initial values of the head; None for a model without one."""
    initial = full_parameters(attached.model, attached.head).values()
    return _hash(tensor.float().numpy() for tensor in initial) if attached.head else None


def _hash(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
