"""Callbacks of a run: scoring at the end of each epoch, the log of metrics, the progress bar."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from iwlora.inputs.yaml_json import from_json
from iwlora.results.formats import stamped
from iwlora.results.writing import write_text


class EvaluateEachEpoch(TrainerCallback):
    """Scores the model at the last step of each epoch and of the training.

    A checkpoint of that step is written after the scores, so that a run which resumes from it has
    them and draws the same random numbers as a run without a break.
    """

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate after a whole number of epochs and after the last step."""
        whole = state.epoch is not None and float(state.epoch).is_integer()
        if whole or state.global_step >= state.max_steps:
            control.should_evaluate = True


class MetricsLog(TrainerCallback):
    """Appends what the Trainer logs to ``metrics.jsonl``; NaN and infinite values become null."""

    def __init__(self, path: Path, split: str | None = None) -> None:
        self._path, self._split = path, split

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file again; after a resume, keep what was logged up to the checkpoint."""
        if not args.should_save:
            return
        kept = []
        if state.global_step and self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= state.global_step]
        write_text(self._path, "".join(f"{line}\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line: a training record, or the scores of an evaluation."""
        logs = logs or {}
        record: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch}
        if "eval_loss" in logs:
            record |= {"evaluation": True, "split": self._split}
            record |= {key.removeprefix("eval_"): v for key, v in logs.items() if key != "epoch"}
        elif "loss" in logs:
            record |= logs
        if len(record) == 2 or not args.should_save:
            return
        finite = {key: _finite_or_none(value) for key, value in record.items()}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(stamped("metrics", finite)) + "\n")


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(line: str) -> float:
    """The step of a logged line; infinity for a line that a crash cut off, so that it goes."""
    try:
        return float(from_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


class ProgressBar(ProgressCallback):
    """The progress bar, with the loss at its end instead of on lines of its own."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss."""
        if state.is_world_process_zero and self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float((logs or {})['loss']):.3f}")
