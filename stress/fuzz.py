"""Random inputs for the command line: does it ever break, hang, or harm a result?

    python stress/fuzz.py                      # 10,000 inputs, the same for everyone
    python stress/fuzz.py --inputs 200 --category key=value

Each input is one command with its files. It is executed in this process, next to finished runs
and a comparison whose files must not change by a byte. Accepted runs are stopped where training
would begin, except for a few. The exit code is 1 if an input ended in a traceback, took longer
than its time, or harmed a result.
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

from fuzzing import data, good, recipes
from fuzzing import results as result_folders
from fuzzing.guard import ENDINGS, Guard
from fuzzing.inputs import Input

# category: (a strategy for its inputs, how many of 10,000)
CATEGORIES: Mapping[str, tuple[Callable[[], st.SearchStrategy[Input]], int]] = {
    "recipes of runs": (recipes.runs, 1500),
    "recipes of comparisons": (recipes.comparisons, 1300),
    "key=value": (recipes.overrides, 1600),
    "YAML that unfolds": (recipes.bombs, 800),
    "data files": (data.files, 1500),
    "official layouts": (data.layouts, 800),
    "rows to predict": (data.questions, 500),
    "run folders": (result_folders.runs, 350),
    "adapters": (result_folders.adapters, 600),
    "comparison folders": (result_folders.comparisons, 100),
    "tables of scores": (result_folders.scores, 250),
    "sensitivity files": (result_folders.sensitivities, 350),
    "output onto results": (result_folders.attacks, 350),
}
HARD_LIMIT = 900.0
"""Seconds after which an input that ignores signals ends the whole process."""


@dataclass(frozen=True)
class CategoryResult:
    """How the inputs of a category ended, a message for each failure, a hash of all inputs."""

    endings: Counter[str]
    failures: list[str]
    digest: str


def run_category(category: str, count: int, guard: Guard) -> CategoryResult:
    """Execute the first ``count`` inputs of a category."""
    endings: Counter[str] = Counter()
    failures: list[str] = []
    digest = hashlib.sha256()

    @seed(0)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(CATEGORIES[category][0]())
    def execute(case: Input) -> None:
        if endings["inputs"] == count:
            return
        digest.update(repr(case).encode("utf-8", "backslashreplace"))
        faulthandler.dump_traceback_later(HARD_LIMIT, exit=True)
        outcome = guard.judge(case)
        faulthandler.cancel_dump_traceback_later()
        endings.update(["inputs", outcome.ending, *(["lost"] if outcome.lost else [])])
        if outcome.ending in ("traceback", "hang") or outcome.lost:
            output = outcome.output.encode("utf-8", "backslashreplace").decode()
            failures.append(f"{outcome.ending}, lost {outcome.lost}: {case!r:.1000}\n{output}")

    execute()
    return CategoryResult(endings, failures, digest.hexdigest())


def run_category_on_copy(
    category: str, count: int, seconds: float, results: Path
) -> CategoryResult:
    """:func:`run_category` next to a copy of good results."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(results, Path(folder) / "root"))
        return run_category(category, count, Guard(root, seconds))


@contextlib.contextmanager
def good_results() -> Iterator[Path]:
    """A folder with results that no input may harm."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as devnull:
        with contextlib.redirect_stdout(devnull), contextlib.redirect_stderr(devnull):
            good.make(Path(folder))
        yield Path(folder)


def table(rows: Mapping[str, Counter[str]]) -> str:
    """A Markdown table with a row for each category and one for all."""
    columns = ("inputs", *ENDINGS, "lost")
    heads = ("inputs", "accepted", "refused with a message", "tracebacks", "hangs", "results lost")
    lines = ["| category | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    total: Counter[str] = sum(rows.values(), Counter())
    for category, endings in [*rows.items(), ("all", total)]:
        cells = " | ".join(f"{endings[name]:,}" for name in columns)
        lines.append(f"| {category} | {cells} |")
    return "\n".join(lines)


def failure_count(endings: Counter[str]) -> int:
    """How many inputs ended as no input may."""
    return endings["traceback"] + endings["hang"] + endings["lost"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--category", choices=CATEGORIES, action="append", help="default: all")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="CPU seconds for one input; default 20"
    )
    parser.add_argument("--jobs", type=int, default=2, help="categories at once; default 2")
    arguments = parser.parse_args()
    categories = arguments.category or list(CATEGORIES)
    weight = sum(CATEGORIES[category][1] for category in categories)
    rows: dict[str, Counter[str]] = {}
    digest = hashlib.sha256()
    context = multiprocessing.get_context("spawn")
    with good_results() as results, ProcessPoolExecutor(arguments.jobs, context) as pool:
        futures = {}
        for category in categories:
            count = round(arguments.inputs * CATEGORIES[category][1] / weight)
            task = (category, count, arguments.seconds, results)
            futures[category] = pool.submit(run_category_on_copy, *task)
        for category, future in futures.items():
            result = future.result()
            digest.update(result.digest.encode())
            rows[category] = result.endings
            print(f"{category}: {dict(result.endings)}", file=sys.stderr, flush=True)
            for failure in result.failures:
                print(f"\n{failure}", flush=True)
    print(f"\n{table(rows)}\n\ndigest of the inputs: {digest.hexdigest()[:16]}")
    return 1 if any(map(failure_count, rows.values())) else 0


if __name__ == "__main__":
    raise SystemExit(main())
