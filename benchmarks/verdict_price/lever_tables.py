"""Tables of further levers: studies of several arms, the search, the metric and more rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from iwlora.compare.statistics.sequential import draws_for_power, power
from iwlora.results.comparison.record import StoppingRule
from timed_commands import table
from verdict_price.bank import OFFICIAL, STUDY, Bank
from verdict_price.planted import NULLS, planted_differences
from verdict_price.precision import sd_of_loss, sd_with_rows
from verdict_price.replay import (
    EARLIER,
    TOGETHER,
    WAYS,
    Way,
    minutes_per_run,
    planned_draws,
    sd_of_null,
)
from verdict_price.search_regret import Search, Trials
from verdict_price.searched import searched_verdicts
from verdict_price.study import TRUTHS, StudyPrice, study_price
from verdict_price.tables import DRAWS_FOR_TRUTH, NOT_RECORDED, absent, has_pairs

STUDY_WAYS = [way for way in WAYS if way.split in (OFFICIAL, STUDY)]
SEARCHED_WAYS = (
    (Search("best-score", draws=1, grids=1), EARLIER),
    (Search("best-score", draws=3, grids=3), EARLIER),
    (Search("loss-curve", draws=1, grids=1), TOGETHER),
    (Search("loss-curve", draws=3, grids=3), TOGETHER),
)
MORE_ROWS = {"glue/sst2": (872, 2200, 5000, 10_000)}
"""How many study rows to extrapolate to, for tasks that have them."""


def study_prices(
    banks: Sequence[Bank], lr: float, rule: StoppingRule
) -> dict[tuple[str, str], dict[Way, StudyPrice]]:
    """{(task, arms): {way: the price of a study}}; without prices where too few pairs are known."""
    return {
        (bank.task, kind): {way: study_price(bank, way, kind, lr, rule) for way in STUDY_WAYS}
        if has_pairs(bank, kind, lr)
        else {}
        for bank, kind in product(banks, NULLS)
    }


def study_table(prices: Mapping[tuple[str, str], Mapping[Way, StudyPrice]]) -> str:
    """What a study of six arms costs by the earlier way and with all levers, and how it ends."""
    rows = []
    for (task, kind), costs in prices.items():
        if not costs:
            rows.append([task, kind, NOT_RECORDED, *[""] * 5])
            continue
        earlier, together = costs[EARLIER], costs[TOGETHER]
        rows.append(
            [
                *(task, kind, f"{earlier.draws[0]:.0f}", _draws(together)),
                f"{together.minutes / earlier.minutes:.2f}",
                f"{together.power:.0%}",
                *(f"{together.false_difference:.1%}", f"{together.false_within:.1%}"),
            ]
        )
    arms = " / ".join(f"{truth:+g}" if truth else "0" for truth in TRUTHS)
    head = ["task", "arms", "draws of each arm, earlier way", f"draws of the arms at {arms}"]
    return table([*head, "of the earlier price", "power", "false difference", "false within"], rows)


def study_records(
    prices: Mapping[tuple[str, str], Mapping[Way, StudyPrice]],
) -> list[dict[str, str]]:
    """A row for each way, with all its draws and its wrong verdicts."""
    return [
        {
            "task": task,
            "arms": kind,
            "way": way.name,
            "draws_of_arms": _draws(found),
            "runs": f"{found.runs:.0f}",
            "core_minutes": f"{found.minutes:.0f}",
            "of_earlier_price": f"{found.minutes / costs[EARLIER].minutes:.2f}",
            "power": f"{found.power:.2f}",
            "false_difference": f"{found.false_difference:.3f}",
            "false_within": f"{found.false_within:.3f}",
        }
        for (task, kind), costs in prices.items()
        for way, found in costs.items()
    ]


def _draws(found: StudyPrice) -> str:
    """The mean draws of each arm."""
    return " / ".join(f"{draws:.0f}" for draws in found.draws)


def searched_table(
    banks: Sequence[Bank], lr: float, rule: StoppingRule, held_out: int, grid: Sequence[float]
) -> str:
    """Verdicts on independent arms that have searched their learning rates."""
    rows = []
    for bank in banks:
        trials = Trials.of(bank, grid)
        for search, way in SEARCHED_WAYS:
            if len(trials.seeds) < search.draws + DRAWS_FOR_TRUTH:
                rows.append(absent(bank, 9))
                break
            cells = [bank.task, f"{search.rule}, {search.draws} × {len(grid)} trials", way.name]
            pairs = NULLS["independent"](bank, way.split, lr)
            rng = np.random.default_rng(0)
            pool = planted_differences(pairs, rule.difference, rng)
            limit, _ = planned_draws(pairs, pool, way, rule, rng)
            found = searched_verdicts(trials, search, way, limit, rule, held_out)
            shares = (found.called_different, found.right, found.opposite)
            cells += [f"{found.spread:.2f}", *(f"{share:.0%}" for share in shares)]
            rows.append([*cells, f"{found.draws:.1f}", f"{found.trials:.1f}"])
    head = ["task", "search", "way", "sd of the true difference, points"]
    planted = f"{rule.difference:g} point better"
    head += ["equal arms called different", f"{planted}: found", f"{planted}: called worse"]
    return table([*head, "draws of equal arms", "trials of an arm"], rows)


def precision_table(banks: Sequence[Bank], lr: float) -> str:
    """The standard deviation by accuracy and by loss, in units of a planted point."""
    rows = []
    for bank, (kind, pairs_of) in product(banks, NULLS.items()):
        if not has_pairs(bank, kind, lr):
            rows.append(absent(bank, 5, kind))
            continue
        for split in (OFFICIAL, STUDY):
            pairs = pairs_of(bank, split, lr)
            found = (sd_of_null(pairs)[0], sd_of_loss(pairs))
            rows.append([bank.task, kind, split, *(f"{sd:.2f}" for sd in found)])
    return table(["task", "arms", "rows", "by accuracy", "by loss"], rows)


def more_rows_table(banks: Sequence[Bank], lr: float, rule: StoppingRule) -> str:
    """Sequential verdicts with more study rows than are recorded, from normal differences."""
    rows = []
    for bank, (kind, pairs_of) in product(banks, NULLS.items()):
        if bank.task not in MORE_ROWS or not has_pairs(bank, kind, lr):
            continue
        pairs = pairs_of(bank, STUDY, lr)
        unscored = minutes_per_run(bank, OFFICIAL, lr)
        each = (minutes_per_run(bank, STUDY, lr) - unscored) / pairs.arm.shape[1]
        for count in MORE_ROWS[bank.task]:
            sd = sd_with_rows(pairs, count)
            limit = draws_for_power(rule, sd)
            if limit is None:
                continue
            _, draws = power(rule.model_copy(update={"max_seeds": limit}), rule.difference, sd)
            minutes = 2 * draws * (unscored + each * count)
            cells = [bank.task, kind, f"{count:,}", f"{sd:.2f}", f"{draws:.1f}", f"{minutes:.1f}"]
            rows.append(cells)
    head = ["task", "arms", "study rows", "sd of a difference, points", "draws", "core-minutes"]
    return table(head, rows)
