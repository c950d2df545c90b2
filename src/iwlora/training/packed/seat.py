"""The place of a run in a pack, and which runs are computed together."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.packed.joint_pass import Batch
from iwlora.training.packed.randomness import ProcessState

Purpose = Literal["forward", "backward"]


@dataclass(eq=False)
class Seat:
    """The place of one run in a pack, while it trains.

    Args:
        trainer: of the run.
        group: runs with the same frozen model and the same numerics have the same number.
        turn: notified when the run may go on, or has to compute the pass of all that wait.
    """

    trainer: FineTuningTrainer
    group: int
    turn: threading.Condition
    waits_for: Purpose | None = None
    batch: Batch | None = None
    outputs: Any = None
    alone: bool = False
    """Whether its model cannot be computed together with others."""
    error: BaseException | None = None
    joint_seconds: float = 0.0
    """Seconds of joint passes that are this run's."""
    state: ProcessState = field(init=False)
    model: Any = field(init=False)
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        attached, tokenizer = self.trainer.attached, self.trainer.processor
        self.model = plain_model(attached.model)
        self.parameters = [attached.model.get_parameter(name) for name in attached.trainable]
        self.state = ProcessState(self.parameters[0].device)
        self.pad_token = getattr(tokenizer, "pad_token_id", None) or 0
        self.pads_right = getattr(tokenizer, "padding_side", "right") == "right"

    def key(self) -> tuple[Any, ...]:
        """Runs of equal keys are computed in one pass."""
        assert self.batch is not None
        return (self.group, self.pad_token, *self.batch.key(self.pads_right))

    def gradients(self) -> dict[str, Tensor]:
        """Those of the outputs, after the backward pass of the run's loss."""
        return {n: tensor.grad for n, tensor in self.outputs.items() if tensor.grad is not None}


def plain_model(model: Any) -> Any:
    """The model of transformers inside PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trains_alone(trainer: FineTuningTrainer) -> bool:
    """Whether the settings of a run do not allow that its steps are computed with others'."""
    model: Any = plain_model(trainer.attached.model)
    quantized = getattr(model, "quantization_method", None) is not None
    return (
        quantized
        or trainer.args.world_size > 1
        or bool(trainer.args.full_determinism)
        or bool(getattr(model, "is_gradient_checkpointing", False))
    )


def fits(seat: Seat, first: Seat) -> bool:
    """Whether two runs have models of one kind, and compute in the same way."""
    # transformers notes the problem type when a model computes a loss, which runs do not use.
    configs = [{**s.model.config.to_dict(), "problem_type": None} for s in (seat, first)]
    ways = [(s.trainer.use_fast_kernels, s.trainer.args.bf16) for s in (seat, first)]
    return type(seat.model) is type(first.model) and configs[0] == configs[1] and ways[0] == ways[1]


def is_watched(seat: Seat) -> bool:
    """Whether hooks read what the run's own layers compute, as in a measurement in flight."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_tensors = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(module, name) for module in seat.model.modules() for name in hooks) or any(
        getattr(parameter, name) for parameter in seat.parameters for name in of_tensors
    )
