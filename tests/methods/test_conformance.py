"""Every method passes the conformance suite.

Every check runs for every method on its first architecture. The other architectures run the checks
that need one training only, and for the variants of a method only one of them is used: GPT-2,
whose layers store the transposed weight. ``make slow`` adds the relatives of architectures that run
always, and ``stress/conformance.py`` runs every check of every method on every architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iwlora.methods import METHODS
from iwlora.testing import (
    Case,
    Check,
    cases,
    checks,
    packed_equals_alone,
    train_in_two_processes,
)

# Checks that train once more.
MORE_TRAINING = (
    checks.resumed_equals_uninterrupted,
    checks.accumulation_changes_nothing,
    checks.callbacks_are_called_once_per_step,
    checks.two_processes_equal_one,
    checks.predicted_parameters_are_exact,
)
# Methods that add the same modules to a model as another method in this list or outside it.
VARIANTS = (
    "pfeiffer",
    "parallel",
    "grouped",
    "dora",
    "rslora",
    "lora+",
    "lora-fa",
    "pissa",
    "eva",
    "lora-ga",
    "corda",
    "gora",
    "svd-lora",
    "iw-lora-as-written",
    "lora-uniform-penalty",
    "iw-lora-permuted",
    "iw-lora-inverted",
    "lora-importance-ranks",
    "lora-random-ranks",
)
RELATIVES = ("roberta", "electra", "bart")  # of BERT and T5


def selected() -> list[tuple[str, str, Check]]:
    """[(method, architecture, check)], see above."""
    triples = []
    for name, method in METHODS.items():
        pairs = cases(method())
        if not pairs:  # an old version of PEFT does not have it
            continue
        first = pairs[0][0]
        others = ("gpt2",) if name in VARIANTS else {architecture for architecture, _ in pairs}
        triples += [
            (name, architecture, check)
            for architecture, check in pairs
            if check is not packed_equals_alone  # tests/training/packed has all kinds in one pack
            and (architecture == first or (architecture in others and check not in MORE_TRAINING))
        ]
    return triples


def as_parameters(name: str, architecture: str, check: Check) -> Any:
    is_relative = architecture in RELATIVES and architecture != cases(METHODS[name]())[0][0]
    is_slow = is_relative or check is checks.two_processes_equal_one
    return pytest.param(
        *(name, architecture, check),
        id=f"{name}-{architecture}-{check.__name__}",
        marks=[pytest.mark.slow] if is_slow else [],
    )


SELECTED = selected()
Get = Callable[[str, str], Case]


@pytest.fixture(scope="module")
def get_case(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """One case for each method and architecture, so that it trains once."""
    made: dict[tuple[str, str], Case] = {}

    def get(name: str, architecture: str) -> Case:
        if (name, architecture) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{architecture}")
            made[name, architecture] = Case(METHODS[name](), architecture, folder)
        return made[name, architecture]

    return get


@pytest.fixture(scope="module")
def two_processes(get_case: Get) -> None:
    """All methods trained in one pair of processes."""
    costly = dict.fromkeys(
        (name, architecture)
        for name, architecture, check in SELECTED
        if check is checks.two_processes_equal_one
    )
    train_in_two_processes([get_case(*pair) for pair in costly])


@pytest.mark.parametrize(
    ("name", "architecture", "check"), [as_parameters(*triple) for triple in SELECTED]
)
def test_conformance(
    name: str, architecture: str, check: Check, get_case: Get, request: pytest.FixtureRequest
) -> None:
    if check is checks.two_processes_equal_one:
        request.getfixturevalue("two_processes")
    check(get_case(name, architecture))


def test_every_method_is_tested_by_every_check() -> None:
    tested = {(name, check) for name, _, check in SELECTED}
    every = {(name, check) for name, method in METHODS.items() for _, check in cases(method())}
    assert tested == {(name, check) for name, check in every if check is not packed_equals_alone}
