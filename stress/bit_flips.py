"""Change one byte of what a run is made of: is it named, or is a wrong result used in silence?

    python stress/bit_flips.py --flips 200

Files are inputs (data, model, tokenizer) and what a finished run and a killed one left. After each
change `iwlora verify --inputs` and the next commands run: `train` on the same folder, and for the
finished run `predict` and `report`. A change is named where the output says which file or input it
is. Where the next commands do not name it, they must end with the bits that they have without the
change: the killed run is trained to its end, and a changed input gives these bits in a new run. A
change of a finished run's files must be named. Anything else is silent, and the exit code is 1.

Commands run in processes that are forked from this one, which has imported everything.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import iwlora.compare.report.write
import iwlora.training.run
import iwlora.training.state.verify  # noqa: F401  # for the processes that are forked
import tiny_study
from iwlora.cli import main as iwlora_command
from iwlora.results import file_digests
from iwlora.training.loop.callbacks import MetricsLog
from run_kills import differing_files, read_results

FORK = multiprocessing.get_context("fork")
KILLED_BEFORE = 11  # of 12 steps; checkpoints are written after 5 and 10
FINISHED, KILLED = "finished", "killed"
Span = tuple[int, int]
COLUMNS = ("named by verify", "named by the next command", "same bits", "silent")
PREDICTED = "predicted.csv"
RESULTS_OF_RUN = "the results of the run"
PROBLEM = re.compile(
    r"^(?:(?:error:|changed|missing|unknown) .*|.*(?:is damaged|is not used|was edited).*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Args:
        files: Patterns, below the folder of the run or, for inputs, below the root.
        words: What a message calls it, as a regular expression; or it has the file's name.
        spans: The parts of a file that are meant; None: all of it.
        is_input: Whether it belongs to the data or the model.
    """

    files: tuple[str, ...]
    words: str
    spans: Callable[[bytes], Sequence[Span]] | None = None
    is_input: bool = False


def _cells(first: bool) -> Callable[[bytes], Sequence[Span]]:
    """Where the first, or the last, cell of each row of a CSV file is."""

    def spans(content: bytes) -> Sequence[Span]:
        begin, found = 0, []
        for line in content.splitlines(keepends=True):
            comma = begin + line.rindex(b",")
            found.append((begin, comma) if first else (comma + 1, begin + len(line)))
            begin += len(line)
        return found

    return spans


def _tensors(part: str) -> Callable[[bytes], Sequence[Span]]:
    """Where the tensors of a safetensors file are whose names hold ``part``."""

    def spans(content: bytes) -> Sequence[Span]:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        return [
            (start + tensor["data_offsets"][0], start + tensor["data_offsets"][1])
            for name, tensor in header.items()
            if part in name
        ]

    return spans


INPUTS = {
    "texts": Kind(("data/*.csv",), "texts|rows", _cells(True), True),
    "labels": Kind(("data/*.csv",), "labels|rows|class names", _cells(False), True),
    "model weights": Kind(("model/model.safetensors",), "model weights|load the model", None, True),
    "model configuration": Kind(("model/config.json",), "model configuration", None, True),
    "tokenizer": Kind(("model/*token*.json", "model/vocab.txt"), "tokenizer", None, True),
    "cache of digests": Kind(("cache/iwlora/file-digests/*.json",), "model weights", None, True),
}
RECORDS = {
    "recipe": Kind(("recipe.yaml",), "recipe"),
    "measurement": Kind(("sensitivity.json",), "sensitivity"),
    "checkpoints": Kind(("checkpoints/checkpoint-*/*",), "checkpoint-"),
    "best epoch": Kind(("checkpoints/best.safetensors",), "best epoch"),
    "logs": Kind(("metrics.jsonl", "checkpoints/penalty.jsonl"), "jsonl"),
    "status, environment": Kind(("status.json", "environment.json"), "json"),
    "fingerprint": Kind(("fingerprint.json",), "fingerprint"),
    "digests of rows": Kind(("row-digests.json",), "row-digests"),
}
RESULTS = {
    "adapter": Kind(("adapter/*.safetensors",), "adapter", _tensors("lora_")),
    "head": Kind(("adapter/*.safetensors",), "adapter", _tensors("classifier")),
    "other files of the adapter": Kind(("adapter/*.json", "tokenizer/*"), "adapter|tokenizer"),
    "predictions": Kind(("predictions/*.csv",), "predictions"),
    "metrics and result": Kind(("result.json",), "result"),
}
KINDS: Mapping[str, Mapping[str, Kind]] = {
    FINISHED: {**INPUTS, **RECORDS, **RESULTS},
    KILLED: {**INPUTS, **RECORDS},
}


