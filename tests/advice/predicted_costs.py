"""Costs by a formula, in place of dry runs, which take seconds."""

from __future__ import annotations

from iwlora.training.dry_run.run_cost import MemoryCost, RunCost
from iwlora.training.recipe import Recipe

MIB = 2**20
STEPS = 400


def cost_of(recipe: Recipe) -> RunCost:
    """10 s around the steps, each of 0.1 s, or less where only some matrices are adapted."""
    pieces, saving = recipe.train.accumulate, recipe.train.gradient_checkpointing
    memory = MemoryCost(
        before=100 * MIB,
        weights=50 * MIB,
        state=20 * MIB,
        gradients=10 * MIB,
        activations=(100 if saving else 400) * MIB // pieces,
        workspace=40 * MIB // pieces,
        reached=0,
        accumulated=pieces > 1,
    )
    targets = recipe.targets
    blocks = targets.count("|") + 1 if isinstance(targets, str) and "\\." in targets else 0
    return RunCost(
        adapter_parameters=1000,
        trainable_parameters=1100,
        coverage=1.0,
        steps=recipe.train.max_steps or STEPS,
        step_seconds={0: 0.1, 1: 0.05}.get(blocks, 0.06),
        prepare_seconds=6.0,
        measure_seconds=0.0,
        start_seconds=0.0,
        score_seconds=4.0,
        rows=recipe.train.batch_size // pieces,
        tokens=16,
        memory=memory,
    )
