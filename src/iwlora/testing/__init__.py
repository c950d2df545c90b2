"""The conformance suite: checks that every method must pass, for other packages' methods too.

A check takes a :class:`Case`, which is a method on a tiny model of one architecture with an
empty folder, and raises ``AssertionError`` if the method breaks its contract::

    import pytest
    from iwlora.testing import Case, cases

    @pytest.mark.parametrize(("architecture", "check"), cases(MyMethod()), ids=str)
    def test_my_method(architecture, check, tmp_path):
        check(Case(MyMethod(), architecture, tmp_path))

A case trains once and keeps the result, so it saves time to use the same case for all checks of
one architecture. :func:`train_in_two_processes` trains many cases in one pair of processes.
"""

from __future__ import annotations

from iwlora.methods.contract import Method
from iwlora.methods.tiny_models import ARCHITECTURES, IMAGE_ARCHITECTURES, refusals
from iwlora.testing.case import BLOCKS, Case, train_in_two_processes
from iwlora.testing.checks import CHECKS, COSTLY, Check
from iwlora.testing.frozen_layers import frozen_blocks_once_equal_plain
from iwlora.testing.packed import packed_equals_alone

__all__ = [
    "ARCHITECTURES",
    "CHECKS",
    "COSTLY",
    "IMAGE_ARCHITECTURES",
    "Case",
    "Check",
    "cases",
    "frozen_blocks_once_equal_plain",
    "packed_equals_alone",
    "train_in_two_processes",
]


def cases(
    method: Method, everywhere: bool = False, of_images: bool = False, blocks: int = BLOCKS
) -> list[tuple[str, Check]]:
    """The checks of a method on every architecture that it supports.

    Args:
        method: the method to test.
        everywhere: whether the costly checks, which start processes or train more often, run on
            every architecture; otherwise they run on the first one only.
        of_images: whether to take the architectures that read images.
        blocks: the number of blocks of the tiny models, as the :class:`Case` has it.

    Returns:
        [(architecture, check)].
    """
    asked = refusals(method, IMAGE_ARCHITECTURES if of_images else ARCHITECTURES, blocks)
    supported = [name for name, refusal in asked.items() if refusal is None]
    pairs = [(architecture, check) for architecture in supported for check in CHECKS]
    costly = supported if everywhere else supported[:1]
    costly_checks = (*COSTLY, frozen_blocks_once_equal_plain)
    if not method.not_packable:
        costly_checks = (*costly_checks, packed_equals_alone)
    return pairs + [(architecture, check) for architecture in costly for check in costly_checks]
