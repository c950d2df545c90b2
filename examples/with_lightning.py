"""Importance-weighted LoRA in Lightning.

    pip install lightning
    python examples/with_lightning.py --out adapter

Lightning passes forward and backward to the optimizer as a closure, and divides the loss of every
micro-batch by their number. The hook of the penalty runs after the closure, once per step.
"""

from __future__ import annotations

import argparse

import lightning
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

import iwlora
from data import Sentences, load


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module, penalty: iwlora.Penalty, route: str) -> None:
        super().__init__()
        self.model, self.penalty, self.route = model, penalty, route

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = self.model(**batch).loss
        return loss + self.penalty() if self.route == "loss" else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        self.penalty.attach(optimizer, self.route)
        return optimizer


def main(out: str, route: str = "gradient", steps: int = 20, micro_batches: int = 2) -> None:
    lightning.seed_everything(0, verbose=False)
    model, rows = load()
    data = Sentences(rows)
    sensitivity = iwlora.measure(model, DataLoader(data, 8, shuffle=True), max_batches=16)
    importance = iwlora.Importance(sensitivity)

    sites = list(importance.weights)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=sites, modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    penalty = iwlora.Penalty(model, importance.coefficients(beta=1.0), alpha=1e-2)
    trainer = lightning.Trainer(
        max_steps=steps,
        accumulate_grad_batches=micro_batches,
        gradient_clip_val=1.0,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(data, 8, shuffle=True, drop_last=True)
    trainer.fit(Classifier(model.train(), penalty, route), loader)
    print(f"{penalty.step} steps, penalty {penalty().item():.2e}")
    model.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapter")
    parser.add_argument("--route", default="gradient", choices=["loss", "gradient", "decoupled"])
    arguments = parser.parse_args()
    main(arguments.out, arguments.route)
