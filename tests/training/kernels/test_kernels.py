"""Quick kernels give what torch and PEFT give: values, gradients, the part that is dropped."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from conftest import tiny_config
from iwlora.training.device import resolve_precision
from iwlora.training.kernels import cpu
from iwlora.training.kernels.cpu import FastCpuFunctions, keep_mask
from iwlora.training.kernels.deberta import near_positions
from iwlora.training.kernels.lora import FusedLoraLinear, fused_lora
from iwlora.training.run import train
from runs import recipe, weights

LAYER = LoraConfig(r=3, lora_alpha=7, target_modules=["0"])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_and_each_on_its_own(p: float) -> None:
    torch.manual_seed(0)
    count = 400_000
    mask, kept = keep_mask((count,), p)
    assert kept == pytest.approx(1 - p, abs=2**-15)
    ones = (mask == -1).double()
    assert set(mask.tolist()) == {-1, 0}
    deviation = math.sqrt(p * (1 - p) / count)
    assert abs(float(ones.mean()) - kept) < 5 * deviation
    # Neighbours share a random number of 64 bits: they must not share its luck.
    centred = ones - ones.mean()
    for distance in (1, 2, 3, 4, 64):
        together = float((centred[:-distance] * centred[distance:]).mean()) / (p * (1 - p))
        assert abs(together) < 5 / math.sqrt(count)


def test_the_border_of_what_is_dropped_is_exact() -> None:
    """One number in 2¹⁵ too many or too few would show in a dozen of these."""
    torch.manual_seed(0)
    mask, kept = keep_mask((400_000,), 2**-17)  # rounds to nothing
    assert kept == 1
    assert bool((mask == -1).all())


def test_a_mask_of_too_few_random_bits_would_be_seen() -> None:
    torch.manual_seed(0)
    mask, _ = keep_mask((100_000,), 0.1)
    ones = (mask.repeat_interleave(4) == -1).double()
    centred = ones - ones.mean()
    assert float((centred[:-1] * centred[1:]).mean()) / 0.09 > 5 / math.sqrt(400_000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dropout_scales_what_it_keeps_and_its_gradient(dtype: torch.dtype) -> None:
    x = torch.randn(50, 60, dtype=dtype).t().requires_grad_()  # not contiguous
    with FastCpuFunctions():
        y = nn.Dropout(0.25)(x)
    y.backward(torch.full_like(y, 2.0))
    dropped = y == 0
    assert 0.2 < float(dropped.double().mean()) < 0.3
    factor = 1 / 0.75  # exact until it has multiplied
    assert torch.equal(y, torch.where(dropped, 0, x * factor))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(dropped, 0, torch.full_like(x.grad, 2) * factor))


def test_dropout_follows_the_seed_and_leaves_evaluation_alone() -> None:
    x = torch.randn(64, 8)
    with FastCpuFunctions():
        one, other, again = (seeded(seed, functional.dropout, x, 0.5) for seed in (0, 1, 0))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert torch.equal(functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert not functional.dropout(x, 1.0).any()


def seeded(seed: int, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    torch.manual_seed(seed)
    return function(*args, **kwargs)


HEADS, QUERIES, KEYS, WIDTH = 3, 5, 7, 4
PADDED = torch.ones(2, 1, 1, KEYS, dtype=torch.bool)
PADDED[1, ..., 4:] = False
MASKS: Mapping[str, dict[str, Any]] = {
    "none": {},
    "padding": {"attn_mask": PADDED},
    "added": {"attn_mask": torch.randn(2, HEADS, QUERIES, KEYS, dtype=torch.float64)},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
}


def heads() -> list[Tensor]:
    torch.manual_seed(3)
    shapes = [(2, HEADS, QUERIES, WIDTH), *[(2, HEADS, KEYS, WIDTH)] * 2]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("mask", MASKS)
def test_attention_that_drops_next_to_nothing_is_torchs_own(mask: str) -> None:
    # 2⁻¹⁶ rounds to no dropout at all, but goes the way of dropout.
    found, expected = heads(), heads()
    with FastCpuFunctions():
        attention = functional.scaled_dot_product_attention
        y = attention(*found, dropout_p=2**-17, **MASKS[mask])
    z = functional.scaled_dot_product_attention(*expected, **MASKS[mask])
    assert torch.allclose(y, z, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(z)
    y.backward(seed)
    z.backward(seed)
    for one, other in zip(found, expected, strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, rtol=1e-11, atol=1e-12)


def test_attention_drops_weights_after_the_softmax() -> None:
    query, key, value = heads()
    with FastCpuFunctions():
        attention = functional.scaled_dot_product_attention
        found = seeded(0, attention, query, key, value, dropout_p=0.5)
    torch.manual_seed(0)
    mask, kept = keep_mask((2, HEADS, QUERIES, KEYS), 0.5)
    weights = (query @ key.transpose(-1, -2) / math.sqrt(WIDTH)).softmax(-1) * -mask / kept
    assert torch.allclose(found, weights @ value, rtol=1e-12)


def test_attention_in_half_precision_is_near_torchs_own() -> None:
    single = [x.detach().float() for x in heads()]
    expected = functional.scaled_dot_product_attention(*single, attn_mask=PADDED)
    with FastCpuFunctions(), torch.autocast("cpu", torch.bfloat16):
        found = functional.scaled_dot_product_attention(*single, attn_mask=PADDED)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.03)


def test_a_models_dropout_and_attention_go_this_way(
    with_dropout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(with_dropout).train()
    taken = []
    for name in ("dropout", "attention"):
        ours = getattr(cpu, name)
        theirs = next(theirs for theirs, own in cpu._REPLACEMENTS.items() if own is ours)

        def noted(*args: Any, name: str = name, ours: Any = ours, **kwargs: Any) -> Tensor:
            taken.append(name)
            result: Tensor = ours(*args, **kwargs)
            return result

        monkeypatch.setitem(cpu._REPLACEMENTS, theirs, noted)
    ids = torch.randint(5, 10, (2, 6))
    model(ids)
    assert not taken
    with FastCpuFunctions():
        model(ids)
    assert taken.count("attention") == 2
    assert taken.count("dropout") == 5


def layer(config: LoraConfig = LAYER, dtype: torch.dtype = torch.float64, **shape: Any) -> Any:
    torch.manual_seed(0)
    linear = nn.Linear(shape.get("d_in", 6), shape.get("d_out", 5), bias=shape.get("bias", True))
    made = get_peft_model(nn.Sequential(linear), config)
    randomise(made)
    return made.to(dtype)


def randomise(model: nn.Module) -> None:
    """Give every trainable parameter, B too, a value of its own."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)


