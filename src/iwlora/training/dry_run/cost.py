"""What a run will take, in time and memory, from a few of its steps; nothing is kept."""

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
from iwlora.methods.budget import count
from iwlora.training.dry_run.step_probe import StepWatch
from iwlora.training.loop.row_order import Pieces
from iwlora.training.loop.trainer import FineTuner
from iwlora.training.prepare import EVALUATION_BATCH, Prepared, prepare
from iwlora.training.recipe import Recipe
from iwlora.training.run import deterministic, peak_memory
from iwlora.training.state.run_folder import RunDir

COUNTED = (2, 4)
"""Rows of the two pieces whose memory is counted: what it is for more follows a line."""
SIZES, ROUNDS = 4, 3
"""Steps of so many sizes are timed, so many times each."""
SCORED = 2 * EVALUATION_BATCH

Pieced = Sequence[Sequence[int]]
"""The rows of each piece of a step."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a run: on the GPU where there is one, else of the process.

    ``before`` are there when a step begins, the ``weights`` among them. The optimizer and the
    method add their ``state`` (Adam's two moments), a step the ``activations`` that its largest
    piece keeps for backward, the ``gradients`` of what trains, and a ``workspace``. Backward frees
    activations as it makes gradients, so that only the larger counts, unless a step has several
    pieces (``accumulated``). ``reached`` is the most that loading, measuring, scoring and the steps
    of the estimate took: on a CPU more than the tensors, for its allocator keeps freed memory.
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
        """What the tensors need, or what was reached already."""
        return max(self.tensors, self.reached)


@dataclass(frozen=True)
class Estimate:
    """What a run will take; seconds are wall time.

    ``prepare_seconds`` are for loading, encoding and attaching, ``measure_seconds`` for what the
    method asks of batches before training, ``start_seconds`` for what the first step takes beside
    its batch, ``score_seconds`` for all scoring.
    """

    adapter_parameters: int
    trainable_parameters: int
    steps: int
    step_seconds: float
    prepare_seconds: float
    measure_seconds: float
    start_seconds: float
    score_seconds: float
    rows: int
    tokens: int
    """Rows and padded length of the largest piece."""
    memory: Memory

    @property
    def train_seconds(self) -> float:
        """The steps, and the start of the first."""
        return self.start_seconds + self.steps * self.step_seconds

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.steps * self.step_seconds + self.rest

    @property
    def rest(self) -> float:
        """All but the steps."""
        before = self.prepare_seconds + self.measure_seconds
        return before + self.start_seconds + self.score_seconds


def estimate(recipe: Recipe) -> Estimate:
    """Prepare a run in a folder that is removed again, carry out a few of its steps, and reckon.

    Two small pieces of the longest rows tell what a row takes of memory. Then steps of several
    sizes are timed, and every step of an epoch is reckoned by its padded tokens. The measuring is
    carried out whole. Raises ``IwloraError`` for all that ``iwlora train`` does.
    """
    few = recipe.task.model_copy(
        update={"max_validation": min(SCORED, recipe.task.max_validation or SCORED)}
    )
    brief = recipe.train.model_copy(update={"save_steps": None, "report_to": []})
    short = recipe.model_copy(update={"task": few, "train": brief})
    with tempfile.TemporaryDirectory() as folder, deterministic(brief.deterministic):
        run = RunDir.open(Path(folder) / "run", short)
        started = time.perf_counter()
        ready = prepare(short, run, progress=False)
        prepared = time.perf_counter() - started - ready.measure_seconds
        return _reckoned(recipe, ready, prepared)


def _reckoned(recipe: Recipe, ready: Prepared, prepare_seconds: float) -> Estimate:
    trainer, accumulate = ready.trainer, recipe.train.accumulate
    lengths = np.asarray(ready.encoded["train"]["length"][:])
    epoch = _steps(trainer, accumulate)
    sizes = [sum(_tokens(piece, lengths) for piece in step) for step in epoch]
    largest = max((piece for step in epoch for piece in step), key=lambda p: _tokens(p, lengths))
    rows = sorted(largest, key=lambda row: -lengths[row])
    counted = [rows[:number] for number in COUNTED]
    timed = _spread(sizes)
    total = math.ceil(len(epoch) * recipe.train.epochs)
    watch = StepWatch(counted=len(counted))
    steps = [[piece] * accumulate for piece in counted] + [epoch[i] for i in timed] * ROUNDS
    watched = _carry_out(trainer, watch, steps, total)
    score_seconds = _scoring(recipe, ready, watched)

    seconds = np.median(np.reshape(watch.seconds, (ROUNDS, len(timed))), axis=0)
    parameters = [ready.attached.model.get_parameter(name) for name in ready.attached.trainable]
    gradients = sum(p.nbytes for p in parameters)
    few = [len(piece) for piece in counted]
    held = [a + gradients if accumulate > 1 else max(a, gradients) for a in watch.kept]
    space = [top - part for top, part in zip(watch.computing, held, strict=True)]
    memory = Memory(
        before=watch.after - watch.state,
        weights=sum(p.nbytes for p in ready.attached.model.parameters()),
        state=watch.state,
        gradients=gradients,
        activations=_line(few, watch.kept, len(rows)),
        workspace=max(0, _line(few, space, len(rows))),
        reached=peak_memory(),
        accumulated=accumulate > 1,
    )
    counts = count(ready.attached)
    return Estimate(
        adapter_parameters=counts["adapter_parameters"],
        trainable_parameters=counts["trainable_parameters"],
        steps=total,
        step_seconds=float(np.mean(np.interp(sizes, np.take(sizes, timed), seconds))),
        prepare_seconds=prepare_seconds,
        measure_seconds=ready.measure_seconds,
        start_seconds=watch.starting,
        score_seconds=score_seconds,
        rows=len(rows),
        tokens=int(max(lengths[rows])),
        memory=memory,
    )


def _carry_out(trainer: FineTuner, watch: StepWatch, steps: Sequence[Pieced], total: int) -> float:
    """Train these steps, to all schedules the first of ``total``; seconds spent scoring."""
    pieces = [list(piece) for step in steps for piece in step]
    loss: Any = trainer.compute_loss_func

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        value: Tensor = loss(*args, **kwargs)
        watch.forward_done()
        return value

    def batches() -> DataLoader[Any]:
        return DataLoader(
            trainer.train_dataset,  # type: ignore[arg-type]
            batch_sampler=pieces,
            collate_fn=trainer.data_collator,
        )

    watch.last = len(steps)
    trainer.compute_loss_func = watched
    trainer.callback_handler.callbacks.insert(0, watch)
    trainer.get_train_dataloader = batches  # type: ignore[method-assign]
    trainer.args.max_steps = max(total, len(steps))
    started = time.perf_counter()
    trainer.fit(None)
    return time.perf_counter() - started - trainer.seconds


def _scoring(recipe: Recipe, ready: Prepared, watched: float) -> float:
    """Seconds of all scoring; ``watched`` are those of one evaluation while training."""
    whole, cut = tasks.load(recipe.task, recipe.train.seed).splits, ready.task.splits
    parts = {name: len(whole[name]) / len(cut[name]) for name in cut}
    seconds = 0.0
    if ready.task.watched:
        seconds += watched * parts[ready.task.watched] * math.ceil(recipe.train.epochs)
    first, *_ = ready.task.reported
    rows = ready.encoded[first]
    order = np.argsort(rows["length"][:], kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(SCORED, len(order))).round().astype(int)]
    started = time.perf_counter()
    ready.trainer.final_outputs(rows.select(chosen))
    rate = (time.perf_counter() - started) / len(chosen)
    scored = sum(parts[name] * len(ready.encoded[name]) for name in ready.task.reported)
    return seconds + rate * scored


def _steps(trainer: FineTuner, accumulate: int) -> list[Pieced]:
    """The steps of the first epoch."""
    trainer.order.set_epoch(0)
    pieces = list(Pieces(trainer.order, accumulate, rank=0, processes=1))
    return [pieces[start : start + accumulate] for start in range(0, len(pieces), accumulate)]


def _tokens(piece: Sequence[int], lengths: Any) -> int:
    """Padded tokens of a piece."""
    return int(len(piece) * max(lengths[row] for row in piece))


def _spread(sizes: Sequence[int]) -> list[int]:
    """Indices of ``SIZES`` steps from the smallest to the largest."""
    order = np.argsort(sizes, kind="stable")
    places = np.linspace(0, len(order) - 1, SIZES).round().astype(int)
    return [int(order[place]) for place in places]


def _line(rows: Sequence[int], values: Sequence[int], at: int) -> int:
    """The line through two points, at another; constant where the points are one.

    >>> _line([2, 4], [10, 18], 8)
    34
    """
    (a, b), (x, y) = rows, values
    return y if a == b else round(x + (y - x) / (b - a) * (at - a))
