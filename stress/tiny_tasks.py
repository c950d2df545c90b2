"""Small tasks of every kind, for the stress scripts and the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ANIMALS = ("dog", "cat", "man", "woman")


def _row(kind: str, number: int) -> dict[str, Any]:
    """One row of a task; half of each class."""
    animal, good = ANIMALS[number % 4], bool(number // 2 % 2)
    quality, age = ("good" if good else "bad"), ("new" if number % 3 else "old")
    text = f"the {animal} sees a {quality} film and it is {'very ' * (1 + number % 3)}{age}"
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": animal}]
    rows: dict[str, dict[str, Any]] = {
        "classification": {"text": text, "label": "pos" if good else "neg"},
        "multi-label": {"text": text, "label": [animal, *(["good"] if good else [])]},
        "regression": {"text": text, "label": number % 5 + 0.5},
        "token-labels": {
            "tokens": text.split(),
            "ner_tags": ["B-X" if word == animal else "O" for word in text.split()],
        },
        "question-answering": {
            "question": "who sees a film ?",
            "context": text,
            "answers": {"text": [animal], "answer_start": [4]},
        },
        "seq2seq": {"source": text, "target": f"the {animal}"},
        "instruction": {"prompt": text, "completion": f"the {animal}"},
        "language-modeling": {"text": text},
        "packed": {"prompt": text, "completion": f"the {animal}"},
        "chat": {"messages": chat},
    }
    return rows[kind]


TEXTS = ("seq2seq", "instruction", "chat", "packed")
KIND_OF = {"chat": "instruction", "packed": "instruction"}
TEXT_OPTIONS: dict[str, Any] = {"max_target": 8}
TASKS = (
    "classification",
    "multi-label",
    "regression",
    "token-labels",
    "question-answering",
    "seq2seq",
    "instruction",
    "chat",
    "packed",
    "language-modeling",
)


def write_task(folder: Path, kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the ``task:`` part of a recipe, the rows that are scored)."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 12), ("validation", 8)):
        lines = [json.dumps(_row(kind, number)) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    options = dict(TEXT_OPTIONS) if kind in TEXTS else {}
    options |= {"packing": True} if kind == "packed" else {}
    task = {**files, "kind": {"name": KIND_OF.get(kind, kind), **options}}
    return task, [_row(kind, number) for number in range(8)]
