"""What the penalty costs: time of a training step, dispatched kernels, growth with depth and rank.

    python benchmarks/penalty.py --steps 25

Prints Markdown tables. A step is forward, backward and optimizer of MiniLM (or of a model of
DeBERTaV3-base's size with random weights: ``--model deberta-v3-base``) with LoRA on all 36
(72) linear layers of its blocks, batch 32 × 64, in float32. The arms take turns, in an order that
turns with every round, and each step is set against LoRA's of the same round: the ratios are
medians over rounds, with the middle half of them in brackets.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import peft
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, DebertaV2Config

import iwlora
from iwlora.penalty.gram import penalty, penalty_gradients
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.sites import sites as find_sites
from iwlora.training.model.backbone import load_backbone

Step = Callable[[], object]


class Count(TorchDispatchMode):
    """Counts what PyTorch dispatches, views apart: on a GPU, the kernels launched."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += not func.is_view
        return func(*args, **(kwargs or {}))


def dense(pairs: Sequence[LowRankPair], coefficients: Sequence[float]) -> torch.Tensor:
    """The definition: every product formed."""
    terms = [
        c * (p.scaling * p.B @ p.A).square().sum() for c, p in zip(coefficients, pairs, strict=True)
    ]
    return torch.stack(terms).sum()


# --- a training step


def backbone(name: str) -> Any:
    torch.manual_seed(0)
    if name == "minilm":
        return load_backbone("builtin/minilm", labels=["no", "yes"])[0]
    config = DebertaV2Config(
        vocab_size=30000,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,  # type: ignore[call-arg]
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
    )
    return AutoModelForSequenceClassification.from_config(config)


def arm(name: str, model_name: str, device: str) -> Step:
    """One optimizer step of one method, on one fixed batch."""
    model = backbone(model_name)
    names = [site.name for site in find_sites(model)]
    options: dict[str, Any] = {
        "target_modules": names,
        "lora_alpha": 16,
        "modules_to_save": ["classifier"],
    }
    config: Any = peft.LoraConfig(r=8, **options)
    if name == "AdaLoRA (PEFT)":
        schedule: dict[str, Any] = {"total_step": 10**6, "tinit": 0, "tfinal": 10, "deltaT": 1}
        config = peft.AdaLoraConfig(init_r=12, target_r=8, **schedule, **options)
    model = peft.get_peft_model(model, config).to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    term: Callable[[], torch.Tensor] | None = None
    if name in ("loss", "gradient", "decoupled", "dense"):
        penalty = iwlora.Penalty(model, dict.fromkeys(names, 1.0), alpha=1e-2)
        if name == "loss":
            term = penalty
        elif name == "dense":
            strengths = [1e-2] * len(names)
            term = lambda: dense(penalty.pairs, strengths)  # noqa: E731
        else:
            penalty.attach(optimizer, route=name)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(1000, 20000, (32, 64), generator=generator).to(device),
        "attention_mask": torch.ones(32, 64, dtype=torch.long, device=device),
        "labels": (torch.arange(32) % 2).to(device),
    }
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        loss = model(**batch).loss
        (loss if term is None else loss + term()).backward()
        optimizer.step()
        if name == "AdaLoRA (PEFT)":
            model.base_model.update_and_allocate(steps)
        optimizer.zero_grad()

    return step


def seconds(step: Step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def training_steps(model: str, rounds: int, device: str) -> None:
    rows = {
        "LoRA": "LoRA",
        "LoRA again": "LoRA, a second time: the noise",
        "loss": "+ penalty in the loss",
        "gradient": "+ penalty into the gradients",
        "decoupled": "+ penalty on the parameters",
        "dense": "+ dense penalty in the loss, B A formed",
        "AdaLoRA (PEFT)": "AdaLoRA (PEFT), r = 12 → 8",
    }
    arms = {name: arm(name, model, device) for name in rows}
    for step in arms.values():
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in rows}
    order = list(rows)
    for _ in range(rounds):
        for name in order:
            times[name].append(seconds(arms[name], device))
        order = order[1:] + order[:1]
    print(f"| {model}, {rounds} rounds | seconds a step | over LoRA's |\n|---|---|---|")
    for name, label in rows.items():
        ratios = [a / b for a, b in zip(times[name], times["LoRA"], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        spread = "" if name == "LoRA" else f" ({low:.3f}–{high:.3f})"
        print(f"| {label} | {median(times[name]):.3f} | {median(ratios):.3f}{spread} |")
    print()


# --- the term alone


def blocks(depth: int, rank: int, width: int, device: str) -> list[LowRankPair]:
    """Six matrices a layer: four width × width, and width × 4·width both ways."""
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    return [
        LowRankPair(
            f"{layer}.{k}",
            torch.randn(rank, d_in, device=device).requires_grad_(),
            torch.randn(d_out, rank, device=device).requires_grad_(),
        )
        for layer in range(depth)
        for k, (d_in, d_out) in enumerate(shapes)
    ]


def forms_of(pairs: list[LowRankPair]) -> dict[str, Step]:
    """The gradient of the penalty of all pairs, with coefficients of 1, in three ways."""
    factors = [factor for pair in pairs for factor in (pair.A, pair.B)]
    ones = [1.0] * len(pairs)
    return {
        "gradient": lambda: penalty_gradients(pairs, ones),
        "loss": lambda: torch.autograd.grad(penalty(pairs, ones), factors),
        "dense": lambda: torch.autograd.grad(dense(pairs, ones), factors),
    }


def alone(forms: dict[str, Step], device: str) -> tuple[list[float], list[int]]:
    """Median milliseconds and kernels of each form."""
    kernels = []
    for form in forms.values():
        form()
        with Count() as count:
            form()
        kernels.append(count.kernels)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(9):
        for name, form in forms.items():
            times[name].append(seconds(form, device))
    return [1000 * median(seconds) for seconds in times.values()], kernels


def growth(device: str) -> None:
    head = "| {} | gradient, ms | in the loss, ms | dense, ms | kernels: gradient | loss | dense |"
    for label, cases in (
        ("layers (r = 8)", [(depth, 8) for depth in (6, 12, 24, 48, 96)]),
        ("r (12 layers)", [(12, rank) for rank in (4, 8, 16, 32, 64, 128, 256)]),
    ):
        print(head.format(f"{label}, width 384") + "\n|---|---|---|---|---|---|---|")
        for depth, rank in cases:
            times, kernels = alone(forms_of(blocks(depth, rank, 384, device)), device)
            cells = [f"{value:.2f}" for value in times] + [str(count) for count in kernels]
            print(f"| {depth if 'layers (' in label else rank} | " + " | ".join(cells) + " |")
        print()


def machine(device: str) -> str:
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.is_file() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.processor()}, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{name}; {versions}, peft {peft.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=25, help="rounds of one step an arm")
    parser.add_argument("--model", default="minilm", choices=["minilm", "deberta-v3-base"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parts = ["steps", "growth"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    print(f"{machine(arguments.device)}\n", flush=True)
    if "steps" in arguments.parts:
        training_steps(arguments.model, arguments.steps, arguments.device)
    if "growth" in arguments.parts:
        growth(arguments.device)


if __name__ == "__main__":
    main()
