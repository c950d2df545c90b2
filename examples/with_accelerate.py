"""Importance-weighted LoRA with accelerate: several processes, mixed precision, accumulation.

    accelerate launch examples/with_accelerate.py --out adapter

Create the penalty after ``prepare``, which may replace parameters. ``accelerator.backward`` divides
the loss of every micro-batch by their number, so the route ``loss`` adds the penalty to each.
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

import iwlora
from data import Sentences, load


def main(out: str, route: str = "gradient", steps: int = 20, micro_batches: int = 2) -> None:
    set_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=micro_batches)
    model, rows = load()
    data = Sentences(rows)
    sensitivity = iwlora.measure(model, DataLoader(data, 8, shuffle=True), max_batches=16)
    importance = iwlora.Importance(sensitivity)

    sites = list(importance.weights)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=sites, modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    loader = DataLoader(data, 8, shuffle=True, drop_last=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    plain = accelerator.unwrap_model(model)
    penalty = iwlora.Penalty(plain, importance.coefficients(beta=1.0), alpha=1e-2)
    penalty.attach(optimizer, route)
    model.train()
    while penalty.step < steps:
        for batch in loader:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss + penalty() if route == "loss" else loss)
                optimizer.step()
                optimizer.zero_grad()
            if penalty.step == steps:
                break
    accelerator.print(f"{penalty.step} steps, penalty {penalty().item():.2e}")
    plain.save_pretrained(out, is_main_process=accelerator.is_main_process)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapter")
    parser.add_argument("--route", default="gradient", choices=["loss", "gradient", "decoupled"])
    arguments = parser.parse_args()
    main(arguments.out, arguments.route)
