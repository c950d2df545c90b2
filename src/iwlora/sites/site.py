"""What a site is: one weight matrix of a model, and the layers that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Site:
    """One weight matrix W of shape (d_out, d_in) that can be adapted; it computes x Wᵀ.

    Or the matrices of all experts of a block, which are one parameter of the model. Or the weight
    of a 2-D convolution as a matrix: a row for each output channel, and x is what a row reads at
    one position, channels / groups × height × width of the kernel.

    Args:
        name: the path of the layer in the model as it was loaded, before an adapter wrapped it; of
            a weight in another module than a linear layer, the path of the weight.
        layer: the module.
        kind: the role of the matrix in its block, such as ``query``, ``ffn_up`` or ``router``.
        d_in: the size of the input.
        d_out: the size of the output.
        depth: the index of the block, from 0; of a convolution between blocks, that of the next.
        block: the path of the block; empty for a convolution between blocks.
        parameter: the name of the weight in its module, if it is measured and adapted as a
            parameter: of experts, of routers, and of layers whose names PEFT takes for experts of
            transformers 4. None for all other layers.
        experts: the number of matrices.
    """

    name: str
    layer: nn.Module
    kind: str
    d_in: int
    d_out: int
    depth: int
    block: str = ""
    parameter: str | None = None
    experts: int = 1

    @property
    def is_router(self) -> bool:
        """Whether the matrix chooses experts, or weighs a shared expert."""
        return self.kind.removeprefix("decoder_") == "router"

    @property
    def is_convolution(self) -> bool:
        """Whether the matrix is the weight of a 2-D convolution."""
        return is_convolution(self.layer)

    @property
    def size(self) -> int:
        """The number of entries, over all experts."""
        return self.experts * self.d_in * self.d_out

    @property
    def largest_rank(self) -> int:
        """The smaller side of the matrix."""
        return min(self.d_in, self.d_out)

    @property
    def parameters_per_rank(self) -> int:
        """The number of parameters of a low-rank update of rank 1, over all experts."""
        return self.experts * (self.d_in + self.d_out)


def is_linear(layer: nn.Module) -> bool:
    """Whether the module is a linear layer: ``nn.Linear``, quantized or not, or ``Conv1D``.

    DeepSeek-V4's grouped layer, a subclass of ``nn.Linear``, multiplies parts of its input by parts
    of its weight: its update is no low-rank matrix of the weight's shape.
    """
    from torch import nn

    if type(layer).__name__.endswith("GroupedLinear"):
        return False
    return isinstance(layer, nn.Linear) or is_conv1d(layer)


def is_convolution(layer: nn.Module) -> bool:
    """Whether the module is a 2-D convolution, such as those of models of images."""
    from torch import nn

    return isinstance(layer, nn.Conv2d)


def is_conv1d(layer: nn.Module) -> bool:
    """Whether the module is the linear layer of GPT-2, which keeps its weight transposed."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)
