"""Importance-weighted LoRA in your own training loop.

    python examples/plain_pytorch.py --out adapter

A pretrained encoder learns whether one sentence follows from another. A hook on the optimizer
applies the penalty, once per step for any number of micro-batches.
"""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig, get_peft_model

import iwlora
from data import batches, load


def main(out: str, route: str = "gradient", steps: int = 20, micro_batches: int = 2) -> None:
    torch.manual_seed(0)
    model, rows = load()
    sensitivity = iwlora.measure(model, batches(rows, size=8), max_batches=16)
    importance = iwlora.Importance(sensitivity)

    sites = list(importance.weights)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=sites, modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    penalty = iwlora.Penalty(model, importance.coefficients(beta=1.0), alpha=1e-2)
    penalty.attach(optimizer, route)  # on the route loss, it only counts the steps
    model.train()
    stream = batches(rows, size=8)
    for step in range(steps):
        for _ in range(micro_batches):
            loss = model(**next(stream)).loss
            if route == "loss":
                loss = loss + penalty()  # on each micro-batch, because their losses are averaged
            (loss / micro_batches).backward()
        penalty.recording = step == steps - 1
        optimizer.step()
        optimizer.zero_grad()
    for name, effect in penalty.effects.items():
        print(f"{name}: update {effect.norm:.3f}, penalty over task {effect.ratio:.1e}")
    model.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="adapter")
    parser.add_argument("--route", default="gradient", choices=["loss", "gradient", "decoupled"])
    arguments = parser.parse_args()
    main(arguments.out, arguments.route)
