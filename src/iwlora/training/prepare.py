"""From a recipe to everything that a run has before its first step. Names no method."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.extras import locate_package
from iwlora.methods.budget import fit_to_budget
from iwlora.methods.contract import Attached, Method
from iwlora.results import layout
from iwlora.results.durations import format_duration
from iwlora.results.events import Event, Report, ignore
from iwlora.results.fingerprint import Fingerprint
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.device import resolve_precision, run_device
from iwlora.training.floors.frozen_model import untuned_floors
from iwlora.training.floors.scores import TaskFloors, constant_score
from iwlora.training.frozen_layers.run_setting import frozen_layers_of_run
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.load import LoadedRecipe, load, shards
from iwlora.training.loop.callbacks import EvaluateEachEpoch, KeepBestEpoch, MetricsLog
from iwlora.training.loop.progress import Floor, ProgressBar, ReportEvents
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.loop.weight_average import AverageLastSteps, check_average_last
from iwlora.training.measure_recipe import measure_loaded
from iwlora.training.model.backbone import meta_backbone
from iwlora.training.model.frozen_dtype import check_trained_in_float32
from iwlora.training.model.sharding import shard
from iwlora.training.recipe import Recipe
from iwlora.training.row_store.kept_images import with_kept_images
from iwlora.training.state.bad_rows import listing_bad_rows, save_left_out
from iwlora.training.state.fingerprint import bind, check_artifact
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.seal_checkpoints import SealCheckpoints
from iwlora.training.train_settings import TrainSettings

logger = logging.getLogger("iwlora")

# Names in a recipe -> names of transformers. Its "constant" has no warm-up.
_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
}
_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


class _OneGpu(TrainingArguments):
    """Arguments of a process that trains on one GPU, however many it sees.

    On several, transformers multiplies the loss by their number; ours is that of the whole batch.
    """

    @property
    def n_gpu(self) -> int:
        """0 without a GPU."""
        visible: int = super().n_gpu
        return min(1, visible)


@dataclass(frozen=True)
class PreparedRun:
    """What a run has before its first step; batches took ``measure_seconds`` until then.

    ``coverage`` is that of :class:`LoadedRecipe`, before the method changed the model, and
    ``fingerprint`` that of the inputs. ``floors`` are those of the untuned model, if they were
    asked for and the task has them, and ``notes`` say what a user should know about them.
    ``frozen`` are the blocks that are skipped.
    """

    loaded: LoadedRecipe
    size: int | None
    attached: Attached
    trainer: FineTuningTrainer
    measure_seconds: float
    coverage: float | None
    fingerprint: Fingerprint
    floors: TaskFloors | None = None
    notes: Sequence[str] = ()
    frozen: FrozenLayers | None = None


def prepare(
    recipe: Recipe,
    run: RunDir,
    progress: bool,
    report: Report = ignore,
    with_floors: bool = False,
    with_others: bool = False,
) -> PreparedRun:
    """Load, measure, attach, and make the Trainer.

    Args:
        recipe: the checked recipe.
        run: the folder of the run; a sensitivity that is stored there is not measured again.
        progress: whether to show a progress bar.
        report: gets the events of the measurement and of the training.
        with_floors: whether the main process computes the floors of the untuned model.
        with_others: whether other runs may compute its steps with theirs, all blocks of them.

    Raises:
        IwloraError: for everything that ``iwlora.train`` refuses.
    """
    check_trackers(recipe.train.report_to)
    if recipe.train.optimizer == "adamw_8bit":
        locate_package("bitsandbytes", "train.optimizer=adamw_8bit")
    with listing_bad_rows(run.path / layout.BAD_ROWS):
        loaded = load(recipe)
    fingerprint = distributed.run_on_main_process(lambda: bind(run, recipe, loaded.task))
    save_left_out(run.path / layout.BAD_ROWS, loaded.task.bad_rows)
    loaded = with_kept_images(loaded, run.path)
    model, sites, rows = loaded.model, loaded.sites, loaded.encoded["train"]
    pretrained = set(map(id, model.parameters()))
    method = _sized_method(loaded)
    method.check(sites)
    share = loaded.coverage
    if share is not None:
        logger.info(f"adapting {len(sites)} matrices: {share:.1%} of the blocks' matrix parameters")
    sensitivity = _sensitivity(loaded, run, fingerprint, report)
    floors, notes = None, list[str]()
    if with_floors and distributed.rank() == 0:
        floors, notes = untuned_floors(loaded)
    attached = method.attach(model, sites, recipe.train.seed, sensitivity)
    if attached.optimizer is not None and recipe.train.optimizer != "adamw":
        raise IwloraError(
            f"train.optimizer={recipe.train.optimizer} was given, and {method.name} has an "
            "optimizer of its own; remove train.optimizer"
        )
    if recipe.train.frozen_dtype != "float32":
        check_trained_in_float32(attached, method.name)
    loaded.task.kind.check_model(attached.model, rows, loaded.collate)
    measure_seconds = sensitivity.seconds if sensitivity else 0.0
    if (initialize := attached.initializer(loaded.task.kind.batch_loss)) is not None:
        started = time.perf_counter()
        initialize(loaded.training_batches())
        measure_seconds += time.perf_counter() - started
    if shards(recipe):
        shard(attached.model, pretrained, run_device())
    frozen = None
    if recipe.train.cache_frozen != "auto" or not with_others:
        frozen = frozen_layers_of_run(loaded, attached, run.path)
        if frozen is None and recipe.train.cache_frozen is True:
            notes.append("no block is below all that train: train.cache_frozen has no effect")
    trainer = make_trainer(loaded, run, attached, progress, fingerprint, report, frozen)
    return PreparedRun(
        loaded,
        method.size,
        attached,
        trainer,
        measure_seconds,
        share,
        fingerprint,
        floors,
        notes,
        frozen,
    )


def _sized_method(loaded: LoadedRecipe) -> Method:
    """The recipe's method, with the size that fits the budget if the recipe has one."""
    recipe = loaded.recipe
    if recipe.budget is None:
        return recipe.method
    counted: Any = loaded.model
    if recipe.quantize:  # quantized weights have other shapes
        counted = meta_backbone(recipe.model, loaded.task.kind, recipe.trust_remote_code)
    return fit_to_budget(recipe.method, counted, loaded.sites, recipe.budget)