def outcome(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output and every gradient of a forward and a backward pass."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    y.backward(torch.arange(y.numel()).double().sin().reshape(y.shape).to(y.dtype))
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad, **{name: g.clone() for name, g in grads.items()}}


def near(some: Mapping[str, Tensor], others: Mapping[str, Tensor], tolerance: float) -> bool:
    return some.keys() == others.keys() and all(
        torch.allclose(some[name], others[name], rtol=tolerance, atol=tolerance) for name in some
    )


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    d_in=st.integers(3, 9),
    d_out=st.integers(3, 9),
    bias=st.booleans(),
)
def test_lora_in_one_pass_is_pefts(shape: list[int], d_in: int, d_out: int, bias: bool) -> None:
    model = layer(d_in=d_in, d_out=d_out, bias=bias)
    x = torch.randn(*shape, d_in, dtype=torch.float64)
    expected = outcome(model, x)
    with fused_lora(model):
        found = outcome(model, x)
    assert near(found, expected, 1e-12)
    assert len(found) == 4


def test_a_wrong_gradient_of_the_one_pass_would_be_seen() -> None:
    model = layer()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = outcome(model, x)
    name = next(name for name in expected if "lora_B" in name)
    assert not near({**expected, name: expected[name] * (1 + 1e-9)}, expected, 1e-12)


def _hooked(model: Any) -> None:
    model.base_model.model[0].base_layer.register_forward_hook(lambda *_: None)


def _off(model: Any) -> None:
    model.disable_adapter_layers()


def _two(model: Any) -> None:
    model.add_adapter("second", LAYER)
    randomise(model)
    model.double()
    model.base_model.set_adapter(["default", "second"])


