"""The callback of the Trainer that seals checkpoints, and removes older ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from iwlora import distributed
from iwlora.results import layout
from iwlora.results.fingerprint import Fingerprint
from iwlora.training.state.checkpoints import newest_first, seal


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint after all callbacks before this one have added their files.

    Older checkpoints, all but ``keep``, are removed only then: if a crash or a full disk leaves a
    checkpoint incomplete, the one before it is still there. ``seconds()`` is the training time so
    far, ``fingerprint`` that of the run.
    """

    def __init__(
        self, seconds: Callable[[], float], keep: int, fingerprint: Fingerprint | None = None
    ) -> None:
        self._seconds, self._keep, self._fingerprint = seconds, keep, fingerprint

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Seal the checkpoint of this step."""
        folder = layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
        distributed.barrier()  # every process has files of its own in it
        if args.should_save:
            seal(folder, self._seconds(), self._fingerprint)
            for old in newest_first(folder.parent)[self._keep :]:
                shutil.rmtree(old)
