"""Kill a comparison at random moments and ask whether its summary is that of one left alone.

    python benchmarks/compare_kills.py recipes/compare/quickstart.yaml --kills 20

Every other kill takes the comparison alone and leaves its run behind; the others take both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIMES = ("train_seconds", "measure_seconds", "examples_per_second", "peak_memory_bytes", "seconds")


def start(recipe: str, out: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    """The command of a user, in a process group of its own."""
    command = [sys.executable, "-m", "iwlora", "compare", recipe, *overrides, "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def without_times(value: Any) -> Any:
    """A summary without what differs between two runs that are the same, times and remarks of
    resumed runs."""
    if isinstance(value, dict):
        kept = {key: v for key, v in value.items() if key not in (*TIMES, "remarks")}
        return {key: without_times(v) for key, v in kept.items()}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def summary(out: Path) -> Any:
    """What a comparison ended with."""
    return without_times(json.loads((out / "summary.json").read_text(encoding="utf-8")))


def killed(recipe: str, out: Path, overrides: list[str], kills: int, within: float) -> int:
    """Start the comparison until it ends by itself, killed ``kills`` times; returns how often it
    was killed before its end."""
    random.seed(0)
    reached = 0
    for number in range(kills):
        process = start(recipe, out, overrides)
        try:
            process.wait(random.uniform(0.2, within))
        except subprocess.TimeoutExpired:
            reached += 1
            if number % 2:
                os.kill(process.pid, signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if start(recipe, out, overrides).wait() != 0:
        raise SystemExit("the comparison failed after it was killed")
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began = time.monotonic()
        if start(given.recipe, root / "alone", given.overrides).wait() != 0:
            raise SystemExit("the comparison fails even when it is left alone")
        seconds = time.monotonic() - began
        within = seconds / 2
        reached = killed(given.recipe, root / "killed", given.overrides, given.kills, within)
        same = summary(root / "alone") == summary(root / "killed")
    print(f"left alone: {seconds:.0f} s; killed {reached} times before its end")
    print("the summaries are the same" if same else "the summaries DIFFER")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
