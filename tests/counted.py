"""What tests count by hand: parameters of the tiny models, metrics, the cells of a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from conftest import VOCABULARY

WIDTH, INNER, BLOCKS = 16, 24, 2
# (d_in, d_out) of one block's matrices: query, key, value, output, up, down.
MATRICES = [(WIDTH, WIDTH)] * 4 + [(WIDTH, INNER), (INNER, WIDTH)]
HEAD = WIDTH * 2 + 2


def low_rank_parameters(rank: int) -> int:
    """A is (rank, d_in) and B is (d_out, rank), at every matrix of every block."""
    return BLOCKS * sum(rank * d_in + d_out * rank for d_in, d_out in MATRICES)


def bert_parameters() -> int:
    """Of the tiny BERT without a task head: its parts, one by one."""
    norm = 2 * WIDTH
    embeddings = (len(VOCABULARY) + 64 + 2) * WIDTH + norm
    block = sum(d_in * d_out + d_out for d_in, d_out in MATRICES) + 2 * norm
    pooler = WIDTH * WIDTH + WIDTH
    return embeddings + BLOCKS * block + pooler


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def result(folder: Path, label: str, seed: int) -> dict[str, Any]:
    return read(folder / label / f"seed-{seed}" / "result.json")


def predictions(run: Path, split: str = "validation") -> list[tuple[str, str]]:
    """(label, prediction) of each row, the prediction from the logits."""
    with (run / "predictions" / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = []
    for row in rows:
        logits = {key[6:]: float(value) for key, value in row.items() if key.startswith("logit_")}
        assert row["prediction"] == max(logits, key=lambda name: logits[name])
        found.append((row["label"], row["prediction"]))
    return found


def accuracy(pairs: list[tuple[str, str]]) -> float:
    return sum(label == prediction for label, prediction in pairs) / len(pairs)


def f1(pairs: list[tuple[str, str]], positive: str) -> float:
    hits = sum(label == prediction == positive for label, prediction in pairs)
    predicted = sum(prediction == positive for _, prediction in pairs)
    actual = sum(label == positive for label, _ in pairs)
    return 2 * hits / (predicted + actual) if hits else 0.0


def table(text: str) -> dict[str, dict[str, str]]:
    """{arm: {column: cell}} of the tables in a terminal's output."""
    found: dict[str, dict[str, str]] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("arm ") or not lines[number + 1].startswith("─"):
            continue
        ends, at = [], 0
        for dashes in lines[number + 1].split("  "):
            at += len(dashes)
            ends.append(at)
            at += 2
        starts = [0, *(end + 2 for end in ends[:-1])]
        heads = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
        for row in lines[number + 2 :]:
            cells = [row[a:b].strip() for a, b in zip(starts, ends, strict=True)]
            if not row.strip():
                break
            found.setdefault(cells[0], {}).update(zip(heads, cells, strict=True))
    return found
