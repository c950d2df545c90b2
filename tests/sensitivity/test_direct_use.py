"""Weights that a model uses without calling their layer, and layers that it does not use."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import iwlora
from iwlora.errors import IwloraError
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sensitivity.capture import capture
from iwlora.sensitivity.estimators import exact
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sites import sites
from sensitivity_models import gradients, oracle

WIDTH = 6


class Block(nn.Module):
    """Every way to use a weight: called, direct, both, tied, fused with others, and not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.called = nn.Linear(WIDTH, WIDTH)
        self.both = nn.Linear(WIDTH, WIDTH, bias=False)
        self.tied = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, 4)
        self.value = nn.Linear(WIDTH, 4)
        self.unused = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x, x, x)[0]
        fused = linear(x, torch.cat([self.key.weight, self.value.weight])).sin()
        x = x + self.called(x).tanh() + fused.sum(dim=-1, keepdim=True)
        return x + self.both(x) + linear(x.cos(), self.both.weight) + self.tied(x).sin()


class Model(nn.Module):
    """Two blocks, and torch's encoder layer, which has a fast path that calls no linear layer."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        encoder = nn.TransformerEncoderLayer(WIDTH, 2, 9, dropout=0.0, batch_first=True)
        self.blocks = nn.ModuleList([Block(), Block(), encoder])
        first, second, _ = self.blocks
        second.tied.weight = first.tied.weight
        self.reentrant = reentrant
        self.double().eval()

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        if self.reentrant is not None:
            x = x.requires_grad_()
        for block in self.blocks:
            x = (
                block(x)
                if self.reentrant is None
                else checkpoint(block, x, use_reentrant=self.reentrant)
            )
        return type("Output", (), {"loss": ((x - labels) ** 2).mean()})


def data(count: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def rows() -> Tensor:
        return torch.randn(3, 4, WIDTH, generator=generator).double()

    return [{"x": rows(), "labels": rows()} for _ in range(count)]


UNUSED = {"blocks.0.unused", "blocks.1.unused"}


@pytest.mark.quick
@pytest.mark.parametrize("estimator", ["exact", "ghost", "auto", "sketch"])
def test_every_use_of_a_weight_is_measured(estimator: str) -> None:
    """Against autograd on an unfrozen copy; a sketch of so few columns is exact."""
    model = Model()
    measured = iwlora.measure(model, data(), estimator=estimator, tolerance=0)
    assert measured.values == pytest.approx(oracle(model, data()), rel=1e-9)
    assert {name for name, value in measured.values.items() if value == 0} == UNUSED


@pytest.mark.parametrize("statistic", ["rms", "relative", "saliency", "mean"])
def test_every_statistic_counts_every_use(statistic: str) -> None:
    model = Model()
    measured = iwlora.measure(model, data(2), statistic=statistic, tolerance=0)
    assert measured.values == pytest.approx(oracle(model, data(2), statistic), rel=1e-9)


def test_gradients_of_single_examples_are_refused_by_name() -> None:
    """Autograd has the sum over the examples only."""
    with pytest.raises(IwloraError, match=r"out_proj .* take another statistic"):
        iwlora.measure(Model(), data(1), statistic="example")


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant: bool) -> None:
    model = Model(reentrant).requires_grad_(False)
    expected = oracle(Model(), data(2))
    rows = []
    with capture(sites(model), lambda _, x, delta: exact(x, delta)) as captured:
        for batch in [data(1)[0], *data(2)]:
            model(**batch).loss.backward()
            rows.append(captured.take())
    assert rows[0] is None  # the first pass finds the layer that is used in both ways
    means = {name: float(rows[1][name] + rows[2][name]) / 2 for name in rows[1]}
    used = {name: value for name, value in expected.items() if name not in UNUSED}
    assert means == pytest.approx(used, rel=1e-9)


def test_autocast_changes_nothing_but_rounding() -> None:
    model, batch = Model().float(), {k: v.float() for k, v in data(1)[0].items()}

    def loss(model: Any, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batch).loss

    measured = iwlora.measure(model, [batch], loss=loss).values
    expected = {name: float(g.norm()) for name, g in gradients(model, batch).items()}
    assert measured == pytest.approx(expected, rel=0.1)


def test_the_model_is_afterwards_as_before() -> None:
    model, batch = Model(), data(1)[0]
    model(**batch).loss.backward()
    before = {
        name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }
    iwlora.measure(model, data(2))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is None or torch.equal(parameter.grad, before[name])
        assert not parameter._post_accumulate_grad_hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.quick
def test_what_no_pass_uses_is_named_and_gets_no_importance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="iwlora"):
        measured = iwlora.measure(Model(), data(2))
    assert "2 of 17 matrices are not used" in caplog.text
    assert "blocks.*.unused (2)" in caplog.text
    assert set(measured.excluded) == UNUSED
    used = [name for name in measured.values if name not in UNUSED]
    for normalize in ("sum", "max", "mean", "rank"):
        importance = iwlora.Importance(measured, normalize)
        assert all(importance.weights[name] == 0 for name in UNUSED)
        assert all(importance.coefficients()[name] == 0 for name in UNUSED)
        assert all(importance.weights[name] > 0 for name in used)
    assert set(iwlora.Importance(measured).rank_pattern(2)[0]) == set(used)
    ranks = sorted(iwlora.Importance(measured, "rank").weights[name] for name in used)
    assert ranks[-1] == pytest.approx(1 - 0.5 / len(used))


@pytest.mark.parametrize("estimator", ["exact", "lora"])
def test_in_flight_names_the_layers_where_lora_has_no_effect(
    estimator: str, caplog: pytest.LogCaptureFixture
) -> None:
    from peft import LoraConfig, get_peft_model

    model = Model()
    names = [site.name for site in sites(model)]
    config = LoraConfig(r=2, target_modules=names)
    adapted = get_peft_model(copy.deepcopy(model), config, autocast_adapter_dtype=False)
    flight = InFlight(sites(adapted), lora_pairs(adapted), estimator, max_batches=4, tolerance=0)
    for batch in [*data(1), *data(3)]:  # the first pass is not read completely
        adapted(**batch).loss.backward()
        flight.step()
        adapted.zero_grad()
    measured = flight.result()
    not_called = UNUSED | {n for n in names if n.endswith(("out_proj", "key", "value"))}
    assert set(measured.excluded) == not_called
    assert "LoRA has no effect" in caplog.text
    if estimator == "exact":
        assert measured.batches == 3
        assert measured.values == pytest.approx(oracle(model, data(3)), rel=1e-9)
    assert all(p.grad is None for p in adapted.parameters() if not p.requires_grad)


def test_mamba_uses_the_weight_of_its_time_step_directly() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=20, hidden_size=8, state_size=4, num_hidden_layers=2, expand=2, conv_kernel=2
    )
    model = MambaForCausalLM(config).double().eval()
    ids = torch.randint(3, 20, (2, 6))
    batch = {"input_ids": ids, "labels": ids}
    expected = {name: float(g.norm()) for name, g in gradients(model, batch).items()}
    assert iwlora.measure(model, [batch]).values == pytest.approx(expected, rel=1e-9)
    assert expected["backbone.layers.0.mixer.dt_proj"] > 0
