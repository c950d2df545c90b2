"""Train every method in two processes, by DDP and by FSDP2, and hold it against one process.

    OMP_NUM_THREADS=1 python stress/two_processes.py
    OMP_NUM_THREADS=1 python stress/two_processes.py --methods full lora --precisions fp32

A run is 20 steps of a tiny BERT at batches of 20 rows. Each method is trained in one process, then
in two by DDP and by FSDP2, the batch in one piece a process and in two. Printed are the differences
of what the runs save and of the losses that they log. The exit code is 1 where one is beyond the
tolerance, or where a run with another seed, which must be beyond it, is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn
from transformers import AutoModel, BertTokenizerFast
from transformers.utils import logging

from iwlora.methods import METHODS
from iwlora.methods.tiny_models import tiny_config
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train

# Largest difference of a weight, mean difference of the weights, largest difference of a loss.
TOLERANCES = {"fp32": (1e-3, 2e-5, 1e-4), "bf16": (1e-1, 5e-3, 5e-2)}
WAYS = {"DDP": {}, "FSDP2": {"shard": True}}
PIECES = (1, 2)
WORDS = "a the very not film book was is it and good great bad awful".split()
# What makes a part of a method happen within so few steps.
MEASURED = {"tolerance": 0.0, "max_batches": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"delta_t": 2},
    "eva": {"max_batches": 4},
    **{
        name: {"alpha": 0.3, **MEASURED}
        for name in METHODS
        if "alpha" in METHODS[name].model_fields
    },
}
RATE = 1e-2
# LoRA+ steps 16 times as far with its B, and rsLoRA's factor is twice LoRA's at rank 4: at the rate
# of the others their runs are so unsteady that any rounding grows.
RATES = {"lora+": RATE / 16, "rslora": RATE / 2}
IN_FLIGHT = {"measure": "in-flight", "estimator": "lora", **OPTIONS["iw-lora"]}


@dataclass(frozen=True)
class Arm:
    """A method, and in which precision, in how many pieces and how it is trained."""

    label: str
    precision: str
    way: str = "one process"
    pieces: int = 1
    seed: int = 0

    @property
    def folder(self) -> str:
        """The name of its run."""
        return f"{self.label} {self.precision} {self.way} {self.pieces} {self.seed}"

    def recipe(self, root: Path) -> Recipe:
        """Its run."""
        name, _, flight = self.label.partition(", ")
        options = IN_FLIGHT if flight else OPTIONS.get(name, {})
        size = {"rank": 4, "bottleneck": 4, "num_virtual_tokens": 4}
        knob = METHODS[name].size_knob
        return build(
            {
                "model": str(root / "model"),
                "task": {
                    **{split: str(root / f"{split}.csv") for split in ("train", "validation")},
                    "text": "text",
                    "label": "mood",
                },
                "method": {"name": name, **({knob: size[knob]} if knob else {}), **options},
                "train": {
                    "epochs": 4,
                    "lr": RATES.get(name, RATE),
                    "batch_size": 20,
                    "max_length": 32,
                    "precision": self.precision,
                    "accumulate": self.pieces,
                    "seed": self.seed,
                    **WAYS.get(self.way, {}),
                },
            }
        )

    def one(self) -> Arm:
        """What it is held against: a process that takes each batch at once.

        What is measured in flight is the norm of a piece's gradient: there the pieces are the same.
        """
        pieces = 2 * self.pieces if ", " in self.label else 1
        return Arm(self.label, self.precision, pieces=pieces)


class Apart(NamedTuple):
    """How far two runs are from each other."""

    largest: float
    mean: float
    relative: float
    loss: float

    def within(self, precision: str) -> bool:
        """Whether the tolerance allows it."""
        largest, mean, loss = TOLERANCES[precision]
        return self.largest <= largest and self.mean <= mean and self.loss <= loss


def prepare(root: Path) -> None:
    """A tiny model with its tokenizer, and sentences that are good or bad."""
    vocabulary = root / "model" / "vocab.txt"
    vocabulary.parent.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary.write_text("\n".join(words) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = tiny_config("bert", vocab_size=len(words))
    config.initializer_range = 0.2  # so that it learns within a run
    AutoModel.from_config(config).save_pretrained(root / "model")
    BertTokenizerFast(str(vocabulary), model_max_length=32).save_pretrained(root / "model")
    draw = random.Random(0)
    for split, rows in (("train", 96), ("validation", 32)):
        lines = ["text,mood"]
        for row in range(rows):
            said = draw.choice(WORDS[-4:-2] if row % 2 else WORDS[-2:])
            words = [*draw.choices(WORDS[:-4], k=draw.randrange(4)), said]
            lines.append(f"{' '.join(words)},{'good' if row % 2 else 'bad'}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def carry_out(arms: Sequence[Arm], root: Path) -> None:
    """Train them, in this process and those that started with it."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    for arm in arms:
        train(arm.recipe(root), root / arm.folder)


