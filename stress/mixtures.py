"""Mixtures of ``grouped`` for the conformance suite, by name; each has a block for each group."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.parts import BIASES, STRATEGIES, combination_problems
from iwlora.testing.case import BLOCKS


def every_pair() -> dict[str, Grouped]:
    """Each two parts that may share a layer are in a group; a mixture has two groups.

    Pairs with biases are together, so that models without bias terms have all other pairs.
    """
    pairs = [
        two for two in itertools.combinations(STRATEGIES, 2) if not [*combination_problems(two)]
    ]
    mixtures = {}
    for with_biases in (False, True):
        chosen = [two for two in pairs if (BIASES in two) == with_biases]
        for first, second in zip(chosen[::2], [*chosen[1::2], chosen[0]], strict=False):
            name = f"{'+'.join(first)},{'+'.join(second)}"
            mixtures[name] = Grouped(strategies=(first, second), part_size=4)
    return mixtures


MIXTURES: Mapping[str, Grouped] = {
    "s4": Grouped(preset="s4", part_size=4),
    "all-parts": Grouped(
        strategies=(("prefix", "bitfit", "pfeiffer", "lora"), ("houlsby", "bitfit", "rslora")),
        part_size=4,
    ),
    "linear-mixture": Grouped(strategies=(("lora", "bitfit"), ("dora",)), part_size=4),
    "low-rank-groups": Grouped(strategies=(("lora",),), allocation="increasing").with_budget(2000),
    "upper-group": Grouped(
        groups=(1, 1), strategies=(("lora",), ("prefix", "bitfit", "dora")), tuned=(2,), part_size=4
    ),
    "prefixes": Grouped(strategies=(("prefix",),), part_size=4),
    **every_pair(),
}
_BLOCKS = {"s4": 4}


def blocks_of(name: str) -> int:
    """The number of blocks of the models that a method or mixture is tested on."""
    return _BLOCKS.get(name, BLOCKS)
