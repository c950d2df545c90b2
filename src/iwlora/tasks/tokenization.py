"""Texts to token ids, in chunks and in compact columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

# Rows tokenized at a time: a tokenizer's own records of them are large.
CHUNK_ROWS = 4096


def tokenize(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> datasets.Dataset:
    """Tokenize one column of texts, or two columns as pairs, in memory.

    Args:
        texts: One or two columns of equal length.
        tokenizer: Any tokenizer of transformers.
        max_length: The longest encoded row, in tokens. Of longer rows the end of the longer text
            is cut off.

    Returns:
        Rows of ``input_ids``, ``attention_mask``, ``token_type_ids`` (where the tokenizer returns
        them) and ``length`` in tokens.

    Raises:
        IwloraError: The tokenizer does not support ``max_length``.

    Example:
        >>> from transformers import BertTokenizerFast
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "rains"]
        >>> tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
        >>> tokenize([["It rains"]], tokenizer, max_length=8)[0]["input_ids"]
        [2, 5, 6, 3]
    """
    check_max_length(tokenizer, max_length, len(texts))

    def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
        part = [list(column[start:stop]) for column in texts]
        return dict(tokenizer(*part, truncation=True, max_length=max_length))

    return encode_in_chunks(len(texts[0]), encode_chunk)


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int, texts: int) -> None:
    """Raise ``IwloraError`` for a length with no room for ``texts``, or too long for the model."""
    minimum = tokenizer.num_special_tokens_to_add(pair=texts == 2) + texts
    if max_length < minimum:
        raise IwloraError(f"train.max_length={max_length}: at least {minimum} tokens are needed")
    if max_length > tokenizer.model_max_length:
        raise IwloraError(
            f"train.max_length={max_length}: the model reads at most "
            f"{tokenizer.model_max_length} tokens"
        )


def encode_in_chunks(
    rows: int,
    encode: Callable[[int, int], Mapping[str, Sequence[Any]]],
    chunk_rows: int = CHUNK_ROWS,
) -> datasets.Dataset:
    """The columns that ``encode(start, stop)`` returns for ``rows`` rows, and their ``length``.

    Raises ``IwloraError`` for a tokenizer that fails on the texts, and where no row is left.
    """
    import datasets

    chunks = []
    for start in range(0, rows, chunk_rows):
        stop = min(start + chunk_rows, rows)
        try:
            columns = dict(encode(start, stop))
        except Exception as error:
            if type(error) is not Exception:  # what tokenizers in Rust raise has no type of its own
                raise
            raise IwloraError(
                f"the tokenizer cannot encode rows {start + 1} to {stop}: {error}; is its "
                "tokenizer.json that of the model?"
            ) from error
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        if not columns["length"]:
            continue
        compact = {name: _compact_column(name, values) for name, values in columns.items()}
        chunks.append(datasets.Dataset.from_dict(compact))
    if not chunks:
        raise IwloraError("no row is left: none of them has anything to learn")
    return datasets.concatenate_datasets(chunks)


def _compact_column(name: str, values: Sequence[Any]) -> Any:
    """A column as Arrow should store it: a million encoded rows stay in memory, so token ids have
    no more bits than they need."""
    import pyarrow

    if not isinstance(values[0], (list, tuple)):
        return values
    types = {
        "attention_mask": pyarrow.int8(),
        "token_type_ids": pyarrow.int8(),
        "weights": pyarrow.float32(),
    }
    return pyarrow.array(values, pyarrow.list_(types.get(name, pyarrow.int32())))


class TokenFinder:
    """Finds characters of a text among its tokens, without special tokens around them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(
        self, text: str, spans: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """(token ids of a text, the tokens of each span of its characters).

        Tokens ``first`` to ``stop - 1`` hold the characters ``start`` to ``end - 1``. A token on
        the border of a span is in it.

        Example:
            >>> from transformers import BertTokenizerFast
            >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "rains"]
            >>> tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
            >>> TokenFinder(tokenizer).encode("it rains", [(3, 8)])
            ([5, 6], [(1, 2)])
        """
        if not self._tokenizer.is_fast:
            ids = self._ids(text)
            before = [
                tuple(shared_length(self._ids(text[:k]), ids) for k in span) for span in spans
            ]
            return ids, [(first, stop) for first, stop in before]
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts, ends = zip(*encoded["offset_mapping"], strict=True)
        found = [(bisect_right(ends, start), bisect_left(starts, end)) for start, end in spans]
        return encoded["input_ids"], found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def shared_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items two sequences begin with alike.

    >>> shared_length("prefix", "present")
    3
    """
    pairs = zip(first, second, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ``IwloraError`` for a tokenizer that does not locate its tokens in the text."""
    if not tokenizer.is_fast:
        raise IwloraError(
            f"{type(tokenizer).__name__} does not report the characters of its tokens, or the word "
            "that a token belongs to; use a model with a fast tokenizer"
        )


def end_of_text_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the token that ends a text: ``eos``, else ``sep``, else None."""
    token: Any = tokenizer.eos_token_id
    token = tokenizer.sep_token_id if token is None else token
    return None if token is None else int(token)


def begin_of_text_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The id of the begin-of-text token, where this tokenizer puts one before a text."""
    first = tokenizer("a")["input_ids"][0]
    begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [first] if first == begin else []
