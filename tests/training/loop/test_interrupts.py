"""Ctrl-C and SIGTERM while a run trains; ``tests/cli/test_train.py`` sends one to a process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.results.events import Event
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import MetricsLog
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import logits, recipe, weights


def signal_in(
    step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT, times: int = 1
) -> None:
    """Send signals to this process in the middle of a step."""

    class Sending(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for _ in range(times if state.global_step == step else 0):
                signal.raise_signal(number)

    monkeypatch.setattr(prepare_module, "MetricsLog", Sending)


@pytest.fixture(scope="module")
def straight(
    with_dropout: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path]:
    """A recipe with dropout and what is restored at the end, and its run without a break."""
    asked = recipe(with_dropout, {**reviews, "selection": 0.5}, "iw-lora", epochs=2)
    folder = tmp_path_factory.mktemp("interrupts") / "straight"
    train(asked, folder)
    return asked, folder


@pytest.mark.quick
@pytest.mark.parametrize("step", [1, 2])  # within an epoch of 3 steps, and in its last step
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    straight: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    asked, whole = straight
    before = signal.getsignal(signal.SIGINT)
    signal_in(step, monkeypatch)
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt, match=f"the checkpoint of step {step + 1} of the run"):
        train(asked, tmp_path / "broken", progress=events.append)
    assert [event.fields["step"] for event in events if event.name == "interrupted"] == [step + 1]
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert train(asked, tmp_path / "broken")["resumed_at_step"] == step + 1
    expected = weights(whole)
    assert expected.keys() == weights(tmp_path / "broken").keys()
    for name, tensor in weights(tmp_path / "broken").items():
        assert torch.equal(tensor, expected[name]), name
    assert logits(tmp_path / "broken") == logits(whole)


def test_a_second_interrupt_ends_the_run_at_once(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in(3, monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt, match="has no checkpoint, so a repeated command begins"):
        train(recipe(tiny_bert, reviews, epochs=1), tmp_path / "run")


def test_sigterm_leaves_a_checkpoint_too(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal_in(3, monkeypatch, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match="the checkpoint of step 4"):
            train(recipe(tiny_bert, reviews, epochs=1), tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_that_stops_early_just_then_stops_there_again(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {**reviews, "selection": 0.1}
    asked = recipe(tiny_bert, task, epochs=8, lr=1e-9, early_stopping=1, batch_size=32)
    stopped = train(asked, tmp_path / "straight")["epochs"]
    assert stopped == 2
    signal_in(5, monkeypatch)  # in the last step of epoch 2
    with pytest.raises(KeyboardInterrupt):
        train(asked, tmp_path / "broken")
    monkeypatch.undo()
    assert train(asked, tmp_path / "broken")["epochs"] == stopped
