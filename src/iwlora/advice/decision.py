"""Matrices, rank, method and learning rate, within a number of parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from iwlora.advice.layouts import WHOLE_RANK, Layout, important_sites, spread_thin
from iwlora.advice.measured import Measured
from iwlora.advice.rules import Reason, Rules, Sized
from iwlora.methods.budget import parse_budget
from iwlora.training.recipe import build


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Args:
        sized: the matrices and the rank.
        settings: those of the recipe, without ``targets``.
        reasons: the rules for it, with their rows.
        remarks: what was done for the limit, in words.
        given: the fields that the user has set.
    """

    sized: Sized
    settings: Mapping[str, Any]
    reasons: tuple[Reason, ...]
    remarks: tuple[str, ...]
    given: frozenset[str]


def decide(
    settings: Mapping[str, Any],
    given: Collection[str],
    rules: Rules,
    params: str | float | None,
    measured: Measured,
) -> Decision:
    """Apply the rules.

    Args:
        settings: of the suggested recipe.
        given: the fields that the user has set; they stay.
        rules: the rules.
        params: the most parameters of the adapter; None: no limit.
        measured: the measurement.
    """
    most = None if params is None else parse_budget(params, measured.backbone, option="params")
    start = build(settings)
    rank = int(start.method.size or WHOLE_RANK)
    ranks = [rank] if "method.rank" in given else list(range(rank, 0, -1))
    options, remarks = _options(rules.whole, ranks, most)
    if most is not None and "method.rank" not in given and rules.whole.parameters(rank + 1) <= most:
        remarks.append(
            f"params={params} is {most:,} parameters, more than the {options[0].parameters:,} of "
            f"rank {rank}: a higher rank is not measured for this kind ({measured.kind})"
        )
    sized, why_size = rules.size(options, "method.rank" in given, limited=most is not None)
    method, why_method = rules.method(sized.parameters)
    lr, why_lr = rules.learning_rate(start.train.lr, sized.parameters)
    options_of_method = settings["method"] if isinstance(settings["method"], Mapping) else {}
    chosen = {"name": start.method.name, **options_of_method, "rank": sized.rank}
    if "method.lora_alpha" not in given:
        chosen["lora_alpha"] = 2 * sized.rank
    if "method.name" not in given:
        chosen["name"] = method
    train = dict(settings.get("train", {}))
    if "train.lr" not in given:
        train["lr"] = lr
    return Decision(
        sized,
        {**settings, "method": chosen, "train": train},
        (why_size, rules.importance(), why_method, why_lr),
        tuple(remarks),
        frozenset(given),
    )


def _options(whole: Layout, ranks: list[int], most: int | None) -> tuple[list[Sized], list[str]]:
    """What fits, the widest spread first; and a remark where nothing does."""
    layouts = spread_thin(whole)
    chosen = important_sites(whole, whole.parameters(WHOLE_RANK) if most is None else most)
    options = [
        Sized(layout, max(fitting))
        for layout in [*layouts, *([chosen] if chosen else [])]
        if (fitting := [r for r in ranks if _fits(Sized(layout, r), most)])
    ]
    if options:
        return options, []
    if most is None:  # a rank was given that is too large, which the recipe refuses in words
        return [Sized(whole, ranks[0])], []
    nearest = Sized(layouts[-1], ranks[-1])
    return [nearest], [
        f"params={most:,} is not enough: the smallest adapter here has {nearest.parameters:,} "
        f"parameters, rank {nearest.rank} at {nearest.layout.title}; that is the nearest"
    ]


def _fits(sized: Sized, most: int | None) -> bool:
    small_enough = most is None or sized.parameters <= most
    return small_enough and sized.rank <= sized.layout.largest_rank