def in_two(rank: int, arms: Sequence[Arm], root: Path, port: int) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    carry_out(arms, root)
    torch.distributed.destroy_process_group()


def apart(some: Path, others: Path) -> Apart:
    """Two runs: what they saved, and the losses that they logged."""
    a, b = weights(some), weights(others)
    change = (a - b).abs()
    losses = [abs(one - two) for one, two in zip(logged(some), logged(others), strict=True)]
    relative = float((a - b).norm() / a.norm())
    return Apart(float(change.max()), float(change.mean()), relative, max(losses))


def weights(run: Path) -> torch.Tensor:
    """Every number that a run saved, in one row, but for the biases of keys.

    Such a bias adds the same to all of a query's scores, which softmax takes out again: its
    gradient is rounding alone, and Adam makes steps of full size of that.
    """
    (file,) = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    tensors = load_file(file)
    kept = sorted(name for name in tensors if not name.endswith("key.bias"))
    return torch.cat([tensors[name].flatten().double() for name in kept])


def logged(run: Path) -> list[float]:
    """The losses of training and of the evaluations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines]


def told(root: Path, precision: str, methods: Sequence[str]) -> bool:
    """Print how far the runs of a precision are from one process; whether one is too far."""
    print(
        "\n{}: tolerated are {:.0e}, {:.0e} and a loss of {:.0e}\n".format(
            precision, *TOLERANCES[precision]
        )
    )
    names = ("largest", "mean", "relative", "loss")
    print("| method |", " | ".join(f"{way}: {name}" for way in WAYS for name in names), "|")
    print("|---" * (1 + len(WAYS) * len(names)) + "|")
    wrong = []
    for label in methods:
        cells: list[float] = []
        for way in WAYS:
            arms = [Arm(label, precision, way, pieces) for pieces in PIECES]
            found = [apart(root / arm.one().folder, root / arm.folder) for arm in arms]
            worst = Apart(*map(max, zip(*found, strict=True)))
            wrong += [] if worst.within(precision) else [f"{label} by {way} is beyond"]
            cells += worst
        print(f"| {label} |", " | ".join(f"{cell:.0e}" for cell in cells), "|")
    seeds = [Arm(methods[0], precision, seed=seed).folder for seed in (0, 1)]
    other = apart(*(root / seed for seed in seeds))
    wrong += ["another seed is within"] if other.within(precision) else []
    print(
        f"\n{methods[0]} with another seed, for comparison: {other.largest:.0e}, {other.mean:.0e}"
    )
    print(*(f"WRONG: {one}" for one in wrong), sep="\n", end="")
    return bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    accepted = [*METHODS, "iw-lora, in flight"]
    parser.add_argument("--methods", nargs="*", default=accepted, choices=accepted)
    parser.add_argument("--precisions", nargs="*", default=list(TOLERANCES), choices=TOLERANCES)
    given = parser.parse_args()
    both = [
        Arm(label, precision, way, pieces)
        for precision in given.precisions
        for label in given.methods
        for way in WAYS
        for pieces in PIECES
    ]
    others = [Arm(label, p, seed=1) for p in given.precisions for label in given.methods[:1]]
    alone = dict.fromkeys([*(arm.one() for arm in (*both, *others)), *others])
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root)
        carry_out(list(alone), root)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        spawn(in_two, args=(both, root, port), nprocs=2)
        for precision in given.precisions:
            failed |= told(root, precision, given.methods)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
