"""Records runs by the library's own path from a recipe to the scores of a run.

LoRA on 2,000 training rows, scored on the official split and on study rows. The cells are in the
order in which they tell most, so that a stop anywhere leaves a whole answer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import TrainerCallback, TrainerState

from iwlora.errors import Diverged
from iwlora.methods import METHODS
from iwlora.methods.contract import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe, build
from iwlora.training.state.run_folder import RunDir
from verdict_price.bank import (
    FEWER_ROWS,
    LORA,
    OFFICIAL,
    OTHER_START,
    STUDY,
    STUDY_OF_MEAN,
    Array,
    Bank,
    RecordedRun,
)

LR = 1e-3
GRID = (1e-4, 3e-4, LR, 3e-3, 1e-2)
"""Of the search for the learning rate."""
BETWEEN = (1.8e-3,)
"""Learning rates that no search tries, for the truth where a curve may have its minimum."""
HELD_OUT = 200
"""How many of the study rows a trial is scored on."""
ROWS, ROWS_OF_FEWER = 2000, 1600
_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class RecordedTask:
    """How a task is trained and scored.

    The mean of the weights over the ``average_last`` steps, the last third, is scored on the study
    rows too. ``precision`` is the one that ``auto`` chose on the machines of the runs recorded
    first, which did not keep it: SST-2 and LoRA on MRPC had bf16 instructions, the others not.
    """

    study_rows: int
    epochs: float
    max_length: int
    average_last: int
    precision: str


TASKS = {
    "glue/sst2": RecordedTask(
        study_rows=2200, epochs=2, max_length=64, average_last=42, precision="bf16"
    ),
    "glue/mrpc": RecordedTask(
        study_rows=868, epochs=3, max_length=128, average_last=63, precision="bf16"
    ),
    "builtin/entailment": RecordedTask(
        study_rows=1100, epochs=4, max_length=64, average_last=84, precision="fp32"
    ),
}


class OtherStart(Lora):
    """LoRA whose A begins at other random values; head, rows and order are those of the seed."""

    name: ClassVar[str] = "lora-other-start"

    def attach(self, model: Any, sites: Any, seed: int, sensitivity: Any = None) -> Attached:
        """Attach with another seed."""
        return super().attach(model, sites, seed + _OTHER_SEED, sensitivity)


Cell = tuple[str, str, float, int]
"""Task, arm, learning rate and seed."""


def cells() -> Iterator[Cell]:
    """All cells: first what the price of a task needs least of, then what makes it precise."""
    sst2, mrpc, entailment = TASKS
    yield from _pairs(mrpc, 0, 5, [LORA])
    yield from _fewer_rows(sst2, 0, 6)
    yield from _search(sst2, 0, 8)
    yield from _pairs(entailment, 0, 5, [LORA])
    yield from _pairs(entailment, 0, 5)
    yield from _pairs(mrpc, 0, 5)
    yield from _fewer_rows(entailment, 0, 5)
    yield from _fewer_rows(mrpc, 0, 5)
    for task in (mrpc, entailment, sst2):
        yield from _search(task, 0, 5)
    for task in (mrpc, entailment, sst2):
        yield from _pairs(task, 0, 8)
    for task in TASKS:
        yield from _fewer_rows(task, 0, 6)
        yield from _search(task, 0, 12)
    for task in TASKS:
        yield from _pairs(task, 0, 40)


def _pairs(
    task: str, first: int, last: int, arms: Sequence[str] = (LORA, OTHER_START)
) -> Iterator[Cell]:
    for seed in range(first, last):
        yield from ((task, arm, LR, seed) for arm in arms)


def _fewer_rows(task: str, first: int, last: int) -> Iterator[Cell]:
    yield from ((task, FEWER_ROWS, LR, seed) for seed in range(first, last))


def _search(task: str, first: int, last: int) -> Iterator[Cell]:
    for seed in range(first, last):
        yield from ((task, LORA, lr, seed) for lr in (*BETWEEN, *GRID))


def recipe(cell: Cell, glue: str | None, model: str) -> Recipe:
    """The recipe of a cell."""
    name, arm, lr, seed = cell
    task, is_pair = TASKS[name], lr == LR and arm != FEWER_ROWS
    METHODS[OtherStart.name] = OtherStart
    return build(
        {
            "model": model,
            "task": {
                "name": name,
                "data_dir": glue if name.startswith("glue/") else None,
                "max_train": ROWS_OF_FEWER if arm == FEWER_ROWS else ROWS,
                "draw_rows": ROWS,
                "score_rows": task.study_rows,
            },
            "method": {"name": OtherStart.name if arm == OTHER_START else Lora.name, "rank": 8},
            "train": {
                "epochs": task.epochs,
                "average_last": task.average_last if is_pair else None,
                "lr": lr,
                "max_length": task.max_length,
                "seed": seed,
                "precision": task.precision,
            },
        }
    )


class KeepLastWeights(TrainerCallback):
    """Keeps the weights of the last step, which ``train.average_last`` replaces by the mean."""

    def __init__(self, attached: Attached) -> None:
        self._parameters = {n: attached.model.get_parameter(n).detach() for n in attached.trainable}
        self._kept: dict[str, Any] = {}

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Copy them after the last step."""
        if state.global_step == state.max_steps:
            self._kept = {name: p.clone() for name, p in self._parameters.items()}

    def restore(self) -> None:
        """Set them again."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self._kept[name])


def record_run(bank: Bank, described: Recipe, arm: str) -> None:
    """Train and score what a recipe describes, and add it to the runs of its task."""
    seconds: dict[str, float] = {}
    scores: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as folder:
        with _timed(seconds, "setup"):
            prepared = prepare(described, RunDir.open(Path(folder) / "run", described), False)
        loaded, trainer = prepared.loaded, prepared.trainer
        last_weights, diverged = KeepLastWeights(prepared.attached), False
        trainer.add_callback(last_weights)
        with _timed(seconds, "training"):
            try:
                trainer.fit(None)
            except Diverged:
                diverged = True
        study, official = loaded.task.reported
        encoded = {STUDY: loaded.encoded[study], OFFICIAL: loaded.encoded[official]}
        labels = {name: np.asarray(rows["labels"][:], np.int8) for name, rows in encoded.items()}

        def score(name: str, split: str) -> None:
            scores[name] = np.full(len(labels[split]), np.nan)
            if not diverged:
                with _timed(seconds, name):
                    logits = trainer.final_outputs(encoded[split])["logits"]
                scores[name] = log_odds(logits, labels[split])

        if described.train.average_last and not diverged:
            score(STUDY_OF_MEAN, STUDY)
            last_weights.restore()
        score(STUDY, STUDY)
        score(OFFICIAL, OFFICIAL)
        bank.labels = labels
        steps, settings = trainer.state.global_step, described.train
    bank.add(RecordedRun(arm, settings.lr, settings.seed, steps, seconds, diverged), scores)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.process_time()
    yield
    seconds[part] = round(time.process_time() - started, 2)


def log_odds(logits: Any, labels: Any) -> Array:
    """logit(true) - logit(other) of each row, of two classes.

    >>> log_odds(np.array([[0.5, 2.0], [1.0, -1.0]]), np.array([1, 1])).tolist()
    [1.5, -2.0]
    """
    rows = np.arange(len(labels))
    odds: Array = np.asarray(logits, dtype=float)
    margins: Array = odds[rows, labels] - odds[rows, 1 - labels]
    return margins


def record(folder: Path, glue: str | None, model: str, minutes: float, machine: str) -> None:
    """Record the missing cells in their order, the last of which begins within ``minutes``."""
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * minutes
    banks = {task: Bank.load(folder, task) for task in TASKS}
    for cell in cells():
        bank = banks[cell[0]]
        if bank.has(*cell[1:]):
            continue
        if time.monotonic() > end:
            break
        bank.model = model
        bank.machines = [*dict.fromkeys([*bank.machines, machine])]
        record_run(bank, recipe(cell, glue, model), cell[1])
        bank.save(folder)
        run = bank.runs[-1]
        print(f"{cell}: {sum(run.seconds.values()):.0f} processor seconds", flush=True)
