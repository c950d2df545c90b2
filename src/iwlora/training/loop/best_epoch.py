"""Keeping the epoch with the best score on rows that are neither trained on nor reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState

from iwlora import distributed
from iwlora.methods.contract import Attached
from iwlora.results.writing import replacing, write_errors
from iwlora.training.model.sharding import full_parameters, set_parameters


class KeepBestEpoch(TrainerCallback):
    """Stores the trainable parameters of the best epoch so far, and restores them at the end.

    The best epoch has the largest ``metric``, or the smallest loss where ``metric`` is not among
    the scores (no text is generated during training). An equal score does not replace an earlier
    epoch. Epochs before the method has its final size (``settled()`` is false) do not count. A run
    that resumes from a checkpoint repeats the epochs after it, so the stored epoch stays valid.
    """

    def __init__(self, attached: Attached, metric: str, file: Path) -> None:
        self._attached, self._metric, self._file = attached, metric, file

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Remove what an earlier attempt stored, unless this one resumes it."""
        if not state.global_step and state.is_world_process_zero:
            self._file.unlink(missing_ok=True)

    def on_evaluate(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Store the parameters if their score is the best."""
        if not self._attached.settled():
            return
        scores: Mapping[str, float] = kwargs["metrics"]
        score = scores.get(f"eval_{self._metric}", -scores.get("eval_loss", float("inf")))
        if not distributed.run_on_main_process(lambda: self._is_best(score)):
            return
        tensors = full_parameters(self._attached.model, self._attached.trainable)
        if state.is_world_process_zero:
            metadata = {"score": repr(float(score)), "epoch": repr(float(state.epoch or 0))}
            with write_errors("the best epoch", self._file.parent), replacing(self._file) as new:
                save_file(tensors, new, metadata=metadata)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Restore the best parameters."""
        distributed.barrier()  # until it is written
        set_parameters(self._attached.model, load_file(self._file))

    def _is_best(self, score: float) -> bool:
        if not self._file.is_file():
            return True
        with safe_open(self._file, framework="pt") as stored:
            return score > float(stored.metadata()["score"])
