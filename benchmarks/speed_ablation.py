"""What each optimization gives alone: an epoch of RTE with all of them, and without each.

    python benchmarks/speed_ablation.py --glue FOLDER

All variants train LoRA on MiniLM in one process, in turn, ``--rounds`` times. A ratio is taken
within a round, and the median over rounds is printed. Times are processor time of training, which
other load on the machine changes less than wall time. A second table has the costs outside the
step: tokenization, scoring in the order of the rows, and implementations of AdamW. A third table
has the kernels on blocks of DeBERTa, which has attention of its own, with random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
import transformers
from torch import nn

from iwlora import tasks
from iwlora.sites import sites
from iwlora.tasks import collators
from iwlora.training.kernels import cpu
from iwlora.training.kernels.cpu import FastCpuFunctions
from iwlora.training.kernels.deberta import near_positions
from iwlora.training.kernels.lora import fused_lora
from iwlora.training.loop import trainer as trainer_module
from iwlora.training.loop.row_order import LongestFirstSampler
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from timed_commands import machine, table

Rows = list[list[str]]


@contextmanager
def _only_lora(model: nn.Module, enabled: bool) -> Iterator[None]:
    with fused_lora(model):
        yield


@contextmanager
def _only_cpu(model: nn.Module, enabled: bool) -> Iterator[None]:
    with FastCpuFunctions():
        yield


class _RowOrderSampler(LongestFirstSampler):
    """Scoring in the order of the rows."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__([0] * len(lengths))


_WITHOUT_NORMALIZATION = {
    old: new for old, new in cpu._REPLACEMENTS.items() if old is not nn.functional.layer_norm
}
# name -> (settings of training, (object, attribute, value) to replace while it trains)
VARIANTS: dict[str, tuple[dict[str, Any], list[tuple[Any, str, Any]]]] = {
    "all on": ({}, []),
    "rows in random order": ({"group_by_length": False}, []),
    "padded to eights": ({}, [(collators, "pad_multiple", lambda: 8)]),
    "float32": ({"precision": "fp32"}, []),
    "PEFT's LoRA layers": ({}, [(trainer_module, "fast_kernels", _only_cpu)]),
    "torch's dropout, attention and normalization": (
        {},
        [(trainer_module, "fast_kernels", _only_lora)],
    ),
    "normalization in float32": ({}, [(cpu, "_REPLACEMENTS", _WITHOUT_NORMALIZATION)]),
    "a batch in 2 micro-batches": ({"accumulate": 2}, []),
    "a batch in 4 micro-batches": ({"accumulate": 4}, []),
    "all off": (
        {"group_by_length": False, "precision": "fp32", "fast_kernels": False},
        [(collators, "pad_multiple", lambda: 1)],
    ),
}


def recipe(options: argparse.Namespace, **train: Any) -> Recipe:
    """One epoch of LoRA on some rows of RTE."""
    return build(
        {
            "model": "builtin/minilm",
            "task": {
                "name": "glue/rte",
                "data_dir": options.glue,
                "max_train": options.rows,
                "max_validation": 8,
            },
            "method": {"name": "lora"},
            "train": {"epochs": 1, "lr": 1e-3, **train},
        }
    )


