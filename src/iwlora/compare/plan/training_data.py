"""Training data that an arm has for itself, where the comparison declares it: ``vary``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from iwlora.errors import short_repr, unknown
from iwlora.results.comparison.record import TRAINING_DATA

_SCORED = "the arms would be scored on other rows"
_SCORING = "the arms would be scored in another way"
_HELD_OUT = "other training rows would be held out"

SHARED_TASK_SETTINGS = {
    "name": _SCORED,
    "data_dir": _SCORED,
    "grammar_seed": _SCORED,
    "grammar_depth": _SCORED,
    "validation": _SCORED,
    "test": _SCORED,
    "max_validation": _SCORED,
    "max_test": _SCORED,
    "score_rows": _SCORED,
    "draw_rows": _SCORED,
    "holdout": _SCORED,
    "text": _SCORED,
    "label": _SCORING,
    "labels": _SCORING,
    "kind": _SCORING,
    "former_kind_defaults": _SCORING,
    "selection": "the scored parameters would be chosen in another way",
    **dict.fromkeys(("encoding", "delimiter", "header"), "the same files would be read otherwise"),
    "group": _HELD_OUT,
    "draw": "the arms would draw their training rows in another way",
    "split": _HELD_OUT,
    "on_bad": _SCORED,
}
"""Fields of ``task`` that one arm alone may not set, declared or not, each with the reason."""


def own_training_data(arm: Mapping[str, Any]) -> dict[str, Any]:
    """{field: value} of the training data that an entry of ``methods`` sets for itself.

    >>> own_training_data({"name": "lora", "task": {"max_train": 1600}, "train": {"lr": 1e-3}})
    {'task.max_train': 1600}
    """
    given = {
        f"{part}.{name}": value
        for part in ("task", "train")
        if isinstance(arm.get(part), Mapping)
        for name, value in arm[part].items()
    }
    return {field: given[field] for field in TRAINING_DATA if field in given}


def data_label(data: Mapping[str, Any]) -> str:
    """What the label of an arm says about its own training data; "" if it has none.

    >>> data_label({"task.max_train": 1600, "task.train": "data/small.csv"})
    '-max_train=1600-train=small'
    """
    texts = (f"-{field.rpartition('.')[2]}={_value_text(value)}" for field, value in data.items())
    return re.sub(r"[^\w.+=-]", "_", "".join(texts))


def vary_problems(vary: Any) -> list[str]:
    """Why arms may not differ in the fields that ``vary`` lists, one message each.

    >>> print(vary_problems(["task.validation"])[0].partition(";")[0])
    vary: arms may not differ in task.validation: the arms would be scored on other rows
    """
    if not isinstance(vary, list) or not all(isinstance(field, str) for field in vary):
        return [f"vary={short_repr(vary)}: accepted is a list of fields such as [task.max_train]"]
    problems = []
    for field in vary:
        part, _, name = field.partition(".")
        if part == "task" and name in SHARED_TASK_SETTINGS:
            problems.append(
                f"vary: arms may not differ in {field}: {SHARED_TASK_SETTINGS[name]}; accepted are "
                f"{', '.join(TRAINING_DATA)}"
            )
        elif field not in TRAINING_DATA:
            problems.append(f"vary: {unknown('field of the training data', field, TRAINING_DATA)}")
    return problems


def unused_fields(vary: Sequence[str], used: Collection[str]) -> list[str]:
    """A message for each declared field in which no arm differs.

    It is refused: what is declared must be what the report says.
    """
    return [
        f"vary: {field} is declared, and no arm has its own; remove it from vary, or give it to an "
        "arm"
        for field in vary
        if field in TRAINING_DATA and field not in used
    ]


def _value_text(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, Sequence) and not isinstance(value, str):
        names = [item.get("train") if isinstance(item, Mapping) else item for item in value]
        return "+".join(_value_text(name) for name in names) or "none"
    return Path(value).stem if isinstance(value, str) else str(value)
