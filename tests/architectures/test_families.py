"""Model families that differ as much as possible through the whole tool.

``stress/architectures.py`` does the same for every family of the installed transformers.
"""

from __future__ import annotations

from typing import Any

import pytest

from architectures import METHODS
from families.catalogue import TABLES, families, one_kind_each
from families.outcomes import run_family

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("classification", {}),  # from a masked language model, which has no pooler
    "t5": ("seq2seq", {}),
    "llama": ("token-labels", {"num_key_value_heads": 2}),
    "qwen3_moe": ("question-answering", {}),
    "mamba": ("instruction", {}),
    "gemma3": ("classification", {}),  # with a vision tower that texts do not use
}


SLOW = ("t5", "gemma3", "bert")  # many of their parts are in other tests too


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES],
)
def test_results_are_equal_everywhere(family: str) -> None:
    kind, changes = FAMILIES[family]
    outcomes = run_family(family, kind, METHODS, **changes)
    assert [(row.method, row.result, row.message) for row in outcomes] == [
        (method, "equal", "") for method in METHODS
    ]


@pytest.mark.quick
def test_the_catalogue_has_every_family_of_each_table() -> None:
    kinds = families()
    assert len(kinds) > 150  # 192 in transformers 5.0
    assert {kind for possible in kinds.values() for kind in possible} == set(TABLES)
    assert "instruction" not in kinds["bert"]  # iwlora refuses to generate with encoders
    chosen = one_kind_each(kinds)
    assert [family for family, _ in chosen] == list(kinds)
    assert all(kind in kinds[family] for family, kind in chosen)
    assert all(sum(kind == name for _, kind in chosen) >= 10 for name in TABLES)
