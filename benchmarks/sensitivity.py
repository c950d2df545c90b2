"""What measuring the sensitivity costs, and how many batches it takes.

    python benchmarks/sensitivity.py --glue FOLDER

Prints Markdown tables. Times are medians of interleaved repetitions, as ratios to one LoRA
training step (rank 8 on every matrix, AdamW) on the same batch of the embedded encoder; on a CPU
they are processor seconds of one thread, so that a busy machine disturbs them little. Memory is
the peak of live tensors in units of the largest weight gradient: above that of the LoRA step, above
the same forward and backward pass with nothing captured, and above that pass when the inputs of
the layers are kept for reading and nothing is computed from them. Two rows of 8 tokens show a
gradient on its own, since hardly any activations stand beside it.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import spearmanr
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import logging

import iwlora
from iwlora import tasks
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sensitivity.capture import capture
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sites import sites
from iwlora.tasks.spec import TaskSpec
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.model.backbone import load_backbone

Step = Callable[[], object]


class TrainingStep(Protocol):
    """One step of training; ``after_backward`` is called while the gradients are there."""

    def __call__(self, after_backward: Step = ...) -> object: ...


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def times(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, all of them once a round."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            started = clock()
            step()
            if round_:  # the first round warms up
                taken[name].append(clock() - started)
    return taken


def ratio(taken: dict[str, list[float]], name: str, base: str = "LoRA step") -> float:
    """The median over rounds of the quotient within a round."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[base], strict=True))


def peak(step: Step) -> int:
    """The largest number of bytes of tensors that the step holds at once, beyond those before."""
    if DEVICE.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(max(itertools.accumulate(event.nbytes() for event in events)))


def random_batch(rows: int, tokens: int, padded: bool) -> dict[str, torch.Tensor]:
    """Random words; padded rows are 10 tokens at least, as many lengths alike."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 1500, (rows, tokens), generator=generator)
    lengths = torch.randint(min(10, tokens), tokens + 1, (rows,), generator=generator)
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long() if padded else torch.ones_like(ids)
    labels = torch.randint(0, 2, (rows,), generator=generator)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}
    return {key: value.to(DEVICE) for key, value in batch.items()}


def lora_step(model: Any, batch: dict[str, torch.Tensor]) -> tuple[Any, TrainingStep]:
    """(the wrapped model, one training step of it)."""
    targets = [site.name for site in sites(model)]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=targets, modules_to_save=["classifier"])
    adapted = get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=1e-5)

    def step(after_backward: Step = lambda: None) -> None:
        adapted(**batch).loss.backward()
        after_backward()
        optimizer.step()
        optimizer.zero_grad()

    return adapted, step


def contenders(make: Callable[[], Any], batch: dict[str, torch.Tensor]) -> dict[str, Step]:
    """One LoRA step, and what it takes to measure the same batch in each way."""
    model = make().to(DEVICE)
    adapted, step = lora_step(make().to(DEVICE), batch)
    places, pairs = sites(adapted), lora_pairs(adapted)

    def free() -> None:  # a reader of its own, so that the plain step runs without hooks
        flight = InFlight(places, pairs, max_batches=2)
        step(flight.step)
        flight.close()

    def exact_in_step() -> None:
        flight = InFlight(places, pairs, "exact", max_batches=2)
        step(flight.step)
        flight.close()

    outcome: dict[str, Step] = {
        "LoRA step": step,
        "free sketch, in the step": free,
        "exact, in the step": exact_in_step,
    }
    for estimator in ("exact", "ghost", "sketch", "auto"):
        outcome[estimator] = partial(iwlora.measure, model, [batch], estimator)
    return outcome


def passes(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, Step]:
    """The frozen model's forward and backward as measuring runs it: bare, and with inputs kept."""

    model.eval().requires_grad_(False).to(DEVICE)
    model.bert.embeddings.LayerNorm.requires_grad_(True)  # where backward ends

    def bare() -> None:
        model(**batch).loss.backward()

    def inputs_kept() -> None:
        with capture(sites(model), lambda _site, _x, delta: delta.new_zeros(())):
            bare()

    return {"bare": bare, "inputs kept": inputs_kept}


def minilm() -> Any:
    return load_backbone("builtin/minilm", labels=["no", "yes"])[0]


def cost(repeats: int) -> None:
    print("\n## One measured batch over one LoRA step (32 × 64 tokens, MiniLM): time\n")
    print("| tokens | way | time |\n|---|---|---|")
    for padded in (False, True):
        taken = times(contenders(minilm, random_batch(32, 64, padded)), repeats)
        for name in taken:
            label = "padded" if padded else "no padding"
            print(f"| {label} | {name} | {ratio(taken, name):.2f} |", flush=True)


