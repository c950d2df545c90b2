"""Every row of ``METHODS`` keeps the contract, on every architecture that it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iwlora.methods import METHODS
from iwlora.testing import Case, Check, cases, in_two_processes

ROWS = {name: method() for name, method in METHODS.items()}
OWED = [
    pytest.param(name, architecture, check, id=f"{name}-{architecture}-{check.__name__}")
    for name, method in ROWS.items()
    for architecture, check in cases(method)
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    """One case for each method and architecture, so that it trains once."""
    made: dict[tuple[str, str], Case] = {}

    def get(name: str, architecture: str) -> Case:
        if (name, architecture) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{architecture}")
            made[name, architecture] = Case(ROWS[name], architecture, folder)
        return made[name, architecture]

    firsts = [get(name, cases(method)[0][0]) for name, method in ROWS.items()]
    in_two_processes(firsts)
    return get


@pytest.mark.parametrize(("name", "architecture", "check"), OWED)
def test_conformance(
    name: str, architecture: str, check: Check, case: Callable[[str, str], Case]
) -> None:
    check(case(name, architecture))
