"""One family through the whole tool, as a user goes: measure, train, load, predict, export.

Each step is checked against an independent truth: autograd for the sensitivities, the trained model
in memory for what is loaded, plain transformers and PEFT for what is exported.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from torch import Tensor

import iwlora
from families.catalogue import task_class
from iwlora.cli import main as iwlora_command
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.results.run import load_run
from iwlora.sites import plain_weight
from iwlora.sites import sites as find_sites
from iwlora.tasks.kinds import KINDS
from iwlora.testing.case import snapshot
from iwlora.testing.checks import check_changes
from iwlora.training import run as training_run
from iwlora.training.load import LoadedRecipe
from iwlora.training.prepare import prepare
from tiny_tasks import write_task

METHODS = ("lora", "iw-lora")
SEED_OF_LOADING = 1234
TOLERANCE, MERGED_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4, 1e-3
"""Of logits, relative to the largest one; of sensitivities, relative to each."""
_MASKED = 1e9
MOVED = 1e-3
"""Training changes some logit by at least this share of the largest one."""


@dataclass(frozen=True)
class Trained:
    """A finished run, and what the process that trained it had in memory."""

    folder: Path
    attached: Attached
    loaded: LoadedRecipe
    initial: Mapping[str, Tensor]
    initial_logits: Mapping[str, Tensor]

    @cached_property
    def batch(self) -> Mapping[str, Tensor]:
        """All rows of the split that the run was scored on."""
        rows = self.loaded.encoded[self.loaded.task.reported[0]]
        batch: Mapping[str, Tensor] = self.loaded.collate([rows[k] for k in range(len(rows))])
        return batch

    @cached_property
    def logits(self) -> Mapping[str, Tensor]:
        """Of the trained model, for the batch."""
        return self.compute(self.attached.model)

    @torch.no_grad()
    def compute(self, model: Any) -> dict[str, Tensor]:
        """The logits of a model in evaluation mode, for the batch."""
        # As the Trainer does: FSMT masks no later tokens where it keeps a cache.
        model.config.use_cache = False
        outputs = self.loaded.task.kind.forward(model.eval(), self.batch)
        return {name: value for name, value in outputs.items() if name.endswith("logits")}


@dataclass(frozen=True)
class Journey:
    """A checkpoint, a kind of task, and an empty folder.

    Args:
        checkpoint: The folder of the model.
        kind: The kind of the task.
        folder: Where the task, the runs and the exports go.
    """

    checkpoint: Path
    kind: str
    folder: Path

    @cached_property
    def task(self) -> dict[str, Any]:
        """The ``task:`` part of a recipe."""
        settings, _ = write_task(self.folder / "task", self.kind)
        return settings

    def load_plain(self, **settings: Any) -> Any:
        """The model with the task's head, as a user of transformers loads it."""
        from transformers import AutoConfig

        names = KINDS[self.kind]().checkpoint_key_mapping(
            AutoConfig.from_pretrained(self.checkpoint)
        )
        torch.manual_seed(SEED_OF_LOADING)
        auto = task_class(self.kind)
        return auto.from_pretrained(self.checkpoint, key_mapping=names, **settings).eval()

    @cached_property
    def plain_batch(self) -> dict[str, Tensor]:
        """A batch as a user of transformers makes it, with the labels for the model's own loss."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        texts = [
            "the dog sees a good film",
            "a woman likes the very bad and old film .",
            "it is new",
        ]
        batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        ids, mask = batch["input_ids"], batch["attention_mask"]
        if self.kind == "question-answering":
            return batch | {"start_positions": mask[:, 1], "end_positions": 2 * mask[:, 2]}
        if self.kind == "classification":
            return batch | {"labels": torch.tensor([0, 1, 0])}
        if self.kind == "token-labels":
            return batch | {"labels": torch.where(mask > 0, ids % 2, -100)}
        return batch | {"labels": torch.where(mask > 0, ids, -100)}

    def plain_loss(self) -> None:
        """Compute the loss and its gradient by transformers alone; raises what these raise."""
        self.load_plain()(**self.plain_batch).loss.backward()

    def measure(self) -> None:
        """Measured sensitivities are the norms of autograd's gradients, and positive."""
        model = self.load_plain()
        measured = iwlora.measure(model, [self.plain_batch], max_batches=1)
        weights: dict[str, Any] = {site.name: plain_weight(site) for site in find_sites(model)}
        model.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        model(**self.plain_batch).loss.backward()
        for name, weight in weights.items():
            norm = 0.0 if weight.grad is None else float(weight.grad.norm())
            value = measured.values[name]
            _expect(
                abs(value - norm) <= GRADIENT_TOLERANCE * norm,
                f"the sensitivity of {name} is {value:.3g}, and its gradient's norm {norm:.3g}",
            )

    def train(self, method: str) -> Trained:
        """Train three steps."""
        recipe = iwlora.build_recipe(
            {
                "model": str(self.checkpoint),
                "task": self.task,
                "method": {"name": method, "rank": 2},
                "train": {
                    "epochs": 1,
                    "batch_size": 4,
                    "lr": 1e-2,
                    "warmup": 0,
                    "max_length": 32,
                    "precision": "fp32",
                },
            }
        )
        folder = self.folder / method
        with _observed() as runs:
            iwlora.train(recipe, folder)
        (prepared,) = runs
        return Trained(folder, *prepared)

    @property
    def checks(self) -> tuple[Callable[[Trained], None], ...]:
        """The checks of a finished run."""
        return (check_training, self.check_loading, self.check_predictions, self.check_export)

    def check_loading(self, trained: Trained) -> None:
        """``iwlora.load_trained`` gives the logits of the trained model."""
        torch.manual_seed(SEED_OF_LOADING)
        model, _ = iwlora.load_trained(trained.folder)
        _same(trained.compute(model), trained.logits, "of load_trained")

    def check_predictions(self, trained: Trained) -> None:
        """``iwlora predict`` gives the predictions of the trained model."""
        output = self.folder / f"{trained.folder.name}-predictions.csv"
        command("predict", trained.folder, "--input", self.task["validation"], "--output", output)
        before = _rows(layout.predictions_file(trained.folder, trained.loaded.task.reported[0]))
        after = _rows(output)
        _expect(
            [row["prediction"] for row in after] == [row["prediction"] for row in before],
            "iwlora predict gives other predictions than the trained model",
        )
        columns = [name for name in after[0] if name.startswith("probability_")]
        if columns:
            probabilities = torch.tensor([[float(row[name]) for name in columns] for row in after])
            expected = trained.logits["logits"].softmax(-1)
            _same({"": probabilities}, {"": expected}, "(probabilities) of iwlora predict")

    def check_export(self, trained: Trained) -> None:
        """PEFT loads the exported adapter, and transformers the merged model: equal logits."""
        labels = trained.loaded.task.labels
        settings = {"num_labels": len(labels)} if labels else {}
        adapter = self.folder / f"{trained.folder.name}-adapter"
        command("export", trained.folder, "--to", adapter)
        model = PeftModel.from_pretrained(self.load_plain(**settings), str(adapter))
        _same(trained.compute(model), trained.logits, "of the exported adapter in PEFT")
        merged = self.folder / f"{trained.folder.name}-merged"
        command("export", trained.folder, "--to", merged, "--merge")
        torch.manual_seed(SEED_OF_LOADING)
        plain = task_class(self.kind).from_pretrained(merged)
        when = "of the merged model in transformers"
        _same(trained.compute(plain), trained.logits, when, MERGED_TOLERANCE)


