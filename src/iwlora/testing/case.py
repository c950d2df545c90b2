"""A method on a tiny model: attached, trained, saved; each is done once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModelForSequenceClassification, PrinterCallback, TrainingArguments
from transformers import default_data_collator as collate

from iwlora import distributed
from iwlora.methods.adapter_files import load_adapter
from iwlora.methods.contract import Attached, Method
from iwlora.methods.tiny_models import tiny_config, tiny_model
from iwlora.results import layout
from iwlora.sensitivity.measure import measure
from iwlora.sites import Site, sites
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.loop.trainer import FineTuningTrainer, task_loss

SIZE = 4
STEPS = 6
BATCH = 4
SEED = 5

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """A method before and after a short training, and the folder that it was saved in."""

    attached: Attached
    initial: Mapping[str, Tensor]
    frozen_logits: Tensor
    initial_logits: Tensor
    logits: Tensor
    saved: Path


@dataclass(frozen=True)
class Accumulated:
    """A training whose batches came in two pieces, and when its callbacks were called."""

    logits: Tensor
    optimizer_steps: int
    callback_steps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Case:
    """One method on one architecture, in an empty folder of its own."""

    method: Method
    architecture: str
    folder: Path
    rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _rows(self.architecture))

    @property
    def size(self) -> int | None:
        """The size that is tried, for a method that has one."""
        return SIZE if self.method.size_knob else None

    @property
    def two(self) -> Path:
        """The file with the logits of each of two processes."""
        return self.folder / "two.safetensors"

    def attach(self, model: Any = None, places: Sequence[Site] | None = None) -> Attached:
        """The method on a fresh model, after all that a run does first."""
        model = tiny_model(self.architecture) if model is None else model
        places, wanted = places or sites(model), self.method.calibration()
        batches = [collate(self.rows[k : k + BATCH]) for k in range(0, len(self.rows), BATCH)]
        sensitivity = None
        if wanted is not None:
            sensitivity = measure(
                model, distributed.split_between_processes(batches), sites=places, **wanted
            )
        attached = self.method.attach(model, places, self.size, SEED, sensitivity)
        if attached.initialize is not None:
            attached.initialize(batches)
        return attached

    def fit(
        self, attached: Attached, folder: Path, resume: str | None = None, **options: Any
    ) -> None:
        """Train a few steps, as a run does."""
        settings = {
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": 3e-3,
            "adam_epsilon": 1e-6,  # gradients that are 0 but for rounding do not count
            "save_strategy": "no",
            "report_to": "none",
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "use_cpu": True,
            **options,
        }
        trainer = FineTuningTrainer(
            model=attached.model,
            args=TrainingArguments(**settings),
            train_dataset=self.rows,
            data_collator=collate,
            compute_loss_func=task_loss(attached.regularizer),
            sampler=EpochSampler(len(self.rows), BATCH, seed=0),
            trainable=attached.trainable,
            learning_rates=attached.learning_rates,
            callbacks=list(attached.callbacks),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=resume)

    @torch.no_grad()
    def logits(self, model: nn.Module) -> Tensor:
        """(rows, classes), without dropout."""
        batch = collate(self.rows)
        model.eval()
        found: Tensor = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return found

    def reload(self, saved: Path) -> nn.Module:
        """What was saved, on a fresh backbone with another head."""
        if (saved / layout.ADAPTER).is_dir():
            return load_adapter(tiny_model(self.architecture, head_seed=99), saved / layout.ADAPTER)
        whole: nn.Module = AutoModelForSequenceClassification.from_pretrained(saved / layout.MODEL)
        return whole

    @cached_property
    def trained(self) -> Trained:
        """The method after training; a checkpoint lies half way."""
        model = tiny_model(self.architecture)
        frozen_logits = self.logits(model)
        attached = self.attach(model)
        initial_logits, initial = self.logits(attached.model), snapshot(attached.model)
        half = STEPS // 2
        self.fit(attached, self.folder / "whole", save_strategy="steps", save_steps=half)
        logits = self.logits(attached.model)
        attached.save(self.folder / "saved")
        return Trained(
            attached, initial, frozen_logits, initial_logits, logits, self.folder / "saved"
        )

    @cached_property
    def accumulated(self) -> Accumulated:
        """The same training with each batch in two pieces."""
        attached = self.attach()
        calls = [_spy(callback) for callback in attached.callbacks]
        stepped: list[Any] = []
        counting = register_optimizer_step_post_hook(lambda *step: stepped.append(step))
        try:
            self.fit(
                attached,
                self.folder / "pieces",
                per_device_train_batch_size=BATCH // 2,
                gradient_accumulation_steps=2,
            )
        finally:
            counting.remove()
        return Accumulated(self.logits(attached.model), len(stepped), tuple(map(tuple, calls)))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _rows(architecture: str) -> Rows:
    """Random sentences that all end alike; a class is seen in their first word."""
    config = tiny_config(architecture)
    end = config.eos_token_id if config.is_encoder_decoder else 5
    random = torch.Generator().manual_seed(0)
    words = torch.randint(6, config.vocab_size, (24, 6), generator=random).tolist()
    return [
        {"input_ids": [6 + k % 3, *words[k], end], "attention_mask": [1] * 8, "labels": k % 3}
        for k in range(24)
    ]


def _spy(callback: Any) -> list[int]:
    """The list to which every ``on_optimizer_step`` of the callback adds its global step."""
    steps: list[int] = []
    original = callback.on_optimizer_step

    def wrapped(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        steps.append(state.global_step)
        return original(args, state, control, **kwargs)

    callback.on_optimizer_step = wrapped
    return steps
