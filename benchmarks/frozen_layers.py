"""A whole comparison with frozen blocks computed once, and with all computed each time.

    python benchmarks/frozen_layers.py --glue FOLDER --out runs/frozen-layers

The upper third of MiniLM is adapted with LoRA on SST-2, at several learning rates and on several
draws of training rows. Both comparisons are one `iwlora compare` each, which grow in turns by a
part of the draws, so that a change of the machine's speed meets both. Finished parts are kept in
``--out``, and the same command continues where it was stopped. A second table has the processor
time and the peak memory that `iwlora compare --dry-run` predicts beside those measured.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from iwlora.compare.statistics.paired_tests import summarize
from iwlora.results.durations import format_duration
from timed_commands import MEBI, count_processor_time, machine, run_command, table

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


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def predicted(options: argparse.Namespace, name: str) -> tuple[float, float]:
    """(processor seconds, MiB of the largest run) that a dry run of the comparison predicts."""
    out = Path(options.out) / f"{name.replace(' ', '-')}-predicted.txt"
    if not out.is_file():
        given = json.dumps(recipe(options, SETTINGS[name], options.draws))
        run_command([__file__, "--predict", given, "--glue", options.glue, "--out", str(out)], 1)
    *_, memory, last = out.read_text(encoding="utf-8").splitlines()
    time = last.rpartition("about ")[2].partition(" with")[0]
    seconds = sum(
        float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+) (s|min|h)", time)
    )
    return seconds, 1024 * float(re.findall(r"([\d.]+) GiB", memory)[0])


def predict(settings: str, out: str) -> None:
    """Write what the dry run of a comparison prints, in processor time."""
    count_processor_time()
    from iwlora.compare.plan.cost_estimate import estimate_cost
    from iwlora.compare.plan.recipe import plan_settings

    text = estimate_cost(plan_settings(json.loads(settings)), 1)
    Path(out).write_text(re.sub("\n+", "\n", text), encoding="utf-8")


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
    accuracy = summarize([100 * result["metrics"]["accuracy"] for result in results]).mean
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
    parser.add_argument("--predict", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.predict:
        predict(options.predict, options.out)
        return
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
    rows, predictions = [], []
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
        seconds, peak = predicted(options, name)
        predictions.append(
            [
                name,
                f"{seconds:.0f} / {cost['processor_seconds']:.0f} = "
                f"{seconds / cost['processor_seconds']:.2f}",
                f"{peak:.0f} / {memory / MEBI:.0f} = {peak * MEBI / memory:.2f}",
            ]
        )
    head = ["whole comparison", "wall time", "processor time", "times faster", "in processor time"]
    print(table([*head, "peak MiB of a run", "MiB on the disk", "accuracy"], rows))
    head = ["predicted / measured", "processor time, s", "peak of a run, MiB"]
    print("\n" + table(head, predictions))


if __name__ == "__main__":
    main()