def check_training(trained: Trained) -> None:
    """Every declared parameter moved and no other; the logits moved; sensitivities are positive.

    A matrix without a gradient is accepted where the run's notes say so.
    """
    attached, notes = trained.attached, load_run(trained.folder).result.notes
    unchanged = [pair for pair in attached.pairs if not pair.B.any()]
    still = {pair.name for pair in unchanged}
    named = f"{len(still)} of {len(attached.pairs)} matrices had no gradient in training"
    _expect(not still or any(named in note for note in notes), f"no note says: {named}")
    factors = {id(factor) for pair in unchanged for factor in (pair.A, pair.B)}
    named_parameters = attached.model.named_parameters()
    without = [name for name, parameter in named_parameters if id(parameter) in factors]
    check_changes(attached, trained.initial, without_gradient=without)
    pairs = zip(trained.initial_logits.values(), trained.logits.values(), strict=True)
    change = max(_difference(before, after) for before, after in pairs)
    _expect(change > MOVED, f"training changed the logits by a share of {change:.2g}")
    file = trained.folder / layout.SENSITIVITY
    if file.is_file():
        included = iwlora.Sensitivity.load(file).included
        measured = [site for site in included if site.name not in still]
        bad = [site.name for site in measured if not 0 < site.value < float("inf")]
        _expect(
            not bad,
            f"{len(bad)} of {len(measured)} sensitivities are 0 or not finite, such as that of "
            f"{min(bad, default='')}",
        )


def command(*arguments: object) -> None:
    """Run a command of ``iwlora``; what it refuses is raised as ``IwloraError``."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = iwlora_command([str(argument) for argument in arguments])
    if status:
        raise iwlora.IwloraError(output.getvalue().strip())


@contextlib.contextmanager
def _observed() -> Iterator[list[Any]]:
    """Collects (attached, loaded, initial parameters, initial logits) of each run in the block."""
    runs: list[Any] = []

    def observing_prepare(*arguments: Any, **options: Any) -> Any:
        prepared = prepare(*arguments, **options)
        attached, loaded = prepared.attached, prepared.loaded
        before = Trained(Path(), attached, loaded, {}, {})
        with torch.random.fork_rng(devices=[]):
            logits = before.compute(attached.model)
        runs.append((attached, loaded, snapshot(attached.model), logits))
        return prepared

    with patch.object(training_run, "prepare", observing_prepare):
        yield runs


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _same(
    logits: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    where: str,
    tolerance: float = TOLERANCE,
) -> None:
    for name, value in expected.items():
        difference = _difference(logits[name], value)
        _expect(
            difference <= tolerance, f"the logits {where} differ by a share of {difference:.2g}"
        )


def _difference(first: Tensor, second: Tensor) -> float:
    """The largest difference as a share of the largest value; NaN where a value is NaN.

    Values of ``_MASKED`` and more are logits that the model has masked: both must mask the same.
    """
    masked = second.abs() >= _MASKED
    if not torch.equal(first.abs() >= _MASKED, masked):
        return float("inf")
    first, second = first.masked_fill(masked, 0), second.masked_fill(masked, 0)
    return float((first - second).abs().max() / second.abs().max().clamp(min=1e-6))


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
