"""The ``train:`` part of a recipe: length, learning rate, batches and numerics of the training."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from iwlora.inputs.limits import LARGEST_COUNT, Count, Number, Seed

Beta = Annotated[Number, Field(ge=0, lt=1)]
DEFAULT_BETAS = (0.9, 0.999)


class TrainSettings(BaseModel):
    """Length, learning rate, batch size and numerics of the training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[Number, Field(gt=0, le=100_000)] = 3.0
    """Passes over the training split; fractions are allowed."""
    max_steps: Count | None = None
    """Optimizer steps, in place of ``epochs``; null: as many as ``epochs`` need."""
    lr: Annotated[Number, Field(gt=0)] = 2e-4
    """Peak learning rate, after the warm-up."""
    optimizer: Literal["adamw", "adamw_8bit", "adafactor"] = "adamw"
    """adamw: PyTorch's fused AdamW. adamw_8bit: AdamW of bitsandbytes, whose moments take 2 bytes a
    parameter instead of 8. adafactor: that of transformers with this ``lr`` and without momentum,
    whose moments take one number a row and one a column."""
    betas: tuple[Beta, Beta] = DEFAULT_BETAS
    """How much of its two moments AdamW keeps from step to step, with either ``adamw`` or
    ``adamw_8bit``."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes after the warm-up: it falls to 0 at the last step, along a line
    or half a cosine, or it stays."""
    early_stopping: Count | None = None
    """Stop after this number of epochs in a row without a better score on the selection split
    (``task.selection``); null: train to the end. The learning rate follows the planned length."""
    average_last: Count | None = None
    """Score and save the mean of the trained weights after each of this number of last optimizer
    steps, with ``task.selection`` of each epoch; null: the last weights. Of LoRA, A and B are
    averaged."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[Number, Field(gt=0)]] = "none"
    """Weights of the classes in the training loss of a classification: balanced, inverse to their
    number of rows, or {class: weight}. A batch's loss is the weighted mean, as in PyTorch. The
    measurement of importance uses the same loss; reported losses are not weighted."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """The rows of an epoch: each once, or as many draws with every class equally often."""
    batch_size: Count = 32
    """Examples per optimizer step."""
    accumulate: Count = 1
    """Micro-batches that a batch is split into, to save memory; the result is the same up to
    rounding."""
    max_length: Count = 128
    """Tokens; longer inputs are truncated."""
    warmup: Annotated[Number, Field(ge=0, lt=1)] = 0.06
    """Fraction of all steps in which the learning rate rises from 0."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Decoupled weight decay of the optimizer; biases and normalizations have none."""
    max_grad_norm: Annotated[Number, Field(ge=0)] = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""
    seed: Seed = 0
    """Seed of the task head, the adapter, the order of the rows, and dropout."""
    save_steps: Count | None = None
    """Optimizer steps between checkpoints; null: no checkpoints."""
    keep_checkpoints: Count = 2
    """Number of newest checkpoints that are kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; trained parameters are float32 (frozen ones may be quantized).
    auto: bf16 if the hardware supports it."""
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights. bfloat16: half their memory, also while they are loaded; what
    trains stays float32, and matrix products are bf16."""
    gradient_checkpointing: Annotated[bool, Field(strict=True)] = False
    """Keep only the inputs of each block and compute the block again in the backward pass: less
    memory, about a third more time, the same result."""
    fast_kernels: Annotated[bool, Field(strict=True)] = True
    """LoRA in one pass, fast dropout and attention on CPUs: equal results up to rounding."""
    cache_frozen: Literal["auto"] | bool | int = "auto"
    """Compute the blocks below the lowest that trains once for each row, without dropout, and keep
    the result on the disk for all epochs and all runs of a comparison. A number: that many blocks.
    auto: in comparisons, where nothing in these blocks has dropout."""
    cache_images: Annotated[bool, Field(strict=True)] = True
    """Decode each image once, and keep the result on the disk for all epochs and all runs of a
    comparison; a run alone removes it when it has ended."""
    shard: Annotated[bool, Field(strict=True)] = False
    """With several processes, each holds a shard of the model (FSDP2) instead of a copy; the result
    is the same."""
    group_by_length: Annotated[bool, Field(strict=True)] = True
    """Batches of rows of similar length: less padding; equal for all methods at equal seed."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Experiment trackers that also get the logged metrics; each needs its own package."""
    deterministic: Annotated[bool, Field(strict=True)] = False
    """Use deterministic algorithms only: repeats are bit-identical, and slower on a GPU."""

    @field_validator("cache_frozen", mode="before")
    @classmethod
    def _check_cache_frozen(cls, value: Any) -> Any:
        if isinstance(value, bool) or value == "auto":
            return value
        if type(value) is int and 1 <= value <= LARGEST_COUNT:
            return value
        raise ValueError("accepted are auto, true, false, and a number of blocks from 1 on")

    @field_validator("class_weights", mode="before")
    @classmethod
    def _name_classes(cls, value: Any) -> Any:
        """YAML reads the name of a class such as 1 as a number."""
        return {str(name): w for name, w in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check_micro_batches(self) -> TrainSettings:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size={self.batch_size} does not divide into "
                f"train.accumulate={self.accumulate} equal micro-batches"
            )
        return self

    @model_validator(mode="after")
    def _check_betas(self) -> TrainSettings:
        if self.optimizer == "adafactor" and self.betas != DEFAULT_BETAS:
            raise ValueError(
                f"train.betas={list(self.betas)} was given with train.optimizer=adafactor, which "
                "has no such moments; remove train.betas, or take train.optimizer=adamw"
            )
        return self

    @model_validator(mode="after")
    def _check_frozen_dtype(self) -> TrainSettings:
        if self.frozen_dtype == "bfloat16" and self.precision == "fp32":
            raise ValueError(
                "train.frozen_dtype=bfloat16 was given with train.precision=fp32, and products of "
                "bfloat16 weights are bf16; take train.precision=bf16 or auto"
            )
        if self.frozen_dtype == "bfloat16" and self.shard:
            raise ValueError(
                "train.frozen_dtype=bfloat16 was given with train.shard=true, which needs weights "
                "of one type; take train.frozen_dtype=float32, or train.shard=false"
            )
        return self

    @model_validator(mode="after")
    def _check_sharded_optimizer(self) -> TrainSettings:
        if self.shard and self.optimizer != "adamw":
            raise ValueError(
                f"train.optimizer={self.optimizer} was given with train.shard=true, and its state "
                "cannot be sharded; take train.optimizer=adamw, whose moments are sharded too"
            )
        return self

    @model_validator(mode="after")
    def _check_sharded_average(self) -> TrainSettings:
        if self.shard and self.average_last:
            raise ValueError(
                f"train.average_last={self.average_last} was given with train.shard=true, and "
                "sharded weights are not averaged; take train.average_last=null, or "
                "train.shard=false"
            )
        return self

    @property
    def requested_precision(self) -> str:
        """``precision``, or bf16 where frozen weights in bfloat16 decide it."""
        return "bf16" if self.frozen_dtype == "bfloat16" else self.precision

    def run_bytes(self, trained_parameters: int) -> int:
        """About the most bytes that a run writes: its result, its best epoch, and checkpoints.

        A checkpoint has Adam's two moments besides the parameters, of 4 bytes each, and the mean
        of the last ones.

        >>> TrainSettings(save_steps=10, keep_checkpoints=1).run_bytes(1_000_000)
        48000000
        """
        checkpoints = self.keep_checkpoints + 1 if self.save_steps else 0
        copies = 4 if self.average_last else 3
        return 16_000_000 + 4 * trained_parameters * (2 + copies * checkpoints)

    def count_steps(self, steps_per_epoch: int) -> int:
        """The optimizer steps of the training.

        >>> TrainSettings(epochs=1.5).count_steps(7), TrainSettings(max_steps=3).count_steps(7)
        (11, 3)
        """
        return self.max_steps or math.ceil(self.epochs * steps_per_epoch)
