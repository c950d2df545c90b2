"""BitFit and the linear probe, and the published sizes of what is not LoRA."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, LlamaConfig

from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.additive.bottleneck_adapters import Houlsby, Pfeiffer
from iwlora.methods.selective.bitfit import BitFit
from iwlora.methods.selective.linear_probe import Head
from iwlora.methods.tiny_models import ARCHITECTURES, refusals, tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick


def test_bitfit_trains_every_bias_of_the_backbone_and_nothing_else() -> None:
    model = tiny_model("bert")
    attached = BitFit().attach(model, sites(model), seed=0)
    by_hand = {
        f"bert.encoder.layer.{block}.{part}.bias"
        for block in (0, 1)
        for part in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        )
    } | {"bert.embeddings.LayerNorm.bias", "bert.pooler.dense.bias"}
    assert set(attached.adapter) == by_hand
    assert set(attached.head) == {"classifier.weight", "classifier.bias"}
    assert attached.count() == 2 * (7 * 16 + 24) + 16 + 16


def test_biases_beside_a_layer_count_too() -> None:
    from transformers import DebertaConfig, DebertaForSequenceClassification

    config = DebertaConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
    )
    model = DebertaForSequenceClassification(config)
    attached = BitFit().attach(model, sites(model), seed=0)
    assert {"q_bias", "v_bias"} <= {name.rpartition(".")[2] for name in attached.adapter}


def test_t5s_relative_attention_is_no_bias_term() -> None:
    model = tiny_model("t5")
    assert any("relative_attention_bias" in name for name, _ in model.named_parameters())
    assert BitFit().parameters(model, []) == 0


def test_without_bias_terms_bitfit_is_refused() -> None:
    messages = refusals(BitFit())
    assert {architecture for architecture in ARCHITECTURES if messages[architecture]} == {
        "t5",
        "llama",
    }
    assert messages["llama"] == (
        "bitfit trains bias terms, and the backbone of LlamaForSequenceClassification has none; "
        "take lora with a small rank"
    )
    model = tiny_model("t5")
    with pytest.raises(IwloraError, match="bitfit trains bias terms"):
        BitFit().attach(model, sites(model), seed=0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_bias=True,
        pad_token_id=0,
    )
    biased = AutoModelForSequenceClassification.from_config(config)
    BitFit().check_model(biased, sites(biased))


def test_the_probe_needs_a_head() -> None:
    model = tiny_model("bert")
    attached = Head().attach(model, sites(model), seed=0)
    assert (attached.adapter, attached.count()) == ((), 0)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    bare = model.bert
    with pytest.raises(IwloraError, match="only the task head, and BertModel has none"):
        Head().attach(bare, sites(bare), seed=0)


@pytest.mark.parametrize(
    ("method", "exact", "published", "within"),
    [
        # Zhang et al. 2023, table 1. Its Houlsby adapters leave the normalizations frozen.
        (Houlsby(bottleneck=32), 24 * (2 * 768 * 32 + 32 + 768) + 26 * 2 * 768, 1.22e6, 0.02),
        (Houlsby(bottleneck=32, layer_norms=False), 24 * (2 * 768 * 32 + 32 + 768), 1.22e6, 0.02),
        (Houlsby(bottleneck=16, layer_norms=False), 24 * (2 * 768 * 16 + 16 + 768), 0.61e6, 0.005),
        (Houlsby(bottleneck=8, layer_norms=False), 24 * (2 * 768 * 8 + 8 + 768), 0.31e6, 0.012),
        (Pfeiffer(bottleneck=64), 12 * (2 * 768 * 64 + 64 + 768), 1.18e6, 0.01),
        (Pfeiffer(bottleneck=32), 12 * (2 * 768 * 32 + 32 + 768), 0.60e6, 0.005),
        (Pfeiffer(bottleneck=16), 12 * (2 * 768 * 16 + 16 + 768), 0.30e6, 0.015),
        (BitFit(), 12 * (5 * 768 + 3072 + 2 * 768) + 2 * 768, 0.1e6, 0.03),
    ],
)
def test_the_published_sizes_on_deberta_v3_base(
    deberta_v3_base: Any, method: Any, exact: int, published: float, within: float
) -> None:
    outcome = method.parameters(deberta_v3_base, sites(deberta_v3_base))
    assert outcome == exact == pytest.approx(published, rel=within)


def test_what_cannot_go_on_deberta_is_known_without_weights(deberta_v3_base: Any) -> None:
    refused = set()
    for name, method in METHODS.items():
        try:
            method().check_model(deberta_v3_base, sites(deberta_v3_base))
        except IwloraError:
            refused.add(name)
    # PEFT before 0.20 does not have lora-ga.
    assert refused - {"lora-ga"} == {"prefix", "apt", "prompt-generator"}
