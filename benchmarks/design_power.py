"""The smallest lead that each kind of stage of a search of designs finds in 80% of cases.

    python benchmarks/design_power.py --draws 8 16 32 --choices 2 3 5 --designs 192

Scores are planted: one choice, or one strategy in one group, is better than all others, which are
equal. Leads are in standard deviations: for a race of the paired differences of two choices in a
draw, for a screen of the scores of designs with the same strategies. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from iwlora.compare.statistics.designs.factorial import factor_effects
from iwlora.compare.statistics.designs.race import race
from iwlora.methods.grouped.random_design import GROUPS, PARTS
from iwlora.methods.grouped.space import default_space
from iwlora.results.comparison.record import RaceRule

POWER = 0.8
LEADS = np.round(np.arange(0.1, 3.01, 0.1), 1)


def is_found_by_race(choices: int, lead: float, seed: int, rule: RaceRule) -> bool:
    """Whether a race drops all choices but the one that leads."""
    noise = np.random.default_rng(seed).normal(0, 0.5**0.5, (choices, rule.draws[-1]))
    noise[0] += lead
    return race({str(k): row for k, row in enumerate(noise.tolist())}, rule).left == ("0",)


def is_found_by_screen(designs: int, lead: float, seed: int, error: float) -> bool:
    """Whether a factorial experiment decides that the strategy adds something in its group."""
    space, generator = default_space(GROUPS, PARTS, [12]), np.random.default_rng(seed)
    sets = [space.sample(generator)["strategies"] for _ in range(designs)]
    factors = np.array([[part in group for group in row for part in PARTS] for row in sets], float)
    scores = lead * factors[:, 0] + generator.normal(size=designs)
    effect = factor_effects(factors, scores.tolist(), error)[0]
    return effect is not None and effect.p_value <= error and effect.mean > 0


def smallest_lead(is_found: Callable[[float, int], bool], times: int) -> float | None:
    """The smallest of ``LEADS`` that is found in 80% of cases; None if none of them is."""
    low, high = -1, len(LEADS)
    while high - low > 1:
        middle = (low + high) // 2
        found = sum(is_found(float(LEADS[middle]), seed) for seed in range(times))
        low, high = (low, middle) if found >= POWER * times else (middle, high)
    return float(LEADS[high]) if high < len(LEADS) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--choices", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--designs", type=int, default=192)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--times", type=int, default=200, help="simulated stages for each lead")
    given = parser.parse_args(arguments)
    rule = RaceRule(draws=given.draws, error=given.error)
    print("| stage | smallest lead that is found in 80% of cases, in standard deviations |")
    print("|---|---|")
    for choices in given.choices:
        lead = smallest_lead(partial(is_found_by_race, choices, rule=rule), given.times)
        print(f"| race of {choices} choices, {given.draws[-1]} draws | {_text(lead)} |")
    screen = partial(is_found_by_screen, given.designs, error=given.error)
    lead = smallest_lead(screen, given.times)
    print(f"| screen of {given.designs} designs | {_text(lead)} |")


def _text(lead: float | None) -> str:
    return f"more than {LEADS[-1]}" if lead is None else f"{lead:.1f}"


if __name__ == "__main__":
    main()
