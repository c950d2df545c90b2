"""Houlsby, Pfeiffer and parallel adapters against a plain implementation of their formulas."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick

KINDS = ("houlsby", "pfeiffer", "parallel")
Parameters = dict[str, Tensor]


def attached(name: str, architecture: str, **options: Any) -> tuple[Any, Attached]:
    """(the frozen model, the method on a copy of it, with every trained number drawn at random)."""
    frozen = tiny_model(architecture).double()
    model = copy.deepcopy(frozen)
    outcome = METHODS[name](**options).sized(4).attach(model, sites(model), seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in outcome.adapter:
            tensor = model.get_parameter(parameter)
            tensor += 0.3 * torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    return frozen, outcome


def words(model: Any, rows: int = 5) -> Tensor:
    ids = torch.randint(6, 60, (rows, 7), generator=torch.Generator().manual_seed(2))
    if model.config.is_encoder_decoder:
        ids[:, -1] = model.config.eos_token_id
    return ids


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def adapter(p: Parameters, place: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    down, up = p[f"{place}.adapter.down"], p[f"{place}.adapter.up"]
    inner = f(x @ down.mT + p[f"{place}.adapter.down_bias"])
    return inner @ up.mT + p[f"{place}.adapter.up_bias"]


def affine(p: Parameters, place: str, x: Tensor) -> Tensor:
    return x @ p[f"{place}.weight"].mT + p[f"{place}.bias"]


def norm(p: Parameters, place: str, x: Tensor) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    return scaled * p[f"{place}.weight"] + p[f"{place}.bias"]


def plain_bert(
    p: Parameters, ids: Tensor, kind: str, f: Callable[[Tensor], Tensor], scaling: float
) -> Tensor:
    """Logits of the tiny BERT with adapters, from its parameters by name."""
    rows, length = ids.shape
    at = "bert.embeddings"
    x = p[f"{at}.word_embeddings.weight"][ids] + p[f"{at}.position_embeddings.weight"][:length]
    x = norm(p, f"{at}.LayerNorm", x + p[f"{at}.token_type_embeddings.weight"][0])
    for block in range(2):
        at = f"bert.encoder.layer.{block}"
        q, k, v = (
            affine(p, f"{at}.attention.self.{name}", x).view(rows, length, 2, 8).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = (torch.softmax(q @ k.mT / 8**0.5, -1) @ v).transpose(1, 2).reshape(x.shape)
        out = f"{at}.attention.output.dense"
        a = affine(p, out, mixed)
        if kind == "houlsby":
            a = a + scaling * adapter(p, out, f, a)
        x = norm(p, f"{at}.attention.output.LayerNorm", x + a)
        out, end = f"{at}.output.dense", f"{at}.output.LayerNorm"
        h = affine(p, out, gelu(affine(p, f"{at}.intermediate.dense", x)))
        if kind == "houlsby":
            h = h + scaling * adapter(p, out, f, h)
        if kind == "parallel":
            h = h + scaling * adapter(p, out, f, x)
        u = h + x
        if kind == "pfeiffer":
            u = u + scaling * adapter(p, end, f, norm(p, end, u))
        x = norm(p, end, u)
    return affine(p, "classifier", torch.tanh(affine(p, "bert.pooler.dense", x[:, 0])))


@pytest.mark.parametrize(
    ("kind", "options", "f", "scaling"),
    [
        ("houlsby", {}, gelu, 1.0),
        ("houlsby", {"activation": "swish", "layer_norms": False}, swish, 1.0),
        ("pfeiffer", {}, relu, 1.0),
        ("pfeiffer", {"scaling": 0.5, "layer_norms": True}, relu, 0.5),
        ("parallel", {}, relu, 4.0),
        ("parallel", {"activation": "gelu", "scaling": -1.5}, gelu, -1.5),
    ],
)
def test_forward_and_a_training_step_are_those_of_the_formula(
    kind: str, options: dict[str, Any], f: Callable[[Tensor], Tensor], scaling: float
) -> None:
    frozen, outcome = attached(kind, "bert", **options)
    ids, labels = words(frozen), torch.tensor([0, 1, 2, 0, 1])
    named = dict(outcome.model.named_parameters())
    ours = {name: named[name].detach().clone() for name in named}
    for name in outcome.trainable:
        ours[name].requires_grad_()
    for name, parameter in frozen.named_parameters():  # what is frozen is the backbone itself
        assert name in outcome.trainable or torch.equal(named[name], parameter)
    for optimizer, forward in (
        (torch.optim.AdamW([named[n] for n in outcome.trainable], 1e-2), None),
        (torch.optim.AdamW([ours[n] for n in outcome.trainable], 1e-2), plain_bert),
    ):
        if forward is None:
            logits = outcome.model(ids).logits
            before = logits.detach()
        else:
            logits = forward(ours, ids, kind, f, scaling)
            assert_close(logits, before, rtol=1e-10, atol=1e-12)
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    for name in outcome.trainable:
        assert_close(ours[name].grad, named[name].grad, rtol=1e-8, atol=1e-12)
        assert_close(ours[name], named[name], rtol=1e-6, atol=1e-7)
    after = outcome.model(ids).logits
    assert_close(plain_bert(ours, ids, kind, f, scaling), after, rtol=1e-6, atol=1e-6)
    assert (after - before).abs().max() > 1e-2
    with torch.no_grad():
        wrong = plain_bert(ours, ids, kind, f, 1.1 * scaling)
    assert (wrong - after).abs().max() > 1e-6


# Of each family: attention, feed-forward, and the end of the block, below its blocks.
FAMILIES = {
    "gpt2": ("attn", "mlp", ""),
    "llama": ("self_attn", "mlp", ""),
    "t5": ("layer.0.SelfAttention", "layer.-1.DenseReluDense", "layer.-1"),
}


def blocks(model: Any) -> list[nn.Module]:
    kinds = ("GPT2Block", "LlamaDecoderLayer", "T5Block")
    return [module for module in model.modules() if type(module).__name__ in kinds]


def within(block: nn.Module, path: str) -> nn.Module:
    last = str(len(getattr(block, "layer", ())) - 1)
    return block.get_submodule(path.replace("-1", last))


def change(module: Any, how: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Let the module's forward return ``how(input, output)``."""
    original = module.forward

    def forward(hidden_states: Tensor, *given: Any, **named: Any) -> Any:
        out = original(hidden_states, *given, **named)
        if isinstance(out, tuple):
            return (how(hidden_states, out[0]), *out[1:])
        return how(hidden_states, out)

    module.forward = forward


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_in_blocks_that_normalize_first(kind: str, architecture: str) -> None:
    frozen, outcome = attached(kind, architecture, layer_norms=False)
    ids, f = words(frozen), gelu if kind == "houlsby" else relu
    p = {name: tensor.detach() for name, tensor in outcome.model.named_parameters()}
    places = list(dict.fromkeys(name.split(".adapter.")[0] for name in outcome.adapter))
    attention, feed_forward, end = FAMILIES[architecture]
    where = {"houlsby": (attention, feed_forward), "pfeiffer": (end,), "parallel": (feed_forward,)}
    changed = [
        frozen_module
        for block in blocks(frozen)
        for path in where[kind]
        for frozen_module in [within(block, path) if path else block]
    ]
    assert len(changed) == len(places) == len(outcome.adapter) / 4
    for module, place in zip(changed, places, strict=True):
        if kind == "parallel":
            change(module, lambda x, y, place=place: y + 4 * adapter(p, place, f, x))
        else:
            change(module, lambda x, y, place=place: y + adapter(p, place, f, y))
    with torch.no_grad():
        expected = frozen(ids).logits
        assert_close(outcome.model(ids).logits, expected, rtol=1e-9, atol=1e-9)


