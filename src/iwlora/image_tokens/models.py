"""Transformers over the codes of images: BERT, which is MaskGIT's, and GPT-2, which is Taming's.

They are the models of transformers with two additions. What says which class an image has, the
*class prompt*, enters in place of the class token: one vector for each class, or what
``prompt-generator`` puts there. And the logits are those of the codes of an image alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM, GPT2LMHeadModel, PreTrainedModel

from iwlora.image_tokens.image_codes import ImageCodes


class ClassToken(nn.Module):
    """One vector for each class, P[c] = LayerNorm(E[c]): the simplest class prompt.

    Args:
        classes: Their number.
        width: Of the vectors.
        eps: Of the normalization.

    Example:
        >>> ClassToken(classes=3, width=8, eps=1e-12)(torch.tensor([2, 0])).shape
        torch.Size([2, 1, 8])
    """

    def __init__(self, classes: int, width: int, eps: float) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    images: ClassVar[tuple[int, ...]] = ()
    """Of :class:`iwlora.image_tokens.prompts.Prompts`; no image has a vector of its own here."""

    def forward(self, classes: Tensor, instances: Tensor | None = None) -> Tensor:
        """(rows,) class ids -> (rows, 1, width)."""
        prompt: Tensor = self.norm(self.classes(classes)).unsqueeze(1)
        return prompt


class BertForImageTokens(BertForMaskedLM):
    """BERT that predicts masked codes of an image from all others and from its class.

    The class prompt has no position and is put behind the normalization of the embeddings, as
    MaskGIT's prompts are; the codes have the positions 1 to N.

    Source:
        Chang et al. 2022, arXiv:2202.04200; Sohn et al. 2023, arXiv:2210.00990.
    """

    gives_positions: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        eps = config.layer_norm_eps
        self.class_prompts: nn.Module = ClassToken(config.num_labels, config.hidden_size, eps)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(cls, config: Any, **_: Any) -> PreTrainedModel:
        """A model with random weights."""
        model: PreTrainedModel = cls._from_config(config)  # type: ignore[no-untyped-call]
        return model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        instances: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Logits of the codes, (rows, N, codes).

        Args:
            input_ids: (rows, 1 + N): the id of the class, then the codes or the mask.
            position_ids: Those that the model has for these tokens, by default 0 to N: a prefix of
                keys and values does not move them.
            instances: (rows,): of training images, their numbers in their class.
            options: More of BERT's.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        prompts = self.class_prompts(input_ids[:, 0], instances)
        with _in_place_of_first(self.bert.embeddings, prompts):
            output = super().forward(input_ids=input_ids, position_ids=position_ids, **options)
        output.logits = _of_codes(output.logits, input_ids.shape[1] - 1, self.config)
        return output


class GPT2ForImageTokens(GPT2LMHeadModel):
    """GPT-2 that predicts each code of an image from its class and from the codes before it.

    The class prompt takes the place of the embedded class token, at position 0; the codes have the
    positions 1 to N.

    Source:
        Esser et al. 2021, arXiv:2012.09841; Sohn et al. 2023, arXiv:2210.00990.
    """

    gives_positions: ClassVar[bool] = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        eps = config.layer_norm_epsilon
        self.class_prompts: nn.Module = ClassToken(config.num_labels, config.hidden_size, eps)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(cls, config: Any, **_: Any) -> PreTrainedModel:
        """A model with random weights."""
        model: PreTrainedModel = cls._from_config(config)  # type: ignore[no-untyped-call]
        return model

    def forward(
        self,
        input_ids: Tensor,
        inputs_embeds: None = None,
        instances: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Logits of the codes, (rows, N, codes): those at place n are of code n, from the earlier.

        Args:
            input_ids: (rows, 1 + N): the id of the class, then the codes.
            inputs_embeds: None.
            instances: (rows,): of training images, their numbers in their class.
            options: More of GPT-2's.
        """
        prompts = self.class_prompts(input_ids[:, 0], instances)
        codes = self.transformer.wte(input_ids[:, 1:-1])  # the last one predicts nothing
        positions = torch.arange(1, input_ids.shape[1] - 1, device=input_ids.device)
        output = super().forward(
            inputs_embeds=torch.cat([prompts.to(codes.dtype), codes], dim=1),
            position_ids=torch.cat([positions.new_zeros(prompts.shape[1]), positions])[None],
            **options,
        )
        output.logits = _of_codes(output.logits, input_ids.shape[1] - 1, self.config)
        return output


MODELS: Mapping[str, type[PreTrainedModel]] = {
    "bert": BertForImageTokens,
    "gpt2": GPT2ForImageTokens,
}
"""{type of transformers: the model of codes}."""


@contextmanager
def _in_place_of_first(embeddings: nn.Module, prompts: Tensor) -> Iterator[None]:
    """Inside the block, embedded tokens have prompts in place of the first."""

    def with_prompts(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
        return torch.cat([prompts.to(embedded.dtype), embedded[:, 1:]], dim=1)

    hook = embeddings.register_forward_hook(with_prompts)
    try:
        yield
    finally:
        hook.remove()


def _of_codes(logits: Tensor, tokens: int, config: Any) -> Tensor:
    return logits[:, -tokens:, : ImageCodes.of(config).count]
