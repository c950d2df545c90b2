"""A method's groups of parameters and its own optimizer, against AdamW's formula by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached, ParameterGroup
from iwlora.methods.low_rank.lora import Lora
from iwlora.testing import Case, checks
from iwlora.training.recipe import build
from iwlora.training.run import train

LR = 1e-2


def attached(tmp_path: Path, **changes: Any) -> tuple[Case, Attached]:
    case = Case(Lora(), "bert", tmp_path)
    made = case.attach()
    return case, replace(made, **changes)


def adamw_by_hand(start: Tensor, gradient: Tensor, lr: float, decay: float) -> Tensor:
    """Three steps with the same gradient, in float64."""
    theta, g = start.double(), gradient.double()
    m = v = torch.zeros_like(theta)
    for step in range(1, 4):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        unbiased = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-6)
        theta = theta - lr * (unbiased + decay * theta)
    return theta


def test_each_group_trains_as_adamw_with_its_own_numbers(tmp_path: Path) -> None:
    case, plain = attached(tmp_path)
    first, second, third = plain.adapter[:3]
    groups = (
        ParameterGroup((first,), lr_factor=4.0),
        ParameterGroup((second,), lr_factor=0.5, weight_decay=0.3),
    )
    changed = replace(plain, parameter_groups=groups)
    options = {"learning_rate": LR, "weight_decay": 0.1, "optim": "adamw_torch"}
    optimizer = case.trainer(changed, tmp_path, **options).create_optimizer()
    get, random = changed.model.get_parameter, torch.Generator().manual_seed(0)
    start = {name: get(name).detach().clone() for name in changed.trainable}
    gradients = {name: torch.randn(p.shape, generator=random) for name, p in start.items()}
    for name, gradient in gradients.items():
        get(name).grad = gradient
    for _ in range(3):
        optimizer.step()
    biases = {name: (1.0, 0.0) for name in changed.head if name.endswith("bias")}
    own = {first: (4.0, 0.1), second: (0.5, 0.3), third: (1.0, 0.1), **biases}
    for name in changed.trainable:
        factor, decay = own.get(name, (1.0, 0.1))
        expected = adamw_by_hand(start[name], gradients[name], factor * LR, decay)
        torch.testing.assert_close(get(name).double(), expected, rtol=1e-5, atol=1e-6)


class Momentum(Lora):
    """LoRA with an optimizer of its own."""

    name: ClassVar[str] = "momentum"

    def attach(self, *args: Any, **kwargs: Any) -> Attached:
        """With stochastic gradient descent."""
        made = super().attach(*args, **kwargs)
        return replace(
            made,
            parameter_groups=(ParameterGroup(made.adapter[1::2], lr_factor=2.0),),
            optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.9),
        )


def test_a_methods_own_optimizer_trains_and_resumes(tmp_path: Path) -> None:
    case = Case(Momentum(), "bert", tmp_path)
    trainer = case.trainer(case.attach(), tmp_path)
    optimizer = trainer.create_optimizer()
    assert trainer.create_optimizer() is optimizer is trainer.optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3, 6e-3}
    checks.only_declared_parameters_change(case)
    checks.resumed_equals_uninterrupted(case)


def test_a_recipe_cannot_choose_another_optimizer_too(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "momentum", Momentum)
    settings = {
        "model": str(tiny_bert),
        "task": reviews,
        "method": {"name": "momentum", "rank": 2},
        "train": {"optimizer": "adafactor", "max_length": 32},
    }
    message = "train.optimizer=adafactor was given, and momentum has an optimizer of its own"
    with pytest.raises(IwloraError, match=message):
        train(build(settings), tmp_path / "run")


def test_impossible_groups_are_refused(tmp_path: Path) -> None:
    _, made = attached(tmp_path)
    name = made.adapter[0]
    faults = [
        ((ParameterGroup(("bert.x",)),), "have bert.x, which does not train"),
        ((ParameterGroup((name,)), ParameterGroup((name,))), f"have {name} in more than one group"),
        ((ParameterGroup((name,), lr_factor=0.0),), "have lr_factor=0.0; accepted are finite"),
        ((ParameterGroup((name,), weight_decay=-1.0),), "have weight_decay=-1.0; accepted are"),
        ((ParameterGroup(("x",), lr_factor=float("inf")),), "not train, and 1 other faults"),
    ]
    for groups, message in faults:
        with pytest.raises(IwloraError, match=re.escape(message)):
            replace(made, parameter_groups=groups)


def test_groups_may_be_known_only_after_initialize(tmp_path: Path) -> None:
    case, plain = attached(tmp_path)
    first, second, *_ = plain.adapter
    measured: list[ParameterGroup] = []
    late = replace(
        plain,
        parameter_groups=(ParameterGroup((first,), lr_factor=2.0),),
        initialize=lambda _: measured.append(ParameterGroup((second,), lr_factor=5.0)),
        groups_after_initialize=lambda: tuple(measured),
    )
    initialize = late.initializer(lambda *_: torch.zeros(()))
    assert initialize is not None
    initialize([])
    optimizer = case.trainer(late, tmp_path, learning_rate=LR).create_optimizer()
    factors = {id(p): group["lr"] / LR for group in optimizer.param_groups for p in group["params"]}
    found = {n: factors[id(late.model.get_parameter(n))] for n in late.trainable}
    assert found == dict.fromkeys(late.trainable, 1.0) | {first: 2.0, second: 5.0}
    measured[0] = ParameterGroup((first,), lr_factor=5.0)
    with pytest.raises(IwloraError, match=f"have {first} in more than one group"):
        late.groups()


def test_factors_by_name_are_deprecated_and_mean_groups(tmp_path: Path) -> None:
    _, made = attached(tmp_path)
    factors = dict(zip(made.adapter, (3.0, 1.0, 3.0), strict=False))
    with pytest.warns(DeprecationWarning, match=r"write parameter_groups=\(ParameterGroup"):
        changed = replace(made, learning_rates=factors)
    names = (made.adapter[0], made.adapter[2])
    assert changed.parameter_groups == (ParameterGroup(names, lr_factor=3.0),)
    assert replace(changed, notes=tuple).parameter_groups == changed.parameter_groups
