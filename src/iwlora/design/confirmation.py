"""The last stage: the found design against other methods, on fresh seeds and the reported rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.recipe import plan_settings
from iwlora.design.settings import DesignSettings
from iwlora.errors import IwloraError
from iwlora.training.recipe import Recipe

FOUND = "found"
"""The label of the found design."""
_FIELDS = ("methods", "stop", "seeds", "search", "controls", "unequal_budgets")
_METHODS = (
    *("lora", "pfeiffer", "bitfit"),
    {"name": "grouped", "preset": "s4"},
    {"name": "grouped", "preset": "random"},
)
_STOP = {"difference": 1.0, "max_seeds": 12}


def confirm_settings(
    given: Any, design: DesignSettings
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """``confirm`` with its defaults, None for ``confirm: null``; and what is wrong with it.

    Where the search tries learning rates, each arm of the confirmation searches its own.
    """
    if given is None:
        return None, []
    if not isinstance(given, Mapping) or not isinstance(given.get("methods", []), list):
        return None, [f"confirm={given!r}: accepted is a mapping such as methods: [lora]"]
    if other := [key for key in given if key not in _FIELDS]:
        accepted = ", ".join(_FIELDS)
        return None, [f"confirm.{name}: unknown field (accepted: {accepted})" for name in other]
    methods = [_with_label(arm) for arm in given.get("methods", _METHODS)]
    confirm = {**given, "methods": methods}
    if "seeds" not in confirm and isinstance(confirm.get("stop", {}), Mapping):
        confirm["stop"] = {**_STOP, **(confirm.get("stop") or {})}
    if design.learning_rates and "search" not in confirm:
        confirm["search"] = {"lr": design.learning_rates}
    return confirm, []


def confirmation(confirm: Mapping[str, Any] | None, found: Recipe) -> Plan | None:
    """The comparison; None if there is to be none.

    Raises:
        IwloraError: Every problem of ``confirm``.
    """
    if confirm is None:
        return None
    settings = found.settings()
    method = settings.pop("method")
    settings.pop("label")
    settings["train"].pop("seed")
    given = {key: value for key, value in method.items() if value not in (None, {})}
    arms = [{**given, "label": FOUND}, *confirm["methods"]]
    try:
        return plan_settings({**settings, **confirm, "methods": arms, "baseline": FOUND})
    except IwloraError as error:
        raise IwloraError(
            "\n".join(f"confirm: {line}" for line in str(error).splitlines())
        ) from None


def _with_label(arm: Any) -> Any:
    """An arm; a preset of ``grouped`` is labeled by its name."""
    if isinstance(arm, Mapping) and arm.get("preset") and "label" not in arm:
        return {**arm, "label": arm["preset"]}
    return arm
