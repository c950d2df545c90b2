"""Many short runs of every method in one process: does anything grow?

    python stress/soak.py                # 240 runs; also 48 measurements, exports and predictions

After every few runs garbage is collected, and memory, Python's objects, tensors, hooks, open
files and threads are counted. The first third of the runs warms up. Over the others the growth in
a run is the median of the slopes of all pairs of counts (Theil and Sen). The exit code is 1 if one
is above its bound.
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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
from iwlora.training.prediction.new_rows import predict
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.sharing.export import export

BOUNDS: Mapping[str, float] = {
    "memory, KiB": 100.0,
    "objects": 5.0,
    "tensors": 0.1,
    "hooks": 0.01,
    "files": 0.01,
    "threads": 0.01,
}
"""The largest growth in a run: 100 KiB are 24 MB in 240 runs of half a gigabyte."""

_MODULE_HOOKS = (
    *("_global_backward_pre_hooks", "_global_backward_hooks", "_global_forward_pre_hooks"),
    *("_global_forward_hooks", "_global_module_registration_hooks"),
)

Work = Callable[[], Any]


def count_resources() -> dict[str, float]:
    """What this process holds now, after garbage is collected."""
    gc.collect()
    process = psutil.Process()
    objects = gc.get_objects()
    hooks = [len(getattr(torch.nn.modules.module, name)) for name in _MODULE_HOOKS]
    hooks += [len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)]
    return {
        "memory, KiB": process.memory_info().rss / 1024,
        "objects": len(objects),
        "tensors": sum(issubclass(type(item), torch.Tensor) for item in objects),
        "hooks": sum(hooks),
        "files": process.num_fds(),
        "threads": threading.active_count(),
    }


def soak(
    work: Iterator[Work], runs: int, every: int, announce: Callable[[str], None] = print
) -> dict[str, list[float]]:
    """Do ``runs`` pieces of work; returns what was counted after ``every`` few of them, by name."""
    counts: dict[str, list[float]] = {name: [] for name in BOUNDS}
    announce("after " + "".join(f"{name:>13}" for name in BOUNDS))
    for number, run in enumerate(itertools.islice(work, runs), start=1):
        run()
        if number % every == 0:
            now = count_resources()
            for name, value in now.items():
                counts[name].append(value)
            announce(f"{number:>5} " + "".join(f"{value:>13,.0f}" for value in now.values()))
    return counts


def growth(counts: Mapping[str, Sequence[float]], every: int) -> dict[str, float]:
    """By how much each count grows in a run, after the first third has warmed up."""
    return {
        name: float(theilslopes(values[len(values) // 3 :]).slope) / every
        for name, values in counts.items()
    }


def short_runs(folder: Path, extras_every: int = 5) -> Generator[Work, None, None]:
    """Runs of all methods in turn; each ``extras_every``-th also measures, exports and predicts."""
    model, task = tiny_study.save_model(folder / "model"), tiny_study.save_task(folder / "task")
    methods = [*((name, {}) for name in METHODS), ("iw-lora", {"measure": "in-flight"})]

    def run(number: int, out: Path) -> None:
        name, options = methods[number % len(methods)]
        settings = tiny_study.run_settings(model, task, name)
        settings["method"] |= options
        settings["train"] |= {"seed": number, "save_steps": 1}
        train(build(settings), out)
        if number % extras_every == extras_every - 1:
            export(out, out.with_suffix(".export"))
            predict(out, task["validation"], out.with_suffix(".csv"))
            measure_recipe(build(tiny_study.run_settings(model, task, "iw-lora")))

    for number in itertools.count():
        with tempfile.TemporaryDirectory(dir=folder) as run_folder:
            yield partial(run, number, Path(run_folder) / "run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=240, help="default 240")
    parser.add_argument("--every", type=int, default=8, help="runs between counts; default 8")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    started, cpu_started = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as devnull:
        work = short_runs(Path(folder))
        with contextlib.redirect_stderr(devnull):
            counts = soak(
                work, arguments.runs, arguments.every, lambda line: print(line, flush=True)
            )
        work.close()
    print(
        f"\n{arguments.runs} runs in {time.monotonic() - started:.0f} s, of which the processor "
        f"worked {time.process_time() - cpu_started:.0f} s"
    )
    failed = False
    for name, slope in growth(counts, arguments.every).items():
        grows = slope > BOUNDS[name]
        failed |= grows
        verdict = "GROWS" if grows else "does not grow"
        print(f"{name}: {slope:+.3f} a run, bound {BOUNDS[name]:g}: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
