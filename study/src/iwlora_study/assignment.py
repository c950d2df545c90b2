"""Which matrix gets which measured value: its own, or for a control that of another."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from iwlora.sites import Site

Assign: TypeAlias = Literal["measured", "permuted", "inverted"]
"""measured: each matrix has its own value; permuted: that of a random one; inverted: the largest
value goes to the matrix with the smallest, and so on."""


def assign(
    values: Mapping[str, float],
    sites: Sequence[Site],
    how: Assign,
    seed: int,
    across_shapes: bool = False,
) -> dict[str, float]:
    """{site name: value}, where values change places only among matrices of one shape.

    So every control has the same values at the same numbers of parameters.

    Args:
        values: {site name: measured value}.
        sites: the matrices.
        how: which value each matrix gets.
        seed: of the permutation.
        across_shapes: values change places among all matrices.

    Example:
        >>> from torch import nn
        >>> from iwlora.sites import Site
        >>> sites = [Site(name, nn.Linear(2, 2), "query", 2, 2, 0) for name in "abc"]
        >>> assign({"a": 1.0, "b": 3.0, "c": 2.0}, sites, "inverted", seed=0)
        {'a': 3.0, 'b': 1.0, 'c': 2.0}
    """
    classes: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for site in sites:
        classes[() if across_shapes else (site.d_out, site.d_in)].append(site.name)
    shuffler, source = random.Random(seed), {name: name for name in values}
    for names in classes.values():
        if how == "permuted":
            source |= zip(names, shuffler.sample(names, len(names)), strict=True)
        elif how == "inverted":
            ascending = sorted(names, key=values.__getitem__)
            source |= zip(ascending, reversed(ascending), strict=True)
    return {site.name: values[source[site.name]] for site in sites}
