"""The last stage: the found design against other methods, on fresh seeds and the reported rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.preflight import check_budgets, check_search, check_task
from iwlora.compare.plan.recipe import plan_settings
from iwlora.design.settings import DesignSettings
from iwlora.design.stages import FIRST_SEED
from iwlora.errors import IwloraError
from iwlora.methods.grouped.grouped import Grouped
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows

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

    :func:`confirmation_problems` compared the sizes of the other methods before the search. The
    found design is within 5% of the budget, and so perhaps more than 5% away from them: this does
    not stop the comparison, and its report says it.

    Raises:
        IwloraError: Every problem of ``confirm``.
    """
    if confirm is None:
        return None
    plan = _with_found(confirm, found)
    return replace(plan, settings={**plan.settings, "unequal_budgets": True})


def _with_found(confirm: Mapping[str, Any], found: Recipe) -> Plan:
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


def confirmation_problems(
    confirm: Mapping[str, Any] | None, run: Recipe, with_model: bool
) -> list[str]:
    """What is wrong with the other methods, which would stop the search after its last stage.

    Args:
        confirm: The settings of the confirmation.
        run: The settings that all runs share.
        with_model: Whether to check that the model can have the methods within the budget.
    """
    if confirm is None:
        return []
    try:
        plan = _with_found(confirm, run.model_copy(update={"method": Grouped()}))
    except IwloraError as error:
        return str(error).splitlines()
    largest, problems = max(run.seed for run in (*plan.runs, *plan.trials)), list[str]()
    if largest >= FIRST_SEED:
        problems.append(
            f"confirm: the largest seed of its runs and trials is {largest}; accepted are 0 to "
            f"{FIRST_SEED - 1}, because stages have larger ones"
        )
    others = [each for each in plan.runs if each.label != FOUND]
    if not (others and with_model):
        return problems
    try:
        check_budgets(replace(plan, runs=tuple(others), baseline=None))
    except IwloraError as error:
        problems += [f"confirm: {line}" for line in str(error).splitlines()]
    return problems


def check_data(confirm: Mapping[str, Any] | None, run: Recipe, bad_rows: Path) -> None:
    """Read the data of the comparison, so that what is wrong with them is known before the search.

    Args:
        confirm: The settings of the confirmation.
        run: The settings that all runs share.
        bad_rows: The file that gets the list of rows that cannot be used, if these are refused.

    Raises:
        IwloraError: The data cannot be read, or its search of learning rates has too few steps.
    """
    if confirm is None:
        return
    plan = _with_found(confirm, run.model_copy(update={"method": Grouped()}))
    with listing_bad_rows(bad_rows):
        check_task(plan)
        try:
            check_search(plan)
        except IwloraError as error:
            raise IwloraError(f"confirm: {error}") from None


def _with_label(arm: Any) -> Any:
    """An arm; a preset of ``grouped`` is labeled by its name."""
    if isinstance(arm, Mapping) and arm.get("preset") and "label" not in arm:
        return {**arm, "label": arm["preset"]}
    return arm
