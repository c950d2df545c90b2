"""The states of optimizer, schedule and random generators that a checkpoint may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from iwlora.errors import IwloraError
from iwlora.training.loop.optimizer_state import loading_optimizer, loading_state

pytestmark = pytest.mark.quick

FILE = Path("checkpoints/checkpoint-3/optimizer.pt")
STEPS = 3


def new() -> tuple[torch.optim.AdamW, LambdaLR]:
    optimizer = torch.optim.AdamW([torch.ones(2, 3, requires_grad=True)], lr=0.1)
    return optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


@pytest.fixture
def states() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of an optimizer and its schedule after three steps."""
    optimizer, schedule = new()
    for _ in range(STEPS):
        optimizer.param_groups[0]["params"][0].square().sum().backward()
        optimizer.step()
        schedule.step()
    return optimizer.state_dict(), schedule.state_dict()


def load(states: tuple[dict[str, Any], dict[str, Any]]) -> tuple[torch.optim.AdamW, LambdaLR]:
    optimizer, schedule = new()
    with loading_optimizer(optimizer, schedule, STEPS, FILE):
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
    return optimizer, schedule


def test_what_a_run_wrote_is_loaded(states: tuple[dict[str, Any], dict[str, Any]]) -> None:
    optimizer, schedule = load(states)
    assert schedule.last_epoch == STEPS
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / (1 + STEPS))


def test_settings_of_another_version_of_torch(
    states: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    states[0]["param_groups"][0]["a_later_option"] = None
    load(states)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "another step": (lambda _, s: s.update(last_epoch=9), "not that of step 3"),
    "a text for a number": (lambda _, s: s.update(_step_count="4"), "no finite number"),
    "no number": (lambda _, s: s.update(base_lrs=[float("nan")]), "no finite number"),
    "more learning rates": (lambda _, s: s.update(base_lrs=[0.1, 0.1]), "another length"),
    "no functions": (lambda _, s: s.pop("lr_lambdas"), "lr_lambdas"),
    "a text for the momenta": (
        lambda o, _: o["param_groups"][0].update(betas="ab"),
        "the optimizer: betas",
    ),
    "another shape": (
        lambda o, _: o["state"][0].update(exp_avg=torch.ones(3)),
        "exp_avg does not fit",
    ),
    "no tensor": (lambda o, _: o["state"][0].update(exp_avg_sq="x"), "exp_avg_sq does not fit"),
    "more parameters": (lambda o, _: o["param_groups"].append({"params": [1]}), "groups"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_content_is_refused(
    states: tuple[dict[str, Any], dict[str, Any]], damage: str
) -> None:
    change, told = DAMAGES[damage]
    change(*states)
    with pytest.raises(IwloraError, match=rf"optimizer\.pt is damaged \(.*{told}") as error:
        load(states)
    assert "remove checkpoints/checkpoint-3" in str(error.value)


def test_states_of_random_generators() -> None:
    with pytest.raises(IwloraError, match="is damaged"), loading_state(FILE):
        torch.random.set_rng_state(torch.zeros(3))


def test_too_little_memory_is_no_damage() -> None:
    with pytest.raises(RuntimeError, match="allocate"), loading_state(FILE):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
