"""One run: recipe -> model -> method -> training -> result. Names no method."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from iwlora import distributed
from iwlora.errors import Diverged, IwloraError
from iwlora.methods.budget import count
from iwlora.methods.contract import Attached
from iwlora.results.writing import writing
from iwlora.sites import Site
from iwlora.training.kernels import resolve_precision
from iwlora.training.measure_recipe import device
from iwlora.training.model.sharding import gathered
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe, TrainSettings
from iwlora.training.scoring import score_splits
from iwlora.training.state.checkpoints import last_sealed
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.start_digests import data_digest, head_digest


def train(recipe: Recipe, out: str | Path, progress: bool = False) -> dict[str, Any]:
    """Carry out a recipe in the folder ``out`` and return what ``result.json`` says.

    A finished run is not repeated, an interrupted one continues from its last checkpoint.
    Raises ``IwloraError`` for bad input, before anything is trained where it can be known.

    >>> from iwlora import load_recipe
    >>> result = train(load_recipe("runs/a/recipe.yaml", ["method.rank=2"]), "runs/b")
    >>> result["adapter_parameters"], result["primary_metric"]
    (82944, 'accuracy')
    """
    _check_launcher()
    device()  # joins the processes that a launcher started
    run = distributed.run_on_main_process(lambda: RunDir.open(out, recipe))
    done = distributed.run_on_main_process(run.result)
    if done is not None:
        return done
    with run.alone(), deterministic(recipe.train.deterministic):
        run.status("running")
        try:
            result = _carry_out(recipe, run, progress)
        except BaseException as error:
            state = "diverged" if isinstance(error, Diverged) else "failed"
            with suppress(OSError):  # where nothing can be written, the error itself must be told
                run.status(state, error=f"{type(error).__name__}: {error}")
            raise
        run.finish(result)
        distributed.barrier()
    return result


def _carry_out(recipe: Recipe, run: RunDir, progress: bool) -> dict[str, Any]:
    settings = recipe.train
    ready = prepare(recipe, run, progress)
    task, attached, trainer = ready.task, ready.attached, ready.trainer
    counts = count(attached)
    run.reserve(_written(settings, counts["trainable_parameters"]))
    same_start = {
        "data_digest": data_digest(ready.encoded["train"], trainer.order, settings.epochs),
        "head_digest": head_digest(attached),
    }
    checkpoint = last_sealed(run.checkpoints)
    trainer.fit(checkpoint)
    with gathered(attached.model, attached.trainable):
        if distributed.rank() == 0:
            with writing("the trained parameters", run.path):
                attached.save(run.path)
                ready.tokenizer.save_pretrained(run.path / "tokenizer")

    return {
        "method": recipe.method.name,
        "label": recipe.label or recipe.method.name,
        "model": recipe.model,
        "task": task.name,
        "seed": settings.seed,
        "metrics": score_splits(trainer, run, task, ready.encoded, ready.tokenizer),
        "primary_metric": task.metrics[0],
        "evaluated_on": task.reported[0],
        "selected_on": _selected_on(recipe),
        **counts,
        "adapter_parameters": attached.count(),  # once more: a method may have pruned
        "train_seconds": trainer.seconds,
        "measure_seconds": ready.measure_seconds,
        "examples_per_second": len(task.splits["train"]) * settings.epochs / trainer.seconds,
        "peak_memory_bytes": peak_memory(),
        "train_examples": len(task.splits["train"]),
        "epochs": settings.epochs,
        "learning_rate": settings.lr,
        "precision": resolve_precision(settings.precision, device()),
        "rank": ready.size,
        "ranks": _ranks(attached, ready.sites),
        "resumed_at_step": _step(checkpoint),
        **same_start,
        "kind": {"name": task.kind.name, **task.kind.model_dump()},
        "labels": list(task.labels),
        "text": list(task.text),
        "task_metrics": list(task.metrics),
        "notes": [*task.notes, *attached.notes()],
    }


def _selected_on(recipe: Recipe) -> str:
    """What chose the parameters that are scored."""
    part = recipe.task.selection
    return f"best epoch on {part:.0%} of train" if part else "last checkpoint"


def _ranks(attached: Attached, sites: list[Site]) -> list[dict[str, Any]]:
    """The effective rank of each site, where the method gives them different ones."""
    found = attached.ranks() if attached.ranks else {}
    return [
        {"name": site.name, "kind": site.kind, "depth": site.depth, "rank": found[site.name]}
        for site in sites
        if found
    ]


def _check_launcher() -> None:
    """Raise ``IwloraError`` for what a launcher asks for that a recipe says, or that is not had."""
    refused = {
        "ACCELERATE_USE_FSDP": "FSDP was asked for from outside; the recipe asks for it: start "
        "plain processes (torchrun, or accelerate launch without FSDP) with train.shard=true",
        "ACCELERATE_USE_DEEPSPEED": "DeepSpeed was asked for; its optimizers hold copies of the "
        "parameters, which penalties and pruning do not reach: start plain processes (torchrun, "
        "or accelerate launch without DeepSpeed), with train.shard=true to spread the model",
    }
    for variable, what in refused.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise IwloraError(f"{variable} is set: {what}")


def _written(settings: TrainSettings, parameters: int) -> int:
    """Bytes that a run writes at most: its result, and checkpoints with Adam's two moments."""
    checkpoints = settings.keep_checkpoints + 1 if settings.save_steps else 0
    return 16_000_000 + 4 * parameters * (1 + 3 * checkpoints)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Leave torch's choice of algorithms as it was; the Trainer sets what is ``wanted``."""
    before = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(before)


def _step(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of the whole process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
