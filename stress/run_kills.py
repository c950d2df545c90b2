"""Kill ``iwlora train`` at random moments: does it end bit for bit as one that is left alone?

    python stress/run_kills.py --kills 50

Every method trains a tiny model with dropout in deterministic mode. A run is killed with SIGKILL,
started again, sometimes killed a second time, and after its end compared with one that nobody
killed. Of ten kills four come at any moment of a run, three while it trains, two when a checkpoint
has just been started and one when the result has. Processes are forked from this one, which has
imported everything, so that a start costs no time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import iwlora.results.comparison
import iwlora.training.run  # noqa: F401  # for the processes that are forked
import tiny_study
from iwlora.cli import main as iwlora_command
from iwlora.methods import METHODS

FORK = multiprocessing.get_context("fork")
EPOCHS, STEPS, SAVE_STEPS = 3, 6, 4
MOMENTS = {"any": 4, "training": 3, "checkpoint": 2, "end": 1}  # and how often of ten
SECOND_KILL = 0.25  # the part of the runs that are killed once more
DELAY = 0.05  # seconds within which a kill follows the start of a checkpoint or of the result
TIMES = {
    "result.json": (
        *("train_seconds", "measure_seconds", "examples_per_second", "peak_memory_bytes"),
        "resumed_at_step",
    ),
    "sensitivity.json": ("seconds",),
    "metrics.jsonl": ("runtime", "samples_per_second", "steps_per_second"),
}
"""The fields of each file in which equal runs differ."""
RESULTS = ("adapter", "model", "tokenizer", "predictions")


def make_recipes(root: Path) -> dict[str, dict[str, Any]]:
    """{name: settings}: every method, and other runs with a state that a kill could lose."""
    saver = FORK.Process(target=_save_model, args=(root / "backbone",))
    saver.start()  # in a process of its own: the forks of this one must find no threads
    saver.join()
    task = tiny_study.save_task(root, train=16 * STEPS, validation=32)
    train = {"epochs": EPOCHS, "lr": 1e-2, "batch_size": 16, "max_length": 16}
    train |= {"save_steps": SAVE_STEPS, "deterministic": True}

    def recipe(name: str, **more: Any) -> dict[str, Any]:
        size = {METHODS[name].size_knob: 4} if METHODS[name].size_knob else {}
        return {
            "model": str(root / "backbone"),
            "task": {**task, **more.get("task", {})},
            "method": {"name": name, **size, **more.get("method", {})},
            "train": {**train, **more.get("train", {})},
        }

    in_flight = {"measure": "in-flight", "alpha": 0.3, "max_batches": 14, "tolerance": 0.0}
    return {
        **{name: recipe(name) for name in METHODS},
        "iw-lora, in flight": recipe("iw-lora", method=in_flight),
        "iw-lora, estimator lora": recipe("iw-lora", method={**in_flight, "estimator": "lora"}),
        "lora, best epoch": recipe("lora", task={"selection": 0.2}),
        "adalora, in pieces": recipe("adalora", train={"accumulate": 2}),
    }


def _save_model(folder: Path) -> None:
    tiny_study.save_model(folder, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)


def start(settings: Mapping[str, Any], out: Path) -> BaseProcess:
    """Start ``iwlora train`` in a process of its own."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    process = FORK.Process(target=_run_command, args=(recipe, out), daemon=True)
    process.start()
    return process


