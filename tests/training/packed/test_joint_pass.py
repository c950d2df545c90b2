"""The joint pass of models of image codes, whose class prompts enter by a hook."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from image_tokens.test_models import random_model
from iwlora.image_tokens.new_model import Order
from iwlora.methods import METHODS
from iwlora.sites import sites
from iwlora.training.packed.joint_pass import Batch, JointModel, JointPass, share_frozen
from iwlora.training.packed.randomness import ProcessState
from iwlora.training.packed.seat import plain_model


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("order", ["masked", "next-code"])
def test_each_run_reads_its_own_class_prompts(order: Order, tmp_path: Path) -> None:
    models = []
    for seed in (1, 2):
        model = random_model(tmp_path, order)
        attached = METHODS["lora"](rank=2).attach(model, sites(model), seed)
        generator = torch.Generator().manual_seed(seed)
        for name in attached.trainable:
            torch.nn.init.normal_(attached.model.get_parameter(name), generator=generator)
        models.append(plain_model(attached.model))
    assert share_frozen(models[1], models[0])
    rows = [torch.tensor([[0, *range(9)], [1, *range(1, 10)]]), torch.tensor([[1, *range(2, 11)]])]
    given = [{"input_ids": ids, "instances": torch.arange(len(ids))} for ids in rows]
    batches = [batch for inputs in given if (batch := Batch.of(inputs)) is not None]
    states = [ProcessState(torch.device("cpu"))] * 2
    joint = JointPass(JointModel(models), batches, states, 0)
    for model, inputs, output in zip(models, given, joint.outputs, strict=True):
        torch.testing.assert_close(output.logits, model(**inputs).logits)
