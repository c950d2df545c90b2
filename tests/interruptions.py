"""A training run that is killed at a chosen step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import MetricsLog


class Killed(BaseException):
    """Stands for a signal that ends the process."""


def kill_at(
    step: int, monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool] = lambda: True
) -> None:
    """Kill a run at the beginning of a step, if ``when`` says so."""

    class Killing(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step and when():
                raise Killed

    monkeypatch.setattr(prepare_module, "MetricsLog", Killing)
