"""One number of frozen blocks for all arms of a comparison, where their dropout is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from transformers import PreTrainedModel

from iwlora.compare.plan.planned_runs import Plan, PlannedRun
from iwlora.errors import IwloraError
from iwlora.head import declared_modules
from iwlora.methods.budget import fit_to_budget
from iwlora.sites import Site, sites
from iwlora.training.frozen_layers.leading_blocks import free_blocks, has_dropout
from iwlora.training.model.backbone import meta_model
from iwlora.training.model.recipe_head import declare_modules
from iwlora.training.recipe import Recipe


def with_equal_frozen_layers(plan: Plan) -> Plan:
    """The plan whose runs all leave out the dropout of the same first blocks, if any run does.

    ``train.cache_frozen=true`` becomes the number of blocks in which no arm trains. Where the model
    has no dropout, or all arms are of methods that leave it out always (``shares_pass``), each arm
    skips all that it can, and the plan stays as it is.

    Raises:
        IwloraError: An arm trains in the first block, or in one below the number that the recipe
            gives, or the arms have different settings.
    """
    settings = {run.label: run.recipe.train.cache_frozen for run in plan.first_runs}
    if not any(setting is True or type(setting) is int for setting in settings.values()):
        return plan
    first = plan.runs[0].recipe
    model = meta_model(first)
    if all(run.recipe.method.shares_pass for run in plan.first_runs) or not has_dropout(model):
        return plan
    if len({*map(repr, settings.values())}) > 1:
        given = ", ".join(f"{label} {setting}" for label, setting in settings.items())
        raise IwloraError(
            f"train.cache_frozen differs between the arms ({given}), and the model has dropout, "
            "which it leaves out of frozen blocks: give all arms the same"
        )
    free = {run.label: _free_blocks(run.recipe, model) for run in plan.first_runs}
    setting = settings[plan.runs[0].label]
    count = setting if type(setting) is int else min(free.values())
    _check(free, max(count, 1), setting)

    def with_count(run: PlannedRun) -> PlannedRun:
        return replace(run, recipe=run.recipe.with_train(cache_frozen=count))

    return replace(
        plan, runs=tuple(map(with_count, plan.runs)), trials=tuple(map(with_count, plan.trials))
    )


def skipped_blocks(recipe: Recipe) -> int:
    """The number of first blocks that a run skips, if it skips any."""
    setting = recipe.train.cache_frozen
    if type(setting) is int:
        return setting
    model = meta_model(recipe)
    return _free_blocks(recipe, model)


def _check(free: Mapping[str, int], count: int, setting: object) -> None:
    """Raise ``IwloraError`` that names the arms with fewer free blocks than ``count``."""
    lower = {label: blocks for label, blocks in free.items() if blocks < count}
    if lower:
        names = ", ".join(f"{label} (in block {blocks})" for label, blocks in lower.items())
        raise IwloraError(
            f"train.cache_frozen={setting} leaves out the dropout of the first "
            f"{'block' if count == 1 else f'{count} blocks'} in all arms, and these train there or "
            f"below: {names}; leave these arms out, give targets in later blocks only "
            "(targets='.*layer\\.(4|5)\\..*'), or take train.cache_frozen=false"
        )


def _free_blocks(recipe: Recipe, model: PreTrainedModel) -> int:
    """The number of first blocks in which a run trains nothing; 0 where that is not known."""
    declare_modules(model, recipe)
    if recipe.add_tokens or recipe.trainable_token_indices:
        return 0
    method, chosen = recipe.method, list[Site]()
    if method.adapts_sites:
        chosen = method.adaptable(sites(model, recipe.targets, recipe.exclude), recipe.targets)
    if recipe.budget is not None and method.takes_budget:  # it can decide which layers have parts
        method = fit_to_budget(method, model, chosen, recipe.budget)
    return free_blocks(model, method, chosen, declared_modules(model)["pretrained"])
