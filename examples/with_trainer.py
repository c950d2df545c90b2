"""Importance-weighted LoRA in a transformers Trainer or a subclass of it, with one callback.

python examples/with_trainer.py --out adapter
"""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

import iwlora
from data import Sentences, load


def main(out: str, route: str = "gradient", steps: int = 20, micro_batches: int = 2) -> None:
    torch.manual_seed(0)
    model, rows = load()
    names = ["query", "key", "value", "attention.output.dense", "intermediate.dense"]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=names, modules_to_save=["classifier"])
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=micro_batches,
            learning_rate=1e-3,
            logging_steps=5,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=Sentences(rows),
    )
    trainer.add_callback(iwlora.IWLoraCallback(alpha=1e-2, beta=1.0, route=route))
    trainer.train()
    trainer.save_model(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapter")
    parser.add_argument("--route", default="gradient", choices=["loss", "gradient", "decoupled"])
    arguments = parser.parse_args()
    main(arguments.out, arguments.route)
