"""A short training of a tiny LoRA model by a transformers Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainingArguments

from conftest import VOCABULARY, tiny_config

STEPS = 6

Weights = dict[str, Tensor]


def make_rows(count: int = 48) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(0)
    rows = []
    for row in range(count):
        ids = torch.randint(6, len(VOCABULARY), (6,), generator=random)
        ids[0] = 6 + row % 2
        rows.append({"input_ids": ids, "labels": torch.tensor(row % 2)})
    return rows


def make_model(dropout: float = 0.0, head: bool = True) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = tiny_config("bert")
    config.hidden_dropout_prob = dropout
    names = ["query", "value", "intermediate.dense"]
    base = AutoModelForSequenceClassification.from_config(config)
    model = get_peft_model(
        base,
        LoraConfig(r=4, target_modules=names, modules_to_save=["classifier"] if head else None),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # from 0 it would take many steps until a penalty shows
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def averaged(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """The loss averaged over all examples of a step, however they come."""
    total = cross_entropy(outputs.logits, labels, reduction="sum")
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def fit(
    folder: Path,
    callbacks: list[TrainerCallback],
    model: Any = None,
    resume: str | None = None,
    trainer_class: type[Trainer] = Trainer,
    **options: Any,
) -> Weights:
    """Train a few steps; returns what was trained."""
    torch.manual_seed(1)
    model = make_model() if model is None else model
    settings = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        **options,
    }
    trainer = trainer_class(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=make_rows(),
        compute_loss_func=averaged,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=resume)
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def distance(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
