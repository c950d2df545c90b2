"""Keeping the epoch with the best score on rows that are neither trained on nor reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora import distributed
from iwlora.results.writing import replacing, write_errors
from iwlora.training.model.sharding import full_parameters, set_parameters


class KeepBestEpoch(TrainerCallback):
    """Stores the trainable parameters of the best epoch so far, and restores them at the end.

    The best epoch has the largest ``metric``, or the smallest loss where ``metric`` is not among
    the scores (no text is generated during training). An equal score does not replace an earlier
    epoch. Epochs before the method has its final size (``settled()`` is false) do not count. A run
    that resumes from a checkpoint repeats the epochs after it, so the stored epoch stays valid.
    """

    def __init__(
        self,
        model: nn.Module,
        trainable: Sequence[str],
        metric: str,
        file: Path,
        settled: Callable[[], bool],
    ) -> None:
        self._model, self._trainable, self._metric, self._file = model, trainable, metric, file
        self._settled = settled
        self.epoch: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what an earlier attempt stored, unless this one resumes it."""
        if not state.global_step and state.is_world_process_zero:
            self._file.unlink(missing_ok=True)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Store the parameters if their score is the best."""
        if not self._settled():
            return
        scores = metrics or {}
        score = scores.get(f"eval_{self._metric}", -scores.get("eval_loss", float("inf")))
        if not distributed.run_on_main_process(lambda: self._is_best(score)):
            return
        tensors = full_parameters(self._model, self._trainable)
        if state.is_world_process_zero:
            metadata = {"score": repr(float(score)), "epoch": repr(float(state.epoch or 0))}
            with write_errors("the best epoch", self._file.parent), replacing(self._file) as new:
                save_file(tensors, new, metadata=metadata)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the best parameters."""
        distributed.barrier()  # until it is written
        self.epoch = float(self._stored()["epoch"])
        with safe_open(self._file, framework="pt") as stored:
            set_parameters(self._model, {name: stored.get_tensor(name) for name in self._trainable})

    def _is_best(self, score: float) -> bool:
        return not self._file.is_file() or score > float(self._stored()["score"])

    def _stored(self) -> dict[str, str]:
        with safe_open(self._file, framework="pt") as stored:
            metadata: dict[str, str] = stored.metadata()
        return metadata
