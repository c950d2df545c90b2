"""What the packs of a comparison will take: their time and their peak memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from iwlora.compare.execute import machine
from iwlora.compare.execute.packed.planner import MOST_RUNS, pack_key, runs_that_fit
from iwlora.compare.number_format import format_gibibytes
from iwlora.compare.plan.cost_estimate import EstimatedRun
from iwlora.compare.plan.planned_runs import Plan
from iwlora.results.durations import format_duration
from iwlora.training.dry_run.pack_cost import PackCost, estimate_pack_cost
from iwlora.training.dry_run.run_cost import RunCost
from iwlora.training.packed.shares import NotPackable
from iwlora.training.recipe import Recipe

_TIMED_ON_A_CPU = 4
"""More runs in a pass hardly change its gain there."""

Key = tuple[Any, ...]


class PacksEstimate:
    """Estimates of the runs of a comparison that are trained together, made as they are asked for.

    Args:
        plan: The comparison.
        fitting: The number of runs of a recipe that so much memory holds.
    """

    def __init__(self, plan: Plan, fitting: Callable[[Recipe, int], int] = runs_that_fit) -> None:
        self._fitting, self._gpus = fitting, machine.available_gpus()
        recipes = [run.recipe for run in (*plan.trials, *plan.runs)]
        self.at_once = max(1, len(self._gpus))
        """Packs that are trained at the same time."""
        self._counts = Counter(map(pack_key, recipes))
        self._costs: dict[Key, PackCost | None] = {}
        self._alone: dict[Key, RunCost] = {}

    def is_packed(self, recipe: Recipe) -> bool:
        """Whether a run is trained together with others."""
        key = pack_key(recipe)
        return key is not None and self._counts[key] > 1

    def run_cost(self, recipe: Recipe, alone: RunCost) -> RunCost:
        """The cost of a run in its pack, where a step takes its share of joint passes."""
        key = pack_key(recipe)
        if key is None or not self.is_packed(recipe):
            return alone
        if key not in self._costs:
            at_once = self._at_once(recipe, self._counts[key])
            timed = at_once if self._gpus else min(at_once, _TIMED_ON_A_CPU)
            try:
                self._costs[key] = estimate_pack_cost(recipe, timed)
            except NotPackable:  # the runs of such a pack compute their steps by themselves
                self._costs[key] = None
            self._alone[key] = alone
        cost = self._costs[key]
        saved = cost.saved_seconds if cost else 0.0
        return replace(alone, step_seconds=max(0.0, alone.step_seconds - saved))

    def lines(self, runs: Sequence[EstimatedRun]) -> list[str]:
        """A line for each pack: its runs, its time and its peak memory.

        Args:
            runs: All that are trained at the same time.
        """
        groups: dict[Key, list[EstimatedRun]] = {}
        for run in runs:
            key = pack_key(run.recipe)
            if key is not None and self._costs.get(key):
                groups.setdefault(key, []).append(run)
        return [
            self._line(key, group[start : start + MOST_RUNS])
            for key, group in groups.items()
            for start in range(0, len(group), MOST_RUNS)
            if len(group) > start + 1
        ]

    def _line(self, key: Key, runs: Sequence[EstimatedRun]) -> str:
        cost, alone = self._costs[key], self._alone[key]
        assert cost is not None
        at_once = self._at_once(runs[0].recipe, len(runs))
        labels = ", ".join(dict.fromkeys(run.label for run in runs))
        what = "trials" if runs[0].trial else "runs"
        size = format_gibibytes(cost.peak(alone.memory, len(runs), at_once))
        time = format_duration(sum(run.seconds for run in runs))
        passes = "all" if at_once == len(runs) else str(at_once)
        return (
            f"pack of {len(runs)} {what} ({labels}), {passes} in a pass: about {time}, "
            f"peak memory about {size}"
        )

    def _at_once(self, recipe: Recipe, runs: int) -> int:
        """How many runs of a pack its passes hold."""
        gpu = next(iter(self._gpus), None)
        free = machine.free_memory() if gpu is None else machine.gpu_memory("memory.free", gpu)
        return min(runs, MOST_RUNS, self._fitting(recipe, free) if free else MOST_RUNS)
