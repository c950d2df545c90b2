"""Names in a ``peft.LoraConfig``: each must match one weight, and keep the scaling."""

from __future__ import annotations

from typing import Any

import pytest

from iwlora.advice.peft_settings import WeightNames, as_python, check_names
from iwlora.errors import IwloraError

pytestmark = pytest.mark.quick

WEIGHTS = WeightNames(
    ["enc", "enc.0.q", "enc.0.k", "enc.10.q", "dec.enc.0.q", "head"],
    ["enc.0.q.weight", "enc.0.k.weight", "experts.up", "shared.experts.up"],
)
GOOD: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["enc.0.k", "enc.10.q"]}
SITES = ["enc.0.k", "enc.10.q"]


def test_names_that_match_one_module_pass() -> None:
    check_names(WEIGHTS, GOOD, SITES)
    patterns = {"rank_pattern": {"enc.0.k": 4}, "alpha_pattern": {"enc.0.k": 8.0}}
    check_names(WEIGHTS, GOOD | patterns, SITES)
    pattern = {"target_modules": r"enc\.0\.k|enc\.10\.q"}
    check_names(WEIGHTS, GOOD | pattern, SITES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["enc.0.q", "enc.10.q"]}, "'enc.0.q' matches 2 weights of the model"),
        ({"target_modules": ["enc.1.k", "enc.10.q"]}, "'enc.1.k' matches 0 weights of the model"),
        ({"target_modules": ["enc.10.q"]}, "enc.0.k is not adapted, and should be"),
        ({"target_modules": [*SITES, "head"]}, "head is adapted, and should not be"),
        ({"rank_pattern": {"0.v": 8}, "alpha_pattern": {}}, "rank_pattern '0.v' matches 0"),
        ({"rank_pattern": {r".*\d\..": 8}}, r"rank_pattern '.*\\d\\..' matches 2 weights"),
        ({"rank_pattern": {"enc.0.k": 4}}, "enc.0.k has the scaling 4, and the others 2"),
        ({"target_parameters": ["experts.up"]}, "'experts.up' matches 2 weights of the model"),
    ],
)
def test_a_planted_fault_is_found(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IwloraError) as refused:
        check_names(WEIGHTS, GOOD | changes, SITES)
    assert message in str(refused.value)


def test_python_code_makes_the_arguments() -> None:
    arguments = GOOD | {"target_modules": [f"enc.{n}.q" for n in range(40)], "task_type": "X"}
    made: dict[str, Any] = {}
    code = as_python(arguments).replace("from peft import LoraConfig", "LoraConfig = dict")
    exec(code, made)
    assert made["config"] == arguments
    assert max(map(len, code.splitlines())) <= 100
