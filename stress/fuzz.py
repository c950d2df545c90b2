"""Strange inputs of every kind to the command line: does it ever break, hang, or harm a result?

    python stress/fuzz.py                      # 10,000 inputs, the same for everyone
    python stress/fuzz.py --inputs 200 --kind key=value

Each input is one command with its files, carried out in this process beside finished runs and a
comparison whose files must stay as they are, byte for byte. What is accepted is stopped where
training would begin, except in a small part. Exits with 1 when an input ended in a traceback, was
not done within its time, or harmed a result.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzzing import data, good, recipes, results
from fuzzing.guard import ENDINGS, Guard
from fuzzing.inputs import Input

# kind: (its inputs, how many of 10,000)
KINDS: Mapping[str, tuple[Callable[[], st.SearchStrategy[Input]], int]] = {
    "recipes of runs": (recipes.runs, 1500),
    "recipes of comparisons": (recipes.comparisons, 1300),
    "key=value": (recipes.overrides, 1600),
    "YAML that unfolds": (recipes.bombs, 800),
    "data files": (data.files, 1500),
    "official layouts": (data.layouts, 800),
    "rows to predict": (data.questions, 500),
    "run folders": (results.runs, 350),
    "adapters": (results.adapters, 600),
    "comparison folders": (results.comparisons, 100),
    "tables of scores": (results.scores, 250),
    "sensitivity files": (results.sensitivities, 350),
    "aimed at good results": (results.attacks, 350),
}
HARD_LIMIT = 900.0
"""Seconds after which an input that does not even listen to a signal ends everything."""


@dataclass(frozen=True)
class Found:
    """How the inputs of a kind ended, what is to be told of the bad ones, a hash of them all."""

    endings: Counter[str]
    told: list[str]
    digest: str


def outcomes(kind: str, count: int, guard: Guard) -> Found:
    """Carry out the first ``count`` inputs of a kind."""
    found: Counter[str] = Counter()
    told: list[str] = []
    digest = hashlib.sha256()

    @seed(0)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind][0]())
    def carry_out(one: Input) -> None:
        if found["inputs"] == count:
            return
        digest.update(repr(one).encode("utf-8", "backslashreplace"))
        faulthandler.dump_traceback_later(HARD_LIMIT, exit=True)
        outcome = guard.judge(one)
        faulthandler.cancel_dump_traceback_later()
        found.update(["inputs", outcome.ending, *(["lost"] if outcome.lost else [])])
        if outcome.ending in ("traceback", "hang") or outcome.lost:
            words = outcome.told.encode("utf-8", "backslashreplace").decode()
            told.append(f"{outcome.ending}, lost {outcome.lost}: {one!r:.1000}\n{words}")

    carry_out()
    return Found(found, told, digest.hexdigest())


def of_kind(kind: str, count: int, seconds: float, results: Path) -> Found:
    """:func:`outcomes` beside a copy of good results."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(results, Path(folder) / "root"))
        return outcomes(kind, count, Guard(root, seconds))


@contextlib.contextmanager
def good_results() -> Iterator[Path]:
    """A folder with what no input may harm."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing:
        with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            good.make(Path(folder))
        yield Path(folder)


def table(rows: Mapping[str, Counter[str]]) -> str:
    """Markdown, a row for each kind and one for all."""
    columns = ("inputs", *ENDINGS, "lost")
    heads = ("inputs", "accepted", "refused with a message", "tracebacks", "hangs", "results lost")
    lines = ["| kind | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    total: Counter[str] = sum(rows.values(), Counter())
    for kind, found in [*rows.items(), ("all", total)]:
        lines.append(f"| {kind} | " + " | ".join(f"{found[name]:,}" for name in columns) + " |")
    return "\n".join(lines)


def bad(found: Counter[str]) -> int:
    """Inputs that ended as none may."""
    return found["traceback"] + found["hang"] + found["lost"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of the processor for one input; default 20"
    )
    parser.add_argument("--jobs", type=int, default=2, help="kinds at once; default 2")
    asked = parser.parse_args()
    kinds = asked.kind or list(KINDS)
    weight = sum(KINDS[kind][1] for kind in kinds)
    rows: dict[str, Counter[str]] = {}
    digest = hashlib.sha256()
    context = multiprocessing.get_context("spawn")
    with good_results() as place, ProcessPoolExecutor(asked.jobs, context) as pool:
        counts = {kind: round(asked.inputs * KINDS[kind][1] / weight) for kind in kinds}
        futures = {
            kind: pool.submit(of_kind, kind, count, asked.seconds, place)
            for kind, count in counts.items()
        }
        for kind, future in futures.items():
            found = future.result()
            digest.update(found.digest.encode())
            rows[kind] = found.endings
            print(f"{kind}: {dict(found.endings)}", file=sys.stderr, flush=True)
            for one in found.told:
                print(f"\n{one}", flush=True)
    print(f"\n{table(rows)}\n\ndigest of the inputs: {digest.hexdigest()[:16]}")
    return 1 if any(map(bad, rows.values())) else 0


if __name__ == "__main__":
    raise SystemExit(main())
