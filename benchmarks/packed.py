"""Runs that are trained together over one frozen model, against the same runs one after another.

    OMP_NUM_THREADS=1 python benchmarks/packed.py --runs 1 4 16
    python benchmarks/packed.py --gpu --out packed.md

All runs train LoRA of rank 8 on ``builtin/entailment``, each with a seed of its own. Times are
those of the training steps. "One after another" trains at most two of the runs and multiplies their
time. Each cell is a process of its own, so that peaks of memory are its own.

``--gpu`` measures, in this order: 64 runs of a model of the size of MiniLM at batch size 32; LoRA
against a plain Trainer with PEFT at batch size 32; and 8 runs of a Llama of 1 billion parameters at
batch size 8. Their weights are random, so nothing is downloaded. It takes at most 10 minutes: each
row has a time by which it ends, and has "not measured" for what was not reached by then. The table
is written after each row; a row that fails does not stop the next ones. ``--gpu --tiny`` tries the
same command with tiny models, on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    Trainer,
    TrainingArguments,
)

from iwlora import tasks
from iwlora.training.device import peak_memory
from iwlora.training.load import load
from iwlora.training.packed.pack import Pack
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from timed_commands import MEBI, machine, run_command, table

HEAD = [
    "model",
    "runs",
    "batch",
    "one after another (s)",
    "together (s)",
    "gain",
    "gain (CPU time)",
]
HEAD += ["peak MiB alone", "peak MiB together"]
ROWS_END = (280.0, 380.0, 580.0)
"""Seconds after the start by which each row of ``--gpu`` has ended, in all at most 10 minutes."""
_MOST_ALONE = 2


@dataclass(frozen=True)
class Cell:
    """Runs of one model: ``way`` is alone, packed or plain (a Trainer with PEFT)."""

    way: str
    runs: int
    model: str = "builtin/minilm"
    batch: int = 32
    steps: int = 5
    precision: str = "fp32"
    frozen_dtype: str = "float32"

    def recipe(self, seed: int) -> Recipe:
        """Of one of the runs."""
        settings = {"max_steps": self.steps, "batch_size": self.batch, "seed": seed}
        types = {"precision": self.precision, "frozen_dtype": self.frozen_dtype}
        return build(
            {
                "model": self.model,
                "task": {"name": "builtin/entailment", "max_train": self.steps * self.batch},
                "method": {"name": "lora", "rank": 8},
                "train": {**settings, **types, "epochs": 1},
            }
        )


class Stopwatch:
    """Time from when all runs have been prepared until the last has been trained.

    >>> watch = Stopwatch(1, lambda trainer, interrupts: nullcontext())
    >>> with watch.joined(None, None):
    ...     pass
    >>> watch.seconds >= 0
    True
    """

    def __init__(self, runs: int, joined: Callable[[Any, Any], Any]) -> None:
        self._left, self._joined = runs, joined
        self.seconds = self.processor_seconds = 0.0

    @contextmanager
    def joined(self, trainer: Any, interrupts: Any) -> Iterator[None]:
        """The block in which a run trains."""
        with self._joined(trainer, interrupts):
            self._left -= 1
            self._began = now()
            yield
        if self._left <= 0:
            ended = now()
            self.seconds = ended[0] - self._began[0]
            self.processor_seconds = ended[1] - self._began[1]


def now() -> tuple[float, float]:
    """Wall and processor time, when a GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def measure(cell: Cell) -> dict[str, float]:
    """Train the runs of a cell in this process; nothing is scored."""
    if cell.way == "plain":
        seconds, processor = _plain(cell)
        return {"seconds": seconds, "processor": processor, "peak": float(peak_memory() or 0)}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("iwlora.training.run.score_splits", return_value=({"accuracy": 0.0}, {})),
        mock.patch("iwlora.training.run._floor_scores", return_value=([], None)),
    ):
        run = partial(_train, cell, Path(folder))
        if cell.way == "packed":
            pack = Pack()
            watch = Stopwatch(cell.runs, pack.joined)
            for ended in pack.execute([partial(run, n, watch) for n in range(cell.runs)]):
                if isinstance(ended, BaseException):
                    raise ended
            seconds, processor = watch.seconds, watch.processor_seconds
        else:
            count = min(cell.runs, _MOST_ALONE)
            watches = [Stopwatch(1, lambda *_: nullcontext()) for _ in range(count)]
            for number, watch in enumerate(watches):
                run(number, watch)
            seconds = sum(watch.seconds for watch in watches) * cell.runs / count
            processor = sum(watch.processor_seconds for watch in watches) * cell.runs / count
    return {"seconds": seconds, "processor": processor, "peak": float(peak_memory() or 0)}


def _train(cell: Cell, folder: Path, number: int, watch: Stopwatch) -> None:
    train(cell.recipe(number), folder / str(number), floors="constant", joined=watch.joined)


