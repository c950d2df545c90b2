"""A method on a tiny model: attached, trained and saved, each once; and in two processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments
from transformers import default_data_collator as collate

from iwlora import distributed
from iwlora.inputs.models.loading import load_model
from iwlora.methods.contract import Attached, Method
from iwlora.methods.deprecated import current_method
from iwlora.methods.loading import load_adapter
from iwlora.methods.tiny_models import IMAGE_ARCHITECTURES, IMAGE_SIZE, tiny_config, tiny_model
from iwlora.results import layout
from iwlora.sensitivity.measure import measure
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.tasks.kinds.contract import model_inputs
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.testing.processes import run_in_two_processes
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.loop.trainer import FineTuningTrainer

SIZE = 4
BLOCKS = 2
"""Of a tiny model, unless the case says otherwise."""
STEPS = 6
BATCH = 4
SEED = 5


@dataclass(frozen=True)
class Trained:
    """A method before and after a short training, and the folder with the saved result."""

    attached: Attached
    initial: Mapping[str, Tensor]
    frozen_logits: Tensor
    initial_logits: Tensor
    logits: Tensor
    saved: Path


@dataclass(frozen=True)
class Accumulated:
    """A training with two micro-batches per step, and the steps at which callbacks were called."""

    logits: Tensor
    optimizer_steps: int
    callback_steps: list[list[int]]


@dataclass(frozen=True)
class Case:
    """One method on one architecture, with an empty folder.

    Args:
        method: the method to test; a method with a size knob gets the size 4.
        architecture: one of ``iwlora.testing.ARCHITECTURES`` or ``IMAGE_ARCHITECTURES``.
        folder: an empty folder, for checkpoints and saved adapters.
        blocks: the number of blocks of its models.
    """

    method: Method
    architecture: str
    folder: Path
    blocks: int = BLOCKS

    def __post_init__(self) -> None:
        method = current_method(self.method)
        object.__setattr__(self, "method", method.sized(SIZE) if method.size_knob else method)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Random sentences with the same last token; the first token determines the class.

        Or random images, whose brightness determines the class.
        """
        if self.reads_images:
            return _images()
        config = tiny_config(self.architecture)
        end = config.eos_token_id if config.is_encoder_decoder else 5
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(6, config.vocab_size, (24, 6), generator=random).tolist()
        return [
            {"input_ids": [6 + k % 3, *tokens[k], end], "attention_mask": [1] * 8, "labels": k % 3}
            for k in range(24)
        ]

    def model(self, head_seed: int = 0) -> PreTrainedModel:
        """A fresh backbone with its head."""
        return tiny_model(self.architecture, head_seed=head_seed, blocks=self.blocks)

    @property
    def reads_images(self) -> bool:
        """Whether the architecture reads images."""
        return self.architecture in IMAGE_ARCHITECTURES

    @property
    def two_process_logits(self) -> list[Path]:
        """The files with the logits of each of two processes."""
        return [self.folder / f"two-processes-{rank}.safetensors" for rank in (0, 1)]

    def attach(self, model: Any = None, sites: Sequence[Site] | None = None) -> Attached:
        """The method on a fresh model, measured and initialized as in a run."""
        model = self.model() if model is None else model
        sites, arguments = sites or find_sites(model), self.method.calibration()
        rows = in_precision(self.rows, model.dtype)
        batches = [collate(rows[k : k + BATCH]) for k in range(0, len(rows), BATCH)]
        sensitivity = None
        if arguments is not None:
            share = distributed.split_between_processes(batches)
            sensitivity = measure(model, share, sites=sites, **arguments)
        attached = self.method.attach(model, sites, SEED, sensitivity)
        initialize = attached.initializer(lambda model, batch: model(**batch).loss)
        if initialize is not None:
            initialize(batches)
        return attached

    def trainer(
        self,
        attached: Attached,
        folder: Path,
        rows: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> FineTuningTrainer:
        """What trains for a few steps, as a run does; on the rows of the case, or on others."""
        rows = self.rows if rows is None else rows
        settings = {
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "learning_rate": 3e-3,
            "adam_epsilon": 1e-6,  # a gradient that is 0 except for rounding has no effect
            "save_strategy": "no",
            "report_to": "none",
            "remove_unused_columns": False,
            "dataloader_pin_memory": False,
            "disable_tqdm": True,
            "use_cpu": True,
            **options,
        }
        trainer = FineTuningTrainer(
            attached=attached,
            args=TrainingArguments(**settings),
            train_dataset=rows,
            data_collator=collate,
            sampler=EpochSampler(len(rows), BATCH, seed=0),
            kind=ImageClassification() if self.reads_images else None,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def fit(
        self, attached: Attached, folder: Path, resume: str | None = None, **options: Any
    ) -> None:
        """Train for a few steps, as a run does."""
        self.trainer(attached, folder, **options).train(resume_from_checkpoint=resume)

    @torch.no_grad()
    def logits(self, model: nn.Module) -> Tensor:
        """(rows, classes), without dropout."""
        batch = collate(self.rows)
        model.eval()
        output: Tensor = model(**model_inputs(batch)).logits
        return output

    def reload(self, saved: Path) -> nn.Module:
        """The saved result, loaded onto a fresh backbone with another head."""
        if (saved / layout.ADAPTER).is_dir():
            return load_adapter(self.model(head_seed=99), saved / layout.ADAPTER)
        head = "ImageClassification" if self.reads_images else "SequenceClassification"
        auto_class = getattr(transformers, f"AutoModelFor{head}")
        model: nn.Module = load_model(auto_class, saved / layout.MODEL)
        return model

    @cached_property
    def trained(self) -> Trained:
        """The method after training, with a checkpoint at half the steps."""
        model = self.model()
        frozen_logits = self.logits(model)
        attached = self.attach(model)
        initial_logits, initial = self.logits(attached.model), snapshot(attached.model)
        half = STEPS // 2
        self.fit(attached, self.folder / "trained", save_strategy="steps", save_steps=half)
        logits = self.logits(attached.model)
        attached.save(self.folder / "saved")
        return Trained(
            attached, initial, frozen_logits, initial_logits, logits, self.folder / "saved"
        )

    @cached_property
    def accumulated(self) -> Accumulated:
        """The same training with two micro-batches per step."""
        attached = self.attach()
        calls = [_record_steps(callback) for callback in attached.callbacks]
        optimizer_steps: list[Any] = []
        hook = register_optimizer_step_post_hook(lambda *step: optimizer_steps.append(step))
        try:
            self.fit(
                attached,
                self.folder / "accumulated",
                per_device_train_batch_size=BATCH // 2,
                gradient_accumulation_steps=2,
            )
        finally:
            hook.remove()
        return Accumulated(self.logits(attached.model), len(optimizer_steps), calls)


def in_precision(rows: Sequence[Mapping[str, Any]], dtype: torch.dtype) -> list[dict[str, Any]]:
    """The rows with the pixels of their images in ``dtype``, which not all models convert."""
    return [
        {name: value.to(dtype) if name == "pixel_values" else value for name, value in row.items()}
        for row in rows
    ]


def _images() -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(24, 3, IMAGE_SIZE, IMAGE_SIZE, generator=random)
    return [{"pixel_values": pixels[k] + k % 3 - 1, "labels": k % 3} for k in range(24)]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _record_steps(callback: Any) -> list[int]:
    """A list that gets the global step of every ``on_optimizer_step`` of the callback."""
    steps: list[int] = []
    original = callback.on_optimizer_step

    def wrapped(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        steps.append(state.global_step)
        return original(args, state, control, **kwargs)

    callback.on_optimizer_step = wrapped
    return steps


def train_in_two_processes(cases: Sequence[Case]) -> None:
    """Train all cases in one pair of processes; writes each ``case.two_process_logits``."""
    run_in_two_processes(_train, [replace(case) for case in cases])


def _train(rank: int, cases: list[Case]) -> None:
    options: dict[str, Any] = {"per_device_train_batch_size": BATCH // 2, "ddp_backend": "gloo"}
    for case in cases:
        attached = case.attach()
        case.fit(attached, case.folder / "two-processes", **options)
        save_file({"logits": case.logits(attached.model)}, case.two_process_logits[rank])
