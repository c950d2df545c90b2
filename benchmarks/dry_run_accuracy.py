"""What ``iwlora train --dry-run`` predicts over what the run then takes: memory and time.

    python benchmarks/dry_run_accuracy.py

Each dry run and each run is a process of its own. ``added`` is the peak memory without what the
process held before training. ``training`` is the steps, ``whole run`` the process from its start,
to whose prediction the dry run's own start is added.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from timed_commands import MEBI, carry_out, line, machine, table

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


def recipe(model: str, method: str, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    """A run on the embedded task, or on RTE where there is a folder with it."""
    name = "glue/rte" if given.glue else "builtin/entailment"
    task = {"name": name, "data_dir": given.glue, "max_train": given.rows, "max_validation": 128}
    train = {"epochs": given.epochs, "batch_size": batch, "lr": 1e-3}
    return {"model": model, "task": task, "method": {"name": method}, "train": train}


def predict(file: str, out: str, started: float) -> None:
    """Write the estimate of a recipe, and how long this process took to start."""
    from iwlora.training.dry_run.run_cost import estimate_run_cost
    from iwlora.training.recipe import load

    begun = time.time() - started
    found = estimate_run_cost(load(file))
    told = {
        "peak": found.memory.peak,
        "tensors": found.memory.tensors,
        "before": found.memory.before,
        "training": found.train_seconds,
        "whole": found.seconds + begun,
    }
    Path(out).write_text(json.dumps(told), encoding="utf-8")


def compared(model: str, settings: dict[str, Any], folder: Path, threads: int) -> list[str]:
    """One row: what was predicted, what was measured, and the first over the second."""
    file, out = folder / "recipe.yaml", folder / "predicted.json"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    carry_out([__file__, "--predict", str(file), str(out)], threads)
    cost = carry_out(["-m", "iwlora", "train", str(file), "--out", str(folder / "run")], threads)
    found = json.loads(out.read_text(encoding="utf-8"))
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    peak, training = result["peak_memory_bytes"], result["train_seconds"]
    added = (found["peak"] - found["before"]) / (peak - found["before"])
    return [
        f"{model}, {settings['method']['name']}",
        str(settings["train"]["batch_size"]),
        f"{found['peak'] / MEBI:.0f} / {peak / MEBI:.0f} = {found['peak'] / peak:.2f}",
        f"{added:.2f}",
        f"{found['tensors'] / MEBI:.0f}",
        f"{found['training']:.1f} / {training:.1f} = {found['training'] / training:.2f}",
        f"{found['whole']:.1f} / {cost.seconds:.1f} = {found['whole'] / cost.seconds:.2f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", help="a folder in GLUE's official layout: RTE instead")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first so many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--predict", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.predict:
        predict(*given.predict, started=psutil.Process().create_time())
        return
    print(f"{machine()}; {given.threads} threads; {given.rows} rows, {given.epochs:g} epochs\n")
    head = ["run", "batch", "peak, MiB: predicted / measured", "added", "tensors alone, MiB"]
    print(table([*head, "training, s", "whole run, s"], []), flush=True)
    with tempfile.TemporaryDirectory() as top:
        models = {"minilm": "builtin/minilm", "small": random_bert(Path(top) / "small")}
        for number, (model, method, batch) in enumerate(CASES[: given.cases]):
            folder = Path(top) / str(number)
            folder.mkdir()
            settings = recipe(models[model], method, batch, given)
            print(line(compared(model, settings, folder, given.threads)), flush=True)


if __name__ == "__main__":
    main()
