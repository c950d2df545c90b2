"""Prefixes of single layers: against a softmax in float64, PEFT's prefix tuning, and a cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Gemma2Config

from attention_functions import t5_calls_attention_functions
from expert_models import expert_model
from iwlora.errors import IwloraError
from iwlora.methods.additive.prefix_attention import (
    insert_prefixes,
    prefix_attention,
    prefix_places,
)
from iwlora.methods.contract import seeded
from iwlora.methods.tiny_models import tiny_config, tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick

ROWS, HEADS, QUERIES, WIDTH, TOKENS = 2, 4, 5, 3, 2


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def attended(
    query: Tensor, key: Tensor, value: Tensor, prefix: Tensor, visible: Tensor, bias: Tensor
) -> Tensor:
    """softmax(q [P_k; K]ᵀ s + [0; b]) [P_v; V] over what is visible, one head at a time."""
    together = HEADS // key.shape[1]
    rows = []
    for row in range(ROWS):
        heads = []
        for head in range(HEADS):
            columns = slice(head // together * WIDTH, (head // together + 1) * WIDTH)
            scores = (
                query[row, head] @ torch.cat([prefix[0, :, columns], key[row, head // together]]).T
            )
            scores = 0.7 * scores
            scores[:, TOKENS:] += bias[head]
            scores[:, TOKENS:][~visible[row]] = -torch.inf
            values = torch.cat([prefix[1, :, columns], value[row, head // together]])
            heads.append(scores.softmax(-1) @ values)
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows)


@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "added"])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_softmax_of_the_formula(mask: str, biased: bool, key_heads: int) -> None:
    with seeded(0):
        query, bias = drawn(ROWS, HEADS, QUERIES, WIDTH), drawn(HEADS, QUERIES, QUERIES)
        key, value = drawn(2, ROWS, key_heads, QUERIES, WIDTH)
        prefix = drawn(2, TOKENS, key_heads * WIDTH)
    module = SimpleNamespace(prefix=prefix, is_causal=mask == "causal")
    module.num_key_value_groups = HEADS // key_heads
    visible = torch.ones(ROWS, QUERIES, QUERIES, dtype=torch.bool)
    if mask == "causal":
        visible = visible.tril()
    if mask in ("padding", "added"):
        visible[1, :, -2:] = False
    given = {"none": None, "causal": None, "padding": visible[:, None]}.get(mask)
    if mask == "added":
        given = torch.zeros(visible.shape, dtype=query.dtype)[:, None]
        given = given.masked_fill(~visible[:, None], torch.finfo(query.dtype).min)
    options = {"position_bias": bias[None]} if biased else {}
    computed, _ = prefix_attention(module, query, key, value, given, scaling=0.7, **options)
    expected = attended(query, key, value, prefix, visible, bias if biased else 0 * bias)
    assert_close(computed, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(attended(query, key, value, -prefix, visible, bias), computed)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
def test_it_is_pefts_prefix_tuning(architecture: str) -> None:
    """With the text at the positions at which PEFT has it: behind the prefix."""
    theirs: Any = get_peft_model(
        tiny_model(architecture), PrefixTuningConfig("SEQ_CLS", num_virtual_tokens=TOKENS)
    ).double()
    ours = tiny_model(architecture).double()
    places = [module for module, _ in prefix_places(ours, sites(ours))]
    insert_prefixes(ours, sites(ours), TOKENS)
    table = theirs.prompt_encoder["default"].embedding.weight.detach()
    by_layer = table.view(TOKENS, 2 * len(places), -1)
    with torch.no_grad():
        for layer, module in enumerate(places):
            keys_and_values = by_layer[:, 2 * layer : 2 * layer + 2].transpose(0, 1)
            module.get_parameter("prefix").copy_(keys_and_values)
    ids = torch.randint(6, 60, (3, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[1, -2:], mask[1, -2:] = 0, 0
    positions = torch.arange(TOKENS, TOKENS + 7)[None]
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids, attention_mask=mask).logits
        computed = ours(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    assert_close(computed, expected, rtol=1e-6, atol=1e-6)
    assert computed.std() > 1e-5


@pytest.mark.parametrize(
    ("architecture", "auto"),
    [
        ("gpt2", AutoModelForCausalLM),
        pytest.param("t5", AutoModelForSeq2SeqLM, marks=t5_calls_attention_functions),
    ],
)
def test_generation_with_a_cache_is_generation_without(architecture: str, auto: Any) -> None:
    with seeded(0):
        model = auto.from_config(tiny_config(architecture)).double().eval()
        insert_prefixes(model, sites(model), TOKENS)
        ids = torch.randint(6, 60, (2, 5))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    options: Any = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    options |= {"output_logits": True, "return_dict_in_generate": True, "eos_token_id": 1}
    with_cache, without = (model.generate(ids, use_cache=use, **options) for use in (True, False))
    assert torch.equal(with_cache.sequences, without.sequences)
    assert_close(torch.stack(with_cache.logits), torch.stack(without.logits))


def test_a_layer_without_a_prefix_computes_what_it_did() -> None:
    for architecture in ("bert", "t5", "llama"):
        model = tiny_model(architecture)
        ids = torch.randint(6, 60, (3, 7), generator=torch.Generator().manual_seed(2))
        ids[:, -1] = 1
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        with torch.no_grad():
            before = model(input_ids=ids, attention_mask=mask).logits
            insert_prefixes(model, [], TOKENS)
            assert_close(model(input_ids=ids, attention_mask=mask).logits, before)


def test_attention_that_calls_no_function_of_transformers_is_refused() -> None:
    model = tiny_model("deberta-v2")
    with pytest.raises(IwloraError, match=r"DisentangledSelfAttention of Deberta.* not call"):
        insert_prefixes(model, sites(model), TOKENS)


def test_attention_that_pytorchs_function_does_not_compute_is_refused() -> None:
    """It would leave out the sinks of gpt-oss, and stop at the limit of Gemma 2's scores."""
    gemma = AutoModelForCausalLM.from_config(
        Gemma2Config(
            **dict.fromkeys(["hidden_size", "intermediate_size", "vocab_size"], 16),
            **dict.fromkeys(["num_hidden_layers", "num_key_value_heads"], 1),
            num_attention_heads=2,
            head_dim=8,
        )
    )
    for model in (expert_model("gpt_oss"), gemma):
        before = model.config._attn_implementation
        with pytest.raises(IwloraError, match=r"not support this function for (GptOss|Gemma2)"):
            insert_prefixes(model, sites(model), TOKENS)
        assert model.config._attn_implementation == before
