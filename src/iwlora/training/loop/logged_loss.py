"""The loss that is logged after a resume: the mean since the last record, not since the resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.inputs.yaml_json import from_json
from iwlora.results import layout
from iwlora.results.writing import write_text


class RestoreLoggedLoss(TrainerCallback):
    """Stores with each checkpoint the losses that the Trainer has summed up and not yet logged."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store this process's sum, and the step of the last record."""
        trainer = self._trainer
        stored = {"sum": trainer._tr_loss.item(), "logged": trainer._globalstep_last_logged}
        write_text(_file(args, state), json.dumps(stored) + "\n")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Continue with the sum in the checkpoint."""
        if state.global_step:
            stored = from_json(_file(args, state).read_text(encoding="utf-8"))
            self._trainer._tr_loss.fill_(stored["sum"])
            self._trainer._globalstep_last_logged = stored["logged"]


def _file(args: TrainingArguments, state: TrainerState) -> Path:
    checkpoint = layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
    return layout.unlogged_loss_file(checkpoint, args.process_index)
