"""The sound folders that are made hostile, and the commands that open a folder of each kind."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzing import good
from fuzzing.inputs import KEEP, MODEL
from fuzzing.recipes import BASE
from iwlora.compose.compose import compose
from iwlora.inputs.yaml_json import to_yaml
from iwlora.training.recipe import build
from iwlora.training.run import train

IT, OUT, ROOT = "{it}", "{out}", "{originals}"
TABLE, SNAPSHOT = f"{IT}/{{table}}", f"{IT}/models--tiny--bert/snapshots/{'0' * 40}"
"""In commands: the hostile folder, what is written, the sound folders, and parts of the former."""

_ROWS = f"{KEEP}/task/validation.csv"
_TASK = ("task.text=text", "task.label=mood", "train.epochs=1", "train.batch_size=16")
_NEW = ("train", f"{ROOT}/run.yaml", "train.max_length=32")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "report": ("report", IT),
    "compare": ("compare", IT, f"{KEEP}/run", "--out", OUT),
    "average": ("tasks", "average", IT),
    "export": ("export", IT, "--to", OUT),
    "merge": ("export", IT, "--to", OUT, "--merge"),
    "predict": ("predict", IT, "--input", _ROWS, "--output", f"{OUT}.csv"),
    "verify": ("verify", IT),
    "verify inputs": ("verify", IT, "--inputs"),
    "resume": ("train", f"{IT}/recipe.yaml", "--out", IT),
    "load": ("python", "load_trained", IT),
    "agreement": ("measure", "--compare", f"{IT}/sensitivity.json", f"{KEEP}/run/sensitivity.json"),
    "adapter": ("python", "load_adapter", IT),
    "report rows": ("report", IT, "--rows", _ROWS),
    "report averages": ("report", IT, "--weight-averages"),
    "compose": ("compose", f"x={IT}", f"y={KEEP}/run", "--out", OUT),
    "compose prototypes": ("compose", f"x={IT}", "--weights", "prototypes", "--out", OUT),
    "add": ("compose", IT, "--add", f"d={KEEP}/full", "--out", OUT),
    "remove": ("compose", IT, "--remove", "a", "--out", OUT),
    "train model": (*_NEW, f"model={IT}", "--out", OUT),
    "show model": ("tasks", "show", "--model", IT, f"task.train={_ROWS}", *_TASK[:2]),
    "measure model": (
        *("measure", "--model", IT, f"task.train={_ROWS}", *_TASK[:2], "--max-batches", "1"),
        *("--out", f"{OUT}.json", "train.max_length=32"),
    ),
    "train recipe": ("train", f"{IT}/run.yaml", "--out", OUT),
    "dry run": ("train", f"{IT}/run.yaml", "--dry-run"),
    "compare recipe": ("compare", f"{IT}/arms.yaml", "--dry-run", "--out", OUT),
    "continue": ("compare", f"{ROOT}/comparison.yaml", "--out", IT),
    "predict table": ("predict", f"{KEEP}/run", "--input", TABLE, "--output", f"{OUT}.csv"),
    "train table": (*_NEW, f"task.train={TABLE}", *_TASK, "task.max_train=64", "--out", OUT),
    "show table": ("tasks", "show", "--model", MODEL, f"task.train={TABLE}", *_TASK[:2]),
    "compare scores": ("compare", f"{IT}/scores.csv", "--out", OUT),
    "measurements": ("measure", "--compare", f"{IT}/a.json", f"{IT}/b.json"),
    "show images": (
        "tasks",
        "show",
        f"task.train={IT}",
        "task.on_bad=skip",
        "--sheet",
        f"{OUT}.png",
    ),
    "check images": ("tasks", "show", f"task.train={IT}"),
    "train snapshot": (*_NEW, f"model={SNAPSHOT}", "--out", OUT),
    "show snapshot": ("tasks", "show", "--model", SNAPSHOT, f"task.train={_ROWS}", *_TASK[:2]),
}
"""Each opens a hostile folder; ``python`` stands for a call of a public function."""


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Args:
        original: The sound folder, below that of all originals.
        commands: Names in ``COMMANDS``; one that stands twice is drawn twice as often.
        weight: How often the kind is drawn, relative to others.
    """

    original: str
    commands: tuple[str, ...]
    weight: int


_RUN = (
    *("predict", "predict", "report", "compare", "export", "merge", "verify", "verify inputs"),
    *("resume", "resume", "load", "compose", "compose prototypes", "agreement"),
)
KINDS: Mapping[str, Kind] = {
    "run": Kind("keep/run", _RUN, 24),
    "run of an own adapter": Kind("keep/bits", _RUN[:-1], 8),
    "run of a whole model": Kind("keep/full", _RUN[:-1], 8),
    "unfinished run": Kind("unfinished", ("resume",), 6),
    "adapter": Kind("keep/run/adapter", ("adapter",), 8),
    "own adapter": Kind("keep/bits/adapter", ("adapter",), 3),
    "model": Kind("model", ("train model", "show model", "measure model"), 14),
    "recipe": Kind("recipes", ("train recipe", "dry run", "compare recipe"), 9),
    "table": Kind("tables", ("train table", "predict table", "show table"), 14),
    "scores": Kind("scores", ("compare scores",), 2),
    "saved dataset": Kind("dataset", ("train table", "predict table", "show table"), 5),
    "comparison": Kind("keep/comparison", ("report", "compare", "average", "continue"), 7),
    "pool": Kind("pool", ("predict", "predict", "report rows", "verify", "add", "remove"), 14),
    "pool of LoRA runs": Kind("pool of LoRA", ("report averages", "predict"), 4),
    "measurement": Kind("measurements", ("measurements",), 3),
    "images": Kind("images", ("show images", "check images"), 8),
    "hub cache": Kind("hub", ("train snapshot", "show snapshot"), 3),
}

