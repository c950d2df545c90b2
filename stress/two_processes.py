"""Train every method in two processes, by DDP and by FSDP2, and compare it with one process.

    OMP_NUM_THREADS=1 python stress/two_processes.py
    OMP_NUM_THREADS=1 python stress/two_processes.py --methods lora "grouped, s4" --precisions fp32

Beside the methods there are mixtures of ``grouped``, by the names in ``mixtures.py``. A run is 20
steps of a tiny BERT with batches of 20 rows. Each method is trained in one process, then in two by
DDP and by FSDP2, with one and with two gradient-accumulation pieces a process. The script prints
the differences of the saved weights and of the logged losses. The exit code is 1 if one is beyond
the tolerance, or if a run with another seed, which must be beyond it, is not.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from transformers.utils import logging

import tiny_study
from iwlora.methods import METHODS
from iwlora.testing.processes import run_in_two_processes
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from mixtures import MIXTURES, blocks_of

# Largest difference of a weight, mean difference of the weights, largest difference of a loss.
TOLERANCES = {"fp32": (1e-3, 2e-5, 1e-4), "bf16": (1e-1, 5e-3, 5e-2)}
PARALLELISM = {"DDP": {}, "FSDP2": {"shard": True}}
ACCUMULATE = (1, 2)
WORDS = "a the very not film book was is it and good great bad awful".split()
# So that each part of a method happens within so few steps.
MEASURED = {"tolerance": 0.0, "max_batches": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"delta_t": 2},
    "eva": {"max_batches": 4},
    **{
        name: {"alpha": 0.3, "measure": "before", **MEASURED}
        for name in METHODS
        if "alpha" in METHODS[name].model_fields
    },
}
LEARNING_RATE = 1e-2
# LoRA+ has a learning rate 16 times as high for its B, and rsLoRA's factor is twice LoRA's at rank
# 4: at the learning rate of the others their runs are so unstable that any rounding error grows.
LEARNING_RATES = {"lora+": LEARNING_RATE / 16, "rslora": LEARNING_RATE / 2}
IN_FLIGHT = "iw-lora, in flight"
MIXTURE = "grouped, "
CHOSEN_MIXTURES = (
    "s4",
    "all-parts",
    "linear-mixture",
    "low-rank-groups",
    "upper-group",
    "prefixes",
)
BY_IMPORTANCE = f"{MIXTURE}allocation=importance"
VARIANTS: dict[str, dict[str, Any]] = {
    IN_FLIGHT: {**OPTIONS["iw-lora"], "measure": "in-flight", "estimator": "lora"},
    **{
        f"{MIXTURE}{name}": mixture.model_dump(mode="json", exclude_defaults=True)
        for name, mixture in MIXTURES.items()
    },
    BY_IMPORTANCE: {"allocation": "importance", "adapter_parameters": 2000},
}
"""The options of further arms, whose labels begin with the name of their method."""
LABELS = (*METHODS, IN_FLIGHT, *(f"{MIXTURE}{name}" for name in CHOSEN_MIXTURES), BY_IMPORTANCE)
"""All that are trained by default: each kind of part, and each way to divide a budget."""


@dataclass(frozen=True)
class Arm:
    """A method and how it is trained; ``accumulate`` is the number of pieces of a batch."""

    label: str
    precision: str
    parallelism: str = "one process"
    accumulate: int = 1
    seed: int = 0

    @property
    def folder(self) -> str:
        """The name of its run."""
        return f"{self.label} {self.precision} {self.parallelism} {self.accumulate} {self.seed}"

    def recipe(self, root: Path) -> Recipe:
        """The recipe of its run."""
        name, _, variant = self.label.partition(", ")
        options = VARIANTS[self.label] if variant else OPTIONS.get(name, {})
        size = {"rank": 4, "bottleneck": 4, "num_virtual_tokens": 4}
        knob = METHODS[name].size_knob
        return build(
            {
                "model": str(root / f"model-{blocks_of(variant)}"),
                "task": {
                    **{split: str(root / f"{split}.csv") for split in ("train", "validation")},
                    "text": "text",
                    "label": "mood",
                },
                "method": {"name": name, **({knob: size[knob]} if knob else {}), **options},
                "train": {
                    "epochs": 4,
                    "lr": LEARNING_RATES.get(name, LEARNING_RATE),
                    "batch_size": 20,
                    "max_length": 32,
                    "precision": self.precision,
                    "accumulate": self.accumulate,
                    "seed": self.seed,
                    **PARALLELISM.get(self.parallelism, {}),
                },
            }
        )

    def reference(self) -> Arm:
        """The run in one process that it is compared with; it takes each batch in one piece.

        A measurement in flight takes the norm of the gradient of a piece: there the pieces of both
        runs must be equal.
        """
        accumulate = 2 * self.accumulate if self.label == IN_FLIGHT else 1
        return Arm(self.label, self.precision, accumulate=accumulate)


class Difference(NamedTuple):
    """How far two runs are from each other: in their weights, and in their losses."""

    largest: float
    mean: float
    relative: float
    loss: float

    def within(self, precision: str) -> bool:
        """Whether the tolerance allows it."""
        largest, mean, loss = TOLERANCES[precision]
        return self.largest <= largest and self.mean <= mean and self.loss <= loss


def write_inputs(root: Path) -> None:
    """Save tiny models and reviews of random words whose last word decides the label."""
    vocabulary = [*tiny_study.SPECIAL_TOKENS, *WORDS]
    for blocks in {*map(blocks_of, ("", *MIXTURES))}:
        folder = root / f"model-{blocks}"
        # The large range lets it learn within a run.
        config: dict[str, Any] = {"initializer_range": 0.2, "num_hidden_layers": blocks}
        tiny_study.save_model(folder, vocabulary=vocabulary, **config)
    rng = random.Random(0)
    for split, rows in (("train", 96), ("validation", 32)):
        lines = ["text,mood"]
        for row in range(rows):
            last = rng.choice(WORDS[-4:-2] if row % 2 else WORDS[-2:])
            words = [*rng.choices(WORDS[:-4], k=rng.randrange(4)), last]
            lines.append(f"{' '.join(words)},{'good' if row % 2 else 'bad'}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_arms(arms: Sequence[Arm], root: Path) -> None:
    """Train the arms one after the other."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    for arm in arms:
        train(arm.recipe(root), root / arm.folder)


