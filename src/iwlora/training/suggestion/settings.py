"""Rules for a first training of LoRA, by the size of the data and of the model.

They are a start, not a search: ``search:`` in the recipe of a comparison finds a learning rate.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from iwlora.tasks import Task
from iwlora.tasks.description import token_lengths

MOST_ROWS = 20_000
"""Training rows of a first result; a recipe may say more."""
MEASURED_ROWS = 2_000
"""Rows whose tokens are counted."""

_STEPS, _MOST_EPOCHS = 400, 10
_FEW_ROWS = 1_000
_STEP_TOKENS = 4_096  # that are learned: the model computes a probability of each word for each
_SHORT = 256  # tokens
_LONGEST = 1_024
# (widest hidden layer, learning rate): small models want larger steps.
_LEARNING_RATES = ((512, 1e-3), (1024, 5e-4), (math.inf, 2e-4))


class FirstTraining(NamedTuple):
    """The settings of a first training, and what they rest on.

    ``rows`` are trained on, ``steps`` are those of all epochs, and ``held_whole`` is the share of
    the rows that are not longer than ``max_length``, which images do not have.
    """

    epochs: int
    lr: float
    batch_size: int
    max_length: int | None
    rows: int
    steps: int
    held_whole: float

    @property
    def train(self) -> dict[str, Any]:
        """The ``train:`` part of a recipe."""
        settings = {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size}
        return settings | ({"max_length": self.max_length} if self.max_length else {})


def first_training(task: Task, processor: Any, config: Any) -> FirstTraining:
    """A first training on a task's rows, by the rules of this file.

    Args:
        task: The loaded task.
        processor: The tokenizer of the model, or its image processor.
        config: The configuration of the model.
    """
    rows = task.splits["train"]
    length: int | None = None
    share = 1.0
    trained = read = min(len(rows), MOST_ROWS)
    if not task.kind.reads_images:
        lengths = token_lengths(task, spread_rows(rows), processor, config)
        length, share = fit_length(lengths, most_tokens(processor, config))
        if task.kind.learns_texts:  # in windows, of which each token is learned
            read = round(trained * float(np.ceil(lengths / length).mean()))
    batch_size, epochs = training_length(read, length if length and task.kind.learns_texts else 1)
    width = getattr(config.get_text_config(), "hidden_size", None)
    if width is None and (widths := getattr(config, "hidden_sizes", None)):  # of ConvNeXt's stages
        width = max(widths)
    steps = -(-read // batch_size) * epochs
    return FirstTraining(epochs, learning_rate(width), batch_size, length, trained, steps, share)


def training_length(rows: int, tokens: int = 1) -> tuple[int, int]:
    """(batch size, epochs): about 400 steps, in at least 1 and at most 10 epochs.

    A batch has 32 rows, and 16 where there are fewer than 1,000; at most 4,096 tokens are learned
    in a step.

    Args:
        rows: The rows of an epoch.
        tokens: That are learned in a row.

    Example:
        >>> training_length(90), training_length(2490), training_length(20_000)
        ((16, 10), (32, 5), (32, 1))
        >>> training_length(20_000, tokens=1024)
        (4, 1)
    """
    batch_size = min(16 if rows < _FEW_ROWS else 32, max(_STEP_TOKENS // tokens, 1))
    epochs = round(_STEPS / math.ceil(rows / batch_size))
    return batch_size, min(max(epochs, 1), _MOST_EPOCHS)


def learning_rate(width: int | None) -> float:
    """The learning rate of LoRA with ``lora_alpha = 2 * rank``, by the width of the model.

    >>> learning_rate(384), learning_rate(768), learning_rate(4096), learning_rate(None)
    (0.001, 0.0005, 0.0002, 0.0002)
    """
    widest = math.inf if width is None else width
    return next(lr for most, lr in _LEARNING_RATES if widest <= most)


def most_tokens(tokenizer: Any, config: Any) -> int:
    """The most tokens that a model reads: what its tokenizer and its configuration say."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(min(tokenizer.model_max_length, positions or tokenizer.model_max_length))


def spread_rows(rows: Any) -> Any:
    """About 2,000 rows from all of a split, whose tokens are counted."""
    return rows.select(range(0, len(rows), max(1, len(rows) // MEASURED_ROWS)))


def fit_length(lengths: Any, limit: float) -> tuple[int, float]:
    """(tokens of the longest input, share of the rows that it holds whole).

    The smallest multiple of 16 that holds 99% of the rows, or, where that is more than 256, 95%;
    at most what the model reads, and 1,024.

    Args:
        lengths: The tokens of each row.
        limit: The most tokens that the model reads.

    Example:
        >>> fit_length([20] * 98 + [300] * 2, limit=512), fit_length([2000] * 9, limit=512)
        ((32, 0.98), (512, 0.0))
    """
    sizes = np.sort(np.asarray(lengths))
    most, fewer = (int(np.quantile(sizes, q, method="higher")) for q in (0.99, 0.95))
    wanted = most if most <= _SHORT else fewer
    length = min(-(-wanted // 16) * 16, _LONGEST, int(min(limit, _LONGEST)))
    return length, float(np.mean(sizes <= length))
