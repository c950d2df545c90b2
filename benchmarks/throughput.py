"""iwlora against what users run today: speed, memory and quality on RTE and MRPC, paired by seed.

    python benchmarks/throughput.py --glue FOLDER --out runs/throughput

Every run is a process of its own: a script with transformers' Trainer and PEFT, everything left at
its default (benchmarks/plain_peft.py), or `iwlora train` with its defaults. The runs of a seed
follow each other in an order that turns with the seed. Finished runs are kept in ``--out``, and the
same command goes on where it was stopped. Ratios are taken within a seed, then averaged, with
their 95% t intervals; so are differences in quality.

Examples per second count training and, for IW-LoRA, measuring; scoring is left out. The whole run
is the process from its start: imports, loading, measuring, training, scoring, saving.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from iwlora.compare.number_format import display_scale, format_duration
from iwlora.compare.statistics.paired_tests import Summary, paired_difference, summarise
from timed_commands import carry_out, machine, table

PLAIN = Path(__file__).with_name("plain_peft.py")
METRICS = {"rte": "accuracy", "mrpc": "f1"}
BATCH, MAX_LENGTH = 32, 128
# Learning rates that suit the kinds of methods; within a kind both sides have the same.
LORA, ADALORA, FULL = 1e-3, 3e-3, 1e-4
# name in the tables -> (learning rate, method of the plain script or options of iwlora's)
ARMS: dict[str, tuple[float, str | dict[str, Any]]] = {
    "Trainer + PEFT LoRA": (LORA, "lora"),
    "Trainer + PEFT AdaLoRA": (ADALORA, "adalora"),
    "iwlora lora": (LORA, {"name": "lora"}),
    "iwlora iw-lora": (LORA, {"name": "iw-lora"}),
    "iwlora iw-lora, in flight": (
        LORA,
        {"name": "iw-lora", "measure": "in-flight", "estimator": "lora"},
    ),
    "iwlora adalora": (ADALORA, {"name": "adalora"}),
    "iwlora full": (FULL, {"name": "full"}),
}
Record = Mapping[str, Any]
Records = Mapping[str, Mapping[int, Record]]


def command(given: argparse.Namespace, arm: str, task: str, seed: int, folder: Path) -> list[str]:
    """What carries out one run, and leaves its result in ``folder``."""
    lr, method = ARMS[arm]
    if isinstance(method, str):
        options = {
            "glue": given.glue,
            "task": task,
            "model": given.model,
            "method": method,
            "epochs": given.epochs,
            "lr": lr,
            "seed": seed,
            "out": folder / "result.json",
            "batch-size": BATCH,
            "max-length": MAX_LENGTH,
            **({"rows": given.rows} if given.rows else {}),
        }
        return [str(PLAIN), *(f"--{name}={value}" for name, value in options.items())]
    recipe = {
        "model": given.model,
        "task": {"name": f"glue/{task}", "data_dir": given.glue, "max_train": given.rows},
        "method": method,
        "train": {
            "epochs": given.epochs,
            "lr": lr,
            "seed": seed,
            "batch_size": BATCH,
            "max_length": MAX_LENGTH,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return ["-m", "iwlora", "train", str(folder / "recipe.yaml"), "--out", str(folder)]


def measured(given: argparse.Namespace, arm: str, task: str, seed: int) -> Record:
    """The record of one run: read where it is there already, else carried out."""
    name = f"{arm.replace(' ', '-').replace(',', '')}-seed-{seed}"
    folder = Path(given.out) / task / name
    file = folder / "cost.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cost = carry_out(command(given, arm, task, seed, folder), given.threads)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        training = result["train_seconds"] + result["measure_seconds"]
        rows = result["train_examples"]
        record = {
            "examples_per_second": rows * given.epochs / training,
            "step_seconds": result["train_seconds"] / (-(-rows // BATCH) * given.epochs),
            "training_seconds": training,
            "run_seconds": cost.seconds,
            "processor_seconds": cost.processor_seconds,
            "peak_memory": cost.peak_memory,
            "metric": result["metrics"][METRICS[task]],
        }
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"{task}, seed {seed}: {arm} took {format_duration(cost.seconds)}", flush=True)
    found: Record = json.loads(file.read_text(encoding="utf-8"))
    return found


def ratio(records: Records, arm: str, baseline: str, field: str) -> Summary:
    """Of ``field`` in the runs of two arms, within each seed."""
    pairs = ((records[arm][seed], records[baseline][seed]) for seed in records[arm])
    return summarise([one[field] / other[field] for one, other in pairs])


def told(found: Summary, form: str, times: float = 1.0) -> str:
    """A mean with its interval, in a format of numbers.

    >>> told(Summary(2, 1.5, 0.1, 1.25, 1.75), ".2f")
    '1.50 (1.25 to 1.75)'
    """
    if found.low is None or found.high is None:
        return f"{times * found.mean:{form}}"
    mean, low, high = (f"{times * value:{form}}" for value in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


def results(records: Records, task: str) -> str:
    """The table of a task: a row for each arm."""
    metric = METRICS[task]
    baseline, *_ = records
    rows = []
    for arm, runs in records.items():

        def mean(field: str, runs: Mapping[int, Record] = runs) -> float:
            return summarise([run[field] for run in runs.values()]).mean

        quality = summarise([run["metric"] for run in runs.values()])
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
    return told(pair.summary, "+.1f", display_scale(metric))


def goals(records: Records) -> list[list[str]]:
    """(what, ratio) of each goal whose arms were run."""
    lora, adalora, ours, weighted, flying, pruned, _ = ARMS
    wanted: Sequence[tuple[str, str, str, str, str]] = [
        (weighted, lora, "examples_per_second", "examples/s", "≥ 2.0"),
        (flying, lora, "examples_per_second", "examples/s", "≥ 2.0"),
        (weighted, ours, "training_seconds", "training with measuring", "≤ 1.02"),
        (flying, ours, "training_seconds", "training with measuring", "≤ 1.02"),
        (weighted, ours, "run_seconds", "whole run", "≤ 1.02"),
        (flying, ours, "run_seconds", "whole run", "≤ 1.02"),
        (weighted, ours, "processor_seconds", "processor time of the whole run", "≤ 1.02"),
        (flying, ours, "processor_seconds", "processor time of the whole run", "≤ 1.02"),
        (pruned, weighted, "training_seconds", "training with measuring", "a fact"),
        (adalora, pruned, "training_seconds", "training", "a fact"),
    ]
    return [
        [f"{arm} / {baseline}", what, goal, told(ratio(records, arm, baseline, field), ".3f")]
        for arm, baseline, field, what, goal in wanted
        if arm in records and baseline in records
    ]


def main(arguments: Sequence[str] | None = None, tell: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--out", required=True, help="the folder of the runs")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--tasks", nargs="+", default=list(METRICS), choices=list(METRICS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rows", type=int, help="training rows; without it all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    arms = [arm for arm in ARMS if arm in given.arms]
    found: dict[str, dict[str, dict[int, Record]]] = {
        task: {arm: {} for arm in arms} for task in given.tasks
    }
    for seed in range(given.seeds):
        turn = seed % len(arms)
        for arm in arms[turn:] + arms[:turn]:
            for task in given.tasks:
                found[task][arm][seed] = measured(given, arm, task, seed)
    rows = "all" if given.rows is None else str(given.rows)
    tell(
        f"\n{machine()}; {given.threads} threads; {rows} training rows, {given.epochs} epochs, "
        f"{given.seeds} seeds\n"
    )
    for task, records in found.items():
        tell(results(records, task) + "\n")
        tell(
            table([f"{task.upper()}: ratio of", "in", "goal", "mean (95%)"], goals(records)) + "\n"
        )


if __name__ == "__main__":
    main()
