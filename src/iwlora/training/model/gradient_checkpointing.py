"""Blocks that are computed again in the backward pass, so that their activations are not kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.overrides import _get_current_function_mode

from iwlora.errors import IwloraError


def enable_gradient_checkpointing(model: Any) -> None:
    """Checkpoint every block of a model in training, in place; evaluation stays as it is.

    Raises:
        IwloraError: the model does not support it.
    """
    # The later name of transformers' method, then that of the first versions of transformers 5.
    enable = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False, "context_fn": _contexts})
    except ValueError as error:
        raise IwloraError(
            f"train.gradient_checkpointing=true was given, and {type(model).__name__} does not "
            "support it in transformers; take false, and a larger train.accumulate to save memory"
        ) from error


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What surrounds the forward pass of a block, and its repetition.

    torch leaves the mode of the fast kernels in ``Tensor.backward``; without it the repetition
    would draw other dropout masks than the forward pass.
    """
    return nullcontext(), _get_current_function_mode() or nullcontext()
