"""The part of a run's time that goes into digests: of rows, of the model and of what the run left.

    python benchmarks/identity_cost.py recipes/compare/entailment.yaml

One arm of the comparison is trained twice. The first run begins with an empty cache of digests, as
on a new machine, and the second has that of the first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from iwlora.compare.plan.recipe import load_plan
from iwlora.results import file_digests
from iwlora.results.formats import Document
from iwlora.training.run import train
from iwlora.training.state import fingerprint
from iwlora.training.state.run_folder import RunDir
from timed_commands import line, machine, table

# What the digests consist of: (where a function is, its name, what it does).
PARTS: tuple[tuple[Any, str, str], ...] = (
    (fingerprint, "row_digests", "rows"),
    (fingerprint, "model_parts", "model and tokenizer"),
    (RunDir, "file_digests", "what the run left"),
    (Document, "save", "writing them"),
)


@contextlib.contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of each part's calls to ``seconds``."""

    def timing(function: Any, part: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started

        return call

    with contextlib.ExitStack() as stack:
        for owner, name, part in PARTS:
            replacement = timing(getattr(owner, name), part)
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--arm", default="lora")
    arguments = parser.parse_args()
    plan = load_plan(arguments.recipe, arguments.overrides)
    recipe = next(run.recipe for run in plan.runs if run.recipe.method.name == arguments.arm)
    print(f"{machine()}, {arguments.recipe}, {arguments.arm}\n")
    head = ["run", *(part for _, _, part in PARTS), "together", "share of the run's time"]
    print(table(head, []))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name in ("first", "second"):
            seconds: dict[str, float] = {}
            started = time.perf_counter()
            with timed(seconds):
                train(recipe, Path(folder) / name)
            whole, together = time.perf_counter() - started, sum(seconds.values())
            cells = [f"{seconds.get(part, 0.0):.3f} s" for _, _, part in PARTS]
            print(line([name, *cells, f"{together:.2f} s", f"{together / whole:.2%}"]))
        kept = len(list(file_digests.cache_folder().iterdir()))
    print(f"\n{kept} files in the cache of digests")


if __name__ == "__main__":
    main()