def memory() -> None:
    print("\n## The same: peak of memory, in largest weight gradients\n")
    print("| tokens | way | peak | above the LoRA step | above the bare pass | above inputs kept |")
    print("|---|---|---|---|---|---|")
    largest = max(4 * s.d_in * s.d_out for s in sites(minilm()))
    for rows, tokens in ((32, 64), (2, 8)):
        batch = random_batch(rows, tokens, padded=False)
        steps = {**contenders(minilm, batch), **passes(minilm(), batch)}
        steps["LoRA step"]()  # the optimizer's state stays
        peaks = {name: peak(step) / largest for name, step in steps.items()}
        for name, own in peaks.items():
            over = [f"{own - peaks[base]:+.2f}" for base in ("LoRA step", "bare", "inputs kept")]
            print(f"| {rows} × {tokens} | {name} | {own:.2f} | {' | '.join(over)} |", flush=True)


def growth(repeats: int) -> None:
    print("\n## Growth (BERT of random weights; 16 rows)\n")
    print("| width | depth | tokens a row | LoRA step, ms | exact / LoRA | sketch | auto | free |")
    print("|---|---|---|---|---|---|---|---|")
    shapes = [(w, 4, 64) for w in (128, 256, 512)]
    shapes += [(256, depth, 64) for depth in (2, 8)] + [(256, 4, n) for n in (16, 256)]
    for width, depth, tokens in shapes:

        def make(width: int = width, depth: int = depth) -> Any:
            config = BertConfig(
                vocab_size=2000,
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=width // 64,
                intermediate_size=4 * width,
            )
            return BertForSequenceClassification(config)

        steps = contenders(make, random_batch(16, tokens, padded=False))
        del steps["ghost"], steps["exact, in the step"]
        taken = times(steps, repeats)
        messages = [ratio(taken, name) for name in ("exact", "sketch", "auto")]
        messages.append(ratio(taken, "free sketch, in the step"))
        ms = 1000 * statistics.median(taken["LoRA step"])
        cells = " | ".join(f"{value:.2f}" for value in messages)
        print(f"| {width} | {depth} | {tokens} | {ms:.0f} | {cells} |", flush=True)


def stream(rows: Any, collate: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of 32 in random order, epoch after epoch."""
    order = EpochSampler(len(rows), 32, seed=0)
    columns = rows.remove_columns("length")
    for epoch in itertools.count():
        order.set_epoch(epoch)
        yield from DataLoader(columns, 32, sampler=order, collate_fn=collate, drop_last=True)


def stopping(folder: str, names: list[str], batches: int) -> None:
    print(f"\n## Batches until stable (tolerance 0.02), against {batches} batches\n")
    print(
        "| task | stop after | Spearman | distance: expected / bound / true | free sketch, r = 8 |"
    )
    print("|---|---|---|---|---|")
    for name in names:
        task = tasks.load(TaskSpec(name=f"glue/{name}", data_dir=folder), 0)
        torch.manual_seed(0)
        model, tokenizer = load_backbone("builtin/minilm", task.labels)
        model.to(DEVICE)  # type: ignore[arg-type]
        rows = task.encode(tokenizer, 128)["train"]
        collate = task.kind.collator(tokenizer, model)
        quick = iwlora.measure(model, stream(rows, collate))
        long = iwlora.measure(model, stream(rows, collate), max_batches=batches, tolerance=0)
        one, all_ = (np.array(list(outcome.values.values())) for outcome in (quick, long))
        true = 0.5 * np.abs(one / one.sum() - all_ / all_.sum()).sum()
        adapted, _ = lora_step(model, {})
        flight = InFlight(sites(adapted), lora_pairs(adapted))
        for batch in stream(rows, collate):
            adapted(**{key: value.to(DEVICE) for key, value in batch.items()}).loss.backward()
            if flight.step():
                break
            adapted.zero_grad()
        free = flight.result()
        order = spearmanr(list(free.values.values()), all_).statistic
        print(
            f"| {name} | {quick.batches} | {spearmanr(one, all_).statistic:.4f} | "
            f"{quick.share_error:.4f} / {quick.share_bound:.4f} / {true:.4f} | "
            f"{free.batches} steps, Spearman {order:.3f}, expected {free.share_error:.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", help="a folder in the official layout; without: no such table")
    parser.add_argument("--tasks", nargs="+", default=["rte", "mrpc", "sst2", "cola"])
    parser.add_argument("--batches", type=int, default=200, help="of the long measurement")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--parts", nargs="+", default=["cost", "memory", "growth", "stopping"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {DEVICE}")
    if "cost" in given.parts:
        cost(given.repeats)
    if "memory" in given.parts:
        memory()
    if "growth" in given.parts:
        growth(given.repeats)
    if "stopping" in given.parts and given.glue:
        stopping(given.glue, given.tasks, given.batches)


if __name__ == "__main__":
    main()
