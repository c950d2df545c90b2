"""What measuring in flight adds to a run, and how near it comes to measuring before training.

    OMP_NUM_THREADS=1 python benchmarks/in_flight.py --glue FOLDER

Prints Markdown tables. The first one has, for runs of several lengths, what is planned without an
estimator in the recipe, and what it adds: by counted operations of forward and backward, and by
processor time, from the median of paired steps with and without reading. The second one trains
MiniLM with LoRA of rank 8 on every matrix, reads the first steps with ``lora`` and ``exact``, and
compares with many batches of the frozen model: half the sum of the differences of the shares, and
Spearman's rank correlation, as means over draws of A and of the order of the rows.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

import iwlora
from iwlora import tasks
from iwlora.penalty.in_flight_plan import plan_in_flight
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.options import DEFAULTS
from iwlora.sites import sites
from iwlora.tasks.spec import TaskSpec
from iwlora.training.device import resolve_precision
from iwlora.training.kernels import fast_kernels
from iwlora.training.model.backbone import load_backbone
from sensitivity import DEVICE, Step, ratio, stream, times
from timed_commands import machine, table

LENGTHS = (20, 60, 200, 600, 2000, 20_000)
PASSES = (1, 2, 4, 8, 16)
ESTIMATORS = ("lora", "exact")
LR = 1e-3


class Training:
    """A LoRA training of the embedded encoder on a task of GLUE, step by step."""

    def __init__(self, model: Any, batches: Iterator[dict[str, Any]], seed: int) -> None:
        torch.manual_seed(seed)
        targets = [site.name for site in sites(model)]
        config = LoraConfig(
            r=8, lora_alpha=16, target_modules=targets, modules_to_save=["classifier"]
        )
        self.model: Any = get_peft_model(copy.deepcopy(model), config).train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LR)
        self.batches = batches
        self.sites, self.pairs = sites(self.model), lora_pairs(self.model)

    def flight(self, estimator: str, passes: int) -> InFlight:
        """A reader of the next passes."""
        return InFlight(self.sites, self.pairs, estimator, passes, tolerance=0.0)

    def step(self, *flights: InFlight, batch: dict[str, Any] | None = None) -> None:
        """A training step, on a batch or the next one, that the flights read."""
        chosen = next(self.batches) if batch is None else batch
        chosen = {key: value.to(DEVICE) for key, value in chosen.items()}
        bf16 = resolve_precision("auto", DEVICE) == "bf16"
        with torch.autocast(DEVICE.type, torch.bfloat16) if bf16 else nullcontext():
            loss = self.model(**chosen).loss
        loss.backward()
        for flight in flights:
            flight.step()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def cost(training: Training, repeats: int) -> list[list[str]]:
    """A row for each length of a run."""
    batch = next(training.batches)

    def reading(estimator: str) -> Step:
        def read() -> None:
            flight = training.flight(estimator, 1)
            training.step(flight, batch=batch)
            flight.close()

        return read

    steps: dict[str, Step] = {"LoRA step": lambda: training.step(batch=batch)}
    steps |= {estimator: reading(estimator) for estimator in ESTIMATORS}
    counted = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        counted[name] = counter.get_total_flops()
    taken = times(steps, repeats)
    rows = []
    for length in LENGTHS:
        estimator, passes = plan_in_flight(training.sites, length, 1, projects_at_random=True)
        passes = min(passes, DEFAULTS.max_batches)
        part = passes / length
        operations = part * (counted[estimator] / counted["LoRA step"] - 1)
        seconds = part * (ratio(taken, estimator) - 1)
        rows.append([f"{length:,}", estimator, str(passes), f"{operations:.2%}", f"{seconds:.2%}"])
    return rows


def agreement(
    model: Any, batches: Any, reference: int, seeds: int
) -> tuple[float, list[list[str]]]:
    """(the expected error of the reference, a row for each number of passes)."""
    with fast_kernels(model, True):
        before = iwlora.measure(model, batches(0), max_batches=reference, tolerance=0)
    names = list(before.values)
    truth = shares([list(before.values.values())])
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for seed in range(seeds):
        training = Training(model, batches(1 + seed), seed)
        flights = {name: training.flight(name, max(PASSES)) for name in ESTIMATORS}
        with fast_kernels(training.model, True):
            for _ in range(max(PASSES)):
                training.step(*flights.values())
        for name, flight in flights.items():
            state = flight.state()
            order = [state["sites"].index(site) for site in names]
            norms = np.array(state["rows"])[:, order]
            for passes in PASSES:
                computed = shares(norms[:passes])
                distance = 0.5 * float(np.abs(computed - truth).sum())
                rank = float(spearmanr(computed, truth).statistic)
                found.setdefault((name, passes), []).append((distance, rank))
    rows = []
    for passes in PASSES:
        means = [np.mean(found[name, passes], axis=0) for name in ESTIMATORS]
        rows.append([str(passes), *(f"{d:.3f} / {r:.3f}" for d, r in means)])
    assert before.share_error is not None
    return before.share_error, rows


def shares(norms: Sequence[Sequence[float]] | Any) -> Any:
    """The shares of the mean over batches."""
    means = np.mean(norms, axis=0)
    return means / means.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in the official layout")
    parser.add_argument("--tasks", nargs="+", default=["sst2", "mrpc"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--reference", type=int, default=60, help="batches of the frozen model")
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{machine()}, steps in {resolve_precision('auto', DEVICE)}", flush=True)
    for name in given.tasks:
        task = tasks.load(TaskSpec(name=f"glue/{name}", data_dir=given.glue), 0)
        torch.manual_seed(0)
        model, tokenizer = load_backbone("builtin/minilm", task.labels)
        model.to(DEVICE)  # type: ignore[arg-type]
        rows = task.encode(tokenizer, 128)["train"]
        collate = task.kind.collator(tokenizer, model)

        def batches(skipped: int, rows: Any = rows, collate: Any = collate) -> Any:
            return islice(stream(rows, collate), skipped * max(PASSES), None)

        training = Training(model, batches(0), seed=0)
        with fast_kernels(training.model, True):
            costs = cost(training, given.repeats)
        print(f"\n## {name}: what it adds\n")
        header = ["steps", "estimator", "batches", "operations", "processor time"]
        print(table(header, costs), flush=True)
        error, lines = agreement(model, batches, given.reference, given.seeds)
        print(f"\n## {name}: distance / Spearman to {given.reference} batches of the frozen model")
        print(f"\nThe expected error of the reference is {error:.4f}.\n")
        print(table(["passes read", *ESTIMATORS], lines), flush=True)


if __name__ == "__main__":
    main()
