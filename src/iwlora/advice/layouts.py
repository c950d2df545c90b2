"""Which matrices a choice adapts: its label in the table, and its targets in a recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from iwlora.methods.low_rank.lora import site_rank
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

WHOLE_RANK = 8
"""The rank at all matrices that ``share_of_rank_8`` is a share of."""

_QUERY_VALUE = re.compile(r"(decoder_)?(cross_)?(query|value)")
_FUSED = re.compile(r"(decoder_)?(cross_key_value|query_key_value|cross_query)")
_VALUE = re.compile(r"(decoder_)?(cross_)?value")


@dataclass(frozen=True)
class Layout:
    """Some matrices of a model.

    Args:
        name: its label in the table, without the rank.
        title: what it is in words.
        sites: the measured matrices.
        targets: what chooses them in a recipe.
        control: the label of the choice without importance that it must be better than; None for
            a layout that does not use importance.
    """

    name: str
    title: str
    sites: tuple[SiteSensitivity, ...]
    targets: str | list[str]
    control: str | None = None

    def label(self, rank: int) -> str:
        """The label of the layout with this rank in the table of evidence."""
        return f"rank-{rank}-everywhere" if self.name == "everywhere" else self.name

    def parameters(self, rank: int) -> int:
        """Σ_k r (d_in + d_out), over all experts; a router's r is limited to its smaller side."""
        return sum(site_rank(rank, site) * site.parameters_per_rank for site in self.sites)

    @property
    def largest_rank(self) -> int:
        """The smaller side of the smallest matrix that is no router."""
        sizes = [site.largest_rank for site in self.sites if not site.is_router]
        return min(sizes or [site.largest_rank for site in self.sites])


def everywhere(sensitivity: Sensitivity, targets: str | list[str]) -> Layout:
    """All matrices that the recipe's targets choose."""
    sites = sensitivity.included
    title = f"all {len(sites)} matrices" if targets == "all" else f"{len(sites)} matrices, as given"
    return Layout("everywhere", title, sites, targets)


def spread_thin(whole: Layout) -> list[Layout]:
    """What is left of all matrices where a limit allows less and less of them.

    First all, then queries and values, values, and at last the smallest matrix alone.
    """
    query_value = _of_kinds(whole, "query-value", "queries and values", _QUERY_VALUE, _FUSED)
    values = _of_kinds(whole, "value", "values", _VALUE)
    candidates = [site for site in reversed(whole.sites) if not site.is_router] or whole.sites
    last = min(candidates, key=lambda site: site.parameters_per_rank)
    smallest = Layout("one-matrix", f"the matrix {last.name} alone", (last,), [last.name])
    return [whole, *query_value, *values, smallest]


def upper(layout: Layout, last_block: bool = False) -> Layout | None:
    """Its matrices in the last third of the blocks, or in the last block.

    None if that is all blocks, or if the last third is the last block.
    """
    blocks = list(dict.fromkeys(map(_block, layout.sites)))
    third = len(blocks) // 3
    if len(blocks) < 2 or (not last_block and third < 2):
        return None
    kept = blocks[-1:] if last_block else blocks[-third:]
    name, words = ("last-block", "the last block") if last_block else ("last-third", "the last ")
    words += "" if last_block else f"{len(kept)} of {len(blocks)} blocks"
    if layout.name != "everywhere":
        name, words = f"{layout.name}-in-{name}", f"{layout.title} in {words}"
    sites = tuple(site for site in layout.sites if _block(site) in kept)
    whole = layout.targets == "all"
    targets = "|".join(rf"{re.escape(b)}\..*" for b in kept) if whole else [s.name for s in sites]
    return Layout(name, words, sites, targets)


def important_sites(whole: Layout, most: int) -> Layout | None:
    """The matrices with the most importance for their parameters, at rank 8.

    They are taken in the order of s² / (d_in + d_out), as long as they have at most ``most``
    parameters together; None if not even the first fits.
    """
    chosen: list[SiteSensitivity] = []
    for site in by_importance(whole.sites):
        if Layout("", "", (*chosen, site), []).parameters(WHOLE_RANK) > most:
            break
        chosen.append(site)
    names = {site.name for site in chosen}
    sites = tuple(site for site in whole.sites if site.name in names)
    title = f"the {len(sites)} most important matrices"
    targets = [site.name for site in sites]
    return Layout("important-sites", title, sites, targets, "random-sites") if sites else None


def by_importance(sites: Sequence[SiteSensitivity]) -> list[SiteSensitivity]:
    """The matrices in the order of s² / (d_in + d_out), the largest first."""
    return sorted(sites, key=lambda site: -(site.value**2) / site.parameters_per_rank)


def least_important(sites: Sequence[SiteSensitivity]) -> list[SiteSensitivity]:
    """The sixth of the matrices with the least importance for their parameters."""
    return by_importance(sites)[-math.ceil(len(sites) / 6) :]


def _of_kinds(
    whole: Layout,
    name: str,
    title: str,
    *patterns: re.Pattern[str],
) -> list[Layout]:
    """The layout of the kinds of matrices that the first pattern finds, if any does."""
    for kinds in patterns:
        sites = tuple(site for site in whole.sites if kinds.fullmatch(site.kind))
        if sites and len(sites) < len(whole.sites):
            targets = list(dict.fromkeys(s.kind for s in sites))
            named = targets if whole.targets == "all" else [site.name for site in sites]
            return [Layout(name, f"{len(sites)} {title}", sites, named)]
    return []


def _block(site: SiteSensitivity) -> str:
    """The path of the block, which ends with its index."""
    parts = site.name.split(".")
    return ".".join(parts[: parts.index(str(site.depth)) + 1])
