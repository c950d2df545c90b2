"""The data of the examples: the embedded encoder, and tokenized pairs of sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset

from iwlora import tasks
from iwlora.tasks.spec import TaskSpec
from iwlora.training.model.backbone import load_backbone

Rows = dict[str, torch.Tensor]


def load(count: int = 256) -> tuple[Any, Rows]:
    """A pretrained encoder with a new head, and ``count`` encoded pairs of sentences."""
    task = tasks.load(TaskSpec(name="builtin/entailment", max_train=count), seed=0)
    model, tokenizer = load_backbone("builtin/minilm", task.labels)
    texts = [list(task.splits["train"][name]) for name in task.text]
    rows = dict(tokenizer(*texts, padding=True, return_tensors="pt"))
    rows["labels"] = torch.tensor(list(task.splits["train"]["label"]))
    return model, rows


def batches(rows: Rows, size: int) -> Iterator[Rows]:
    """An endless stream of batches of random rows."""
    while True:
        for chosen in torch.randperm(len(rows["labels"])).split(size):
            yield {name: column[chosen] for name, column in rows.items()}


class Sentences(Dataset[Rows]):
    """The rows as a dataset, for a ``DataLoader``."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows["labels"])

    def __getitem__(self, index: int) -> Rows:
        return {name: column[index] for name, column in self.rows.items()}
