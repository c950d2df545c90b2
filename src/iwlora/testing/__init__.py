"""What every method owes, as checks that also run on methods of one's own.

A check takes a :class:`Case`, which is a method on a tiny model of one architecture with an
empty folder, and raises ``AssertionError`` where the method breaks a promise of its contract::

    import pytest
    from iwlora.testing import Case, cases

    @pytest.mark.parametrize(("architecture", "check"), cases(MyMethod()), ids=str)
    def test_my_method(architecture, check, tmp_path):
        check(Case(MyMethod(), architecture, tmp_path))

A case trains once and keeps the result, so give all checks of one architecture the same case
where time matters. :func:`in_two_processes` trains many cases in one pair of processes.
"""

from __future__ import annotations

from iwlora.methods.contract import Method
from iwlora.methods.tiny_models import ARCHITECTURES, refusals
from iwlora.testing.case import Case
from iwlora.testing.checks import CHECKS, COSTLY, Check
from iwlora.testing.processes import in_two_processes

__all__ = [
    "ARCHITECTURES",
    "CHECKS",
    "COSTLY",
    "Case",
    "Check",
    "cases",
    "in_two_processes",
]


def cases(method: Method, everywhere: bool = False) -> list[tuple[str, Check]]:
    """(architecture, check) for all that the method owes on the architectures that it takes.

    The costly checks, which start processes, come on the first of them alone unless
    ``everywhere``.
    """
    asked = refusals(method).items()
    taken = [architecture for architecture, refusal in asked if refusal is None]
    every = [(architecture, check) for architecture in taken for check in CHECKS]
    some = taken if everywhere else taken[:1]
    return every + [(architecture, check) for architecture in some for check in COSTLY]
