"""Fitting a run to a limit of time or memory, by what the dry run predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iwlora.advice.layouts import Layout, upper
from iwlora.errors import IwloraError
from iwlora.results.durations import format_duration
from iwlora.training.dry_run.run_cost import MemoryCost, RunCost
from iwlora.training.overrides import override
from iwlora.training.recipe import Recipe, build

FEWEST_STEPS = 50
"""A limit of time shortens a training to this number of steps, and not further."""

Estimate = Callable[[Recipe], RunCost]


@dataclass(frozen=True)
class Candidate:
    """A recipe, the matrices that it adapts, and its predicted cost."""

    layout: Layout
    settings: Mapping[str, Any]
    cost: RunCost

    @property
    def recipe(self) -> Recipe:
        """The checked recipe."""
        return build(self.settings)

    @property
    def rank(self) -> int:
        """Of each matrix."""
        return int(self.settings["method"]["rank"])


def candidate(layout: Layout, settings: Mapping[str, Any], estimate: Estimate) -> Candidate:
    """The recipe with the targets of a layout, and its cost."""
    chosen = {**settings, "targets": layout.targets}
    return Candidate(layout, chosen, estimate(build(chosen)))


def within_time(
    chosen: Candidate, seconds: float, estimate: Estimate
) -> tuple[Candidate, str | None]:
    """The candidate, or one that takes at most so long; and what was done for it, in words.

    First only the last third of the blocks is adapted, then only the last block, because no
    gradient is then computed below; then the training is shortened.
    """
    if chosen.cost.seconds <= seconds:
        return chosen, None
    limit, full = format_duration(seconds), format_duration(chosen.cost.seconds)
    fastest = chosen
    for layout in filter(None, (upper(chosen.layout), upper(chosen.layout, last_block=True))):
        other = candidate(layout, chosen.settings, estimate)
        if other.cost.seconds <= seconds:
            return other, (
                f"time={limit}: {chosen.layout.title} take about {full}; adapting only "
                f"{layout.title} takes about {format_duration(other.cost.seconds)}"
            )
        fastest = min(fastest, other, key=lambda c: c.cost.seconds)
    cost = fastest.cost
    fitting = int((seconds - cost.rest) / cost.step_seconds) if cost.step_seconds else 0
    steps = min(cost.steps, max(fitting, FEWEST_STEPS))
    settings = override(fastest.settings, [f"train.max_steps={steps}"])
    short = candidate(fastest.layout, settings, estimate)
    took = format_duration(short.cost.seconds)
    if short.cost.seconds <= seconds:
        return short, (
            f"time={limit}: {chosen.layout.title} take about {full}; {short.layout.title} and "
            f"{steps:,} instead of {cost.steps:,} steps take about {took}"
        )
    return short, (
        f"time={limit} is not enough: loading and scoring alone take about "
        f"{format_duration(short.cost.rest)}; the nearest is {short.layout.title} with {steps:,} "
        f"steps, about {took}"
    )


def within_memory(
    chosen: Candidate, limit: int, estimate: Estimate
) -> tuple[Candidate, str | None]:
    """The candidate with the settings that its memory needs to be at most so large, in words too.

    First batches are split, then activations are computed again, then frozen weights are bfloat16.
    """
    before = chosen.cost.memory.tensors
    if before <= limit:
        return chosen, None
    smallest, text = chosen, f"memory={_size(limit)}: it takes about {_size(before)}"
    for changes in _savings(chosen, limit):
        try:
            recipe = build(override(smallest.settings, changes))
        except IwloraError:  # the recipe's own rules do not allow it
            continue
        settings = override(smallest.settings, changes)
        smaller = replace(smallest, settings=settings, cost=estimate(recipe))
        if smaller.cost.memory.tensors < smallest.cost.memory.tensors:
            smallest, text = smaller, f"{text}; {', '.join(changes)}"
        if smallest.cost.memory.tensors <= limit:
            return smallest, f"{text} makes it about {_size(smallest.cost.memory.tensors)}"
    least = smallest.cost.memory
    return smallest, (
        f"{text}; the nearest takes about {_size(least.tensors)}, of which "
        f"{_size(least.before)} are there before the first step: take a smaller model"
    )


def _savings(chosen: Candidate, limit: int) -> Iterator[Sequence[str]]:
    recipe = chosen.recipe
    pieces = [n for n in range(1, recipe.train.batch_size + 1) if not recipe.train.batch_size % n]
    finer = [n for n in pieces if n > recipe.train.accumulate]
    memory, accumulated = chosen.cost.memory, recipe.train.accumulate
    if finer:
        fits = [n for n in finer if split_memory(memory, n / accumulated) <= limit]
        yield [f"train.accumulate={fits[0] if fits else finer[-1]}"]
    yield ["train.gradient_checkpointing=true"]
    yield ["train.frozen_dtype=bfloat16"]


def split_memory(memory: MemoryCost, pieces: float) -> float:
    """About the bytes of a step whose micro-batches have so many times fewer rows.

    Activations and temporary tensors shrink with the rows; gradients are kept between pieces.
    """
    shrinking = (memory.activations + memory.workspace) / pieces
    return memory.before + memory.state + memory.gradients + shrinking


def on_gpu(memory: MemoryCost) -> int:
    """About the bytes that PyTorch would allocate on a GPU: without the libraries of a process."""
    return memory.tensors - memory.before + memory.weights


def _size(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