@dataclass(frozen=True)
class Flip:
    """One byte to change: of which run, kind and file, where, and what it is XORed with."""

    run: str
    kind: str
    file: str
    offset: int
    mask: int

    def __str__(self) -> str:
        return f"{self.run} run, {self.kind}: {self.file}, byte {self.offset} ^ {self.mask:#04x}"


@dataclass(frozen=True)
class Ending:
    """How commands ended: exit code, and all that they printed."""

    code: int
    output: str


def choose(root: Path, count: int, kinds: Sequence[str] | None = None) -> list[Flip]:
    """The flips, the same for everyone: the kinds of both runs in turn.

    Args:
        root: The folder that :func:`make` filled.
        count: How many.
        kinds: Only these.
    """
    rng = random.Random(0)
    classes = [(run, name) for run, of_run in KINDS.items() for name in of_run]
    classes = [(run, name) for run, name in classes if kinds is None or name in kinds]
    flips = []
    for number in range(count):
        run, name = classes[number % len(classes)]
        kind = KINDS[run][name]
        folder = root if kind.is_input else root / run
        files = [f for pattern in kind.files for f in sorted(folder.glob(pattern))]
        file = rng.choice([f for f in files if f.is_file() and f.stat().st_size])
        content = file.read_bytes()
        spans = kind.spans(content) if kind.spans else [(0, len(content))]
        begin, stop = rng.choices(spans, [stop - begin for begin, stop in spans])[0]
        path = file.relative_to(folder).as_posix()
        flips.append(Flip(run, name, path, rng.randrange(begin, stop), rng.randrange(1, 256)))
    return flips