def _run_command(recipe: Path, out: Path) -> None:
    """Run the command; what it prints goes into a file next to its folder."""
    with (
        out.with_suffix(".log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        code = iwlora_command(["train", str(recipe), "--out", str(out)])
    raise SystemExit(code)


def finish(settings: Mapping[str, Any], out: Path) -> float:
    """Let a run come to its end; returns the seconds that it took."""
    started = time.monotonic()
    process = start(settings, out)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run failed: {out.with_suffix('.log').read_text(encoding='utf-8')}")
    return time.monotonic() - started


def kill(settings: Mapping[str, Any], out: Path, seconds: float, rng: random.Random) -> bool:
    """Start a run and kill it at a random moment; False if it had ended before.

    Args:
        settings: Those of the run.
        out: Its folder.
        seconds: How long an undisturbed run takes.
        rng: Draws the moment.
    """
    moment = rng.choices([*MOMENTS], [*MOMENTS.values()])[0]
    checkpoint = SAVE_STEPS * rng.randint(1, EPOCHS * STEPS // SAVE_STEPS)
    reached: dict[str, Callable[[], bool]] = {
        "any": lambda: True,
        "training": (out / "metrics.jsonl").exists,
        "checkpoint": (out / "checkpoints" / f"checkpoint-{checkpoint}").exists,
        "end": lambda: any((out / name).exists() for name in RESULTS),
    }
    process = start(settings, out)
    while process.is_alive() and not reached[moment]():
        time.sleep(0.0005)
    longest = {"any": seconds, "training": seconds / 2}.get(moment, DELAY)
    process.join(rng.uniform(0, longest))
    process.kill()
    process.join()
    return process.exitcode != 0


def activity(out: Path) -> str:
    """What a killed run was doing, according to its folder."""
    checkpoints = out / "checkpoints"
    newest = max(checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name[11:]), default=None)
    if any((out / name).exists() for name in RESULTS):
        return "writing its result"
    if newest is not None and not (newest / "complete.json").exists():
        return "writing a checkpoint"
    if newest is not None and (newest / "sensitivity-in-flight.json").exists():
        return "measuring in flight"
    return "training" if (out / "metrics.jsonl").exists() else "not training yet"


def read_results(out: Path) -> dict[str, Any]:
    """{file: its content} of all results of a run, without times; bytes for binary files."""
    files = [path for name in RESULTS for path in sorted((out / name).rglob("*"))]
    results: dict[str, Any] = {
        path.relative_to(out).as_posix(): path.read_bytes() for path in files if path.is_file()
    }
    for name, times in TIMES.items():
        if (out / name).exists():
            text = (out / name).read_text(encoding="utf-8")
            lines = text.splitlines() if name.endswith(".jsonl") else [text]
            results[name] = [_without(json.loads(line), times) for line in lines]
    for log in out.glob("checkpoints/*.jsonl"):
        results[log.name] = log.read_bytes()
    return results


def _without(record: Mapping[str, Any], times: tuple[str, ...]) -> dict[str, Any]:
    """A record without the times, and without the digests that depend on them."""
    kept = {key: value for key, value in record.items() if key not in (*times, "digest")}
    if "files" in kept:
        kept["files"] = {name: d for name, d in kept["files"].items() if name not in TIMES}
    return kept


def differing_files(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The files that two runs do not share, or whose content differs."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def kill_runs(
    recipes: Mapping[str, Mapping[str, Any]],
    root: Path,
    kills: int,
    announce: Callable[[str], None],
) -> int:
    """Kill ``kills`` runs, taking the recipes in turn; returns how many ended as they should."""
    rng = random.Random(0)
    undisturbed: dict[str, tuple[dict[str, Any], float]] = {}
    activities: Counter[str] = Counter()
    identical = 0
    for number in range(kills):
        name = [*recipes][number % len(recipes)]
        settings = recipes[name]
        if name not in undisturbed:
            seconds = finish(settings, root / name)
            undisturbed[name] = read_results(root / name), seconds
        expected, seconds = undisturbed[name]
        attempts = (root / f"{number}-{attempt}" for attempt in range(1000))
        out = next(out for out in attempts if kill(settings, out, seconds, rng))
        doing = activity(out)
        activities[doing] += 1
        if rng.random() < SECOND_KILL and kill(settings, out, seconds, rng):
            activities[activity(out)] += 1
        finish(settings, out)
        different = differing_files(expected, read_results(out))
        identical += not different
        resumed = json.loads((out / "result.json").read_text(encoding="utf-8"))["resumed_at_step"]
        ending = f"DIFFERENT: {', '.join(different)}" if different else "identical"
        announce(f"{name:<24}{doing:<22}{resumed:>4}   {ending}")
    counts = ", ".join(f"{count} while {doing}" for doing, count in activities.most_common())
    announce(f"\n{sum(activities.values())} kills: {counts}")
    return identical


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="+", help="names in the table; default: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        recipes = make_recipes(root)
        recipes = {name: recipes[name] for name in arguments.only or recipes}
        print(f"{'run':<24}{'killed while':<22}{'from':>4}   ending")
        identical = kill_runs(recipes, root, arguments.kills, lambda line: print(line, flush=True))
    print(f"{identical} of {arguments.kills} bit-identical")
    return 0 if identical == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
