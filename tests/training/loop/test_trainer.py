"""What the Trainer does in its own way gives what transformers gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from transformers import default_data_collator as collate

from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.tiny_models import tiny_model
from iwlora.tasks.kinds.classification import Classification
from iwlora.testing import Case
from iwlora.training.loop.trainer import FineTuningTrainer


@pytest.mark.quick
def test_operations_are_counted_as_transformers_counts_them() -> None:
    trainer = FineTuningTrainer.__new__(FineTuningTrainer)
    trainer.model, trainer._kind = tiny_model("bert"), Classification()
    for shape in ((2, 5), (7, 3)):
        inputs = {"input_ids": torch.ones(shape, dtype=torch.long)}
        assert trainer.floating_point_ops(inputs) == Trainer.floating_point_ops(trainer, inputs) > 0


@pytest.mark.quick  # with the oldest versions too
def test_a_method_gets_the_norm_of_the_gradient_before_clipping(tmp_path: Path) -> None:
    case, norms = Case(Lora(), "bert", tmp_path), list[float]()
    attached = replace(case.attach(), gradient_norm=norms.append)
    trainer = case.trainer(attached, tmp_path, max_grad_norm=0.01, max_steps=2)
    by_hand: Any = case.attach()
    first = next(iter(trainer.micro_batch_sampler))
    by_hand.model(**collate([case.rows[row] for row in first])).loss.backward()
    gradients = [by_hand.model.get_parameter(name).grad for name in by_hand.trainable]
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    trainer.train()
    assert expected > 0.01
    assert norms[0] == pytest.approx(expected, rel=1e-5)
    assert len(norms) == 2
