"""How much faster several runs compute a step together than one after another, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch import Tensor

from iwlora.methods.low_rank.lora import Lora
from iwlora.sites import sites as find_sites
from iwlora.training.device import run_device
from iwlora.training.kernels import training_numerics
from iwlora.training.model.backbone import load_backbone
from iwlora.training.packed.joint_pass import Batch, JointModel, JointPass, share_frozen
from iwlora.training.packed.randomness import ProcessState
from iwlora.training.packed.seat import plain_model
from iwlora.training.recipe import Recipe

_REPEATS = 3


def measured_gain(recipe: Recipe, runs: int) -> float:
    """Time of a step of several runs one after another / time of it together.

    Args:
        recipe: whose model and batch size are used, with LoRA of rank 8 and random tokens.
        runs: their number.
    """
    backbone, _ = load_backbone(recipe.model, ("0", "1"), None, recipe.trust_remote_code)
    device, settings = run_device(), recipe.train
    backbone.to(device)  # type: ignore[arg-type]
    models: list[Any] = []
    for seed in range(runs):
        model = deepcopy(backbone)
        attached = Lora(rank=8).attach(model, find_sites(model), seed)
        plain = plain_model(attached.model)
        if models:
            share_frozen(plain, models[0])
        models.append(plain.train())
    rows = settings.batch_size // settings.accumulate
    shape = (rows, settings.max_length)
    tokens = torch.randint(1, backbone.config.vocab_size, shape, device=device)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    trained = [[p for p in model.parameters() if p.requires_grad] for model in models]
    joint, states = JointModel(models), [ProcessState(device) for _ in models]

    def alone() -> None:
        for _ in models:
            logits = models[0](**batch).logits
            torch.autograd.grad(logits.sum(), trained[0], allow_unused=True)

    def together() -> None:
        batches = [Batch(batch, {}) for _ in models]
        computed = JointPass(joint, batches, states, 0)
        ones: list[dict[str, Tensor]] = [
            {name: torch.ones_like(tensor) for name, tensor in output.items()}
            for output in computed.outputs
        ]
        computed.gradients(ones, trained)

    precision = settings.requested_precision
    with training_numerics(models[0], settings.fast_kernels, precision, device):
        together()  # allocates what both need
        times = [(_seconds(alone), _seconds(together)) for _ in range(_REPEATS)]
    return median(one / other for one, other in times)


def _seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
