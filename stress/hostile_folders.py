"""Foreign folders that want to do harm: does any command open, run, ask or print what it must not?

    python stress/hostile_folders.py                         # 10,000 folders
    python stress/hostile_folders.py --first 3000 --cases 500 --jobs 1
    python stress/hostile_folders.py --first 1234 --cases 1  # one of them, with what it printed

Each case is a sound folder (of a run, an adapter, a model, recipes, tables, ...) that was changed
by rules of its files' formats, and a command that opens it. The command works in a fork of this
process, for at most 10 seconds and in 2 GB. Case k of a seed is the same on every machine. With
``--traced`` cases the same rules are checked below Python too, by strace. The exit code is 1 if a
case broke a rule.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}

import torch

import iwlora
from hostile import originals, system_calls
from hostile.case import Case, draw, named, names_of_files, prepare
from hostile.execute import Outcome, execute
from hostile.judge import PROPERTIES
from hostile.originals import KINDS
from hostile.regressions import REGRESSIONS
from hostile.roots import roots
from iwlora.testing.processes import PRELOADED

FORK = multiprocessing.get_context("fork")


def make_originals(root: Path) -> None:
    """Make the sound folders in a fork, and import what that imported."""
    work = FORK.Process(target=_make, args=(root,))
    work.start()
    work.join()
    if work.exitcode:
        raise SystemExit("the sound folders could not be made")


def _make(root: Path) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    originals.make(root)
    names = [name for name in sys.modules if name.partition(".")[0] != "__main__"]
    (root / "modules.json").write_text(json.dumps(names), encoding="utf-8")


def preload(root: Path) -> None:
    """Import what commands import later, so that each fork does not."""
    own = [module.name for module in pkgutil.walk_packages(iwlora.__path__, "iwlora.")]
    made = json.loads((root / "modules.json").read_text(encoding="utf-8"))
    for name in [*PRELOADED, *(name for name in own if name != "iwlora.__main__"), *made]:
        try:
            importlib.import_module(name)
        except ImportError:  # a module that another one made, without a file
            continue
    gc.freeze()  # the pages of what is imported stay shared


def _run(task: tuple[Path, str, Case]) -> tuple[str, Outcome]:
    root, name, case = task
    torch.set_num_threads(1)
    return name, execute(case, root, root / "cases" / name.replace(" ", "-"))


def run_traced(root: Path, seed: int, numbers: Sequence[int]) -> None:
    """Run cases in this process, which strace watches, and note the process of each."""
    preload(root)
    files = names_of_files(root / "originals")
    with (root / "started").open("w", encoding="utf-8") as started:
        for number in numbers:

            def note(process: int, number: int = number) -> None:
                print(number, process, file=started, flush=True)

            execute(draw(seed, number, files), root, root / "cases" / f"traced-{number}", note)


def traced(root: Path, seed: int, numbers: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """(case, property, by what) that strace sees of cases which run once more."""
    folder = root / "traces"
    folder.mkdir()
    options = ["--seed", str(seed), "--root", str(root), "--numbers", ",".join(map(str, numbers))]
    command = [*system_calls.STRACE, system_calls.CALLS, "-o", str(folder / "calls")]
    subprocess.run([*command, sys.executable, __file__, *options], check=True)
    files = names_of_files(root / "originals")
    for line in (root / "started").read_text(encoding="utf-8").splitlines():
        number, process = map(int, line.split())
        case, place = draw(seed, number, files), root / "cases" / f"traced-{number}"
        arguments = prepare(case, root, place)  # again, for the names in its recipes
        allowed = roots(place, root, named(arguments, place / "it"))
        shutil.rmtree(place)
        for name, detail in system_calls.broken(folder / "calls", process, allowed):
            if name != "network" or not case.touches_recipe:
                yield number, name, detail


def table(outcomes: Iterable[Outcome]) -> str:
    """A Markdown table with a row for each kind of folder and one for all."""
    rows: dict[str, Counter[str]] = {name: Counter() for name in (*KINDS, "all")}
    for outcome in outcomes:
        names = ["folders", "accepted" if outcome.accepted else "refused", *_properties(outcome)]
        for row in (outcome.case.kind, "all"):
            rows[row].update(names)
    columns = ("folders", "accepted", "refused", *PROPERTIES)
    lines = ["| kind | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, counts in rows.items():
        if counts:
            cells = " | ".join(f"{counts[column]:,}" for column in columns)
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def _properties(outcome: Outcome) -> set[str]:
    return {name for name, _ in outcome.broken}


def describe(name: str, outcome: Outcome, printed: bool = False) -> str:
    """What a case was and which rules it broke, to be read and to become a regression."""
    lines = [f"{name}: exit {outcome.ending.code}: {outcome.case!r}"]
    lines += [f"  {broken}: {detail}" for broken, detail in dict.fromkeys(outcome.broken)]
    if printed:
        lines += [(outcome.ending.out + outcome.ending.err).decode("utf-8", "backslashreplace")]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000, help="default 10,000")
    parser.add_argument("--first", type=int, default=0, help="the first case; default 0")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once; default 2")
    parser.add_argument("--traced", type=int, default=0, help="cases for strace; default 0")
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--numbers", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.numbers:  # under strace
        run_traced(arguments.root, arguments.seed, list(map(int, arguments.numbers.split(","))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make_originals(root)
        preload(root)
        return _run_all(root, arguments)


def _run_all(root: Path, arguments: argparse.Namespace) -> int:
    numbers = range(arguments.first, arguments.first + arguments.cases)
    files = names_of_files(root / "originals")
    known = [Case(kind, KINDS[kind].commands[0], (), False) for kind in KINDS] + [*REGRESSIONS]
    named = {f"known {number}": case for number, case in enumerate(known)}
    named |= {f"case {number}": draw(arguments.seed, number, files) for number in numbers}
    outcomes: list[Outcome] = []
    failed, started = False, time.monotonic()
    with FORK.Pool(arguments.jobs) as pool:
        tasks = [(root, name, case) for name, case in named.items()]
        for name, outcome in pool.imap_unordered(_run, tasks):
            if name.startswith("case"):
                outcomes.append(outcome)
            unsound = not outcome.case.changes and not outcome.accepted
            failed |= unsound or bool(outcome.broken)
            alone = len(numbers) == 1 and name.startswith("case")
            if outcome.broken or unsound or alone:
                print(describe(name, outcome, alone), flush=True)
    print(f"\n{table(outcomes)}\n")
    seconds = time.monotonic() - started
    print(f"{len(outcomes):,} cases of seed {arguments.seed}, and {len(known)} known ones")
    print(f"{seconds:.0f} s", file=sys.stderr)
    if arguments.traced:
        step = max(1, len(numbers) // arguments.traced)
        chosen = numbers[::step][: arguments.traced]
        found = list(traced(root, arguments.seed, chosen))
        for number, name, detail in found:
            print(f"case {number} under strace: {name}: {detail}")
        print(f"{len(chosen):,} of them under strace: {len(found)} rules broken")
        failed |= bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