ELSEWHERE: Mapping[str, tuple[LoraConfig, Callable[[Any], object]]] = {
    "DoRA": (LoraConfig(r=3, target_modules=["0"], use_dora=True), lambda model: None),
    "a bias of B": (LoraConfig(r=3, target_modules=["0"], lora_bias=True), lambda model: None),
    "hooks": (LAYER, _hooked),
    "adapters off": (LAYER, _off),
    "two adapters": (LAYER, _two),
    "merged": (LAYER, lambda model: model.merge_adapter()),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_is_not_plain_goes_pefts_way(case: str) -> None:
    config, change = ELSEWHERE[case]
    model = layer(config)
    change(model)
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = outcome(model, x)
    with fused_lora(model):
        assert not model.base_model.model[0]._is_plain()
        assert near(outcome(model, x), expected, 1e-12)


def test_dropout_of_the_adapter_goes_pefts_way() -> None:
    model = layer(LoraConfig(r=3, target_modules=["0"], lora_dropout=0.5)).train()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = seeded(0, model, x)
    with fused_lora(model):
        assert torch.equal(seeded(0, model, x), expected)


def test_layers_are_as_they_were_afterwards_and_copies_stay_apart() -> None:
    model = layer()
    lora = model.base_model.model[0]
    before = type(lora)
    with fused_lora(model):
        assert type(lora) is FusedLoraLinear
        twin = copy.deepcopy(model)
        assert twin.base_model.model[0].base_layer is not lora.base_layer
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), fused_lora(model):
        model(torch.randn(4, 5, dtype=torch.float64))
    assert type(lora) is before


def test_under_autocast_the_one_pass_is_near_single_precision() -> None:
    model = layer(dtype=torch.float32, d_in=64, d_out=64)
    x = torch.randn(8, 64)
    expected = outcome(model, x)
    with fused_lora(model), torch.autocast("cpu", torch.bfloat16):
        found = outcome(model, x)
    assert found["y"].dtype == torch.bfloat16
    assert {g.dtype for name, g in found.items() if name != "y"} == {torch.float32}
    for name, value in expected.items():
        assert (found[name].float() - value).norm() < 0.02 * value.norm(), name


@pytest.mark.parametrize("method", ["lora", "iw-lora", "adalora", "full"])
def test_a_run_takes_the_same_path_with_and_without(
    method: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    for fast in (True, False):
        train(recipe(tiny_bert, reviews, method, fast_kernels=fast), tmp_path / str(fast))
    fast, plain = (weights(tmp_path / name) for name in ("True", "False"))
    assert fast.keys() == plain.keys()
    assert max(float((fast[name] - plain[name]).abs().max()) for name in plain) < 2e-4


DEBERTAS: Mapping[str, dict[str, Any]] = {
    "version 3": {"share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "apart": {"share_att_key": False},
    "one way": {"share_att_key": True, "pos_att_type": ["c2p"]},
    "no buckets": {"share_att_key": True, "position_buckets": -1},
}


@pytest.mark.parametrize("case", DEBERTAS)
def test_debertas_near_positions_are_all_that_count(case: str) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = tiny_config("deberta-v2")
    options = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["c2p", "p2c"]}
    for name, value in {**options, **DEBERTAS[case]}.items():
        setattr(config, name, value)
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    embedding = model.get_input_embeddings()
    for tokens in (3, 8, 14):  # below the table's reach, at it, and beyond
        embedded = embedding(torch.randint(5, 20, (2, tokens))).detach()

        def passes(embedded: Tensor = embedded) -> dict[str, Tensor]:
            return outcome(Embedded(model), embedded)

        expected = passes()
        table = next(value for name, value in expected.items() if "rel_embeddings" in name)
        with near_positions(model):
            found = passes()
        assert near(found, expected, 1e-12)
        assert table.any()


class Embedded(nn.Module):
    """A model that reads vectors, and answers with its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs_embeds=x).logits
        return logits


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = torch.device("cpu")
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert resolve_precision("auto", processor) == ("bf16" if native else "fp32")
        assert resolve_precision("fp32", processor) == "fp32"
        assert resolve_precision("bf16", processor) == "bf16"
