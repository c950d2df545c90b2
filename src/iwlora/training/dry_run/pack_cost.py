"""What runs cost that are trained together, from two of them and a few joint passes."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from iwlora.results import layout
from iwlora.sensitivity.options import MeasureOptions
from iwlora.training.dry_run.run_cost import MEMORY_ROWS, MemoryCost, extrapolate
from iwlora.training.dry_run.step_profiler import MemoryTracker, memory_now
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.packed.gain import passes_of
from iwlora.training.packed.joint_pass import share_frozen
from iwlora.training.packed.seat import plain_model
from iwlora.training.prepare import PreparedRun, prepare
from iwlora.training.recipe import Recipe
from iwlora.training.state.run_folder import RunDir

_MEASURED_RUNS = 2
"""Runs of the passes whose memory is measured: it grows in proportion to their number."""


@dataclass(frozen=True)
class PackCost:
    """How the cost of a run in a pack differs from that of the run alone.

    Args:
        saved_seconds: of a step, which a run saves because its passes are joint ones.
        run_bytes: that one more prepared run holds, with the frozen weights shared.
        pass_bytes: that a joint pass needs for each of its runs.
    """

    saved_seconds: float
    run_bytes: int
    pass_bytes: int

    def peak(self, memory: MemoryCost, runs: int, at_once: int) -> int:
        """Peak memory of a pack in bytes.

        before + ``at_once`` · (pass + gradients) + ``runs`` · state + (``runs`` - 1) · (run +
        trained parameters) + what a run alone reached above its tensors, as in loading.

        Args:
            memory: of a run alone.
            runs: of the pack.
            at_once: of a joint pass.
        """
        passing = memory.before + at_once * (self.pass_bytes + memory.gradients)
        others = (runs - 1) * (self.run_bytes + memory.gradients)
        return passing + others + runs * memory.state + (memory.peak - memory.tensors)


def estimate_pack_cost(recipe: Recipe, timed_runs: int) -> PackCost:
    """Prepare two runs in a temporary folder, and compute a few of their passes together.

    Args:
        recipe: of one of the runs.
        timed_runs: of the passes that are timed.

    Raises:
        NotPackable: the model cannot be computed for several runs together.
        IwloraError: for everything that ``iwlora train`` refuses.
    """
    run_bytes, loaded = _run_bytes(recipe), load(recipe)
    batches = _sorted_batches(loaded)
    lengths = loaded.encoded["train"]["length"][:]
    longest = sorted(batches[-1], key=lambda row: -lengths[row])
    small, peaks = [longest[:number] for number in MEMORY_ROWS], []
    for rows in small:
        with passes_of(loaded, _MEASURED_RUNS, rows) as passes, MemoryTracker() as tracker:
            passes.together()
        peaks.append(tracker.peak // _MEASURED_RUNS)
    with passes_of(loaded, timed_runs, batches[len(batches) // 2]) as passes:
        saved = median(alone - together for alone, together in passes.seconds()) / timed_runs
    return PackCost(
        saved_seconds=saved * recipe.train.accumulate,
        run_bytes=run_bytes,
        pass_bytes=max(0, extrapolate([len(rows) for rows in small], peaks, len(longest))),
    )


def _run_bytes(recipe: Recipe) -> int:
    """What a second run adds to the memory of a first one."""
    method = recipe.method
    if isinstance(method, MeasureOptions):
        method = method.model_copy(update={"max_batches": len(MEMORY_ROWS)})
    short = recipe.with_train(report_to=[]).model_copy(update={"method": method})
    runs = list[PreparedRun]()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / layout.COMPARISON).touch()
        for number in range(2):
            gc.collect()  # a run that has ended holds itself in circles
            before = memory_now()
            run = RunDir.open(Path(folder) / str(number), short)
            runs.append(prepare(short, run, progress=False, with_others=True))
        first, second = (plain_model(run.attached.model) for run in runs)
        share_frozen(second, first)
        gc.collect()
        return max(0, memory_now() - before)


def _sorted_batches(loaded: LoadedRecipe) -> list[list[int]]:
    """The rows of each micro-batch of an epoch, from the fewest padded tokens to the most."""
    settings, sampler = loaded.recipe.train, loaded.epoch_sampler()
    lengths, order = loaded.encoded["train"]["length"][:], [*sampler]
    size = settings.batch_size // settings.accumulate
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return sorted(batches, key=lambda rows: len(rows) * max(lengths[row] for row in rows))
