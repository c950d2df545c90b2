"""Callbacks of a run: scores of each epoch, the best one, the log of metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from iwlora import distributed
from iwlora.inputs.yaml_json import read_json, validation_errors
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.results.formats import append_record, truncate_log
from iwlora.results.metric_direction import oriented
from iwlora.results.writing import write_text
from iwlora.training.model.sharding import full_parameters, set_parameters
from iwlora.training.state import best_epoch


class EvaluateEachEpoch(TrainerCallback):
    """Scores the model at the last step of each epoch and of the training.

    A checkpoint of that step is written after the scores, so that a run which resumes from it has
    them and draws the same random numbers as a run without a break.
    """

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate after a whole number of epochs and after the last step."""
        whole = state.epoch is not None and float(state.epoch).is_integer()
        if whole or state.global_step >= state.max_steps:
            control.should_evaluate = True


class KeepBestEpoch(TrainerCallback):
    """Stores the trainable parameters of the best epoch so far, and restores them at the end.

    The best epoch has the best ``metric`` (the smallest perplexity, the largest accuracy), or the
    smallest loss where ``metric`` is not among the scores (no text is generated during training).
    An equal score does not replace an earlier epoch. Epochs before the method has its final size
    (``settled()`` is false) do not count. A run that resumes from a checkpoint repeats the epochs
    after it, so the stored epoch stays valid.

    With ``patience``, training stops at the epoch that is so many after the best one. No checkpoint
    is written then, so that a run which resumes stops there again.
    """

    def __init__(
        self, attached: Attached, metric: str, file: Path, patience: int | None = None
    ) -> None:
        self._attached, self._metric, self._file = attached, metric, file
        self._patience = patience

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Remove what an earlier attempt stored, unless this one resumes it."""
        if not state.global_step and state.is_world_process_zero:
            self._file.unlink(missing_ok=True)
        elif self._file.is_file():
            best_epoch.load(self._file)

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store the parameters if their score is the best, or stop where it was not for long."""
        if not self._attached.settled():
            return
        score = selection_score(self._metric, kwargs["metrics"])
        if not distributed.run_on_main_process(lambda: self._is_best(score)):
            if distributed.run_on_main_process(lambda: self._is_over(state)):
                control.should_training_stop, control.should_save = True, False
            return
        tensors = full_parameters(self._attached.model, self._attached.trainable)
        if state.is_world_process_zero:
            best_epoch.save(self._file, tensors, float(score), float(state.epoch or 0))

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Restore the best parameters."""
        distributed.barrier()  # until it is written
        set_parameters(self._attached.model, best_epoch.load(self._file))

    def _is_best(self, score: float) -> bool:
        return not self._file.is_file() or score > best_epoch.score_and_epoch(self._file)[0]

    def _is_over(self, state: TrainerState) -> bool:
        """Whether the best epoch is ``patience`` epochs ago."""
        best = best_epoch.score_and_epoch(self._file)[1]
        return self._patience is not None and float(state.epoch or 0) - best >= self._patience


def selection_score(metric: str, scores: Mapping[str, float]) -> float:
    """The score by which epochs are compared; larger is better.

    Args:
        metric: the primary metric of the task.
        scores: ``eval_NAME`` of an evaluation; the loss stands in for a metric that is not there.

    Example:
        >>> selection_score("perplexity", {"eval_perplexity": 7.0, "eval_loss": 2.0})
        -7.0
        >>> selection_score("rougeL", {"eval_loss": 2.0})
        -2.0
    """
    if f"eval_{metric}" in scores:
        return oriented(metric, scores[f"eval_{metric}"])
    return -scores.get("eval_loss", math.inf)


class MetricsLog(TrainerCallback):
    """Appends what the Trainer logs to ``metrics.jsonl``; NaN and infinite values become null."""

    def __init__(self, path: Path, split: str | None = None) -> None:
        self._path, self._split = path, split

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Start the file again; after a resume, keep what was logged up to the checkpoint."""
        if state.is_world_process_zero:
            truncate_log(self._path, state.global_step)
            self._path.touch()

    def on_log(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Write one line: a training record, or the scores of an evaluation."""
        logs: dict[str, Any] = kwargs["logs"]
        record: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch}
        if "eval_loss" in logs:
            record |= {"evaluation": True, "split": self._split}
            record |= {key.removeprefix("eval_"): v for key, v in logs.items() if key != "epoch"}
        elif "loss" in logs:
            record |= logs
        if len(record) == 2 or not state.is_world_process_zero:
            return
        finite = {key: _finite_or_none(value) for key, value in record.items()}
        append_record(self._path, "metrics", finite)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _UnloggedLoss(BaseModel):
    """The sum of the losses since the last record, and its step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sum: float
    logged: Annotated[int, Field(ge=0, strict=True)]


class RestoreLoggedLoss(TrainerCallback):
    """Stores with each checkpoint the losses that the Trainer has summed up and not yet logged.

    The loss that is logged after a resume is the mean since the last record, not since the resume.
    The first versions of transformers 5 give no access to the sum: there it is since the resume.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_save(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Store this process's sum, and the step of the last record."""
        trainer = self._trainer
        if not hasattr(trainer, "_tr_loss"):
            return
        stored = _UnloggedLoss(sum=trainer._tr_loss.item(), logged=trainer._globalstep_last_logged)
        write_text(self._file(state), json.dumps(stored.model_dump()) + "\n")

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Continue with the sum in the checkpoint."""
        if state.global_step and hasattr(self._trainer, "_tr_loss"):
            file = self._file(state)
            with validation_errors(file):
                stored = _UnloggedLoss.model_validate(read_json(file))
            self._trainer._tr_loss.fill_(stored.sum)
            self._trainer._globalstep_last_logged = stored.logged

    def _file(self, state: TrainerState) -> Path:
        args = self._trainer.args
        checkpoint = layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
        return layout.unlogged_loss_file(checkpoint, args.process_index)


class TrackerPanels(TrainerCallback):
    """Logs the numbers of a method for experiment trackers, after each record of the training.

    A number is sent when it has changed: what is measured once is sent once.
    """

    def __init__(self, trainer: Trainer, panels: Callable[[], Mapping[str, float]]) -> None:
        self._trainer, self._panels = trainer, panels
        self._sent: dict[str, float] = {}

    def on_log(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Log what changed; the record has no loss, so that it leads to no other."""
        if "loss" not in kwargs["logs"]:
            return
        numbers = self._panels()
        changed = {name: n for name, n in numbers.items() if self._sent.get(name) != n}
        self._sent |= changed
        if changed:
            self._trainer.log(changed)
