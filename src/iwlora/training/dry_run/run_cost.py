"""The time and memory that a run will take, estimated from a few of its steps."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from iwlora import tasks
from iwlora.methods.budget import count_parameters
from iwlora.results import layout
from iwlora.sensitivity.options import MeasureOptions
from iwlora.tasks.kinds.contract import EVALUATION_ROWS
from iwlora.training.device import peak_memory, reset_peak_memory
from iwlora.training.dry_run.step_profiler import StepProfiler
from iwlora.training.external_settings import check_external_settings, restoring_determinism
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.prepare import PreparedRun, check_trackers, prepare
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows
from iwlora.training.state.run_folder import RunDir

MEMORY_ROWS = (2, 4)
"""Rows of the two micro-batches whose memory is measured; more rows follow a line through them."""
TIMED_SIZES, REPEATS = 4, 3
"""Number of different step sizes that are timed, and how often each is timed."""
SCORED_ROWS = 2 * EVALUATION_ROWS

MicroBatches = Sequence[Sequence[int]]
"""The rows of each micro-batch of a step."""


@dataclass(frozen=True)
class MemoryCost:
    """Peak memory of a run in bytes: on the GPU, or of the process on a CPU.

    Backward frees activations while it makes gradients, so that only the larger of the two counts,
    unless a step has several micro-batches.

    Args:
        before: held when a step begins, with the ``weights``.
        weights: of the model.
        state: of the optimizer (Adam's two moments), the method and ``train.average_last``.
        gradients: of what trains.
        activations: that the largest micro-batch keeps for backward.
        workspace: temporary tensors of a step.
        reached: the most that loading, measuring, scoring and the steps of the dry run took. On a
            CPU this is more than the tensors, because the allocator keeps freed memory.
        accumulated: whether a step has several micro-batches.
    """

    before: int
    weights: int
    state: int
    gradients: int
    activations: int
    workspace: int
    reached: int
    accumulated: bool = False

    @property
    def tensors(self) -> int:
        """before + state + max(activations, gradients) + workspace."""
        both = self.activations + self.gradients
        kept = both if self.accumulated else max(self.activations, self.gradients)
        return self.before + self.state + kept + self.workspace

    @property
    def peak(self) -> int:
        """The larger of what the tensors need and what was reached already."""
        return max(self.tensors, self.reached)


@dataclass(frozen=True)
class RunCost:
    """What a run will take; seconds are wall time, and memory is that of one process.

    Args:
        adapter_parameters: that the method adds.
        trainable_parameters: that train, with the task head.
        coverage: the share of the matrix parameters of the model's blocks that the adapted
            matrices have; None for a method that does not adapt single matrices.
        steps: optimizer steps.
        step_seconds: mean time of a step.
        prepare_seconds: loading, encoding and attaching.
        measure_seconds: what the method computes on batches before training.
        start_seconds: what the first step takes in addition to its batch.
        score_seconds: all scoring.
        fill_seconds: what frozen blocks take once for all rows, where ``train.cache_frozen`` keeps
            it; a run that finds all rows does without.
        frozen_blocks: the number of blocks that are skipped; runs that skip as many share what
            they keep.
        rows: rows of the largest micro-batch.
        tokens: its padded length; 0 for images.
        memory: the peak and its parts.
    """

    adapter_parameters: int
    trainable_parameters: int
    coverage: float | None
    steps: int
    step_seconds: float
    prepare_seconds: float
    measure_seconds: float
    start_seconds: float
    score_seconds: float
    rows: int
    tokens: int
    memory: MemoryCost
    fill_seconds: float = 0.0
    frozen_blocks: int = 0

    @property
    def train_seconds(self) -> float:
        """The steps and the start of the first."""
        return self.start_seconds + self.steps * self.step_seconds

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.steps * self.step_seconds + self.rest

    @property
    def rest(self) -> float:
        """Everything except the steps."""
        before = self.prepare_seconds + self.measure_seconds
        return before + self.start_seconds + self.score_seconds + self.fill_seconds


def estimate_run_cost(
    recipe: Recipe, in_comparison: bool = False, bad_rows: Path | None = None
) -> RunCost:
    """Prepare a run in a temporary folder, do a few of its steps, and estimate the whole.

    Two small micro-batches of the longest rows give the memory of a row. Then steps of several
    sizes are timed, and the time of every step of an epoch follows from its padded tokens. The
    measuring before training is done completely; that in flight, at most 2% of the steps by
    default, is not counted. Under a launcher such as torchrun every process takes part, and each
    gets the estimate for itself.

    Args:
        recipe: the checked recipe.
        in_comparison: whether it is that of a comparison's run.
        bad_rows: the file that gets the list of rows that cannot be used, if these are refused.

    Raises:
        IwloraError: for everything that ``iwlora train`` refuses.
    """
    rows = min(SCORED_ROWS, recipe.task.max_validation or SCORED_ROWS)
    few = recipe.task.model_copy(update={"max_validation": rows})
    method = recipe.method
    if isinstance(method, MeasureOptions) and method.calibration() is None:
        # It measures in flight: in the steps whose memory is measured, and not in those timed.
        method = method.model_copy(update={"max_batches": len(MEMORY_ROWS)})
    short = recipe.with_train(save_steps=None, report_to=[], early_stopping=None).model_copy(
        update={"task": few, "method": method}
    )
    check_external_settings(recipe.train.report_to)
    check_trackers(recipe.train.report_to)
    reset_peak_memory()
    with (
        listing_bad_rows(bad_rows),
        tempfile.TemporaryDirectory() as folder,
        restoring_determinism(recipe.train.deterministic),
    ):
        if in_comparison:
            (Path(folder) / layout.COMPARISON).touch()
        started = time.perf_counter()
        prepared = prepare(short, RunDir.open(Path(folder) / "run", short), progress=False)
        prepare_seconds = time.perf_counter() - started - prepared.measure_seconds
        return _estimate(recipe, prepared, prepare_seconds)


def _estimate(recipe: Recipe, prepared: PreparedRun, prepare_seconds: float) -> RunCost:
    trainer, attached = prepared.trainer, prepared.attached
    accumulated = recipe.train.accumulate > 1
    lengths = np.asarray(prepared.loaded.encoded["train"]["length"][:])
    sampler = trainer.micro_batch_sampler
    of_all = [sampler.step_micro_batches(step) for step in range(sampler.steps_per_epoch)]
    epoch = [processes[trainer.args.process_index] for processes in of_all]
    # All processes wait for the one with the most tokens, and all must time the same steps.
    sizes = [max(_tokens(step, lengths) for step in processes) for processes in of_all]
    largest = max((rows for step in epoch for rows in step), key=lambda r: _tokens([r], lengths))
    rows = sorted(largest, key=lambda row: -lengths[row])
    small = [rows[:number] for number in MEMORY_ROWS]
    timed = _spread(sizes, TIMED_SIZES)
    total = recipe.train.count_steps(len(epoch))
    steps = [[part] * recipe.train.accumulate for part in small]
    steps += [epoch[step] for step in timed] * REPEATS
    frozen, task, encoded = prepared.frozen, prepared.loaded.task, prepared.loaded.encoded
    if frozen:  # what is timed below finds them stored, as in all runs but the first
        for split in dict.fromkeys([*filter(None, [task.monitored]), *task.reported]):
            trainer.final_outputs(encoded[split])
    profiler = StepProfiler(memory_steps=len(small))  # whose clock starts now
    evaluation_seconds = _train_steps(trainer, profiler, steps, total)
    evaluations = math.ceil(total / len(epoch))
    score_seconds = _score_seconds(recipe, prepared, evaluations * evaluation_seconds)

    seconds = np.median(np.reshape(profiler.seconds, (REPEATS, len(timed))), axis=0)
    gradients = sum(attached.model.get_parameter(name).nbytes for name in attached.trainable)
    row_counts = [len(part) for part in small]
    held = [a + gradients if accumulated else max(a, gradients) for a in profiler.activations]
    workspaces = [peak - part for peak, part in zip(profiler.peaks, held, strict=True)]
    memory = MemoryCost(
        before=profiler.after - profiler.state,
        weights=sum(p.nbytes for p in attached.model.parameters()),
        state=profiler.state + (gradients if recipe.train.average_last else 0),
        gradients=gradients,
        activations=extrapolate(row_counts, profiler.activations, len(rows)),
        workspace=max(0, extrapolate(row_counts, workspaces, len(rows))),
        reached=peak_memory() or 0,
        accumulated=accumulated,
    )
    fill_seconds = 0.0
    if frozen and frozen.computed_tokens:
        tokens = sum(_tokens(step, lengths) for step in epoch) + _scored_tokens(recipe, prepared)
        fill_seconds = tokens * frozen.computed_seconds / frozen.computed_tokens
    counts = count_parameters(attached)
    return RunCost(
        adapter_parameters=counts["adapter_parameters"],
        trainable_parameters=counts["trainable_parameters"],
        coverage=prepared.coverage,
        steps=total,
        step_seconds=float(np.mean(np.interp(sizes, np.take(sizes, timed), seconds))),
        prepare_seconds=prepare_seconds,
        measure_seconds=prepared.measure_seconds,
        start_seconds=profiler.start_seconds,
        score_seconds=score_seconds,
        rows=len(rows),
        tokens=0 if prepared.loaded.task.kind.reads_images else int(max(lengths[rows])),
        memory=memory,
        fill_seconds=fill_seconds,
        frozen_blocks=len(frozen.leading.frozen) if frozen else 0,
    )


def _train_steps(
    trainer: FineTuningTrainer, profiler: StepProfiler, steps: Sequence[MicroBatches], total: int
) -> float:
    """Train these steps as the first of ``total``; returns the seconds spent scoring."""
    micro_batches = [list(rows) for step in steps for rows in step]
    loss: Any = trainer.compute_loss_func

    def profiled_loss(*args: Any, **kwargs: Any) -> Tensor:
        value: Tensor = loss(*args, **kwargs)
        profiler.forward_done()
        return value

    loader = DataLoader(
        trainer.train_dataset,  # type: ignore[arg-type]
        batch_sampler=micro_batches,
        collate_fn=trainer.data_collator,
    )
    profiler.last_step = len(steps)
    trainer.compute_loss_func = profiled_loss
    trainer.callback_handler.callbacks.insert(0, profiler)
    trainer.get_train_dataloader = lambda: loader  # type: ignore[method-assign]
    trainer.args.max_steps = max(total, len(steps))
    started = time.perf_counter()
    trainer.fit(None)
    return time.perf_counter() - started - trainer.seconds


def _scored_tokens(recipe: Recipe, prepared: PreparedRun) -> float:
    """Tokens of all reported rows."""
    task, encoded = prepared.loaded.task, prepared.loaded.encoded
    factors = _times_more_rows(recipe, prepared)
    return float(sum(factors[name] * sum(encoded[name]["length"][:]) for name in task.reported))


def _times_more_rows(recipe: Recipe, prepared: PreparedRun) -> dict[str, float]:
    """{split: how many times as many rows as the few that the estimate computes}."""
    whole = tasks.load(recipe.task, recipe.train.seed).splits
    return {
        name: len(whole[name]) / len(rows) for name, rows in prepared.loaded.task.splits.items()
    }


def _score_seconds(recipe: Recipe, prepared: PreparedRun, evaluation_seconds: float) -> float:
    """Seconds of all scoring, from those of the evaluations during training on the few rows."""
    task, encoded = prepared.loaded.task, prepared.loaded.encoded
    factors = _times_more_rows(recipe, prepared)
    seconds = 0.0
    if task.monitored:
        seconds += evaluation_seconds * factors[task.monitored]
    rows = encoded[task.reported[0]]
    chosen = _spread(rows["length"][:], min(SCORED_ROWS, len(rows)))
    started = time.perf_counter()
    prepared.trainer.final_outputs(rows.select(chosen))
    seconds_per_row = (time.perf_counter() - started) / len(chosen)
    scored = sum(factors[name] * len(encoded[name]) for name in task.reported)
    return seconds + seconds_per_row * scored


def _tokens(step: MicroBatches, lengths: Any) -> int:
    """Padded tokens of a step in one process."""
    return sum(int(len(rows) * max(lengths[row] for row in rows)) for rows in step)


def _spread(sizes: Sequence[int], number: int) -> list[int]:
    """Indices of ``number`` sizes, evenly from the smallest to the largest."""
    evenly = np.linspace(0, len(sizes) - 1, number).round().astype(int)
    return [int(index) for index in np.argsort(sizes, kind="stable")[evenly]]


def extrapolate(rows: Sequence[int], values: Sequence[int], at: int) -> int:
    """The line through two points, at another one; constant where both have the same rows.

    >>> extrapolate([2, 4], [10, 18], 8)
    34
    """
    (a, b), (x, y) = rows, values
    return y if a == b else round(x + (y - x) / (b - a) * (at - a))
