"""Measuring, importance, the penalty and the callback: what an installation without extras does.

``python tests/base_install.py`` runs in an environment that has the base dependencies only.
"""

from __future__ import annotations

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import iwlora
from iwlora.methods.tiny_models import tiny_model

model = tiny_model("bert")
row = {"input_ids": torch.arange(6), "labels": torch.tensor(1)}
batch = {"input_ids": torch.arange(12).reshape(2, 6), "labels": torch.tensor([0, 1])}
importance = iwlora.Importance(iwlora.measure(model, [batch] * 3, max_batches=3))
assert importance.rank_pattern(r=2)[0].keys() == importance.weights.keys()

adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query"]))
coefficients = {
    name: value for name, value in importance.coefficients().items() if name.endswith("query")
}
assert iwlora.Penalty(adapted, coefficients, alpha=1.0)() == 0

callback = iwlora.IWLoraCallback(alpha=1e-4)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, max_steps=2, report_to=[], use_cpu=True)
    Trainer(adapted, arguments, train_dataset=[row] * 8, callbacks=[callback]).train()
assert callback.sensitivity.values
print("measured, penalised and trained")
