"""What IW-LoRA adds to LoRA in whole runs, in pairs: measuring in flight and the penalty.

    OMP_NUM_THREADS=1 python benchmarks/measuring_in_runs.py --glue FOLDER

Two processes train the same rows in the same order: LoRA, and IW-LoRA, which by default measures in
its first steps. They take turns: one trains a step, then the other, so that other work on the
machine slows both alike. Each process counts its own processor time: of its training steps, and of
everything from its start to its end, with imports, loading, scoring and saving. Prints the ratios,
paired by seed, with 95% t intervals.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any

from iwlora.compare.statistics.paired_tests import summarize
from timed_commands import machine, table

LORA, IW_LORA = ARMS = ("lora", "iw-lora")


def recipe(given: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    """The settings of one run."""
    return {
        "model": given.model,
        "task": {"name": given.task, "data_dir": given.glue, "max_train": given.rows},
        "method": {"name": method},
        "train": {
            "epochs": given.epochs,
            "lr": 1e-3,
            "seed": seed,
            "max_length": given.max_length,
        },
    }


def run_in_turns(settings: Mapping[str, Any], out: str, turn: Connection) -> None:
    """One run in this process: before each step it ends its turn and waits for the next one."""
    turn.recv()
    import torch
    import transformers

    from iwlora.training import recipe as recipes
    from iwlora.training import run

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    steps = {"seconds": 0.0, "began": 0.0}

    class Turns(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turn.send(None)
            turn.recv()
            steps["began"] = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps["seconds"] += time.process_time() - steps["began"]

    defaults: list[Any] = transformers.trainer.DEFAULT_CALLBACKS
    defaults.append(Turns)
    run.train(recipes.build(settings), out, floors="constant")
    turn.send({"steps": steps["seconds"], "run": time.process_time()})


def in_turns(given: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Processor seconds of each arm with one seed; who begins changes with the seed.

    Raises:
        EOFError: a run failed; its error is printed before.
    """
    first = seed % len(ARMS)
    context = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ending:
        turns = {}
        for arm in (*ARMS[first:], *ARMS[:first]):
            turns[arm], theirs = context.Pipe()
            arguments = (recipe(given, arm, seed), str(Path(folder) / arm), theirs)
            process = context.Process(target=run_in_turns, args=arguments)
            process.start()
            theirs.close()
            ending.callback(process.join)
            ending.callback(process.terminate)
        while len(found) < len(ARMS):
            for arm in [arm for arm in turns if arm not in found]:
                turns[arm].send(None)
                if (seconds := turns[arm].recv()) is not None:
                    found[arm] = seconds
    return found


def ratios(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """The rows of the table, from the seconds of each seed and arm.

    >>> pair = {"lora": {"steps": 4.0, "run": 8.0}, "iw-lora": {"steps": 5.0, "run": 9.0}}
    >>> for row in ratios([pair, pair]):
    ...     print(row)
    ['training steps', '4.0', '5.0', '1.250 (1.250 to 1.250)']
    ['whole run', '8.0', '9.0', '1.125 (1.125 to 1.125)']
    """
    rows = []
    for field, name in (("steps", "training steps"), ("run", "whole run")):
        seconds = [fmean(seed[arm][field] for seed in found) for arm in ARMS]
        ratio = summarize([seed[IW_LORA][field] / seed[LORA][field] for seed in found])
        means = [f"{mean:.1f}" for mean in seconds]
        rows.append([name, *means, f"{ratio.mean:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--task", default="glue/mrpc")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=10, help="at least 2")
    given = parser.parse_args(arguments)
    found = []
    for seed in range(given.seeds):
        found.append(in_turns(given, seed))
        seconds = [f"{arm} {cost['run']:.1f} s" for arm, cost in found[-1].items()]
        print(f"seed {seed}: {', '.join(seconds)}", flush=True)
    print(
        f"\n{machine()}; 1 thread; {given.task}, {given.rows} rows, epochs: {given.epochs}, "
        f"{given.seeds} seeds\n"
    )
    head = ["processor time of", *(f"{arm}, s" for arm in ARMS), "ratio (95%)"]
    print(table(head, ratios(found)))


if __name__ == "__main__":
    main()
