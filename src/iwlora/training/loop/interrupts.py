"""Ctrl-C and SIGTERM while a run trains: it ends after a checkpoint, from which it goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from iwlora import distributed
from iwlora.results.events import Event, Report

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveOnInterrupt(TrainerCallback):
    """Ends the training with a ``KeyboardInterrupt`` after a checkpoint of the current step.

    It must be called after all callbacks that add to a checkpoint. A second Ctrl-C ends the
    training at once. With several processes, each of which may be at another step when a signal
    comes, the first one does.

    Args:
        report: Gets an event before the checkpoint is written.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._caught: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals until the block ends; SIGTERM goes to whom it went before then."""
        in_main = threading.current_thread() is threading.main_thread()
        if distributed.world_size() > 1 or not in_main:
            yield
            return
        before = {number: signal.signal(number, self._catch) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            if self._caught == signal.SIGTERM:
                signal.raise_signal(signal.SIGTERM)
        if self._caught is not None:  # after the last step
            raise KeyboardInterrupt

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have a checkpoint written."""
        self._save(state, control)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have a checkpoint written, also if the signal came while the epoch was scored."""
        self._save(state, control)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the training."""
        if self._caught is not None:
            raise KeyboardInterrupt

    def _save(self, state: TrainerState, control: TrainerControl) -> None:
        # Of a run that stops early here a checkpoint would go on, and not stop again.
        if self._caught is None or control.should_training_stop:
            return
        if not control.should_save:
            step = state.global_step
            text = f"interrupted: writing the checkpoint of step {step:,}"
            self._report(Event("interrupted", text, step=step))
        control.should_save = True

    def catch(self, number: int) -> None:
        """End the training as for this signal."""
        self._caught = number

    def _catch(self, number: int, _frame: Any) -> None:
        if number == self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        self.catch(number)
