"""What ``iwlora train --dry-run`` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iwlora.training.dry_run.run_cost import RunCost
    from iwlora.training.recipe import Recipe


def told(recipe: Recipe, found: RunCost) -> str:
    """The budget, the time in its parts, and the memory with its arithmetic."""
    from iwlora.compare.number_format import format_duration

    memory = found.memory
    parts = (
        f"{_mib(memory.before)} before (weights {_mib(memory.weights)})",
        f"{_mib(memory.state)} of the optimizer's state",
        f"{_mib(memory.activations)} of activations ({found.rows} × {found.tokens} tokens)",
        f"{_mib(memory.gradients)} of gradients",
        f"{_mib(memory.workspace)} to work in",
    )
    sharing = "beside" if memory.accumulated else "in the place of"
    return "\n".join(
        [
            f"{recipe.label or recipe.method.name} on {recipe.task.title}: "
            f"{found.adapter_parameters:,} adapter parameters, "
            f"{found.trainable_parameters:,} train",
            f"training:    {found.steps:,} steps of {found.step_seconds:.3f} s: "
            f"{format_duration(found.train_seconds)}",
            f"measuring:   {format_duration(found.measure_seconds)}",
            f"scoring:     {format_duration(found.score_seconds)}",
            f"loading:     {format_duration(found.prepare_seconds)}",
            f"whole run:   about {format_duration(found.seconds)}",
            f"peak memory: about {_mib(memory.peak)}; the largest step needs "
            f"{_mib(memory.tensors)}:",
            *(f"             {part}" for part in parts),
            f"             gradients come {sharing} activations; this dry run reached "
            f"{_mib(memory.reached)}",
        ]
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
