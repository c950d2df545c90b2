"""What ``--executor auto`` takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from iwlora.compare.execute.packed import choice
from iwlora.compare.execute.packed.choice import packs_pay
from iwlora.compare.plan.planned_runs import Plan
from iwlora.results.events import Event, ignore

MakePlan = Callable[..., Plan]
SEEDS = [0, 1, 2, 3]


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements find; nothing else may be measured."""
    values: list[float] = []
    monkeypatch.setattr(choice, "measured_gain", lambda recipe, runs: values.pop(0))
    monkeypatch.setattr(choice.machine, "available_gpus", list)
    return values


@pytest.mark.quick
def test_a_cpu_packs_where_it_is_measured_to_gain(make_plan: MakePlan, gains: list[float]) -> None:
    gains += [1.3, 1.1]
    said: list[Event] = []
    assert packs_pay(make_plan(seeds=SEEDS), 1, said.append)
    assert not packs_pay(make_plan(seeds=SEEDS), 1, said.append)
    assert [event.fields["gain"] for event in said] == [1.3, 1.1]
    assert "runs are trained one after another" in said[1]


def test_nothing_is_measured_where_packs_cannot_pay(
    make_plan: MakePlan, gains: list[float]
) -> None:
    assert not packs_pay(make_plan(seeds=SEEDS), 2, ignore)  # the user asks for processes
    assert not packs_pay(make_plan(), 1, ignore)  # four runs
    assert not packs_pay(make_plan(methods=["full", "lora"], seeds=SEEDS), 1, ignore)
    train = {"epochs": 1, "max_length": 32, "batch_size": 64}
    assert not packs_pay(make_plan(train=train, seeds=SEEDS), 1, ignore)  # large steps


def test_gpus_are_packed_without_a_measurement(
    make_plan: MakePlan, gains: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice.machine, "available_gpus", lambda: ["0"])
    assert packs_pay(make_plan(seeds=SEEDS), 1, ignore)
    assert not packs_pay(make_plan(seeds=SEEDS), 2, ignore)