def _plain(cell: Cell) -> tuple[float, float]:
    """A Trainer of transformers with PEFT's LoRA, in float32: its wall and processor time."""
    loaded = load(cell.recipe(0))
    model: Any = loaded.recipe.method.attach(loaded.model, loaded.sites, 0).model
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=cell.steps,
            per_device_train_batch_size=cell.batch,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        columns = ["input_ids", "attention_mask", "token_type_ids", "labels"]
        rows = loaded.encoded["train"].select_columns(columns)
        trainer = Trainer(model, arguments, data_collator=loaded.collate, train_dataset=rows)
        began = now()
        trainer.train()
        ended = now()
        return ended[0] - began[0], ended[1] - began[1]


def row(
    cell: Cell, first: str = "alone", threads: int = 1, until: float | None = None
) -> list[str]:
    """A row of the table: the cell's runs one after another (or another way), and together.

    Args:
        cell: The runs.
        first: The other way.
        threads: Of each process.
        until: When the row ends, by ``time.monotonic()``; None: when it is measured.
    """
    name = Path(cell.model).name + (" (plain Trainer + PEFT)" if first == "plain" else "")
    head, found = [name, str(cell.runs), str(cell.batch)], list[dict[str, float]]()
    for way in (first, "packed"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "cell.json"
            given = json.dumps(asdict(replace(cell, way=way)))
            limit = None if until is None else until - time.monotonic()
            try:
                run_command([__file__, "--cell", given, "--out", str(out)], threads, limit)
            except (RuntimeError, TimeoutError) as error:
                print(error, file=sys.stderr)
                failed = isinstance(error, RuntimeError)
                head += [f"{measured['seconds']:.1f}" for measured in found]
                head.append(f"{way}: failed" if failed else "not measured")
                return [*head, *[""] * (len(HEAD) - len(head))]
            found.append(json.loads(out.read_text(encoding="utf-8")))
    alone, packed = found
    return [
        *head,
        f"{alone['seconds']:.1f}",
        f"{packed['seconds']:.1f}",
        f"{alone['seconds'] / packed['seconds']:.2f}",
        f"{alone['processor'] / packed['processor']:.2f}",
        f"{alone['peak'] / MEBI:,.0f}",
        f"{packed['peak'] / MEBI:,.0f}",
    ]


Sizes = dict[str, Any]
MINILM: Sizes = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
}
LLAMA: Sizes = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
}
TINY: Sizes = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def random_model(config: PreTrainedConfig, folder: Path) -> str:
    """Save a model with random weights in bfloat16, and a tokenizer of the words of the task."""
    rows = tasks.load(Cell("alone", 1).recipe(0).task, 0).splits["train"]
    texts = " ".join(text for column in ("premise", "hypothesis") for text in rows[column])
    letters = {piece for letter in set(texts.lower()) - {" "} for piece in (letter, f"##{letter}")}
    words = {word.strip(".,?") for word in texts.lower().split()}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    folder.mkdir()
    file = folder / "vocab.txt"
    file.write_text("\n".join([*special, *sorted(words | letters)]), encoding="utf-8")
    BertTokenizer(str(file), model_max_length=512).save_pretrained(folder)
    AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


def gpu_rows(folder: Path, tiny: bool) -> Iterator[list[str]]:
    """The rows that need a GPU, the most important one first."""
    smaller, began = TINY if tiny else {}, time.monotonic()
    ends = [began + seconds for seconds in ROWS_END]
    batch, runs, few = (4, 2, 2) if tiny else (32, 64, 8)
    bert = random_model(BertConfig(**MINILM | smaller), folder / "minilm")
    minilm = Cell("packed", runs, bert, batch, 2, "auto")
    yield row(replace(minilm, steps=2 if tiny else 20), threads=8, until=ends[0])
    yield row(replace(minilm, runs=1, steps=2 if tiny else 100), "plain", 8, ends[1])
    llama = replace(minilm, runs=few, batch=min(batch, 8), frozen_dtype="bfloat16")
    llama = replace(llama, model=random_model(LlamaConfig(**LLAMA | smaller), folder / "llama"))
    yield row(replace(llama, steps=2 if tiny else 10), threads=8, until=ends[2])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="the three measurements on a GPU")
    parser.add_argument("--tiny", action="store_true", help="with --gpu: tiny models, anywhere")
    parser.add_argument("--out", help="a file for the table")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.cell:
        Path(given.out).write_text(json.dumps(measure(Cell(**json.loads(given.cell)))))
        return
    if given.gpu and not (given.tiny or torch.cuda.is_available()):
        sys.exit("error: --gpu was given, and torch finds no GPU; leave it out, or add --tiny")
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        cells = (Cell("packed", n, batch=given.batch, steps=given.steps) for n in given.runs)
        for found in gpu_rows(Path(folder), given.tiny) if given.gpu else map(row, cells):
            rows.append(found)
            print(table(HEAD, rows[-1:]), flush=True)
            if given.out:
                Path(given.out).write_text(f"{machine()}\n\n{table(HEAD, rows)}\n")
    print(f"\n{machine()}\n\n{table(HEAD, rows)}")


if __name__ == "__main__":
    main()
