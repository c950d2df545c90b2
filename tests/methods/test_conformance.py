"""Every row of ``METHODS`` keeps the contract, on every architecture that it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iwlora.methods import METHODS
from iwlora.testing import Case, Check, cases, checks, train_in_two_processes

IN_TWO = checks.two_processes_equal_one
ROWS = {name: method() for name, method in METHODS.items()}
OWED = [
    pytest.param(name, architecture, check, id=f"{name}-{architecture}-{check.__name__}")
    for name, method in ROWS.items()
    for architecture, check in cases(method, everywhere=True)
]


Get = Callable[[str, str], Case]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """One case for each method and architecture, so that it trains once."""
    made: dict[tuple[str, str], Case] = {}

    def get(name: str, architecture: str) -> Case:
        if (name, architecture) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{architecture}")
            made[name, architecture] = Case(ROWS[name], architecture, folder)
        return made[name, architecture]

    return get


@pytest.fixture(scope="module")
def paired(case: Get) -> None:
    """All methods trained in one pair of processes."""
    alone = dict.fromkeys(p.values[:2] for p in OWED if p.values[2] is IN_TWO)
    train_in_two_processes([case(str(name), str(architecture)) for name, architecture in alone])


@pytest.mark.parametrize(("name", "architecture", "check"), OWED)
def test_conformance(
    name: str, architecture: str, check: Check, case: Get, request: pytest.FixtureRequest
) -> None:
    if check is IN_TWO:
        request.getfixturevalue("paired")
    check(case(name, architecture))
