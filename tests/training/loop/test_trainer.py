"""What the Trainer does in its own way gives what transformers gives."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer

from iwlora.methods.tiny_models import tiny_model
from iwlora.training.loop.trainer import FineTuningTrainer


@pytest.mark.quick
def test_operations_are_counted_as_transformers_counts_them() -> None:
    trainer = FineTuningTrainer.__new__(FineTuningTrainer)
    trainer.model = tiny_model("bert")
    for shape in ((2, 5), (7, 3)):
        inputs = {"input_ids": torch.ones(shape, dtype=torch.long)}
        assert trainer.floating_point_ops(inputs) == Trainer.floating_point_ops(trainer, inputs) > 0
