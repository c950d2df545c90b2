"""Texts to token ids, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iwlora.errors import IwloraError
from iwlora.tasks.task import Task

if TYPE_CHECKING:
    import datasets
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

# Texts tokenised at a time: the tokenizer's own records of them are large.
CHUNK = 4096


def encode(
    task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, datasets.Dataset]:
    """Every split as token ids: what ``tokenize`` gives, and ``labels`` (class ids).

    Raises ``IwloraError`` for a ``max_length`` that the tokenizer cannot keep.
    """
    return {
        name: tokenize(
            [split[column][:] for column in task.text], tokenizer, max_length
        ).add_column("labels", split["label"][:])
        for name, split in task.splits.items()
    }


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
    import datasets

    pairs = len(texts) == 2
    least = tokenizer.num_special_tokens_to_add(pair=pairs) + len(texts)
    if max_length < least:
        raise IwloraError(f"train.max_length={max_length}: at least {least} tokens are needed")
    if max_length > tokenizer.model_max_length:
        raise IwloraError(
            f"train.max_length={max_length}: the model reads at most "
            f"{tokenizer.model_max_length} tokens"
        )
    chunks = []
    for start in range(0, len(texts[0]), CHUNK):
        part = [list(column[start : start + CHUNK]) for column in texts]
        encoded = tokenizer(*part, truncation=True, max_length=max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        chunks.append(datasets.Dataset.from_dict({**encoded, "length": lengths}))
    return datasets.concatenate_datasets(chunks)


def collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorWithPadding:
    """Pads a batch to its longest row, rounded up to a multiple of 8 tokens."""
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