def _sensitivity(
    loaded: LoadedRecipe, run: RunDir, fingerprint: Fingerprint, report: Report
) -> Sensitivity | None:
    """What the method asks to be measured on the frozen model, once for a run."""
    if loaded.recipe.method.calibration() is None:
        return None
    if run.sensitivity.is_file():
        stored = Sensitivity.load(run.sensitivity)
        check_artifact(stored.fingerprint, fingerprint, str(run.sensitivity))
        return stored
    sensitivity = replace(measure_loaded(loaded), fingerprint=fingerprint)
    if distributed.rank() == 0:
        sensitivity.save(run.sensitivity)
    batches, seconds = sensitivity.batches, sensitivity.seconds
    text = f"measured the sensitivity on {batches:,} batches in {format_duration(seconds)}"
    report(Event("measured", text, batches=batches, seconds=seconds))
    return sensitivity


def make_trainer(
    loaded: LoadedRecipe,
    run: RunDir,
    attached: Attached,
    progress: bool,
    fingerprint: Fingerprint | None = None,
    report: Report = ignore,
    frozen: FrozenLayers | None = None,
) -> FineTuningTrainer:
    """The Trainer of a run, with all its callbacks."""
    recipe, task, encoded = loaded.recipe, loaded.task, loaded.encoded
    settings, device, watched = recipe.train, run_device(), task.monitored
    callbacks: list[TrainerCallback] = [MetricsLog(run.metrics, watched)]
    if watched:
        callbacks.insert(0, EvaluateEachEpoch())
    if recipe.task.selection:
        file = run.checkpoints / layout.BEST_EPOCH
        callbacks.append(KeepBestEpoch(attached, task.metrics[0], file, settings.early_stopping))
    order = loaded.epoch_sampler()
    trainer = FineTuningTrainer(
        attached=attached,
        args=_OneGpu(
            output_dir=str(run.checkpoints),
            per_device_train_batch_size=_micro_batch_size(settings),
            gradient_accumulation_steps=settings.accumulate,
            per_device_eval_batch_size=task.kind.evaluation_rows(settings.max_length),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            learning_rate=settings.lr,
            adam_beta1=settings.betas[0],
            adam_beta2=settings.betas[1],
            optim=_OPTIMIZERS[settings.optimizer],
            lr_scheduler_type=_SCHEDULERS[settings.scheduler],
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            bf16=resolve_precision(settings.requested_precision, device) == "bf16",
            save_strategy="steps" if settings.save_steps else "no",
            save_steps=settings.save_steps or 500,
            logging_steps=10,
            logging_nan_inf_filter=False,
            report_to=list(settings.report_to) or "none",
            run_name=f"{recipe.label or recipe.method.name}-seed-{settings.seed}",
            seed=settings.seed,
            full_determinism=settings.deterministic,
            remove_unused_columns=False,
            label_names=["labels"],
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type == "cuda",
            disable_tqdm=not progress,
        ),
        train_dataset=loaded.training_rows(order),
        eval_dataset=encoded[watched] if watched else None,
        data_collator=loaded.collate,
        scores=(lambda outputs: loaded.score(watched, outputs)) if watched else None,
        sampler=order,
        use_fast_kernels=settings.fast_kernels,
        skipping=frozen.skipped if frozen else nullcontext,
        kind=task.kind,
        processor=loaded.processor,
        callbacks=callbacks,
    )
    if settings.average_last:
        steps, each_epoch = trainer.micro_batch_sampler.steps_per_epoch, bool(recipe.task.selection)
        check_average_last(settings, steps, each_epoch)
        trainer.average_last_steps(
            AverageLastSteps(attached, settings.average_last, steps, each_epoch)
        )
    trainer.add_callback(
        SealCheckpoints(lambda: trainer.seconds, settings.keep_checkpoints, fingerprint)
    )
    constant = constant_score(task, watched) if watched and report is not ignore else None
    floor = Floor(*constant) if constant else None
    trainer.remove_callback(ProgressCallback if progress else PrinterCallback)
    if progress:
        trainer.add_callback(ProgressBar(task.metrics[0], floor))
    trainer.add_callback(ReportEvents(report, task.metrics[0], watched, floor))
    return trainer


def _micro_batch_size(settings: TrainSettings) -> int:
    """Rows that a process computes at a time."""
    micro_batches = settings.accumulate * distributed.world_size()
    if settings.batch_size % micro_batches:
        raise IwloraError(
            f"train.batch_size={settings.batch_size} does not divide into equal micro-batches for "
            f"{distributed.world_size()} processes × train.accumulate={settings.accumulate}"
        )
    return settings.batch_size // micro_batches


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``IwloraError`` that names the packages to install for trackers that are missing."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise IwloraError(
            f"train.report_to={list(names)}: {', '.join(missing)} is not installed; "
            f"pip install {' '.join(missing)}, or remove it"
        )
