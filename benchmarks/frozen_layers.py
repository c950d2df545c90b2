"""A whole comparison with frozen blocks computed once, and with all computed each time.

    python benchmarks/frozen_layers.py --glue FOLDER --out runs/frozen-layers

The upper third of MiniLM is adapted with LoRA on SST-2, at several learning rates and on several
draws of training rows. Both comparisons are one `iwlora compare` each, which grow in turns by a
part of the draws, so that a change of the machine's speed meets both. Finished parts are kept in
``--out``, and the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from iwlora.compare.statistics.paired_tests import summarise
from iwlora.results.durations import format_duration
from timed_commands import machine, run_command, table

LEARNING_RATES = (3e-4, 1e-3, 2e-3, 4e-3)
# The rows of the table: its name -> train.cache_frozen
SETTINGS: dict[str, bool] = {"all blocks each time": False, "frozen blocks once": True}
UPPER_THIRD = r".*layer\.(4|5)\..*"


def recipe(options: argparse.Namespace, cache_frozen: bool, draws: int) -> dict[str, Any]:
    """The comparison of the first draws: an arm for each learning rate."""
    learning_rates = LEARNING_RATES[: options.learning_rates]
    return {
        "model": "builtin/minilm",
        "task": {"name": "glue/sst2", "data_dir": options.glue, "max_train": options.rows},
        "targets": UPPER_THIRD,
        "methods": [
            {"name": "lora", "label": f"lr-{lr:g}", "train": {"lr": lr}} for lr in learning_rates
        ],
        "seeds": list(range(draws)),
        "train": {"epochs": options.epochs, "batch_size": 32, "cache_frozen": cache_frozen},
    }


def measured(options: argparse.Namespace, name: str, draws: int) -> dict[str, Any]:
    """The cost of growing a comparison to so many draws."""
    folder = Path(options.out) / name.replace(" ", "-")
    file = Path(options.out) / f"{folder.name}-{draws}.json"
    if not file.is_file():
        source = folder.with_suffix(".yaml")
        source.parent.mkdir(parents=True, exist_ok=True)
        settings = recipe(options, SETTINGS[name], draws)
        source.write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = ["-m", "iwlora", "compare", str(source), "--out", str(folder)]
        cost = run_command(command, options.threads)
        record = {"seconds": cost.seconds, "processor_seconds": cost.processor_seconds}
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"{name}, {draws} draws: {format_duration(cost.seconds)}", flush=True)
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return stored


def quality(folder: Path) -> tuple[float, int]:
    """(the mean accuracy, the most bytes of memory) of the runs in a folder."""
    results = [json.loads(file.read_text()) for file in folder.glob("lr-*/seed-*/result.json")]
    accuracy = summarise([100 * result["metrics"]["accuracy"] for result in results]).mean
    return accuracy, max(result["peak_memory_bytes"] for result in results)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--out", required=True, help="the folder of the comparisons")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--parts", type=int, default=2, help="turns that the draws are split into")
    parser.add_argument("--learning-rates", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--rows", type=int, default=2000, help="training rows of a draw")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    sums = {name: {"seconds": 0.0, "processor_seconds": 0.0} for name in SETTINGS}
    for part in range(1, options.parts + 1):
        draws = options.draws * part // options.parts
        for name in list(SETTINGS)[:: 1 if part % 2 else -1]:
            for field, value in measured(options, name, draws).items():
                sums[name][field] += value
    print(
        f"\n{machine()}; {options.threads} threads; {options.draws} draws of {options.rows} rows × "
        f"{options.learning_rates} learning rates, {options.epochs} epochs\n"
    )
    plain, _ = sums.values()
    rows = []
    for name, cost in sums.items():
        folder = Path(options.out) / name.replace(" ", "-")
        accuracy, memory = quality(folder)
        files = [file for file in folder.glob("frozen-layers/*/*") if file.is_file()]
        rows.append(
            [
                name,
                format_duration(cost["seconds"]),
                format_duration(cost["processor_seconds"]),
                f"{plain['seconds'] / cost['seconds']:.2f}",
                f"{plain['processor_seconds'] / cost['processor_seconds']:.2f}",
                f"{memory / 2**20:.0f}",
                f"{sum(file.stat().st_size for file in files) / 2**20:.0f}",
                f"{accuracy:.1f}",
            ]
        )
    head = ["whole comparison", "wall time", "processor time", "times faster", "in processor time"]
    print(table([*head, "peak MiB of a run", "MiB on the disk", "accuracy"], rows))


if __name__ == "__main__":
    main()
