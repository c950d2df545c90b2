"""Texts to token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError

if TYPE_CHECKING:
    import datasets
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from iwlora.tasks.task import Task

# Texts tokenised at a time: the tokenizer's own records of them are large.
CHUNK = 4096
# A million rows of token ids are held in memory: no more bits than they need.
_BITS = {"attention_mask": "int8", "token_type_ids": "int8"}


def encode(
    task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int, config: Any = None
) -> dict[str, datasets.Dataset]:
    """Every split as token ids, as the task's kind encodes it for the model of ``config``.

    Raises ``IwloraError`` for a ``max_length`` that the tokenizer cannot keep.
    """
    return {
        name: task.kind.encode(task, split, tokenizer, max_length, config, name == "train")
        for name, split in task.splits.items()
    }


def collator(
    tokenizer: PreTrainedTokenizerBase, task: Task | None = None, model: Any = None
) -> Callable[[Any], dict[str, Tensor]]:
    """Makes batches of a task's encoded rows; of texts alone, without a task."""
    from iwlora.tasks.padding import padding

    return padding(tokenizer) if task is None else task.kind.collator(tokenizer, model)


def tokenize(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> datasets.Dataset:
    """The token ids of one column of texts, or of two as pairs, in memory.

    Each row has ``input_ids``, ``attention_mask``, ``token_type_ids`` where the tokenizer gives
    them, and ``length`` (tokens). Rows over ``max_length`` tokens lose the end of their longer
    text. Raises ``IwloraError`` for a ``max_length`` that the tokenizer cannot keep.

    >>> from transformers import BertTokenizerFast
    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "rains"]
    >>> tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    >>> tokenize([["It rains"]], tokenizer, max_length=8)[0]["input_ids"]
    [2, 5, 6, 3]
    """
    check_length(tokenizer, max_length, len(texts))

    def chunk(start: int, stop: int) -> Mapping[str, Any]:
        part = [list(column[start:stop]) for column in texts]
        return dict(tokenizer(*part, truncation=True, max_length=max_length))

    return in_chunks(len(texts[0]), chunk)


def check_length(tokenizer: PreTrainedTokenizerBase, max_length: int, texts: int) -> None:
    """Raise ``IwloraError`` for a length that leaves no room for ``texts`` or is beyond the
    model."""
    least = tokenizer.num_special_tokens_to_add(pair=texts == 2) + texts
    if max_length < least:
        raise IwloraError(f"train.max_length={max_length}: at least {least} tokens are needed")
    if max_length > tokenizer.model_max_length:
        raise IwloraError(
            f"train.max_length={max_length}: the model reads at most "
            f"{tokenizer.model_max_length} tokens"
        )


def in_chunks(
    count: int, encoded: Callable[[int, int], Mapping[str, Sequence[Any]]]
) -> datasets.Dataset:
    """The columns that ``encoded(start, stop)`` gives for ``count`` rows, and their ``length``."""
    import datasets

    chunks = []
    for start in range(0, count, CHUNK):
        columns = dict(encoded(start, min(start + CHUNK, count)))
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        chunks.append(datasets.Dataset.from_dict({k: small(k, v) for k, v in columns.items()}))
    return datasets.concatenate_datasets(chunks)


def small(name: str, values: Sequence[Any]) -> Any:
    """A column as Arrow should hold it: token ids in as many bits as they need."""
    import pyarrow

    flat = isinstance(values[0], (list, tuple)) and not (name == "labels" and _floats(values))
    if not flat:
        return values
    bits = getattr(pyarrow, _BITS.get(name, "int32"))()
    return pyarrow.array(values, pyarrow.list_(bits))


def _floats(values: Sequence[Sequence[Any]]) -> bool:
    return any(isinstance(value, float) for value in values[0])
