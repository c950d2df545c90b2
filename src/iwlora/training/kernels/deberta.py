"""DeBERTa's attention without the relative positions that a batch is too short to have."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from iwlora.training.kernels import check_arguments, replacing_class

_ARGUMENTS = ("self", "query_layer", "key_layer", "relative_pos", "rel_embeddings", "scale_factor")


def kernel(model: nn.Module) -> AbstractContextManager[object]:
    """Raises ``KernelMismatch`` where transformers' attention is another than we know."""
    check_arguments(DisentangledSelfAttention.disentangled_attention_bias, *_ARGUMENTS)
    return near_positions(model)


def near_positions(model: nn.Module) -> AbstractContextManager[object]:
    """Inside the block, DeBERTa-v2 and v3 project and score near positions only."""
    return replacing_class(model, DisentangledSelfAttention, NearAttention)


class NearAttention(DisentangledSelfAttention):
    """Disentangled attention whose table of relative positions ends at the batch's length.

    The relative positions of n tokens lie in −n < δ < n, and their logarithmic buckets too. Scores
    against the other rows of the table (DeBERTaV3 has 512) are never gathered, and their gradients
    are zeros.

    Source:
        He et al. 2021, arXiv:2006.03654, equation 4.
    """

    def disentangled_attention_bias(
        self, query_layer: Tensor, key_layer: Tensor, relative_pos: Any, table: Tensor, factor: int
    ) -> Any:
        """The sum of content-to-position and position-to-content scores, (heads, n, n)."""
        span = self.pos_ebd_size
        self.pos_ebd_size = reach = min(span, max(query_layer.size(-2), key_layer.size(-2)))
        near = table[span - reach : span + reach]
        try:
            return super().disentangled_attention_bias(  # type: ignore[no-untyped-call]
                query_layer, key_layer, relative_pos, near, factor
            )
        finally:
            self.pos_ebd_size = span
