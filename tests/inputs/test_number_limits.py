"""Numbers without sense in a recipe are refused with a message, in every field."""

from __future__ import annotations

from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.limits import LARGEST_COUNT
from iwlora.methods import METHODS
from iwlora.tasks.kinds import KINDS
from iwlora.tasks.spec import TaskSpec
from iwlora.training.recipe import apply_overrides, build
from iwlora.training.train_settings import TrainSettings

pytestmark = pytest.mark.quick

SETTINGS: dict[str, Any] = {"model": "m", "task": {"name": "builtin/entailment"}, "method": "lora"}
METHOD_OF = {field: name for name, kind in METHODS.items() for field in kind.model_fields}
FIELDS = [
    *(("lora", f"train.{name}") for name in TrainSettings.model_fields),
    *(("lora", f"task.{name}") for name in TaskSpec.model_fields),
    *((name, f"method.{field}") for field, name in METHOD_OF.items()),
    *(
        ("lora", f"task.kind={{name: {name}, {field}: VALUE}}")
        for name, kind in KINDS.items()
        for field in kind.model_fields
    ),
    ("lora", "budget"),
]
ODD = (
    *("9" * 5000, "1e400", "-1e400", ".nan", "1e308", "-1", "0", str(2**63), "1e-320", "0.999999"),
    *('"\\ud800"', "true", "[[[1]]]", "{a: .nan}", "!!python/object:os.system {}", "!tag x"),
)
COUNTS = (
    *("train.batch_size", "train.max_length", "train.max_steps", "train.save_steps"),
    *("train.keep_checkpoints", "train.accumulate", "task.max_train", "method.rank"),
)


def recipe_with(method: str, field: str, value: str) -> Any:
    settings = {**SETTINGS, "method": {"name": method}}
    name, _, form = field.partition("=")
    assignment = f"{name}={form.replace('VALUE', value) if form else value}"
    return build(apply_overrides(settings, [assignment]))


def test_every_odd_value_of_every_field_gives_a_recipe_or_a_message() -> None:
    refused = 0
    for method, field in FIELDS:
        for value in ODD:
            try:
                recipe_with(method, field, value).to_yaml()
            except IwloraError:
                refused += 1
    assert refused > len(FIELDS) * len(ODD) / 2


@pytest.mark.parametrize("field", COUNTS)
def test_a_count_has_a_largest_value(field: str) -> None:
    recipe_with("lora", field, str(LARGEST_COUNT if field != "train.accumulate" else 32))
    with pytest.raises(IwloraError, match="less than or equal to 2147483647"):
        recipe_with("lora", field, str(LARGEST_COUNT + 1))