SECRET = "the secret of another folder 7f3a9c"
"""Stands in every file that no command may open."""


def make(root: Path) -> None:
    """Write the sound folders, and next to them ``secret/`` with what no command may open."""
    originals = root / "originals"
    originals.mkdir()
    good.make(originals)
    full: Any = {**_local(originals, BASE), "method": "full"}
    train(build(full), originals / "keep" / "full")
    _pools(originals)
    for lock in originals.rglob(".lock"):
        lock.unlink()
    unfinished = shutil.copytree(originals / "keep" / "run", originals / "unfinished")
    for name in ("result.json", "adapter", "predictions", "tokenizer"):
        path = Path(unfinished) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _recipes(originals)
    _tables(originals)
    _measurements(originals)
    _hub(originals)
    _images(originals)
    secret = root / "secret"
    secret.mkdir()
    (secret / "secret.txt").write_text(SECRET + "\n", encoding="utf-8")
    shutil.copytree(originals / "model", secret / "model")
    config = secret / "model" / "vocab.txt"
    config.write_text(f"{SECRET}\n", encoding="utf-8")


def _pools(originals: Path) -> None:
    """One whose sources share a pass of the model, beside another; and one of LoRA runs alone."""
    kept = originals / "keep"
    prompts: Any = {**_local(originals, BASE), "method": "apt"}
    train(build(prompts), kept / "prompts")
    prompts_of = [f"{name}={kept / 'prompts'}" for name in "bc"]
    compose([f"a={kept / 'run'}", *prompts_of], originals / "pool", weights="prototypes")
    compose([f"{name}={kept / 'run'}" for name in "ab"], originals / "pool of LoRA")


def _local(originals: Path, settings: Any) -> Any:
    """Settings with the places of the model and the data filled in."""
    import yaml

    text = to_yaml(settings).replace(MODEL, str(originals / "model"))
    return yaml.safe_load(text.replace(KEEP, str(originals / "keep")))


def _recipes(originals: Path) -> None:
    folder = originals / "recipes"
    folder.mkdir()
    shutil.copyfile(originals / "run.yaml", folder / "run.yaml")
    shutil.copyfile(originals / "comparison.yaml", folder / "arms.yaml")


def _tables(originals: Path) -> None:
    import datasets
    import pyarrow
    from pyarrow import csv, parquet

    folder, rows = originals / "tables", originals / "keep" / "task" / "train.csv"
    folder.mkdir()
    shutil.copyfile(rows, folder / "train.csv")
    (folder / "train.tsv").write_text(rows.read_text().replace(",", "\t"), encoding="utf-8")
    (folder / "train.csv.gz").write_bytes(gzip.compress(rows.read_bytes(), mtime=0))
    table = csv.read_csv(rows)
    write_spreadsheets(
        folder, [table.column_names, *(list(row.values()) for row in table.to_pylist())]
    )
    parquet.write_table(table, folder / "train.parquet")
    dataset = datasets.Dataset(pyarrow.table(table)).class_encode_column("mood")
    dataset.to_json(folder / "train.jsonl")
    dataset.save_to_disk(originals / "dataset" / "rows")
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(
        originals / "dataset" / "splits"
    )
    scores = ["method,task,seed,score,metric,model,train_seconds"]
    for method in ("lora", "full"):
        scores += [f"{method},rte,{seed},0.{6 + seed % 3},accuracy,bert,1.5" for seed in range(7)]
    (originals / "scores").mkdir()
    (originals / "scores" / "scores.csv").write_text("\n".join(scores) + "\n", encoding="utf-8")


def write_spreadsheets(folder: Path, rows: list[list[Any]]) -> None:
    """One of Excel, and an OpenDocument with no more than its cells."""
    from xml.sax.saxutils import escape

    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(folder / "train.xlsx")
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    lines = ("".join(cell.format(escape(str(value))) for value in row) for row in rows)
    table = "".join(f"<table:table-row>{line}</table:table-row>" for line in lines)
    inner = f'<table:table table:name="a">{table}</table:table>'
    with zipfile.ZipFile(folder / "train.ods", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml", f"<office:document-content {names}>{inner}</office:document-content>"
        )


def _measurements(originals: Path) -> None:
    folder = originals / "measurements"
    folder.mkdir()
    for name in ("a.json", "b.json"):
        shutil.copyfile(originals / "keep" / "run" / "sensitivity.json", folder / name)


def _images(originals: Path) -> None:
    """Class folders with a small image of each format."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for label in ("round", "square"):
        folder = originals / "images" / label
        folder.mkdir(parents=True)
        for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
            pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{ending}.{ending}")


def _hub(originals: Path) -> None:
    """The cache of the hub: the names in a snapshot are links to files that digests name."""
    cache = originals / "hub" / "models--tiny--bert"
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    for number, file in enumerate(sorted((originals / "model").iterdir())):
        blob = f"{number:064x}"
        shutil.copyfile(file, cache / "blobs" / blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob))
