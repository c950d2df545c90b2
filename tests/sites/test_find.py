"""Sites: the same names and kinds whatever the architecture, and whatever wraps the model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.sites import sites

pytestmark = pytest.mark.quick

ENCODER = {"query", "key", "value", "attention_output", "ffn_up", "ffn_down"}
CROSS = {"cross_query", "cross_key", "cross_value", "cross_output"}
EXPECTED = {
    "bert": ENCODER,
    "roberta": ENCODER,
    "deberta-v2": ENCODER,
    "llama": ENCODER | {"ffn_gate"},
    "gpt2": {"query_key_value", "attention_output", "ffn_up", "ffn_down"},
    "t5": ENCODER | {f"decoder_{kind}" for kind in ENCODER | CROSS},
    "bart": ENCODER | {f"decoder_{kind}" for kind in ENCODER | CROSS},
}


def classifier(architecture: str) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    model: nn.Module = AutoModelForSequenceClassification.from_config(tiny_config(architecture))
    return model


@pytest.mark.parametrize("architecture", EXPECTED)
def test_every_block_has_the_kinds_of_its_architecture(architecture: str) -> None:
    computed = sites(classifier(architecture))
    per_depth = Counter((site.depth, site.kind) for site in computed)
    assert per_depth == Counter({(d, kind): 1 for d in (0, 1) for kind in EXPECTED[architecture]})


@pytest.mark.parametrize("architecture", EXPECTED)
def test_names_lead_to_the_layer_and_shapes_to_its_weight(architecture: str) -> None:
    model = classifier(architecture)
    for site in sites(model):
        assert model.get_submodule(site.name) is site.layer
        weight = site.layer.weight
        assert isinstance(weight, torch.Tensor)
        shape = (site.d_out, site.d_in) if isinstance(site.layer, nn.Linear) else weight.shape[::-1]
        assert (site.d_out, site.d_in) == tuple(shape)


def test_an_adapted_model_has_the_sites_of_the_model_that_was_loaded() -> None:
    from peft import LoraConfig, get_peft_model

    model = classifier("bert")
    before = [(site.name, site.layer) for site in sites(model)]
    adapted = get_peft_model(model, LoraConfig(target_modules=["query", "dense"], r=2))
    assert [(site.name, site.layer) for site in sites(adapted)] == before


def test_targets_choose_by_kind_or_name_and_unknown_ones_are_reported() -> None:
    model = classifier("bert")
    assert {site.kind for site in sites(model, ["query", "ffn_up"])} == {"query", "ffn_up"}
    name = "bert.encoder.layer.1.output.dense"
    assert [site.name for site in sites(model, [name])] == [name]
    with pytest.raises(IwloraError, match=r"unknown target 'querry'; did you mean 'query'"):
        sites(model, ["querry"])


@pytest.mark.parametrize(
    ("targets", "exclude"),
    [
        (r".*layer\.1\..*(query|value)", []),
        (["self.query", "value"], []),
        (["query", "dense"], ["layer.0.attention.self.query", "attention.output.dense"]),
        (r".*\.self\..*", r".*\.0\..*"),
    ],
)
def test_patterns_and_ends_of_names_choose_what_they_choose_in_peft(
    targets: str | list[str], exclude: str | list[str]
) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    model = classifier("bert")
    config = LoraConfig(target_modules=targets, exclude_modules=exclude or None)
    every_name = [site.name for site in sites(model)]
    expected = [name for name in every_name if check_target_module_exists(config, name)]
    assert [site.name for site in sites(model, targets, exclude)] == expected
    assert 0 < len(expected) < len(every_name)


def test_exclude_takes_kinds_and_must_leave_something() -> None:
    model = classifier("bert")
    assert {site.kind for site in sites(model, exclude=["query", "value"])} == ENCODER - {
        "query",
        "value",
    }
    with pytest.raises(IwloraError, match="leaves none of the 2 matrices"):
        sites(model, ["query"], exclude="query")
    with pytest.raises(IwloraError, match=r"unknown exclude 'querry'; did you mean 'query'"):
        sites(model, exclude=["querry"])
    with pytest.raises(IwloraError, match=r"unknown target '\.\*nothing'"):
        sites(model, ".*nothing")


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(IwloraError, match="no linear layer inside a repeated block"):
        sites(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("architecture", "heads"),
    [("bert", ["classifier"]), ("deberta-v2", ["pooler", "classifier"]), ("llama", ["score"])],
)
def test_the_head_is_what_the_backbone_does_not_have(architecture: str, heads: list[str]) -> None:
    assert head_modules(classifier(architecture)) == heads


def test_a_language_model_has_no_head_where_its_output_embeddings_are_in_a_module() -> None:
    from transformers import BertGenerationConfig, BertGenerationDecoder

    config = BertGenerationConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        is_decoder=True,
    )
    model = BertGenerationDecoder(config)
    assert model.get_output_embeddings() is model.lm_head.decoder
    assert head_modules(model) == []


def test_a_grouped_layer_is_no_site() -> None:
    """Its update is no low-rank matrix of its weight's shape, though it is an ``nn.Linear``."""

    class SomeGroupedLinear(nn.Linear):
        """As DeepSeek-V4's."""

    blocks = nn.ModuleList([nn.ModuleDict({"a": SomeGroupedLinear(4, 4), "b": nn.Linear(4, 4)})])
    assert [site.name for site in sites(nn.Sequential(blocks))] == ["0.0.b"]
