"""One forward and one backward pass for the batches of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.training.packed.layers import Pass, frozen_tensors, joint_layer
from iwlora.training.packed.randomness import OwnRandomness, ProcessState
from iwlora.training.packed.shares import NotPackable

_TEXTS = {"input_ids", "attention_mask", "token_type_ids"}
_IMAGES = {"pixel_values"}
_OF_ROWS = {"instances"}
_OF_TOKENS = ("start_logits", "end_logits")


@dataclass(frozen=True)
class Batch:
    """What a run gives its model: its tensors of shape (rows, tokens), and plain options.

    Of images it is one tensor of shape (rows, channels, height, width), which is never padded. What
    has a number for each row is in ``of_rows``.
    """

    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any]
    of_rows: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Batch | None:
        """The batch; None if it has inputs whose padding is not known."""
        given = {name: value for name, value in inputs.items() if value is not None}
        given.pop("num_items_in_batch", None)  # for a loss that models compute from labels
        if given.get("return_dict") is True:  # the default; PEFT gives it
            del given["return_dict"]
        tensors = {name: given.pop(name) for name in (_TEXTS | _IMAGES) & given.keys()}
        of_rows = {name: given.pop(name) for name in _OF_ROWS & given.keys()}
        plain = all(isinstance(value, (bool, int, float, str)) for value in given.values())
        shapes = {tuple(tensor.shape) for tensor in tensors.values()}
        is_image = tensors.keys() == _IMAGES
        if not (is_image or "input_ids" in tensors) or not plain or len(shapes) != 1:
            return None
        return cls(tensors, given, of_rows) if len(*shapes) == (4 if is_image else 2) else None

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the model gets."""
        return {**self.tensors, **self.of_rows, **self.options}

    @property
    def rows(self) -> int:
        return self._any.shape[0]

    @property
    def tokens(self) -> int:
        """Places along the second axis: of images the channels, which are equal in all batches."""
        return self._any.shape[1]

    @property
    def device(self) -> torch.device:
        return self._any.device

    @property
    def _any(self) -> Tensor:
        return next(iter(self.tensors.values()))

    def key(self, pads_right: bool) -> tuple[Any, ...]:
        """Batches of equal keys are computed in one pass."""
        any_length = pads_right and "attention_mask" in self.tensors
        shape = None if any_length else tuple(self._any.shape[1:])
        names = (*sorted(self.tensors), *sorted(self.of_rows))
        return (names, tuple(sorted(self.options.items())), shape)


class JointPass:
    """A forward pass of several runs, and the backward pass that follows it.

    Args:
        joint: The models of the runs as one.
        batches: The batch of each run.
        states: Their process states.
        pad_token: The id with which their batches are padded to equal length.
    """

    def __init__(
        self,
        joint: JointModel,
        batches: Sequence[Batch],
        states: Sequence[ProcessState],
        pad_token: int,
    ) -> None:
        shares = joint.now.shares
        shares.set([batch.rows for batch in batches], [batch.tokens for batch in batches])
        inputs = {
            name: shares.joined_inputs(
                [batch.tensors[name] for batch in batches],
                pad_token if name == "input_ids" else 0,
            )
            for name in batches[0].tensors
        }
        of_rows = {
            name: torch.cat([batch.of_rows[name] for batch in batches])
            for name in batches[0].of_rows
        }
        joint.model.train()
        joint.now.randomness = OwnRandomness(shares, states)
        before = ProcessState(batches[0].device)
        with joint.now.randomness:
            output = joint.model(**inputs, **of_rows, **batches[0].options)
        if not ProcessState(batches[0].device).equals(before):
            raise NotPackable("it draws random numbers in other ways than dropout")
        self._outputs = logits(output)
        self._shares = list(shares.each)
        self.outputs = [
            type(output)(
                **{
                    name: _own(name, tensor[share.rows], share.tokens)
                    for name, tensor in self._outputs.items()
                }
            )
            for share in self._shares
        ]

    def gradients(
        self,
        of_outputs: Sequence[Mapping[str, Tensor]],
        parameters: Sequence[Sequence[nn.Parameter]],
    ) -> list[list[Tensor | None]]:
        """The gradients of each run's parameters, from those of its outputs.

        Args:
            of_outputs: The gradients of ``outputs``; those that a run lacks are zero.
            parameters: What trains in each run.
        """
        joined = {name: torch.zeros_like(tensor) for name, tensor in self._outputs.items()}
        for share, of_run in zip(self._shares, of_outputs, strict=True):
            for name, gradient in of_run.items():
                _own_part(name, joined[name][share.rows], share.tokens).copy_(gradient)
        flat = [parameter for of_run in parameters for parameter in of_run]
        found = torch.autograd.grad(
            [*self._outputs.values()], flat, [*joined.values()], allow_unused=True
        )
        each = iter(found)
        return [[next(each) for _ in of_run] for of_run in parameters]


class JointModel:
    """The models of several runs as one, over the frozen weights of the first."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.now = Pass()
        self.model = joint_layer(models, self.now)
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules()):
            raise NotPackable("it normalizes over the rows of a batch")


def share_frozen(model: nn.Module, first: nn.Module) -> bool:
    """Let a model use the frozen tensors of another one, if they are equal in every value.

    Returns:
        Whether it does; if not, nothing is changed.
    """
    own = {name: (module, last) for name, module, last in frozen_tensors(model)}
    others = {name: (module, last) for name, module, last in frozen_tensors(first)}
    pairs = []
    for name in own.keys() & others.keys():
        mine, theirs = (_tensor(*place) for place in (own[name], others[name]))
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return False
        if mine.data_ptr() != theirs.data_ptr() and not torch.equal(mine, theirs):
            return False
        pairs.append((own[name], theirs))
    for (module, name), theirs in pairs:
        if name in module._parameters:
            _tensor(module, name).data = theirs.data
        else:
            module._buffers[name] = theirs
    return True


def _tensor(module: nn.Module, name: str) -> Tensor:
    tensor = module._parameters.get(name)
    found = module._buffers[name] if tensor is None else tensor
    assert found is not None
    return found


def logits(output: Any) -> dict[str, Tensor]:
    """What a model returns for its rows, of which a run computes its loss."""
    found = {name: output[name] for name in ("logits", *_OF_TOKENS) if name in output}
    if not found or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise NotPackable(f"it returns {', '.join(output)}")
    return found


def _own(name: str, rows: Tensor, tokens: int) -> Tensor:
    """A run's own output, from which its loss is computed: the graph ends here."""
    return _own_part(name, rows.detach(), tokens).requires_grad_()


def _own_part(name: str, rows: Tensor, tokens: int) -> Tensor:
    return rows[:, :tokens] if rows.dim() > 2 or name in _OF_TOKENS else rows