def make(root: Path) -> None:
    """Write the inputs, a finished run, and one that was killed in its last epoch.

    From then on this process keeps the digests of tiny files, too, in a cache of their own.
    """
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    file_digests.CACHED_FROM_BYTES, file_digests._SETTLED_SECONDS = 2**14, 0.0
    _in_process(tiny_study.save_model, root / "model", hidden_dropout_prob=0.1)
    task: dict[str, Any] = {**tiny_study.save_task(root / "data", train=64), "selection": 0.25}
    train = {"epochs": 2, "lr": 1e-2, "batch_size": 8, "max_length": 16, "save_steps": 5}
    settings = {
        "model": str(root / "model"),
        "task": task,
        "method": {"name": "iw-lora", "rank": 2, "alpha": 1e-4, "max_batches": 2},
        "train": {**train, "deterministic": True, "precision": "fp32"},
    }
    (root / "recipe.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    for run in (FINISHED, KILLED):
        ending = _in_process(_train, root, run)
        assert ending.exitcode == (0 if run == FINISHED else -signal.SIGKILL), run


def _train(root: Path, run: str) -> None:
    class Killing(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == KILLED_BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)

    killing = mock.patch("iwlora.training.prepare.MetricsLog", Killing)
    with killing if run == KILLED else contextlib.nullcontext():
        ending = execute("train", root / "recipe.yaml", "--out", root / run)
    raise SystemExit(ending.code)


def _in_process(work: Callable[..., object], *arguments: Any, **options: Any) -> BaseProcess:
    process = FORK.Process(target=work, args=arguments, kwargs=options)
    process.start()
    process.join()
    return process


def execute(*arguments: object) -> Ending:
    """Run a command in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = iwlora_command([str(argument) for argument in arguments])
    return Ending(code, output.getvalue())


@contextlib.contextmanager
def flipped(path: Path, flip: Flip) -> Iterator[None]:
    """The file with the changed byte, which is put back if the file is still there."""
    before = path.read_bytes()
    content = bytearray(before)
    content[flip.offset % len(content)] ^= flip.mask
    path.write_bytes(content)
    try:
        yield
    finally:
        if path.exists():
            path.write_bytes(before)


def judge(root: Path, flip: Flip, expected: Mapping[str, Any]) -> list[str]:
    """The columns of the table that a flip counts in, after the commands have run.

    Args:
        root: The folder that :func:`make` filled.
        flip: What is changed.
        expected: The results of the finished run, and what ``predict`` then wrote.
    """
    kind, work = KINDS[flip.run][flip.kind], root / "work"
    is_finished = flip.run == FINISHED
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(root / flip.run, work)
    words = re.compile(f"{kind.words}|{re.escape(Path(flip.file).name)}")

    def is_named(endings: Sequence[Ending]) -> bool:
        lines = [line for ending in endings for line in PROBLEM.findall(ending.output)]
        return any(map(words.search, lines))

    anew = work
    with flipped((root if kind.is_input else work) / flip.file, flip):
        by_verify = is_named([execute("verify", work, "--inputs")])
        endings = [execute("train", root / "recipe.yaml", "--out", work)]
        if is_finished:
            endings += [predict(root, work), execute("report", work)]
        by_next = is_named(endings)
        if is_finished and kind.is_input and not by_next:  # nothing was computed from it yet
            anew = root / "anew"
            shutil.rmtree(anew, ignore_errors=True)
            process = _in_process(_train, root, anew.name)  # as the run that it is compared with
            endings.append(Ending(int(process.exitcode or 0), ""))
    is_same = not any(ending.code for ending in endings)
    if is_finished:
        is_same = is_same and (root / PREDICTED).read_bytes() == expected[PREDICTED]
    if not is_finished or anew != work:
        is_same = is_same and not differing_files(read_results(anew), expected[RESULTS_OF_RUN])
    is_used = not (by_next or is_same)  # by the next command, without a word
    is_lost = is_finished and not kind.is_input and not (by_verify or by_next)
    verdicts = (by_verify, by_next, is_same, is_used or is_lost)
    return [column for column, holds in zip(COLUMNS, verdicts, strict=True) if holds]


def predict(root: Path, run: Path) -> Ending:
    """Predict the scored rows with a finished run."""
    (root / PREDICTED).unlink(missing_ok=True)
    rows = root / "data" / "validation.csv"
    return execute("predict", run, "--input", rows, "--output", root / PREDICTED)


def flip_all(root: Path, flips: Sequence[Flip], announce: Callable[[str], None]) -> str:
    """The table of all flips; ``announce`` gets those that are silent."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    _in_process(predict, root, root / FINISHED)
    expected = {
        PREDICTED: (root / PREDICTED).read_bytes(),
        RESULTS_OF_RUN: read_results(root / FINISHED),
    }
    for flip in flips:
        answer, sender = FORK.Pipe(duplex=False)
        _in_process(lambda: sender.send(judge(root, flip, expected)))  # noqa: B023
        sender.close()
        columns = answer.recv()  # EOFError if the judge itself failed
        rows.setdefault((flip.run, flip.kind), Counter()).update(["flips", *columns])
        if COLUMNS[-1] in columns:
            announce(f"silent: {flip}")
    lines = ["| run | file | flips | " + " | ".join(COLUMNS) + " |", "|---" * 7 + "|"]
    total: Counter[str] = sum(rows.values(), Counter())
    for (run, kind), counts in [*sorted(rows.items()), (("both", "all"), total)]:
        cells = " | ".join(str(counts[column]) for column in ("flips", *COLUMNS))
        lines.append(f"| {run} | {kind} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--only", nargs="+", help="kinds of files in the table; default: all")
    arguments = parser.parse_args()
    silent: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root)
        flips = choose(root, arguments.flips, arguments.only)
        print(flip_all(root, flips, silent.append))
    print("\n".join(silent))
    print(f"{len(flips) - len(silent)} of {len(flips)} changes are named or without effect")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
