"""The check that a method trained together with other runs ends where it ends alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.methods.low_rank.lora import Lora
from iwlora.testing.case import Case, in_precision
from iwlora.training.packed.pack import Pack

STEPS = 20
TOLERANCE, LOSS_TOLERANCE = 1e-9, 1e-3
"""Of all that a run ends with in float64, and of its losses in float32."""
NOT_PACKABLE = ("deberta-v2", "swin")
"""DeBERTa drops out what all rows share, the embeddings of distances; Swin computes windows, which
are more than the rows of a batch."""


@dataclass(frozen=True)
class PackedRun:
    """A run of the check: a case, its rows and its seed, and what its Trainer gets besides.

    Args:
        case: the method on its architecture.
        seed: of the adapter and of dropout.
        rows: the training rows.
        options: arguments of ``TrainingArguments``.
        dtype: of the weights.
    """

    case: Case
    seed: int
    rows: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64

    def train(self, folder: Path, joined: Callable[[Any], Any] = nullcontext) -> dict[str, Tensor]:
        """Train with dropout; returns what was trained, and the losses."""
        model: Any = self.case.model()
        model.to(self.dtype)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1
        attached = self.case.attach(model)
        settings = {"max_steps": STEPS, "logging_steps": 2, "seed": self.seed, **self.options}
        rows = in_precision(self.rows, self.dtype)
        trainer = self.case.trainer(attached, folder, rows, **settings)
        with joined(trainer):
            trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        trained = {n: attached.model.get_parameter(n).detach() for n in attached.trainable}
        return {"losses": torch.tensor(losses), **trained}


def train_together(
    runs: Sequence[PackedRun], folder: Path, pack: Pack
) -> list[dict[str, Tensor] | BaseException]:
    """What each run ends with, or its error, when all are in one pack."""
    return pack.execute(
        [partial(run.train, folder / str(n), pack.joined) for n, run in enumerate(runs)]
    )


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Of the losses and of all that was trained."""
    assert one.keys() == other.keys()
    pairs = ((one[name], other[name]) for name in one if one[name].numel())
    return max((a - b).abs().max().item() for a, b in pairs)


def difference_of_losses(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest, of the losses alone."""
    return largest_difference({"losses": one["losses"]}, {"losses": other["losses"]})


def longer_rows(case: Case) -> list[dict[str, Any]]:
    """The rows of a case with two more tokens, so that the batch of another run is padded.

    Images, which are never padded, are those of the case in another order.
    """
    if case.reads_images:
        return case.rows[1:]
    return [
        {**row, "input_ids": ids[:3] + ids[1:], "attention_mask": [1] * (len(ids) + 2)}
        for row in case.rows
        for ids in [row["input_ids"]]
    ]


def packed_equals_alone(case: Case) -> None:
    """Together with LoRA over one frozen model, the method ends as alone.

    In float64 all that trains and the losses are equal to 1e-9, in float32 the losses to 1e-3. The
    other run has another seed, rank, learning rate and schedule, and longer rows.
    """
    lora = replace(case, method=Lora(dropout=0.1))
    other = {"learning_rate": 1e-3, "lr_scheduler_type": "cosine", "max_grad_norm": 0.5}
    runs = [PackedRun(case, 1, case.rows), PackedRun(lora, 2, longer_rows(case), other)]
    _check(case, runs, largest_difference, TOLERANCE)
    singles = [replace(run, dtype=torch.float32) for run in runs]
    _check(case, singles, difference_of_losses, LOSS_TOLERANCE)


def _check(
    case: Case,
    runs: Sequence[PackedRun],
    difference: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], float],
    tolerance: float,
) -> None:
    """Raise ``AssertionError`` if a run ends otherwise in a pack than alone."""
    folder, pack = case.folder / str(runs[0].dtype), Pack()
    found = []
    for ended in train_together(runs, folder / "packed", pack):
        if isinstance(ended, BaseException):
            raise ended
        found.append(ended)
    expected = case.method.not_packable is None and case.architecture not in NOT_PACKABLE
    if (pack.passes > 0) != expected:
        raise AssertionError(f"{pack.passes} joint passes; not_packable={case.method.not_packable}")
    for number, (run, ended) in enumerate(zip(runs, found, strict=True)):
        differs = difference(run.train(folder / f"alone-{number}"), ended)
        if not differs <= tolerance:
            raise AssertionError(
                f"run {number} of the pack differs by {differs} from it alone in {run.dtype}"
            )
