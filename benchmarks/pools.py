"""What a pool of sources costs in accuracy, against one run on the rows of all sources together.

    python benchmarks/pools.py --glue FOLDER --out runs/pools

Training rows of SST-2 are divided at random among 1, 2, 5 and 10 sources, anew for each seed, and
all arms are scored on its dev set: the union (one run on all rows) and pools by each method, the
best single source, averages of the weights of LoRA sources, and two ways to make one source of
the prompts of many, which need not work: their mean, and all of them side by side.

Sources train for as many epochs as the union (and so for fewer steps each), or for as many steps
(and so for more epochs). The learning rates are the same for all; search them first and give them
with ``--lr``. Finished runs are kept in ``--out``, and the same command continues where it was
stopped. The best single source is chosen on the scored rows, which favours it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import datasets
import torch

from iwlora.compare.statistics.paired_tests import summarise
from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool
from iwlora.compose.report import report
from iwlora.training.prediction.new_rows import evaluate_rows, load_for_rows
from iwlora.training.recipe import build
from iwlora.training.run import train
from timed_commands import machine, table

LEARNING_RATES = {"apt": 1e-2, "lora": 1e-3, "head": 1e-2}
SCHEDULES = ("epochs", "steps")
"""What a source has as many of as the union."""


@dataclass(frozen=True)
class Study:
    """What the command is asked for, and where its files are.

    Args:
        options: The arguments.
    """

    options: argparse.Namespace

    @property
    def out(self) -> Path:
        """The folder of runs and pools."""
        return Path(self.options.out)

    @property
    def scored(self) -> Path:
        """The file of the scored rows."""
        return self.out / "scored.csv"

    def write_rows(self) -> None:
        """Write the scored rows, and those of each source of each seed."""
        folder = Path(self.options.glue) / "SST-2"
        _write(self.scored, _read(folder / "dev.tsv"))
        every = _read(folder / "train.tsv")
        for seed in range(self.options.seeds):
            drawn = Random(seed).sample(every, min(self.options.rows, len(every)))
            for count in self.options.sources:
                for number in range(count):
                    _write(self.rows_of(seed, count, number), drawn[number::count])

    def rows_of(self, seed: int, count: int, number: int) -> Path:
        """The file of the training rows of one of ``count`` sources."""
        return self.out / f"seed-{seed}" / f"{count}-sources" / f"{number}.csv"

    def run(self, method: str, seed: int, count: int, number: int, schedule: str) -> Path:
        """Train a source, unless it was; returns its folder."""
        rows = self.rows_of(seed, count, number)
        # One source is the union, whatever the schedule.
        name = f"{method}-{number}" if count == 1 else f"{method}-{number}-{schedule}"
        folder = rows.parent / name
        if not (folder / "result.json").is_file():
            epochs = self.options.epochs * (count if schedule == "steps" else 1)
            settings = {
                "model": self.options.model,
                "task": {
                    "train": str(rows),
                    "validation": str(self.scored),
                    "text": "sentence",
                    "label": "label",
                    "labels": ["0", "1"],
                },
                "method": {"name": method},
                "train": {
                    "epochs": epochs,
                    "lr": self.options.lr[method],
                    "batch_size": 32,
                    "max_length": 64,
                    "seed": seed,
                },
            }
            train(build(settings), folder)
        return folder

    def pool(self, method: str, seed: int, count: int, schedule: str) -> Pool:
        """A pool of ``count`` sources."""
        runs = [self.run(method, seed, count, number, schedule) for number in range(count)]
        folder = runs[0].parent / f"{method}-{schedule}-pool"
        if not folder.is_dir():
            compose([f"s{number}={run}" for number, run in enumerate(runs)], folder)
        return Pool.load(folder)


def accuracies(study: Study, seed: int, count: int, schedule: str) -> Iterator[tuple[str, float]]:
    """(arm, accuracy in percent) of one division of the rows."""
    for method in study.options.methods:
        pool = study.pool(method, seed, count, schedule)
        names, averages = pool.names, method == "lora" and count > 1
        found = report(pool.folder, [[name] for name in names], weight_averages=averages)
        scores = {subset: metrics["accuracy"] for subset, metrics in found.metrics.items()}
        yield f"{method}: pool", 100 * scores[names]
        yield f"{method}: best single source", 100 * max(scores[name,] for name in names)
        for way, metrics in found.weight_averages.items():
            yield f"{method}: weights averaged, {way}", 100 * metrics["accuracy"]
        if method == "apt" and count > 1:
            for way in ("mean", "side by side"):
                yield f"apt: prompts {way}", 100 * _accuracy_of_merged(study, pool, way)


def _accuracy_of_merged(study: Study, pool: Pool, way: str) -> float:
    """The accuracy of one source that is made of the prompts, memories and heads of all.

    Side by side, the prompts read each other and all memories. The head is the mean of the heads.
    """
    runs = [pool.source(name) for name in pool.names]
    models = [load_for_rows(run) for run in runs]
    host, processor = models[0]
    for name, parameter in host.named_parameters():
        if not parameter.requires_grad:
            continue
        values = [model.get_parameter(name).data for model, _ in models]
        axis = {"prompts": 0, "memory": 1}.get(name.rpartition(".")[2])
        if way == "side by side" and axis is not None:
            parameter.data = torch.cat(values, dim=axis)
        else:
            parameter.data = torch.stack(values).mean(dim=0)
    rows = _read(study.scored)
    scored = datasets.Dataset.from_dict({"sentence": [text for text, _ in rows]})
    logits = evaluate_rows(runs[0], host, processor, scored).outputs["logits"]
    labels = [int(label) for _, label in rows]
    return float((logits.argmax(axis=1) == labels).mean())


def tables(study: Study) -> str:
    """For each schedule: arms × numbers of sources, and the loss against the union."""
    text = []
    counts = study.options.sources
    for schedule in SCHEDULES:
        found: dict[str, dict[int, list[float]]] = {}
        for count in counts:
            for seed in range(study.options.seeds):
                for arm, accuracy in accuracies(study, seed, count, schedule):
                    found.setdefault(arm, {}).setdefault(count, []).append(accuracy)
        text += [f"Each source has as many {schedule} as the union.", ""]
        head = ["arm", *(f"{count} sources" for count in counts)]
        text += [table(head, _cells(found, counts)), ""]
    return "\n".join(text)


def _cells(
    found: Mapping[str, Mapping[int, Sequence[float]]], counts: Sequence[int]
) -> list[list[str]]:
    """Accuracy; and the difference to the method's union, with its 95% interval over seeds."""
    rows = []
    for arm, by_count in found.items():
        union = found[f"{arm.partition(':')[0]}: pool"].get(1)
        cells = [arm]
        for count in counts:
            if count not in by_count:
                cells.append("")
                continue
            cell = f"{summarise(by_count[count]).mean:.1f}"
            if union and count > 1:
                pairs = zip(by_count[count], union, strict=True)
                loss = summarise([a - b for a, b in pairs])
                interval = "" if loss.low is None else f" [{loss.low:+.1f}, {loss.high:+.1f}]"
                cell += f" ({loss.mean:+.1f}{interval})"
            cells.append(cell)
        rows.append(cells)
    return rows


def _read(path: Path) -> list[tuple[str, str]]:
    """(sentence, label) of each row of a file."""
    with path.open(encoding="utf-8", newline="") as stream:
        if path.suffix == ".tsv":
            rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(stream)
        return [(text.strip(), label) for text, label in list(rows)[1:]]


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("sentence", "label"), *rows])


def _learning_rate(text: str) -> tuple[str, float]:
    method, _, value = text.partition("=")
    return method, float(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="The price of a pool in accuracy.")
    parser.add_argument("--glue", required=True, help="a folder with GLUE's official files")
    parser.add_argument("--out", required=True, help="the folder of the runs")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--methods", nargs="+", default=list(LEARNING_RATES))
    parser.add_argument("--sources", nargs="+", type=int, default=[1, 2, 5, 10])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2000, help="of all sources together")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", nargs="+", type=_learning_rate, default=[], metavar="METHOD=LR")
    options = parser.parse_args(arguments)
    options.lr = {**LEARNING_RATES, **dict(options.lr)}
    study = Study(options)
    study.write_rows()
    print(f"{machine()}\n\n{tables(study)}")


if __name__ == "__main__":
    main()
