"""What a run reports while it trains: events, and the progress bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerState

from iwlora.results import layout
from iwlora.results.durations import format_duration, seconds_left
from iwlora.results.events import Event, Report
from iwlora.results.run import RunResult


@dataclass(frozen=True)
class Floor:
    """What predicts without having learned, and what it scores."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f}"


class ReportEvents(TrainerCallback):
    """Reports the beginning, the losses, the scores of each epoch and the checkpoints.

    Args:
        report: Gets the events.
        metric: The primary metric of the task.
        split: The split that is scored after each epoch, if any.
        floor: What stands beside the scores on it, in this metric.
    """

    def __init__(
        self, report: Report, metric: str, split: str | None = None, floor: Floor | None = None
    ) -> None:
        self._report, self._metric, self._split, self._floor = report, metric, split, floor
        self._begun, self._first_step = 0.0, 0

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Report how long the training is."""
        self._begun, self._first_step = time.monotonic(), state.global_step
        steps, first = state.max_steps, state.global_step
        text = f"training: {steps:,} steps"
        if first:
            text += f", from the checkpoint of step {first:,}"
        if state.is_world_process_zero:
            self._report(Event("training", text, steps=steps, resumed_at_step=first))

    def on_log(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Report the loss."""
        loss = kwargs["logs"].get("loss")
        if loss is None or not state.is_world_process_zero:
            return
        left = self._seconds_left(state)
        text = f"step {state.global_step:,} of {state.max_steps:,}: loss {loss:.4f}{_left(left)}"
        fields = {"epoch": state.epoch, "loss": loss, "seconds_left": left}
        self._report(Event("step", text, step=state.global_step, steps=state.max_steps, **fields))

    def on_evaluate(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Report the scores of an epoch."""
        if not state.is_world_process_zero:
            return
        scores = epoch_scores(kwargs["metrics"])
        shown = " ".join([score_text(scores, self._metric, self._floor), f"on {self._split}"])
        left = self._seconds_left(state)
        self._report(
            Event(
                "scored",
                f"epoch {state.epoch or 0:g}: {shown}{_left(left)}",
                step=state.global_step,
                epoch=state.epoch,
                split=self._split,
                metrics=scores,
                floor=None if self._floor is None else vars(self._floor),
                seconds_left=left,
            )
        )

    def on_save(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Report a checkpoint."""
        if state.is_world_process_zero:
            step = state.global_step
            path = str(layout.checkpoint_folder(Path(args.output_dir), step))
            self._report(Event("checkpoint", f"checkpoint of step {step:,}", step=step, path=path))

    def _seconds_left(self, state: TrainerState) -> float | None:
        done, all_steps = state.global_step - self._first_step, state.max_steps - self._first_step
        return seconds_left(done, all_steps, time.monotonic() - self._begun)


def epoch_scores(metrics: Mapping[str, float]) -> dict[str, float]:
    """The scores among what an evaluation of the Trainer returns.

    >>> epoch_scores({"eval_accuracy": 0.5, "eval_runtime": 1.0, "epoch": 1.0})
    {'accuracy': 0.5}
    """
    timings = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    named = {n.removeprefix("eval_"): v for n, v in metrics.items() if n.startswith("eval_")}
    return {name: value for name, value in named.items() if name not in timings}


def score_text(scores: Mapping[str, float], metric: str, floor: Floor | None) -> str:
    """A score beside its floor; the loss where the metric is not among the scores.

    >>> score_text({"accuracy": 0.75, "loss": 0.5}, "accuracy", Floor("most frequent class", 0.5))
    'accuracy 0.7500 (most frequent class 0.5000)'
    """
    if metric not in scores:
        return f"loss {scores.get('loss', float('nan')):.4f}"
    return f"{metric} {scores[metric]:.4f}" + (f" ({floor})" if floor else "")


def trivial_floor(result: RunResult) -> Floor | None:
    """What a run that learned nothing reaches in its primary metric, if the result has it."""
    for floor in result.floors:
        if floor.trivial and result.primary_metric in floor.metrics:
            return Floor(floor.name, floor.metrics[result.primary_metric])
    return None


def _left(seconds: float | None) -> str:
    return f"; {format_duration(seconds)} left" if seconds else ""


class ProgressBar(ProgressCallback):
    """The progress bar, with the loss and the last score at its end."""

    def __init__(self, metric: str, floor: Floor | None = None) -> None:
        super().__init__()
        self._metric, self._floor = metric, floor
        self._shown: dict[str, str] = {}

    def on_log(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Show the loss."""
        if "loss" in kwargs["logs"]:
            self._show(loss=f"loss {float(kwargs['logs']['loss']):.3f}")

    def on_evaluate(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Show the score."""
        super().on_evaluate(args, state, *_, **kwargs)  # type: ignore[no-untyped-call]
        self._show(score=score_text(epoch_scores(kwargs["metrics"]), self._metric, self._floor))

    def _show(self, **texts: str) -> None:
        self._shown |= texts
        if self.training_bar is not None:
            self.training_bar.set_postfix_str(", ".join(self._shown.values()))


def print_above_bar(event: Event) -> None:
    """Print an event that the bar does not show, above the bar."""
    from tqdm import tqdm

    if event.name != "step":
        tqdm.write(event, file=sys.stderr)
