"""What ``--executor auto`` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from iwlora.compare.execute.packed import choice
from iwlora.compare.execute.packed.choice import packs_pay
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.results.events import Event, ignore
from iwlora.results.writing import write_text
from iwlora.training.packed.shares import NotPackable

MakePlan = Callable[..., Plan]
SEEDS = [0, 1, 2, 3]


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements find; nothing else may be measured."""
    values: list[float] = []
    monkeypatch.setattr(choice, "measured_gain", lambda recipe, runs: values.pop(0))
    monkeypatch.setattr(choice.machine, "available_gpus", list)
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a comparison that has not begun."""
    return tmp_path / "comparison"


@pytest.mark.quick
def test_a_cpu_packs_where_it_is_measured_to_gain(
    make_plan: MakePlan, gains: list[float], folder: Path
) -> None:
    gains += [1.3, 1.1]
    said: list[Event] = []
    assert packs_pay(make_plan(seeds=SEEDS), folder, 1, said.append)
    assert not packs_pay(make_plan(seeds=SEEDS), folder, 1, said.append)
    assert [event.fields["gain"] for event in said] == [1.3, 1.1]
    assert "runs are trained one after another" in said[1]


def test_nothing_is_measured_where_packs_cannot_pay(
    make_plan: MakePlan, gains: list[float], folder: Path
) -> None:
    assert not packs_pay(make_plan(seeds=SEEDS), folder, 2, ignore)  # the user asks for processes
    assert not packs_pay(make_plan(), folder, 1, ignore)  # four runs
    assert not packs_pay(make_plan(methods=["full", "lora"], seeds=SEEDS), folder, 1, ignore)
    train = {"epochs": 1, "max_length": 32, "batch_size": 64}
    assert not packs_pay(make_plan(train=train, seeds=SEEDS), folder, 1, ignore)  # large steps


def test_only_runs_that_will_be_trained_count(
    make_plan: MakePlan, gains: list[float], folder: Path
) -> None:
    methods = ["lora", "full"]  # only the first can be packed
    stop = {"difference": 1.0, "max_seeds": 40}  # five draws are certain
    assert not packs_pay(make_plan(methods=methods, seeds=None, stop=stop), folder, 1, ignore)
    plan = make_plan(seeds=SEEDS)
    done = plan.runs[0].folder(folder)
    done.mkdir(parents=True)
    write_text(done / "result.json", "{}")
    assert not packs_pay(plan, folder, 1, ignore)


@pytest.mark.parametrize("error", [NotPackable("its rows meet"), IwloraError("no such model")])
def test_what_cannot_be_measured_is_trained_one_after_another(
    error: Exception, make_plan: MakePlan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> float:
        raise error

    monkeypatch.setattr(choice, "measured_gain", refuse)
    monkeypatch.setattr(choice.machine, "available_gpus", list)
    said: list[Event] = []
    assert not packs_pay(make_plan(seeds=SEEDS), folder, 1, said.append)
    assert said == [
        f"runs are trained one after another, because 4 of them cannot be "
        f"computed together: {error}"
    ]


def test_gpus_are_packed_without_a_measurement(
    make_plan: MakePlan,
    gains: list[float],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice.machine, "available_gpus", lambda: ["0"])
    assert packs_pay(make_plan(seeds=SEEDS), folder, 1, ignore)
    assert not packs_pay(make_plan(seeds=SEEDS), folder, 2, ignore)
