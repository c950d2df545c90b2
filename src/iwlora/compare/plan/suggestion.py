"""A comparison for the user's file, as a start: ``iwlora compare data.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from iwlora.compare.plan.recipe import COMPARISON_FIELDS
from iwlora.compare.statistics.paired_tests import MIN_SEEDS
from iwlora.training.overrides import override
from iwlora.training.suggestion.recipe import Suggestion, suggest

# The importance-weighted arm is the repaired one of the studies: a penalty that has an effect.
_METHODS: Sequence[dict[str, Any]] = (
    {"name": "lora", "rank": 8, "lora_alpha": 16},
    {"name": "iw-lora", "rank": 8, "lora_alpha": 16, "alpha": 0.01, "normalize": "max"},
)


def suggest_comparison(path: str, overrides: Sequence[str] = ()) -> Suggestion:
    """The recipe of a comparison for a file of data, and why each field has its value.

    Args:
        path: The training data: a file or a folder.
        overrides: ``key=value`` settings, which take precedence.

    Raises:
        IwloraError: As :func:`iwlora.training.suggestion.recipe.suggest`.
    """
    own = [text for text in overrides if _part(text) in (*COMPARISON_FIELDS, "method")]
    run = suggest(path, [text for text in overrides if text not in own])
    settings: dict[str, Any] = {}
    for part, value in run.settings.items():
        if part == "method":
            settings["methods"] = [dict(method) for method in _METHODS]
            settings["seeds"] = list(range(MIN_SEEDS))
        else:
            settings[part] = value
    reasons = {
        **run.reasons,
        "methods": "LoRA, and LoRA with a penalty by importance; more: iwlora methods",
        "seeds": f"runs of each method; with {MIN_SEEDS} a comparison can be decided",
    }
    for text in own:
        reasons.pop(_part(text), None)
    return replace(run, settings=override(settings, own), reasons=reasons)


def _part(assignment: str) -> str:
    return assignment.partition("=")[0].partition(".")[0]
