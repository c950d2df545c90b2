"""À-la-carte prompt tuning (APT): prompts that read the frozen model; many share one pass of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods.contract import Attached, Method, check_unattached
from iwlora.methods.named_parameters import attach_inserted
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site, blocks
from iwlora.sites import sites as find_sites

if TYPE_CHECKING:
    from torch import Tensor, nn

_MOST = 1024
"""More than a text of these models has tokens."""
Tokens: TypeAlias = Annotated[int, Field(ge=1, le=_MOST, strict=True)]
_TYPES = ("bert", "roberta", "electra", "vit", "dinov2")
"""Types of models whose head reads the first token, and no query of whose attention differs from
another in what it may read."""
_HEADS = ("ForSequenceClassification", "ForImageClassification")
_CALLED = "ALL_ATTENTION_FUNCTIONS"  # in the code of attention that calls registered functions
_INSTEAD = "take lora or head, whose runs can be put into a pool too"


class Apt(Method):
    """A prompt p reads the tokens z of the frozen model, which do not read it; p goes to the head.

    p_{ℓ+1} = F_ℓ(queries p_ℓ; keys and values [z_ℓ; p_ℓ; m_ℓ]) with the frozen block F_ℓ and the
    memory m_ℓ, which adds keys and values to the block and is not propagated. The head reads p, or
    the mean of several prompts, in the place of the first token.
    """

    name: ClassVar[str] = "apt"
    summary: ClassVar[str] = "a prompt with memory that reads the frozen model; for pools of runs"
    paper: ClassVar[str] = "Bowman et al. 2023, arXiv:2302.07994"
    adapts_sites: ClassVar[bool] = False
    size_knob: ClassVar[str | None] = "memory"
    identity_at_init: ClassVar[bool] = False
    shares_pass: ClassVar[bool] = True
    unmergeable: ClassVar[str | None] = "its prompts and memory are not part of a weight"
    not_checkpointable: ClassVar[str | None] = (
        "a block that is computed again does not know what the prompts read"
    )

    memory: Tokens = 8
    """Keys and values that each block adds to those of the tokens."""
    prompts: Tokens = 1
    """Prompts that read the tokens; the head gets their mean."""

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """(prompts + blocks · memory) · width of the hidden states."""
        width: int = model.config.hidden_size
        return (self.prompts + len(blocks(model.base_model)) * self.memory) * width

    def trained_modules(self, model: Any, sites: Sequence[Site]) -> None:
        """None: no block can be left out, since the prompts read the keys and values of each."""

    def check(self, sites: Sequence[Site]) -> None:
        """The memory has at most 1,024 keys and values for each block."""
        if not 1 <= self.memory <= _MOST:
            raise IwloraError(
                f"method.memory={self.memory} was given; accepted are 1 to {_MOST:,}, in each block"
            )

    def check_model(self, model: Any, sites: Sequence[Site]) -> None:
        """BERT, RoBERTa, ELECTRA, ViT or DINOv2 with a head that reads the first token."""
        name = type(model).__name__
        if model.config.model_type not in _TYPES or getattr(model.config, "is_decoder", False):
            raise IwloraError(
                "apt knows the blocks of BERT (MiniLM's too), RoBERTa, ELECTRA, ViT and DINOv2 "
                f"only; {_INSTEAD}"
            )
        if not name.endswith(_HEADS):
            raise IwloraError(
                f"apt gives the head a prompt in the place of the first token, and the head of "
                f"{name} reads every token; {_INSTEAD}"
            )
        frozen = {id(m) for block in blocks(model.base_model) for m in block.modules()}
        frozen |= {id(m) for m in model.base_model.embeddings.modules()}
        for path in head_modules(model):
            if any(id(module) in frozen for module in model.get_submodule(path).modules()):
                raise IwloraError(
                    "apt trains nothing that the tokens pass through, so that many runs share one "
                    f"pass of the model, and {path} would train; remove it from modules_to_save, "
                    f"or take a backbone whose file has weights for it; or {_INSTEAD}"
                )
        for _, attention in _layers(model):
            if _CALLED not in inspect.unwrap(type(attention).forward).__code__.co_names:
                raise IwloraError(
                    f"apt needs attention that calls the attention functions of transformers, and "
                    f"{type(attention).__name__} in this version does not; {_INSTEAD}"
                )

    def attach(
        self, model: Any, sites: Sequence[Site], seed: int, sensitivity: Sensitivity | None = None
    ) -> Attached:
        """Insert prompts and memory; ``initialize`` starts the prompts at the first token."""
        from iwlora.methods.additive.apt_attention import insert_prompts
        from iwlora.methods.additive.token_keys import TokenKeys

        check_unattached(model)
        self.check_model(model, sites)
        self.check(sites)
        insert = partial(insert_prompts, model, _layers(model), self.prompts, self.memory)
        attached = attach_inserted(self, model, sites, seed, insert)
        reads = TokenKeys(model.base_model.apt)
        return replace(attached, initialize=partial(_initialize, model), reads=reads)

    def one_pass(self, model: nn.Module) -> AbstractContextManager[None]:
        """As :func:`iwlora.methods.additive.apt_attention.tokens_once`."""
        from iwlora.methods.additive.apt_attention import tokens_once

        return tokens_once(model)


def _layers(model: Any) -> list[tuple[nn.Module, nn.Module]]:
    """Each block and its self-attention."""
    paths = {module: path for path, module in model.named_modules()}
    of_block = {site.block: site for site in find_sites(model) if site.kind == "query"}
    return [
        (block, model.get_submodule(of_block[paths[block]].name.rpartition(".")[0]))
        for block in blocks(model.base_model)
    ]


def _initialize(model: Any, batches: Iterable[Mapping[str, Tensor]]) -> None:
    from iwlora.methods.additive.apt_attention import start_at_first_token

    first = next(iter(batches))
    start_at_first_token(
        model, {name: x.to(model.device) for name, x in first.items() if name != "labels"}
    )
