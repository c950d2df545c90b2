"""From a recipe to everything that a run has before its first step. Names no method."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainingArguments
from transformers import set_seed as seed_everything

from iwlora import distributed, tasks
from iwlora.errors import IwloraError
from iwlora.methods.budget import solve
from iwlora.methods.contract import Attached
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.measure import measure
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.tasks.tokenization import collator, encode
from iwlora.training.kernels import as_trained, resolve_precision
from iwlora.training.loop.best_epoch import KeepBest
from iwlora.training.loop.callbacks import EvaluateEpochs, Log, Progress
from iwlora.training.loop.logged_loss import LossSoFar
from iwlora.training.loop.row_order import EpochOrder
from iwlora.training.loop.trainer import FineTuner, task_loss
from iwlora.training.measure_recipe import calibration_batches, device, naming_rows, packing
from iwlora.training.model.backbone import load_backbone, skeleton
from iwlora.training.model.sharding import shard
from iwlora.training.recipe import Recipe, TrainSettings
from iwlora.training.state.checkpoints import Seal
from iwlora.training.state.run_folder import RunDir

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """What a run has before its first step; ``initializing`` is seconds spent on initial values."""

    task: tasks.Task
    tokenizer: Any
    sites: list[Site]
    size: int | None
    encoded: Mapping[str, Any]
    sensitivity: Sensitivity | None
    attached: Attached
    initializing: float
    trainer: FineTuner

    @property
    def measure_seconds(self) -> float:
        """Time spent on batches before training."""
        return self.initializing + (self.sensitivity.seconds if self.sensitivity else 0.0)


def prepare(recipe: Recipe, run: RunDir, progress: bool) -> Prepared:
    """Load, measure and attach. Raises ``IwloraError`` for all that ``iwlora.train`` does."""
    settings = recipe.train
    task = tasks.load(recipe.task, settings.seed)
    seed_everything(settings.seed)
    trust, packed = recipe.trust_remote_code, packing(recipe)
    model, tokenizer = load_backbone(recipe.model, task.labels, task.kind, trust, packed)
    spread = settings.shard and distributed.world_size() > 1
    whole = not spread or recipe.method.calibration()  # else it is never whole on one device
    if whole and not recipe.quantize:  # what is packed is there
        model.to(device())  # type: ignore[arg-type]
    own = set(map(id, model.parameters()))
    sites = find_sites(model, recipe.targets)
    recipe.method.check_model(model, sites)
    encoded = encode(task, tokenizer, settings.max_length, model.config)
    collate = collator(tokenizer, task, model)
    size = recipe.method.size
    if recipe.budget is not None:
        counted = skeleton(recipe.model, task.kind, trust) if recipe.quantize else model
        size = solve(recipe.method, counted, sites, recipe.budget)
    recipe.method.check(sites, size)
    sensitivity = _sensitivity(recipe, run, task, model, sites, encoded["train"], collate)
    attached = recipe.method.attach(model, sites, size, settings.seed, sensitivity)
    task.kind.check_model(attached.model, encoded["train"], collate)
    initializing = 0.0
    if attached.initialize is not None:
        started = time.perf_counter()
        attached.initialize(calibration_batches(recipe, encoded["train"], collate))
        initializing = time.perf_counter() - started
    if spread:
        shard(attached.model, own, device())
    trainer = _trainer(recipe, run, task, attached, encoded, collate, tokenizer, progress)
    return Prepared(
        task, tokenizer, sites, size, encoded, sensitivity, attached, initializing, trainer
    )


def _sensitivity(
    recipe: Recipe,
    run: RunDir,
    task: tasks.Task,
    model: nn.Module,
    sites: list[Site],
    rows: Any,
    collate: Any,
) -> Sensitivity | None:
    """What the method asks to be measured on the frozen model, once for a run."""
    wanted = recipe.method.calibration()
    if wanted is None:
        return None
    if run.sensitivity.is_file():
        return Sensitivity.load(run.sensitivity)
    batches = distributed.split_between_processes(calibration_batches(recipe, rows, collate))
    settings = recipe.train
    fast = as_trained(model, settings.fast_kernels, settings.precision, device())
    with naming_rows(recipe, rows), fast:
        sensitivity = measure(model, batches, sites=sites, loss=task.kind.batch_loss, **wanted)
    if distributed.rank() == 0:
        sensitivity.save(run.sensitivity)
    return sensitivity


def _trainer(
    recipe: Recipe,
    run: RunDir,
    task: tasks.Task,
    attached: Attached,
    encoded: Mapping[str, Any],
    collate: Any,
    tokenizer: Any,
    progress: bool,
) -> FineTuner:
    settings = recipe.train
    rows = encoded["train"]
    piece = _rows_at_once(settings)
    lengths = rows["length"][:] if settings.group_by_length else None
    place, watched = device().type, task.watched

    def scores(outputs: Mapping[str, Any]) -> dict[str, float]:
        split = str(watched)
        answers = task.kind.answers(task, task.splits[split], encoded[split], outputs, tokenizer)
        return task.kind.score(task, task.splits[split], outputs, answers)

    trainer = FineTuner(
        model=attached.model,
        args=TrainingArguments(
            output_dir=str(run.checkpoints),
            per_device_train_batch_size=piece,
            gradient_accumulation_steps=settings.accumulate,
            per_device_eval_batch_size=EVALUATION_BATCH,
            num_train_epochs=settings.epochs,
            learning_rate=settings.lr,
            lr_scheduler_type="linear",
            warmup_steps=settings.warmup,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            bf16=resolve_precision(settings.precision, device()) == "bf16",
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
            use_cpu=place == "cpu",
            dataloader_pin_memory=place == "cuda",
            disable_tqdm=not progress,
        ),
        train_dataset=rows,
        eval_dataset=encoded[watched] if watched else None,
        data_collator=collate,
        scores=scores if watched else None,
        compute_loss_func=task_loss(attached.regularizer, task.kind),
        order=EpochOrder(len(rows), settings.batch_size, settings.seed, lengths),
        trainable=attached.trainable,
        learning_rates=attached.learning_rates,
        fast=settings.fast_kernels,
        kind=task.kind,
        tokenizer=tokenizer,
        callbacks=[
            *attached.callbacks,
            *([EvaluateEpochs()] if watched else []),
            Log(run.metrics, watched),
        ],
    )
    if recipe.task.selection:
        best = run.checkpoints / "best.safetensors"
        kept = (attached.model, attached.trainable, task.metrics[0], best, attached.settled)
        trainer.add_callback(KeepBest(*kept))
    trainer.add_callback(LossSoFar(trainer))
    trainer.add_callback(Seal(lambda: trainer.seconds, settings.keep_checkpoints))
    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    if progress:
        trainer.add_callback(Progress())
    return trainer


def _rows_at_once(settings: TrainSettings) -> int:
    """Rows of a step that a process computes at a time."""
    pieces = settings.accumulate * distributed.world_size()
    if settings.batch_size % pieces:
        raise IwloraError(
            f"train.batch_size={settings.batch_size} does not divide into equal pieces for "
            f"{distributed.world_size()} processes × train.accumulate={settings.accumulate}"
        )
    return settings.batch_size // pieces