def train_in_each(rank: int, arms_and_root: tuple[Sequence[Arm], Path]) -> None:
    """What each of the two processes does."""
    train_arms(*arms_and_root)


def difference(first: Path, second: Path) -> Difference:
    """How far two runs are from each other."""
    a, b = weights(first), weights(second)
    change = (a - b).abs()
    losses = [abs(x - y) for x, y in zip(logged_losses(first), logged_losses(second), strict=True)]
    relative = float((a - b).norm() / a.norm())
    return Difference(float(change.max()), float(change.mean()), relative, max(losses))


def weights(run: Path) -> torch.Tensor:
    """All weights that a run saved, as one vector, without the biases of keys.

    Such a bias adds the same number to all of a query's scores, which softmax removes: its
    gradient is rounding error only, which Adam scales to steps of full size.
    """
    (file,) = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    tensors = load_file(file)
    kept = sorted(name for name in tensors if not name.endswith("key.bias"))
    return torch.cat([tensors[name].flatten().double() for name in kept])


def logged_losses(run: Path) -> list[float]:
    """The losses of training and of the evaluations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines]


def print_differences(root: Path, precision: str, methods: Sequence[str]) -> bool:
    """Print how far the runs of a precision are from one process; True if one is too far."""
    print(
        "\n{}: tolerated are {:.0e}, {:.0e} and a loss of {:.0e}\n".format(
            precision, *TOLERANCES[precision]
        )
    )
    names = ("largest", "mean", "relative", "loss")
    print(
        "| method |",
        " | ".join(f"{parallelism}: {name}" for parallelism in PARALLELISM for name in names),
        "|",
    )
    print("|---" * (1 + len(PARALLELISM) * len(names)) + "|")
    errors = []
    for label in methods:
        cells: list[float] = []
        for parallelism in PARALLELISM:
            arms = [Arm(label, precision, parallelism, accumulate) for accumulate in ACCUMULATE]
            differences = [
                difference(root / arm.reference().folder, root / arm.folder) for arm in arms
            ]
            worst = Difference(*map(max, zip(*differences, strict=True)))
            errors += [] if worst.within(precision) else [f"{label} by {parallelism} is beyond"]
            cells += worst
        print(f"| {label} |", " | ".join(f"{cell:.0e}" for cell in cells), "|")
    seeds = [Arm(methods[0], precision, seed=seed).folder for seed in (0, 1)]
    other = difference(*(root / seed for seed in seeds))
    errors += ["another seed is within"] if other.within(precision) else []
    print(
        f"\n{methods[0]} with another seed, for comparison: {other.largest:.0e}, {other.mean:.0e}"
    )
    print(*(f"WRONG: {error} the tolerance\n" for error in errors), sep="", end="")
    return bool(errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    accepted = [*METHODS, *VARIANTS]
    parser.add_argument("--methods", nargs="*", default=LABELS, choices=accepted, metavar="METHOD")
    parser.add_argument("--precisions", nargs="*", default=list(TOLERANCES), choices=TOLERANCES)
    arguments = parser.parse_args()
    in_two = [
        Arm(label, precision, parallelism, accumulate)
        for precision in arguments.precisions
        for label in arguments.methods
        for parallelism in PARALLELISM
        for accumulate in ACCUMULATE
    ]
    other_seeds = [Arm(arguments.methods[0], p, seed=1) for p in arguments.precisions]
    references = (arm.reference() for arm in (*in_two, *other_seeds))
    in_one = dict.fromkeys([*references, *other_seeds])
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_inputs(root)
        train_arms(list(in_one), root)
        run_in_two_processes(train_in_each, (in_two, root))
        for precision in arguments.precisions:
            failed |= print_differences(root, precision, arguments.methods)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
