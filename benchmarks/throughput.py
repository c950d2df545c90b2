"""iwlora compared with a plain Trainer and PEFT: speed, memory and quality on RTE and MRPC.

    python benchmarks/throughput.py --glue FOLDER --out runs/throughput

Every run is a process of its own: a script with the Trainer of transformers and PEFT that leaves
everything at its default (benchmarks/plain_peft.py), or `iwlora train` with its defaults. The
order of a seed's runs rotates with the seed. Finished runs are kept in ``--out``, and the same
command continues where it was stopped. Ratios and differences are paired by seed and averaged,
with their 95% t intervals.

Examples per second count training and, for IW-LoRA, measuring, but no scoring. The whole run is
the process from its start: imports, loading, measuring, training, scoring, saving.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.paired_tests import Summary, paired_difference, summarize
from iwlora.results.durations import format_duration
from timed_commands import machine, run_command, table

PLAIN = Path(__file__).with_name("plain_peft.py")
METRICS = {"rte": "accuracy", "mrpc": "f1"}
BATCH, MAX_LENGTH = 32, 128
# Learning rates that suit each type of method; both sides of a comparison have the same.
LORA, ADALORA, FULL = 1e-3, 3e-3, 1e-4
# name in the tables -> (learning rate, method of the plain script or options of iwlora's)
ARMS: dict[str, tuple[float, str | dict[str, Any]]] = {
    "Trainer + PEFT LoRA": (LORA, "lora"),
    "Trainer + PEFT AdaLoRA": (ADALORA, "adalora"),
    "iwlora lora": (LORA, {"name": "lora"}),
    "iwlora iw-lora": (LORA, {"name": "iw-lora", "measure": "before"}),
    "iwlora iw-lora, in flight": (
        LORA,
        {"name": "iw-lora", "measure": "in-flight", "estimator": "lora"},
    ),
    "iwlora adalora": (ADALORA, {"name": "adalora"}),
    "iwlora full": (FULL, {"name": "full"}),
}
Record = Mapping[str, Any]
Records = Mapping[str, Mapping[int, Record]]


def command(options: argparse.Namespace, arm: str, task: str, seed: int, folder: Path) -> list[str]:
    """The command of one run, which writes its result into ``folder``."""
    lr, method = ARMS[arm]
    if isinstance(method, str):
        given = {
            "glue": options.glue,
            "task": task,
            "model": options.model,
            "method": method,
            "epochs": options.epochs,
            "lr": lr,
            "seed": seed,
            "out": folder / "result.json",
            "batch-size": BATCH,
            "max-length": MAX_LENGTH,
            **({"rows": options.rows} if options.rows else {}),
        }
        return [str(PLAIN), *(f"--{name}={value}" for name, value in given.items())]
    recipe = {
        "model": options.model,
        "task": {"name": f"glue/{task}", "data_dir": options.glue, "max_train": options.rows},
        "method": method,
        "train": {
            "epochs": options.epochs,
            "lr": lr,
            "seed": seed,
            "batch_size": BATCH,
            "max_length": MAX_LENGTH,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return ["-m", "iwlora", "train", str(folder / "recipe.yaml"), "--out", str(folder)]


def measured(options: argparse.Namespace, arm: str, task: str, seed: int) -> Record:
    """The record of one run, which is started unless its record exists."""
    name = f"{arm.replace(' ', '-').replace(',', '')}-seed-{seed}"
    folder = Path(options.out) / task / name
    file = folder / "cost.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cost = run_command(command(options, arm, task, seed, folder), options.threads)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        training = result["train_seconds"] + result["measure_seconds"]
        rows = result["train_examples"]
        record = {
            "examples_per_second": rows * options.epochs / training,
            "step_seconds": result["train_seconds"] / (-(-rows // BATCH) * options.epochs),
            "training_seconds": training,
            "run_seconds": cost.seconds,
            "processor_seconds": cost.processor_seconds,
            "peak_memory": cost.peak_memory,
            "metric": result["metrics"][METRICS[task]],
        }
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"{task}, seed {seed}: {arm} took {format_duration(cost.seconds)}", flush=True)
    stored: Record = json.loads(file.read_text(encoding="utf-8"))
    return stored


def ratio(records: Records, arm: str, baseline: str, field: str) -> Summary:
    """The ratio of ``field`` between two arms, paired by seed."""
    pairs = ((records[arm][seed], records[baseline][seed]) for seed in records[arm])
    return summarize([run[field] / base[field] for run, base in pairs])


def with_interval(summary: Summary, form: str, times: float = 1.0) -> str:
    """A mean with its interval, in a format of numbers.

    >>> with_interval(Summary(2, 1.5, 0.1, 1.25, 1.75), ".2f")
    '1.50 (1.25 to 1.75)'
    """
    if summary.low is None or summary.high is None:
        return f"{times * summary.mean:{form}}"
    mean, low, high = (
        f"{times * value:{form}}" for value in (summary.mean, summary.low, summary.high)
    )
    return f"{mean} ({low} to {high})"


def results(records: Records, task: str) -> str:
    """The table of a task: a row for each arm."""
    metric = METRICS[task]
    baseline, *_ = records
    rows = []
    for arm, runs in records.items():

        def mean(field: str, runs: Mapping[int, Record] = runs) -> float:
            return summarize([run[field] for run in runs.values()]).mean

        quality = summarize([run["metric"] for run in runs.values()])
        spread = "" if quality.sd is None else f" ± {display_scale(metric) * quality.sd:.1f}"
        rows.append(
            [
                arm,
                f"{mean('examples_per_second'):.1f}",
                f"{mean('step_seconds'):.3f}",
                format_duration(mean("run_seconds")),
                format_duration(mean("processor_seconds")),
                f"{mean('peak_memory') / 2**20:.0f}",
                f"{display_scale(metric) * quality.mean:.1f}{spread}",
                "" if arm == baseline else quality_difference(records, arm, baseline, metric),
            ]
        )
    head = [task.upper(), "examples/s", "s a step", "whole run", "processor time", "peak MiB"]
    return table([*head, metric, f"{metric}, minus {baseline}"], rows)


def quality_difference(records: Records, arm: str, baseline: str, metric: str) -> str:
    """The paired difference in points, with its interval."""
    scores = [
        {seed: run["metric"] for seed, run in records[name].items()} for name in (arm, baseline)
    ]
    pair = paired_difference(metric, arm, scores[0], baseline, scores[1])
    assert pair is not None
    return with_interval(pair.summary, "+.1f", display_scale(metric))


def goals(records: Records) -> list[list[str]]:
    """The rows of each goal whose arms were run."""
    lora, adalora, iwlora_lora, iw_lora, in_flight, iwlora_adalora, _ = ARMS
    comparisons: Sequence[tuple[str, str, str, str, str]] = [
        (iw_lora, lora, "examples_per_second", "examples/s", "≥ 2.0"),
        (in_flight, lora, "examples_per_second", "examples/s", "≥ 2.0"),
        (iw_lora, iwlora_lora, "training_seconds", "training with measuring", "≤ 1.02"),
        (in_flight, iwlora_lora, "training_seconds", "training with measuring", "≤ 1.02"),
        (iw_lora, iwlora_lora, "run_seconds", "whole run", "≤ 1.02"),
        (in_flight, iwlora_lora, "run_seconds", "whole run", "≤ 1.02"),
        (iw_lora, iwlora_lora, "processor_seconds", "processor time of the whole run", "≤ 1.02"),
        (in_flight, iwlora_lora, "processor_seconds", "processor time of the whole run", "≤ 1.02"),
        (iwlora_adalora, iw_lora, "training_seconds", "training with measuring", "none"),
        (adalora, iwlora_adalora, "training_seconds", "training", "none"),
    ]
    return [
        [
            f"{arm} / {baseline}",
            quantity,
            goal,
            with_interval(ratio(records, arm, baseline, field), ".3f"),
        ]
        for arm, baseline, field, quantity, goal in comparisons
        if arm in records and baseline in records
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--out", required=True, help="the folder of the runs")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--tasks", nargs="+", default=list(METRICS), choices=list(METRICS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rows", type=int, help="number of training rows; default: all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    arms = [arm for arm in ARMS if arm in options.arms]
    records: dict[str, dict[str, dict[int, Record]]] = {
        task: {arm: {} for arm in arms} for task in options.tasks
    }
    for seed in range(options.seeds):
        first = seed % len(arms)
        for arm in arms[first:] + arms[:first]:
            for task in options.tasks:
                records[task][arm][seed] = measured(options, arm, task, seed)
    rows = "all" if options.rows is None else str(options.rows)
    print(
        f"\n{machine()}; {options.threads} threads; {rows} training rows, {options.epochs} epochs, "
        f"{options.seeds} seeds\n"
    )
    for task, by_arm in records.items():
        print(results(by_arm, task) + "\n")
        head = [f"{task.upper()}: ratio of", "in", "goal", "mean (95%)"]
        print(table(head, goals(by_arm)) + "\n")


if __name__ == "__main__":
    main()
