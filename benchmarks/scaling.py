"""How the cost of a LoRA training step grows with the model, the data and the adapter.

    python benchmarks/scaling.py

A random BERT with LoRA on the linear layers of its blocks is trained on one batch. One size at a
time is varied around a middle point. The values of a size take turns, and each time is the median
of the rounds. Prints for every size the processor time and FLOPs of a step, the most bytes of
tensors in it without the frozen weights, and the exponent b of cost = a · size^b, fitted by
least squares on logarithms, with its standard error. The fit is over all values; an exponent below
1 means that a part of the cost does not grow with this size.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from scipy.stats import linregress
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, BertConfig

from iwlora.sites import sites
from iwlora.training.dry_run.step_profiler import MemoryTracker
from timed_commands import MEBI, machine, table

VOCABULARY = 1000


@dataclass(frozen=True)
class Point:
    """Units, blocks, tokens, rank, rows, and how many of the sites (from the last) are adapted."""

    width: int = 256
    depth: int = 6
    length: int = 64
    rank: int = 8
    batch: int = 16
    sites: int = 36


AXES: dict[str, Sequence[int]] = {
    "width": (128, 256, 384, 512, 768),
    "depth": (2, 4, 6, 8, 12),
    "length": (32, 64, 128, 256, 512),
    "rank": (2, 8, 32, 64, 128),
    "batch": (4, 8, 16, 32, 64),
    "sites": (6, 12, 18, 24, 36),
}
UNITS = {
    "width": "units",
    "depth": "blocks",
    "length": "tokens",
    "batch": "rows",
    "sites": "matrices",
}


def step_of(point: Point) -> Callable[[], None]:
    """An optimizer step on a fixed batch."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=point.width,
        num_hidden_layers=point.depth,
        num_attention_heads=point.width // 32,
        intermediate_size=4 * point.width,
        max_position_embeddings=point.length,
    )
    base: Any = AutoModelForSequenceClassification.from_config(config)
    names = [site.name for site in sites(base)][-point.sites :]
    model = get_peft_model(base, LoraConfig(r=point.rank, target_modules=names)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch = {
        "input_ids": torch.randint(5, VOCABULARY, (point.batch, point.length)),
        "attention_mask": torch.ones(point.batch, point.length, dtype=torch.long),
        "labels": torch.arange(point.batch) % 2,
    }

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measured(points: Sequence[Point], rounds: int) -> dict[str, list[float]]:
    """{quantity: a number for each point}, of steps that take turns."""
    steps = [step_of(point) for point in points]
    flops, memory = [], []
    for step in steps:
        with FlopCounterMode(display=False) as counter:
            step()
        with MemoryTracker() as tracker:
            step()
        flops.append(counter.get_total_flops() / 1e9)
        memory.append(tracker.peak / MEBI)
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, seconds in zip(steps, times, strict=True):
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
    return {
        "processor s": [statistics.median(seconds) for seconds in times],
        "GFLOP": flops,
        "MiB of tensors": memory,
    }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """(b, its standard error) of cost = a · size^b.

    >>> exponent([1, 2, 4], [3, 12, 48])
    (2.0, 0.0)
    """
    fitted = linregress(*([math.log(value) for value in column] for column in (sizes, costs)))
    return round(float(fitted.slope), 9), round(float(fitted.stderr), 9)


def sized(axis: str, size: int) -> Point:
    """The middle point with one other size; a deeper model has all its sites adapted."""
    point = replace(Point(), **{axis: size})
    return replace(point, sites=6 * size) if axis == "depth" else point


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=5, help="number of values of each size")
    options = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    print(f"{machine()}, {torch.get_num_threads()} threads; around {Point()}\n", flush=True)
    fits = []
    for axis in options.axes:
        sizes = AXES[axis][: options.sizes]
        costs = measured([sized(axis, size) for size in sizes], options.rounds)
        rows = [
            [str(size), f"{cpu:.3f}", f"{flops:.2f}", f"{memory:.1f}"]
            for size, cpu, flops, memory in zip(sizes, *costs.values(), strict=True)
        ]
        head = f"{axis}, {UNITS[axis]}" if axis in UNITS else axis
        print(table([head, *costs], rows) + "\n", flush=True)
        slopes = (exponent(sizes, values) for values in costs.values())
        fits.append([axis, *(f"{b:.2f} ± {error:.2f}" for b, error in slopes)])
    print(table(["exponent of", "of processor time", "of FLOPs", "of memory"], fits))


if __name__ == "__main__":
    main()