def epochs(options: argparse.Namespace) -> Rows:
    """The variants of an epoch, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    losses: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, (settings, replaced) in VARIANTS.items():
            with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
                for owner, attribute, value in replaced:
                    stack.enter_context(mock.patch.object(owner, attribute, value))
                seconds[name].append(_training_seconds(stack, recipe(options, **settings), folder))
                log = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8")
                losses[name] = _last_loss(log)
    base = seconds["all on"]
    return [
        [
            name,
            f"{options.rows / median(taken):.1f}",
            f"{median(t / b for t, b in zip(taken, base, strict=True)):.2f}",
            f"{losses[name]:.3f}",
        ]
        for name, taken in seconds.items()
    ]


def _training_seconds(stack: ExitStack, settings: Recipe, folder: str) -> float:
    """Processor seconds of the training of a run."""
    fit, seconds = trainer_module.FineTuningTrainer.fit, []

    def timed(self: Any, checkpoint: Any) -> None:
        started = time.process_time()
        fit(self, checkpoint)
        seconds.append(time.process_time() - started)

    stack.enter_context(mock.patch.object(trainer_module.FineTuningTrainer, "fit", timed))
    train(settings, Path(folder) / "run")
    return seconds[0]


def _last_loss(log: str) -> float:
    losses = [record["loss"] for record in map(json.loads, log.splitlines()) if "loss" in record]
    return float(losses[-1])


def outside(options: argparse.Namespace) -> Rows:
    """Costs outside the steps, in processor milliseconds."""
    spec = recipe(options).task.model_copy(update={"max_train": None, "max_validation": None})
    task = tasks.load(spec, 0)
    model, tokenizer = load_backbone("builtin/minilm", task.labels, task.kind)
    adapters = [
        nn.Parameter(torch.randn(8, size)) for s in sites(model) for size in (s.d_in, s.d_out)
    ]
    for parameter in adapters:
        parameter.grad = torch.randn_like(parameter)
    rows_of_table: Rows = [
        [
            f"tokenizing all {sum(map(len, task.splits.values())):,} pairs of RTE",
            _milliseconds(options, lambda: task.encode(tokenizer, 128, model.config)),
        ]
    ]
    for name, foreach, fused in (
        ("fused", None, True),
        ("over lists of tensors", True, None),
        ("tensor by tensor", False, False),
    ):
        optimizer = torch.optim.AdamW(adapters, foreach=foreach, fused=fused)
        rows_of_table.append([f"a step of AdamW, {name}", _milliseconds(options, optimizer.step)])
    model.eval()
    encoded = task.encode(tokenizer, 128, model.config)["validation"]
    batches = task.kind.collator(tokenizer, model)
    for name, sampler in (
        ("by length", LongestFirstSampler),
        ("in the order of the rows", _RowOrderSampler),
    ):
        rows = list(sampler(encoded["length"][:]))

        def score(rows: list[int] = rows) -> None:
            with torch.inference_mode(), FastCpuFunctions(), torch.autocast("cpu", torch.bfloat16):
                for start in range(0, len(rows), 64):
                    batch = batches([encoded[row] for row in rows[start : start + 64]])
                    task.kind.outputs(model, tokenizer, batch, True)

        rows_of_table.append(
            [f"scoring RTE's {len(rows)} validation rows, {name}", _milliseconds(options, score)]
        )
    return rows_of_table


def _milliseconds(options: argparse.Namespace, work: Callable[[], object]) -> str:
    work()
    taken = []
    for _ in range(options.rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return f"{1000 * median(taken):.1f}"


def deberta(options: argparse.Namespace) -> Rows:
    """A step of LoRA in two blocks of DeBERTaV3-base's shape, with more and more fast kernels."""
    from peft import LoraConfig, get_peft_model
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        vocab_size=1000,
        num_hidden_layers=2,
        relative_attention=True,
        position_buckets=256,  # type: ignore[call-arg]
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type="p2c|c2p",
        type_vocab_size=0,
        position_biased_input=False,
    )
    backbone = DebertaV2ForSequenceClassification(config)
    targets = [site.name for site in sites(backbone)]
    model = get_peft_model(backbone, LoraConfig(target_modules=targets)).train()
    kernels = {
        "torch's and PEFT's own": (),
        "+ LoRA in one pass": (fused_lora,),
        "+ dropout": (fused_lora, lambda model: FastCpuFunctions()),
        "+ near positions": (fused_lora, lambda model: FastCpuFunctions(), near_positions),
    }
    shapes = ((16, 64), (8, 128))
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds + 1):
        for rows, tokens in shapes:
            ids = torch.randint(0, 1000, (rows, tokens))
            for name, contexts in kernels.items():
                with ExitStack() as stack:
                    for context in contexts:
                        stack.enter_context(context(model))
                    started = time.process_time()
                    with torch.autocast("cpu", torch.bfloat16):
                        loss = model(input_ids=ids, labels=ids[:, 0] % 2).loss
                    loss.backward()
                    seconds.setdefault((name, tokens), []).append(time.process_time() - started)
    own = next(iter(kernels))
    return [
        [name, *(_with_ratio(seconds[name, tokens], seconds[own, tokens]) for _, tokens in shapes)]
        for name in kernels
    ]


def _with_ratio(taken: Sequence[float], own: Sequence[float]) -> str:
    """Milliseconds and the ratio within a round, without the first round."""
    ratio = median(a / b for a, b in zip(taken[1:], own[1:], strict=True))
    return f"{1000 * median(taken[1:]):.0f} ({ratio:.2f})"


def compiled(options: argparse.Namespace) -> Rows:
    """Forward and backward of batches of several lengths, eager and through ``torch.compile``."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    backbone, _ = load_backbone("builtin/minilm", ["no", "yes"])
    targets = [site.name for site in sites(backbone)]
    model = get_peft_model(backbone, LoraConfig(target_modules=targets)).train()
    lengths = (48, 64, 80, 96, 128)

    def batch(length: int) -> dict[str, Any]:
        ids = torch.randint(1000, 20000, (32, length))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}

    def steps(module: Any) -> float:
        started = time.process_time()
        for length in lengths:
            with torch.autocast("cpu", torch.bfloat16):
                loss = module(**batch(length)).loss
            loss.backward()
            model.zero_grad()
        return (time.process_time() - started) / len(lengths)

    variants: dict[str, Callable[[], float]] = {"eager": lambda: steps(model)}
    with FastCpuFunctions(), fused_lora(model):
        fast = [steps(model) for _ in range(options.rounds + 1)][1:]
    torch._dynamo.config.recompile_limit = 16
    module = torch.compile(model, dynamic=True)
    variants["compiled"] = lambda: steps(module)
    rows = [["fast kernels", "0", f"{1000 * median(fast):.0f}"]]
    for name, run in variants.items():
        started = time.process_time()
        run()
        first = time.process_time() - started
        later = median(run() for _ in range(options.rounds))
        rows.append([name, f"{first - len(lengths) * later:.0f}", f"{1000 * later:.0f}"])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--compile", action="store_true", help="also torch.compile, which takes some minutes"
    )
    options = parser.parse_args(arguments)
    if options.rows < 320:
        parser.error(f"--rows {options.rows}: give at least 320, for ten steps and their loss")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    print(f"{machine()}, {torch.get_num_threads()} threads; medians of {options.rounds} rounds\n")
    head = ["an epoch with", "examples/s", "time relative to all on", "last loss"]
    print(table(head, epochs(options)) + "\n")
    print(table(["outside the step", "processor ms"], outside(options)) + "\n")
    head = ["two blocks of DeBERTaV3-base, ms (relative to the first row)"]
    head += ["16 rows of 64 tokens", "8 rows of 128 tokens"]
    print(table(head, deberta(options)) + "\n")
    if options.compile:
        head = ["forward and backward", "compiling, s", "ms a batch"]
        print(table(head, compiled(options)))


if __name__ == "__main__":
    main()
