"""Many short runs of every method in one process: does anything grow?

    python stress/soak.py                # 240 runs, and 48 times measure, export and predict

After every few runs garbage is collected, and memory, Python's objects, tensors, hooks, open
files and threads are counted. The first third warms up. Of the rest the slope for each run is
told, by the median of the slopes of all pairs (Theil and Sen), and exits with 1 when one is above
its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from scipy.stats import theilslopes
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import tiny_study
from iwlora.methods import METHODS
from iwlora.training.measure_recipe import measure_recipe
from iwlora.training.predict import predict
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.state.artifacts import export

BOUNDS: Mapping[str, float] = {
    "memory, KiB": 100.0,
    "objects": 5.0,
    "tensors": 0.1,
    "hooks": 0.01,
    "files": 0.01,
    "threads": 0.01,
}
"""What each count may grow by in a run: 100 KiB are 24 MB in 240 runs of half a gigabyte."""

_HOOKS = (
    *("_global_backward_pre_hooks", "_global_backward_hooks", "_global_forward_pre_hooks"),
    *("_global_forward_hooks", "_global_module_registration_hooks"),
)


def counts() -> dict[str, float]:
    """What there is in this process now, once garbage is collected."""
    gc.collect()
    process = psutil.Process()
    there = gc.get_objects()
    modules = torch.nn.modules.module
    hooks = [len(getattr(modules, name)) for name in _HOOKS]
    hooks += [len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)]
    return {
        "memory, KiB": process.memory_info().rss / 1024,
        "objects": len(there),
        "tensors": sum(issubclass(type(one), torch.Tensor) for one in there),
        "hooks": sum(hooks),
        "files": process.num_fds(),
        "threads": threading.active_count(),
    }


def soaked(
    work: Iterator[Callable[[], Any]], runs: int, every: int, tell: Callable[[str], None] = print
) -> dict[str, list[float]]:
    """What was counted after every few of the ``runs`` pieces of work, by name."""
    seen: dict[str, list[float]] = {name: [] for name in BOUNDS}
    tell("after " + "".join(f"{name:>13}" for name in BOUNDS))
    for number, one in enumerate(itertools.islice(work, runs), start=1):
        one()
        if number % every == 0:
            now = counts()
            for name, value in now.items():
                seen[name].append(value)
            tell(f"{number:>5} " + "".join(f"{value:>13,.0f}" for value in now.values()))
    return seen


def slopes(seen: Mapping[str, Sequence[float]], every: int) -> dict[str, float]:
    """By how much each count grows in a run, once the first third has warmed up."""
    return {
        name: float(theilslopes(values[len(values) // 3 :]).slope) / every
        for name, values in seen.items()
    }


def short_runs(folder: Path) -> Iterator[Callable[[], Any]]:
    """Runs of all methods in turn; after every fifth also measuring, an export and predictions."""
    model, task = tiny_study.save_model(folder / "model"), tiny_study.save_task(folder / "task")
    kinds = [*((name, {}) for name in METHODS), ("iw-lora", {"measure": "in-flight"})]

    def run(number: int, place: Path) -> None:
        name, options = kinds[number % len(kinds)]
        settings = tiny_study.settings(model, task, name)
        settings["method"] |= options
        settings["train"] |= {"seed": number, "save_steps": 1}
        train(build(settings), place)
        if number % 5 == 4:
            export(place, place.with_suffix(".export"))
            predict(place, task["validation"], place.with_suffix(".csv"))
            measure_recipe(build(tiny_study.settings(model, task, "iw-lora")))

    for number in itertools.count():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            yield partial(run, number, Path(place) / "run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=240, help="default 240")
    parser.add_argument("--every", type=int, default=8, help="runs between counts; default 8")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        work = short_runs(Path(folder))
        with contextlib.redirect_stderr(nothing):
            seen = soaked(work, asked.runs, asked.every, lambda line: print(line, flush=True))
        work.close()
    print(
        f"\n{asked.runs} runs in {time.monotonic() - began:.0f} s, of which the processor worked "
        f"{time.process_time() - cpu:.0f} s"
    )
    grown = False
    for name, slope in slopes(seen, asked.every).items():
        bad = slope > BOUNDS[name]
        grown |= bad
        told = "GROWS" if bad else "does not grow"
        print(f"{name}: {slope:+.3f} a run, bound {BOUNDS[name]:g}: {told}")
    return 1 if grown else 0


if __name__ == "__main__":
    raise SystemExit(main())
