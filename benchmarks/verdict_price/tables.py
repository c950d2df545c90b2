"""The tables that the benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from iwlora.compare.statistics.paired_tests import summarize
from iwlora.results.comparison.record import StoppingRule
from timed_commands import table
from verdict_price.bank import FEWER_ROWS, LORA, OFFICIAL, STUDY, Array, Bank
from verdict_price.planted import NULLS, recorded_pairs
from verdict_price.precision import sd_of_rows
from verdict_price.replay import EARLIER, TOGETHER, WAYS, Price, Way, price
from verdict_price.search_regret import Regret, Search, Trials, simulate_searches
from verdict_price.simulation import Promises, simulate

NOT_RECORDED = "not recorded yet"
FEWEST_PAIRS = 4
"""With fewer recorded pairs, nothing is replayed."""
GOAL = 0.1
SEARCHES = (
    Search("best-score", draws=1, grids=1),
    Search("loss-curve", draws=1, grids=1),
    Search("best-score", draws=2, grids=2),
    Search("loss-curve", draws=3, grids=2),
)
"""The earlier rule and the new one, at the cost of one and of two trials of each learning rate."""
DRAWS_FOR_TRUTH = 2


def recorded_table(banks: Sequence[Bank], lr: float) -> str:
    """What is recorded of each task, and what a run costs."""
    head = ["task", "runs", "pairs", "accuracy, official", "accuracy, study rows", "training"]
    rows = []
    for bank in banks:
        chosen = [*bank.of_arm(LORA, lr).values()]
        if len(chosen) < 2:
            rows.append(absent(bank, 8))
            continue
        scored = [_accuracy(bank.scores[split][chosen]) for split in (OFFICIAL, STUDY)]
        seconds = [
            f"{np.mean([bank.runs[number].seconds[part] for number in chosen]):.0f} s"
            for part in ("training", OFFICIAL, STUDY)
        ]
        pairs = len(recorded_pairs(bank, OFFICIAL, lr).arm)
        rows.append([bank.task, str(len(bank.runs)), str(pairs), *scored, *seconds])
    return table([*head, "scoring official", "scoring study rows"], rows)


def _accuracy(scores: Array) -> str:
    points = 100 * (scores > 0).mean(-1)
    return f"{points.mean():.1f} ± {points.std(ddof=1):.1f} ({scores.shape[1]:,} rows)"


def prices_of(
    banks: Sequence[Bank], lr: float, rule: StoppingRule
) -> dict[tuple[str, str], dict[Way, Price]]:
    """{(task, arms): {way: its price}}; without prices where too few pairs are recorded."""
    return {
        (bank.task, kind): {
            way: price(bank, way, pairs_of(bank, way.split, lr), lr, rule) for way in WAYS
        }
        if has_pairs(bank, kind, lr)
        else {}
        for bank, (kind, pairs_of) in product(banks, NULLS.items())
    }


def price_table(prices: Mapping[tuple[str, str], Mapping[Way, Price]]) -> str:
    """The price of each way as a part of the earlier one, and whether the goal is met."""
    levers = [way for way in WAYS if way != EARLIER]
    rows, goals = [], []
    for (task, kind), costs in prices.items():
        if not costs:
            rows.append([task, kind, NOT_RECORDED, *[""] * len(levers)])
            goals.append(f"- {task}, {kind}: open, {NOT_RECORDED}")
            continue
        earlier = costs[EARLIER].minutes
        cells = [f"{costs[way].minutes / earlier:.2f}" for way in levers]
        rows.append([task, kind, f"{earlier:.1f}", *cells])
        goals.append(f"- {task}, {kind}: {goal_sentence(costs)}")
    head = ["task", "arms", "core-minutes of the earlier way", *(way.name for way in levers)]
    goal = f"The goal is that all together cost at most {GOAL:g} of the earlier price:"
    return "\n".join([table(head, rows), "", goal, "", *goals])


def price_records(prices: Mapping[tuple[str, str], Mapping[Way, Price]]) -> list[dict[str, str]]:
    """A row for each way, with its draws and the standard deviations that it rests on."""
    return [
        {
            "task": task,
            "arms": kind,
            "way": way.name,
            "sd": f"{cost.sd:.2f}",
            "sd_low": f"{cost.sd_low:.2f}",
            "sd_high": f"{cost.sd_high:.2f}",
            "draws": f"{cost.draws:.1f}",
            "power": f"{cost.power:.2f}",
            **{f"draws_at_{truth:g}": f"{draws:.1f}" for truth, draws in cost.other_draws.items()},
            "core_minutes": f"{cost.minutes:.1f}",
            "of_earlier_price": f"{cost.minutes / costs[EARLIER].minutes:.2f}",
        }
        for (task, kind), costs in prices.items()
        for way, cost in costs.items()
    ]


def goal_sentence(prices: Mapping[Way, Price]) -> str:
    """Whether the price of all levers together is a tenth of the earlier one."""
    ratio = prices[TOGETHER].minutes / prices[EARLIER].minutes
    return f"{'met' if ratio <= GOAL else 'missed'}, {ratio:.2f}"


def promise_table(banks: Sequence[Bank], lr: float, rule: StoppingRule) -> str:
    """The shares of wrong verdicts under a look after every draw, with and without correction."""
    rows = []
    for bank, (kind, pairs_of) in product(banks, NULLS.items()):
        if not has_pairs(bank, kind, lr):
            rows.append(absent(bank, 7, kind))
            continue
        for split in (OFFICIAL, STUDY):
            found = simulate(pairs_of(bank, split, lr), rule)
            rows.append([bank.task, kind, split, *_promise_cells(found, rule)])
    head = ["task", "arms", "rows", "no difference, but called better or worse"]
    head += ["true difference, but called within"]
    return table([*head, "power", f"promises of at most {rule.error:.0%}"], rows)


def _promise_cells(found: Promises, rule: StoppingRule) -> list[str]:
    return [
        f"{found.false_difference:.1%} (t test: {found.uncorrected_difference:.1%})",
        f"{found.false_within:.1%} (t test: {found.uncorrected_within:.1%})",
        f"{found.power:.0%}",
        "kept" if found.kept(rule) else "broken",
    ]


def real_difference_table(banks: Sequence[Bank], lr: float) -> str:
    """Real arms minus LoRA: the mean over draws with its 95% t interval, and the sd.

    In brackets, the sd that the choice of rows gives the mean over all draws.
    """
    rows = []
    arms = {
        "1,600 of the 2,000 training rows": (FEWER_ROWS, lr),
        "three times the learning rate": (LORA, 3 * lr),
    }
    for bank, (name, (arm, arm_lr)) in product([b for b in banks if b.runs], arms.items()):
        cells = []
        for split in (OFFICIAL, STUDY):
            pairs = recorded_pairs(bank, split, lr, arm, LORA, arm_lr)
            if pairs.freedom < 2:
                cells.append(NOT_RECORDED)
                continue
            found = summarize(pairs.differences().tolist())
            interval = f"{found.low:+.2f} to {found.high:+.2f}"
            spread = f"sd {found.sd:.2f} (of the rows: {sd_of_rows(pairs):.2f})"
            cells.append(f"{found.mean:+.2f} ({interval}), {spread}, {found.n} draws")
        rows.append([bank.task, name, *cells])
    return table(["task", "arm", "official split", "study rows"], rows)


def regret_table(banks: Sequence[Bank], held_out: int, grid: Sequence[float]) -> str:
    """The accuracy that each search loses at equal cost, and whether the goal is met."""
    rows, goals = [], []
    for bank in banks:
        trials, regrets = Trials.of(bank, grid), []
        for search in SEARCHES:
            cells = [bank.task, search.rule, f"{search.grids} × {len(grid)}"]
            if len(trials.seeds) < search.draws + DRAWS_FOR_TRUTH:
                rows.append(absent(bank, 7))
                break
            regret = simulate_searches(trials, search, held_out)
            points = (regret.median, regret.mean, regret.largest_tenth)
            rows.append([*cells, f"{regret.trials:.1f}", *(f"{value:.2f}" for value in points)])
            regrets.append(regret)
        goals.append(f"- {bank.task}: {regret_sentence(regrets, len(trials.seeds))}")
    head = ["task", "rule", "most trials", "trials", "median regret", "mean regret"]
    goal = "The goal is that the median falls by half at equal cost:"
    return "\n".join([table([*head, "mean of the largest tenth"], rows), "", goal, "", *goals])


def regret_sentence(regrets: Sequence[Regret], draws: int) -> str:
    """Whether the new rule halves the median regret of the earlier one, at each of the costs."""
    pairs = zip(SEARCHES[::2], regrets[::2], regrets[1::2], strict=False)
    found = [
        f"{_halved(before.median, after.median)} with {search.grids} "
        f"trial{'s' * (search.grids > 1)} a learning rate, {before.median:.2f} to "
        f"{after.median:.2f} (mean {before.mean:.2f} to {after.mean:.2f})"
        for search, before, after in pairs
    ]
    return "; ".join([*found, f"{draws} draws"]) if found else f"open, {NOT_RECORDED}"


def _halved(before: float, after: float) -> str:
    if before == 0:
        return "undecided (the median was 0 already)"
    return "met" if after <= before / 2 else "missed"


def has_pairs(bank: Bank, kind: str, lr: float) -> bool:
    """Whether enough pairs of a kind are recorded."""
    return NULLS[kind](bank, STUDY, lr).freedom >= FEWEST_PAIRS


def absent(bank: Bank, columns: int, *known: str) -> list[str]:
    """A row of the table for what is not recorded, after the cells that are known."""
    cells = [bank.task, *known, NOT_RECORDED]
    return [*cells, *[""] * (columns - len(cells))]
