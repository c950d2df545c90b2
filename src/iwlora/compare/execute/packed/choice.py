"""Which executor ``--executor auto`` takes: packs where they are faster, processes elsewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from iwlora.compare.execute import machine
from iwlora.compare.execute.packed.planner import pack_key
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.results.events import Event, Report
from iwlora.training.packed.gain import measured_gain
from iwlora.training.packed.shares import NotPackable
from iwlora.training.recipe import Recipe

LEAST_GAIN = 1.2
"""How many times faster a pack must be on a CPU than its runs one after another."""
FEWEST_RUNS = 8
"""With fewer runs that can be packed, nothing is measured."""
_MEASURED_RUNS = 4
_MOST_TOKENS = 1024
"""A step of more tokens keeps a CPU busy: there packs gain less than ``LEAST_GAIN``."""


def packs_pay(plan: Plan, folder: Path, jobs: int, announce: Report) -> bool:
    """Whether the runs of a comparison are trained in packs; says so if it had to be measured.

    Args:
        plan: The comparison.
        folder: Its folder; runs that have a result there are not trained.
        jobs: The number of processes that the user asks for; above 1 they get them.
        announce: Gets an event with the measured gain.
    """
    if jobs > 1:
        return False
    recipes = _to_train(plan, folder)
    counts = Counter(key for recipe in recipes if (key := pack_key(recipe)) is not None)
    if not counts or max(counts.values()) < FEWEST_RUNS:
        return False
    if machine.available_gpus():
        return True
    key = counts.most_common(1)[0][0]
    recipe = next(recipe for recipe in recipes if pack_key(recipe) == key)
    if _tokens(recipe) > _MOST_TOKENS:
        return False
    try:
        gain = measured_gain(recipe, _MEASURED_RUNS)
    except (NotPackable, IwloraError) as error:  # of the latter each run tells the user
        text = f"runs are trained one after another, because {_MEASURED_RUNS} of them cannot be "
        announce(Event("packing", f"{text}computed together: {error}", gain=None))
        return False
    taken = "are trained together" if gain > LEAST_GAIN else "are trained one after another"
    text = f"{_MEASURED_RUNS} runs take a step {gain:.2f} times as fast together: runs {taken}"
    announce(Event("packing", text, gain=gain, least_gain=LEAST_GAIN))
    return gain > LEAST_GAIN


def _to_train(plan: Plan, folder: Path) -> list[Recipe]:
    """The recipes of the runs that certainly begin, or may begin, as trials, and have no result."""
    certain = [run for run in plan.runs if run.seed in plan.certain_seeds]
    return [
        run.recipe
        for run in (*plan.trials, *certain)
        if not (run.folder(folder) / layout.RESULT).is_file()
    ]


def _tokens(recipe: Recipe) -> int:
    """At most in a forward pass."""
    return recipe.train.batch_size // recipe.train.accumulate * recipe.train.max_length
