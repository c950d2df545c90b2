"""The seeds of a comparison, or the rule that adds them, as its recipe has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iwlora.compare.statistics.sequential import fewest_draws
from iwlora.inputs.limits import LARGEST_SEED
from iwlora.results.comparison.record import MAX_SEEDS, StoppingRule
from iwlora.training.overrides import validate


def read_seeds(settings: Mapping[str, Any]) -> tuple[list[int], StoppingRule | None, list[str]]:
    """The seeds, at most as many as the rule ``stop`` allows, and what is wrong with it."""
    if settings.get("stop") is None:
        return settings.get("seeds", [0]), None, []
    rule, problems = validate(StoppingRule, settings["stop"], "stop")
    if "seeds" in settings:
        problems.append(
            "seeds and stop exclude each other: seeds fixes the draws, stop adds draws until each "
            "arm has a verdict; remove one (stop.max_seeds is the most)"
        )
    return list(range(rule.max_seeds if rule else 1)), rule, problems


def too_few_draws(stop: StoppingRule | None, arms: int) -> list[str]:
    """A message if a sequential comparison could call nothing better or worse."""
    if stop is None:
        return []
    if arms < 2:
        return ["stop: it needs an arm to compare with another; give two methods, or seeds"]
    needed = fewest_draws(stop.model_copy(update={"max_seeds": MAX_SEEDS}), arms - 1)
    if needed <= stop.max_seeds:
        return []
    return [
        f"stop.max_seeds={stop.max_seeds}: with {arms} arms and an error of {stop.error:g} no "
        f"verdict is possible before {needed} draws; raise it"
    ]


def seed_problems(seeds: Any) -> list[str]:
    """A message if ``seeds`` is not a list of seeds."""
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        return [f"seeds={seeds!r}: accepted is a list of whole numbers such as [0, 1, 2]"]
    if out := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        return [f"seeds: {out[0]} is no seed: accepted are whole numbers from 0 to {LARGEST_SEED}"]
    return []
