"""Tiny random models, one of each architecture on which the methods are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.methods.base import Method
from iwlora.sites import head_modules, sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDTH, INNER, BLOCKS = 16, 24, 2


def tiny_config(architecture: str, vocab_size: int = 64) -> Any:
    """The configuration of a model of two blocks of 16 units, without dropout."""
    return _CONFIGS[architecture](vocab_size)


def tiny_model(architecture: str, labels: int = 3, head_seed: int = 0) -> PreTrainedModel:
    """A classifier with random weights: one backbone for each architecture, a head for each seed.

    >>> tiny_model("bert").config.num_labels
    3
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    config = tiny_config(architecture)
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        torch.manual_seed(head_seed)
        for name in head_modules(model):
            for parameter in model.get_submodule(name).parameters():
                torch.nn.init.normal_(parameter, std=0.1)
    model.train(False)
    return model


def refusals(methods: Mapping[str, Method]) -> dict[str, dict[str, str | None]]:
    """{method: {architecture: why it cannot go there, or None}}, found by asking each method."""
    found: dict[str, dict[str, str | None]] = {name: {} for name in methods}
    for architecture in ARCHITECTURES:
        model = tiny_model(architecture)
        for name, method in methods.items():
            try:
                method.check_model(model, sites(model))
            except IwloraError as refusal:
                found[name][architecture] = str(refusal)
            else:
                found[name][architecture] = None
    return found


def _encoder(name: str, **more: Any) -> Callable[[int], Any]:
    """BERT and what is configured like it."""
    return lambda vocab_size: _make(
        name,
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        intermediate_size=INNER,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        **more,
    )


def _make(name: str, **options: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**options)


_CONFIGS: dict[str, Callable[[int], Any]] = {
    "bert": _encoder("BertConfig"),
    "roberta": _encoder("RobertaConfig"),
    "electra": _encoder("ElectraConfig", embedding_size=8),
    "deberta-v2": _encoder(
        "DebertaV2Config",
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        pooler_dropout=0.0,
        pooler_hidden_size=WIDTH,
    ),
    "t5": lambda vocab_size: _make(
        "T5Config",
        vocab_size=vocab_size,
        d_model=WIDTH,
        d_kv=8,
        d_ff=INNER,
        num_layers=BLOCKS,
        num_heads=2,
        dropout_rate=0.0,
        pad_token_id=0,
        decoder_start_token_id=0,
    ),
    "bart": lambda vocab_size: _make(
        "BartConfig",
        vocab_size=vocab_size,
        d_model=WIDTH,
        encoder_layers=BLOCKS,
        decoder_layers=BLOCKS,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        max_position_embeddings=64,
        dropout=0.0,
    ),
    "gpt2": lambda vocab_size: _make(
        "GPT2Config",
        vocab_size=vocab_size,
        n_embd=WIDTH,
        n_layer=BLOCKS,
        n_head=2,
        n_positions=64,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "llama": lambda vocab_size: _make(
        "LlamaConfig",
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        intermediate_size=INNER,
        max_position_embeddings=64,
        pad_token_id=0,
    ),
}
ARCHITECTURES = tuple(_CONFIGS)
