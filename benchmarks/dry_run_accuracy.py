"""Memory and time that ``iwlora train --dry-run`` predicts, divided by those of the run.

    python benchmarks/dry_run_accuracy.py

Each dry run and each run is a process of its own. ``added`` is the ratio of peak memories without
what the process held before training. ``training`` is the time of the steps, ``whole run`` that of
the process from its start; the start of the dry run is added to its prediction. On a machine with
other work take ``--processor-time``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from timed_commands import (
    MEBI,
    count_processor_time,
    line,
    machine,
    run_command,
    table,
)

# (model, method, batch size)
CASES = [
    ("minilm", "lora", 32),
    ("minilm", "full", 16),
    ("small", "lora", 32),
    ("minilm", "iw-lora", 32),
    ("small", "full", 64),
    ("minilm", "adalora", 32),
    ("minilm", "lora", 8),
]


def random_bert(folder: Path) -> str:
    """A BERT of 4 blocks and 256 units with random weights, and MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from iwlora.training.model.backbone import resolve_model_path

    tokenizer = AutoTokenizer.from_pretrained(resolve_model_path("builtin/minilm"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def recipe(model: str, method: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """A run on the embedded task, or on RTE where there is a folder with it."""
    name = "glue/rte" if options.glue else "builtin/entailment"
    task = {
        "name": name,
        "data_dir": options.glue,
        "max_train": options.rows,
        "max_validation": 128,
    }
    train = {"epochs": options.epochs, "batch_size": batch, "lr": 1e-3}
    return {"model": model, "task": task, "method": {"name": method}, "train": train}


def predict(file: str, out: str, processor_time: bool) -> None:
    """Write the estimate of a recipe, and how long this process took to start."""
    from iwlora.training.dry_run.run_cost import estimate_run_cost
    from iwlora.training.recipe import load

    started = psutil.Process().create_time()
    start_seconds = time.process_time() if processor_time else time.time() - started
    cost = estimate_run_cost(load(file))
    prediction = {
        "peak": cost.memory.peak,
        "tensors": cost.memory.tensors,
        "before": cost.memory.before,
        "training": cost.train_seconds,
        "whole": cost.seconds + start_seconds,
    }
    Path(out).write_text(json.dumps(prediction), encoding="utf-8")


def comparison_row(
    model: str, settings: dict[str, Any], folder: Path, threads: int, processor_time: bool
) -> list[str]:
    """A row of the table: predicted values, measured values, and their ratios."""
    file, out = folder / "recipe.yaml", folder / "predicted.json"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    clock = ["--processor-time"] if processor_time else []
    run_command([__file__, "--predict", str(file), str(out), *clock], threads)
    cost = run_command([__file__, "--train", str(file), str(folder / "run"), *clock], threads)
    whole = cost.processor_seconds if processor_time else cost.seconds
    predicted = json.loads(out.read_text(encoding="utf-8"))
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    peak, training = result["peak_memory_bytes"], result["train_seconds"]
    added = (predicted["peak"] - predicted["before"]) / (peak - predicted["before"])
    return [
        f"{model}, {settings['method']['name']}",
        str(settings["train"]["batch_size"]),
        f"{predicted['peak'] / MEBI:.0f} / {peak / MEBI:.0f} = {predicted['peak'] / peak:.2f}",
        f"{added:.2f}",
        f"{predicted['tensors'] / MEBI:.0f}",
        f"{predicted['training']:.1f} / {training:.1f} = {predicted['training'] / training:.2f}",
        f"{predicted['whole']:.1f} / {whole:.1f} = {predicted['whole'] / whole:.2f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", help="a folder in GLUE's official layout; trains on RTE instead")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument(
        "--cases", type=int, default=len(CASES), help="number of cases, from the first"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="in the place of wall time")
    parser.add_argument("--predict", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.processor_time:
        count_processor_time()
    if options.predict:
        file, out = options.predict
        predict(file, out, options.processor_time)
        return
    if options.train:
        from iwlora.cli import main as iwlora

        file, out = options.train
        sys.exit(iwlora(["train", file, "--out", out]))
    print(
        f"{machine()}; {options.threads} threads; {options.rows} rows, {options.epochs:g} epochs"
        f"{'; processor time' if options.processor_time else ''}\n"
    )
    ratios = [
        f"{of}: predicted / measured"
        for of in ("peak, MiB", "added memory", "training, s", "whole run, s")
    ]
    head = ["run", "batch", *ratios[:2], "tensors alone, MiB", *ratios[2:]]
    print(table(head, []), flush=True)
    with tempfile.TemporaryDirectory() as top:
        models = {"minilm": "builtin/minilm", "small": random_bert(Path(top) / "small")}
        for number, (model, method, batch) in enumerate(CASES[: options.cases]):
            folder = Path(top) / str(number)
            folder.mkdir()
            settings = recipe(models[model], method, batch, options)
            row = comparison_row(model, settings, folder, options.threads, options.processor_time)
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
