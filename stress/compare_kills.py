"""Kill a comparison, or a search of designs, at random: is its summary that of one left alone?

    python stress/compare_kills.py recipes/compare/rte.yaml --kills 20 \\
        task.data_dir=FOLDER task.max_train=64 train.epochs=1 train.max_length=16
    python stress/compare_kills.py recipes/design/entailment.yaml --command design --kills 4 \\
        task.max_train=64 train.epochs=1 'design.order=[grouping]' 'design.draws=[3]' \\
        design.error=0.4 design.lr=0.001 'method.strategies=[[lora],[bitfit],[lora],[pfeiffer]]' \\
        'confirm={methods: [lora], seeds: [0]}'

The one that is left alone has a process for each run, one after another, whatever ``--executor``
and ``--jobs`` say: so the executors are compared too. Of a search, ``found.yaml`` and the summary
of the comparison that confirms are compared as well. Every other kill hits the comparison alone and
leaves its runs working; the others hit both. With ``--executor packed`` runs are computed beside
each other, so that their sums are rounded differently: numbers may differ by 1e-3 there, and by
nothing elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMES = ("train_seconds", "measure_seconds", "examples_per_second", "peak_memory_bytes", "seconds")
ROUNDING = {"packed": 1e-3, "local": 0.0, "ray": 0.0}


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start the command of a user in a process group of its own; what it prints is in its log."""
    with log_of(out).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "iwlora", *command, "--out", str(out)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def log_of(out: Path) -> Path:
    """Where what was printed is written, beside the folder."""
    return out.with_name(f"{out.name}.log")


def failed(what: str, out: Path) -> SystemExit:
    """The end of this script, with the last lines of the log."""
    lines = log_of(out).read_text(encoding="utf-8", errors="replace").splitlines()
    return SystemExit("\n".join([f"the comparison {what}:", *lines[-10:]]))


def without_times(value: Any) -> Any:
    """A summary without what differs between two equal runs: times and remarks on resumed runs."""
    if isinstance(value, dict):
        kept = {key: v for key, v in value.items() if key not in (*TIMES, "remarks")}
        return {key: without_times(v) for key, v in kept.items()}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def read_summary(comparison: Path) -> Any:
    """What a comparison ended with, without times, and without sentences that name them.

    Of a search of designs also the recipe that it found, and what its confirmation ended with.
    """
    summary = json.loads((comparison / "summary.json").read_text(encoding="utf-8"))
    summary.pop("answers", None)  # they say folders and costs
    summary.pop("digest", None)  # of a search of designs: that of its times too
    ended = without_times(summary)
    found = comparison / "found.yaml"
    if found.is_file():
        ended["found.yaml"] = found.read_text(encoding="utf-8")
    if inside := summary.get("confirmation"):
        ended["summary of the confirmation"] = read_summary(comparison / inside)
    return ended


def largest_difference(one: Any, other: Any) -> float:
    """Between the numbers of two summaries; infinite if they differ in anything else."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(largest_difference, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else math.inf


def killed_comparisons(
    command: list[str], root: Path, kills: int, max_seconds: float
) -> Iterator[Path]:
    """Kill a comparison ``kills`` times, each time within ``max_seconds`` of its start.

    One that ends before its next kill is followed by a new one, from the start. Yields the folder
    of each comparison, after its end.
    """
    random.seed(0)
    done = 0
    for number in itertools.count():
        out = root / str(number)
        while (process := start(command, out)) and done < kills:
            try:
                code = process.wait(random.uniform(0.2, max_seconds))
            except subprocess.TimeoutExpired:
                if done % 2:
                    os.kill(process.pid, signal.SIGKILL)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                done += 1
            else:
                break
        else:
            code = process.wait()
        if code != 0:
            raise failed("failed after it was killed", out)
        yield out
        if done == kills:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--command", choices=["compare", "design"], default="compare")
    parser.add_argument("--executor", choices=ROUNDING, default="local")
    parser.add_argument("--jobs", default="1")
    arguments = parser.parse_intermixed_args()
    alone = [arguments.command, arguments.recipe, *arguments.overrides]
    command = [*alone, "--executor", arguments.executor, "--jobs", arguments.jobs]
    alone += ["--executor", "local", "--jobs", "1"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = time.monotonic()
        if start(alone, root / "alone").wait() != 0:
            raise failed("fails even if it is left alone", root / "alone")
        seconds = time.monotonic() - started
        expected = read_summary(root / "alone")
        runs = len([*(root / "alone").rglob("result.json")])
        ended = [*killed_comparisons(command, root, arguments.kills, seconds / 2)]
        largest = max(largest_difference(read_summary(out), expected) for out in ended)
    print(f"left alone: {runs} runs in {seconds:.0f} s; then killed {arguments.kills} times")
    print(f"and started again, until {len(ended)} such comparisons had ended")
    allowed = ROUNDING[arguments.executor]
    same = "the summaries are the same" + (f", numbers to {largest:.1e}" if largest else "")
    print(same if largest <= allowed else f"the summaries DIFFER, numbers by {largest:.1e}")
    return 0 if largest <= allowed else 1


if __name__ == "__main__":
    raise SystemExit(main())
