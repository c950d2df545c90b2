"""The routes against each other, under micro-batches, closures and loss scalers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.penalty.schedule import cosine
from lora_models import dense, distance, lora_model, of_model, one_layer


def trained(route: str | None, steps: int = 4, lr: float = 1e-2) -> dict[str, torch.Tensor]:
    """A short training of one model by AdamW, with the penalty applied by a route."""
    model = lora_model()
    term, _ = of_model(model, alpha=0.05)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    handle = term.attach(optimizer, route=route) if route not in (None, "loss") else None
    ids = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss
        (loss + term() if route == "loss" else loss).backward()
        optimizer.step()
    if handle is not None:
        handle.remove()
        assert not optimizer._optimizer_step_pre_hooks
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_loss_and_gradient_routes_agree_to_rounding() -> None:
    loss, gradient, nothing = trained("loss"), trained("gradient"), trained(None)
    assert distance(loss, gradient) < 1e-5
    assert distance(loss, nothing) > 1e-3
    assert distance(trained("decoupled"), loss) > 1e-4


def test_decoupled_moves_the_parameters_by_lr_times_the_gradient() -> None:
    model = lora_model()
    term, coefficients = of_model(model, alpha=0.05)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    before = copy.deepcopy({n: p.detach() for n, p in trainable.items()})
    value = 0.05 * dense(term.pairs, [coefficients[p.name] for p in term.pairs])
    expected = torch.autograd.grad(value, list(trainable.values()))
    term.attach(optimizer, route="decoupled")
    for parameter in trainable.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for (name, parameter), gradient in zip(trainable.items(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * gradient)


def test_hooks_count_once_whatever_the_micro_batches() -> None:
    """Four backward passes, one step: the penalty's gradient is there once."""
    model = lora_model()
    term, coefficients = of_model(model, alpha=0.05)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    term.attach(optimizer)
    ids = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        (model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss / 4).backward()
    task = [p.grad.clone() for p in parameters]
    optimizer.step()
    value = 0.05 * dense(term.pairs, [coefficients[p.name] for p in term.pairs])
    expected = torch.autograd.grad(value, parameters)
    for parameter, before, gradient in zip(parameters, task, expected, strict=True):
        torch.testing.assert_close(parameter.grad - before, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("route", ["gradient", "decoupled"])
def test_a_closure_that_clears_gradients_does_not_clear_the_penalty(route: str) -> None:
    """Lightning gives forward and backward to the optimizer as a closure."""
    term = []
    for closed in (False, True):
        model = lora_model()
        of = of_model(model, alpha=0.05)[0]
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        of.attach(optimizer, route)
        batch = {"input_ids": torch.full((2, 4), 7), "labels": torch.tensor([0, 1])}

        def closure(optimizer: Any = optimizer, model: Any = model, batch: Any = batch) -> Any:
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            return loss

        if closed:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        assert of.step == 1
        term.append({n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    assert distance(*term) == 0


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("route", ["loss", "gradient", "decoupled"])
def test_a_loss_scaler_changes_nothing_and_skips_whole_steps(
    route: str, clip: bool, fused: bool
) -> None:
    """Fused optimizers divide by the loss scale themselves, and are called to skip a step."""

    def run(scaler: Any) -> dict[str, torch.Tensor]:
        model = lora_model()
        of = of_model(model, alpha=0.05)[0]
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, fused=fused)
        of.attach(optimizer, route)
        batch = {"input_ids": torch.full((2, 4), 7), "labels": torch.tensor([0, 1])}
        for step in range(4):
            optimizer.zero_grad()
            overflow = scaler.is_enabled() and step == 2
            loss = model(**batch).loss + (of() if route == "loss" else 0.0)
            scaler.scale(loss * (float("inf") if overflow else 1.0)).backward()
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, 0.1)
            before = [p.detach().clone() for p in parameters]
            if scaler.is_enabled() or step != 2:
                scaler.step(optimizer)
            scaler.update()
            if step == 2:
                assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
        return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    scaled = run(torch.amp.GradScaler("cpu", init_scale=2.0**10))
    assert distance(scaled, run(torch.amp.GradScaler("cpu", enabled=False))) < 1e-6


def test_the_schedule_follows_the_steps() -> None:
    model, _ = one_layer(nn.Linear(6, 5))
    full = iwlora.Penalty(model, {"0": 1.0}, alpha=1.0)().item()
    term = iwlora.Penalty(model, {"0": 1.0}, alpha=1.0, schedule=cosine(8, warmup_steps=4))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    term.attach(optimizer)
    values = []
    for _ in range(9):
        values.append(term().item() / full)
        optimizer.step()
    rise, fall = [0.0, 0.25, 0.5, 0.75], [1.0, 0.853553, 0.5, 0.146447, 0.0]
    assert values == pytest.approx(rise + fall, abs=1e-6)
    assert term.step == 9


def test_effects_are_norms_and_ratios_of_autograd() -> None:
    model = lora_model()
    term, coefficients = of_model(model, alpha=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ids = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "labels": torch.tensor([0, 1, 0, 1])}
    loss, value = model(**batch).loss, term()
    factors = [factor for pair in term.pairs for factor in (pair.A, pair.B)]
    task = torch.autograd.grad(loss, factors)
    ours = torch.autograd.grad(value, factors)

    def of_site(gradients: Any, k: int) -> float:
        return torch.cat([g.flatten() for g in gradients[2 * k : 2 * k + 2]]).norm().item()

    expected = [of_site(ours, k) / of_site(task, k) for k in range(len(coefficients))]
    norms = term.norms()
    term.recording = True
    for route in ("gradient", "loss"):
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        handle = term.attach(optimizer, route)
        optimizer.zero_grad()
        (model(**batch).loss + (term() if route == "loss" else 0.0)).backward()
        if route == "loss":
            for parameter in parameters:
                parameter.grad *= 0.5
        optimizer.step()
        handle.remove()
        effects = term.effects
        if route == "loss":
            effects = {name: e.without_penalty(clip=0.5) for name, e in effects.items()}
        assert [e.ratio for e in effects.values()] == pytest.approx(expected, rel=1e-3)
        assert {name: e.norm for name, e in effects.items()} == pytest.approx(norms)

    optimizer = torch.optim.SGD(parameters, lr=100.0)  # a move that float32 sees
    term.attach(optimizer, "decoupled")
    optimizer.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()  # of SGD, what the optimizer moved is −lr · gradient
    ratios = [effect.ratio for effect in term.effects.values()]
    assert ratios == pytest.approx(expected, rel=1e-3)


def test_optimizers_of_other_parameters_and_frozen_adapters_are_refused() -> None:
    model = lora_model()
    term, _ = of_model(model)
    half = [pair.A for pair in term.pairs]
    with pytest.raises(IwloraError, match="6 of 12 LoRA factors are not among the optimizer's"):
        term.attach(torch.optim.SGD(half, lr=0.1))
    optimizer = torch.optim.SGD(half, lr=0.1)
    for pair in term.pairs:
        pair.A.requires_grad_(False)
        pair.B.requires_grad_(False)
    with pytest.raises(IwloraError, match="no LoRA factor requires a gradient; load the adapter"):
        term.attach(optimizer)