BEHIND = {  # inside a block
    "houlsby": {
        "bert": ["attention.output.dense", "output.dense"],
        "bart": ["self_attn.out_proj", "fc2"],
    },
    "pfeiffer": {"bert": ["output.LayerNorm"], "bart": ["final_layer_norm"]},
    "parallel": {"bert": ["output.dense"], "bart": ["fc2"]},
}


@pytest.mark.parametrize("architecture", ["roberta", "electra", "deberta-v2", "bart"])
@pytest.mark.parametrize("kind", KINDS)
def test_where_adapters_are_in_other_families(kind: str, architecture: str) -> None:
    _, outcome = attached(kind, architecture, layer_norms=False)
    places = [name.removesuffix(".adapter.down") for name in outcome.adapter[::4]]
    inside = [re.sub(r".*\.layers?\.\d+\.", "", place) for place in places]
    blocks_of_it = 4 if architecture == "bart" else 2
    expected = BEHIND[kind]["bart" if architecture == "bart" else "bert"]
    assert inside == expected * blocks_of_it


@pytest.mark.parametrize("architecture", ["bert", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_gradients(kind: str, architecture: str) -> None:
    gradients = []
    for recompute in (False, True):
        _, outcome = attached(kind, architecture)
        model: Any = outcome.model.train()
        if recompute:
            old = "gradient_checkpointing_enable"
            getattr(model, "activation_checkpointing_enable", getattr(model, old))()
        model(words(model)).logits.square().sum().backward()
        gradients.append([model.get_parameter(name).grad for name in outcome.adapter])
    for whole, recomputed in zip(*gradients, strict=True):
        assert_close(recomputed, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_backbone_in_half_precision_adapters_are_in_single(kind: str) -> None:
    model = tiny_model("bert").to(torch.bfloat16)
    expected = model(words(model)).logits
    outcome = METHODS[kind](layer_norms=False).sized(4).attach(model, sites(model), seed=0)
    assert {model.get_parameter(name).dtype for name in outcome.adapter} == {torch.float32}
    logits = model(words(model)).logits
    assert torch.equal(logits, expected)
    logits.sum().backward()
    assert all(model.get_parameter(name).grad is not None for name in outcome.adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_a_model_of_its_own(kind: str) -> None:
    _, outcome = attached(kind, "bert")
    model: Any = outcome.model
    twin, ids = copy.deepcopy(model), words(model)
    expected = model(ids).logits
    assert torch.equal(twin(ids).logits, expected)
    with torch.no_grad():
        model.get_parameter(outcome.adapter[2]).zero_()
    assert torch.equal(twin(ids).logits, expected)
    assert not torch.equal(model(ids).logits, expected)


def test_targets_choose_among_the_places() -> None:
    model = tiny_model("bert")
    behind_attention = sites(model, ["attention_output"])
    outcome = METHODS["houlsby"](layer_norms=False).sized(2).attach(model, behind_attention, seed=0)
    assert len(outcome.adapter) == 2 * 4
    assert all(".attention.output.dense.adapter." in name for name in outcome.adapter)


def test_targets_without_a_place_are_refused() -> None:
    model = tiny_model("bert")
    for kind in KINDS:
        with pytest.raises(IwloraError, match=rf"^{kind} adds .*; take targets=all, or lora$"):
            METHODS[kind]().check_model(model, sites(model, ["query", "value"]))


def test_blocks_of_an_unknown_kind_are_refused() -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(vocab_size=64, dim=16, hidden_dim=24, n_layers=1, n_heads=2)
    model = DistilBertForSequenceClassification(config)
    for kind in KINDS:
        with pytest.raises(IwloraError, match=f"{kind} adds|unknown structure"):
            METHODS[kind]().check_model(model, sites(model))


def fused_or_grouped(model_type: str, **fields: Any) -> Any:
    """A tiny decoder with a fused first matrix of its network, or with grouped queries."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 24, "vocab_size": 64, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, num_key_value_heads=1, **sizes, **fields)
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.mark.parametrize(
    ("model_type", "fields"), [("phi3", {}), ("glm4", {"head_dim": 4}), ("qwen2", {})]
)
def test_parallel_beside_fused_matrices(model_type: str, fields: dict[str, Any]) -> None:
    model = fused_or_grouped(model_type, **fields)
    frozen = copy.deepcopy(model)
    METHODS["parallel"](bottleneck=16).attach(model, sites(model), seed=0)
    p = {name: tensor.detach() for name, tensor in model.named_parameters()}
    for name, tensor in p.items():
        if ".adapter.up" in name:
            torch.nn.init.normal_(tensor, std=0.1)
    for block in range(2):
        at = f"model.layers.{block}.mlp"
        mlp = frozen.get_submodule(at)
        place = f"{at}.down_proj"
        change(mlp, lambda x, y, place=place: y + 4 * adapter(p, place, relu, x))
    ids = words(model)
    assert_close(model(ids).logits, frozen(ids).logits, rtol=1e-9, atol=1e-9)


@pytest.mark.quick
def test_the_largest_bottleneck_is_the_width_where_the_adapter_is() -> None:
    """Keys and values of grouped queries are narrower."""
    chosen = sites(fused_or_grouped("qwen2"))
    assert min(site.d_out for site in chosen) == 4
    for kind in KINDS:
        METHODS[kind](bottleneck=16).check(chosen)
        with pytest.raises(IwloraError, match=r"bottleneck=17 was given; accepted are 1 to 16"):
            METHODS[kind](bottleneck=17).check(chosen)


@pytest.mark.quick
def test_blocks_without_a_position_are_named() -> None:
    """Mixtral's feed-forward networks are experts; its attention has a position of houlsby."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(**sizes, intermediate_size=24, vocab_size=64, num_local_experts=2)
    model = MixtralForCausalLM(config)
    with pytest.raises(IwloraError, match=r"2 of 2 blocks .* no ffn_down .* model\.layers\.0"):
        METHODS["houlsby"]().check_model(model, sites(model))
    METHODS["houlsby"]().check_model(model, sites(model, ["attention_output"]))


def test_a_bottleneck_wider_than_the_hidden_states_is_refused() -> None:
    model = tiny_model("bert")
    with pytest.raises(IwloraError, match=r"bottleneck=17 was given; accepted are 1 to 16"):
        METHODS["pfeiffer"](bottleneck=17).attach(model, sites(model), seed=0)
