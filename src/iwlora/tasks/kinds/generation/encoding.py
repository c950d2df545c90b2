"""Sources and targets as token ids, for encoder-decoders and for decoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.kinds.generation.chat import (
    Message,
    parse_messages,
    render_prompt,
    render_turns,
)
from iwlora.tasks.kinds.generation.sequence_packing import pack
from iwlora.tasks.tokenization import check_max_length, encode_in_chunks, end_of_text_token

if TYPE_CHECKING:
    import datasets

IdsAndLabels = tuple[list[int], list[int]]


def encode_for_encoder_decoder(
    rows: datasets.Dataset,
    text: Sequence[str],
    tokenizer: Any,
    max_length: int,
    max_target: int,
    prefix: str,
) -> datasets.Dataset:
    """Sources of up to ``max_length`` tokens, and ``labels`` of up to ``max_target`` tokens."""
    check_max_length(tokenizer, max_length, 1)
    sources = _join_texts(rows, text)
    targets = rows["label"] if "label" in rows.column_names else None

    def source_text(source: str) -> str:
        messages = parse_messages(source)
        return prefix + (source if messages is None else render_prompt(messages, tokenizer))

    def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
        texts = [source_text(source) for source in sources[start:stop]]
        encoded = dict(tokenizer(texts, truncation=True, max_length=max_length))
        if targets is not None:
            encoded["labels"] = tokenizer(
                text_target=targets[start:stop], truncation=True, max_length=max_target
            )["input_ids"]
        return encoded

    return encode_in_chunks(len(rows), encode_chunk)


@dataclass(frozen=True)
class DecoderEncoder:
    """Encodes rows for a decoder: source and target in one row, of which the target is learned.

    Of a row longer than ``max_length`` tokens the beginning is cut off; of a target longer than
    ``max_target`` tokens the end.
    """

    tokenizer: Any
    max_length: int
    max_target: int
    prefix: str
    separator: str
    packing: bool

    def encode(
        self, rows: datasets.Dataset, text: Sequence[str], training: bool
    ) -> datasets.Dataset:
        """``input_ids`` and ``labels`` to learn from; rows to score have ``prompt_ids`` too."""
        check_max_length(self.tokenizer, self.max_length, 1)
        if self.max_target >= self.max_length:
            raise IwloraError(
                f"task.kind.max_target={self.max_target} leaves no room for a prompt in "
                f"train.max_length={self.max_length}; a decoder reads both"
            )
        sources = _join_texts(rows, text)
        targets = rows["label"] if "label" in rows.column_names else None

        def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
            texts = sources[start:stop]
            columns: dict[str, Any] = {}
            if targets is not None:
                pairs = [
                    self._source_and_target(source, target, every_turn=training)
                    for source, target in zip(texts, targets[start:stop], strict=True)
                ]
                columns = {
                    "input_ids": [ids for ids, _ in pairs],
                    "labels": [labels for _, labels in pairs],
                }
            if not training:
                prompts = [self._prompt(source) for source in texts]
                columns = {"input_ids": prompts, **columns, "prompt_ids": prompts}
            return columns

        encoded = encode_in_chunks(len(rows), encode_chunk)
        return pack(encoded, self.max_length) if self.packing and training else encoded

    def _prompt(self, source: str) -> list[int]:
        """The tokens before a generated text, with room left for ``max_target`` tokens."""
        messages = parse_messages(source)
        room = self.max_length - self.max_target
        if messages is None:
            return self._truncated(self._ids(self.prefix + source + self.separator), room)
        return self._ids(render_prompt(messages, self.tokenizer))[-room:]

    def _source_and_target(self, source: str, target: str, every_turn: bool) -> IdsAndLabels:
        """(token ids, labels): target tokens are their own labels, all others are ignored."""
        messages = parse_messages(source)
        if messages is not None:
            if messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": target})
            return self._chat(messages, every_turn)
        end = end_of_text_token(self.tokenizer)
        target_ids = [*self._ids(target), *([] if end is None else [end])][: self.max_target]
        room = self.max_length - len(target_ids)
        prompt = self._truncated(self._ids(self.prefix + source + self.separator), room)
        return _ignore_first([*prompt, *target_ids], [IGNORE_INDEX] * len(prompt) + target_ids)

    def _chat(self, messages: list[Message], every_turn: bool) -> IdsAndLabels:
        ids: list[int] = []
        labels: list[int] = []
        for text, learned in render_turns(messages, self.tokenizer, every_turn):
            piece = self._ids(text)
            ids += piece
            labels += piece if learned else [IGNORE_INDEX] * len(piece)
        return _ignore_first(ids[-self.max_length :], labels[-self.max_length :])

    def _truncated(self, ids: list[int], room: int) -> list[int]:
        kept = max(room - len(self._begin), 1)
        return [*self._begin, *ids[-kept:]]

    @cached_property
    def _begin(self) -> list[int]:
        """The begin-of-text token, where this tokenizer puts one before a text."""
        first = self.tokenizer("a")["input_ids"][0]
        begin = self.tokenizer.bos_token_id
        if begin is None:
            begin = self.tokenizer.cls_token_id
        return [first] if first == begin else []

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _ignore_first(ids: list[int], labels: list[int]) -> IdsAndLabels:
    """No token stands before the first one, so nothing can predict it."""
    return ids, [IGNORE_INDEX, *labels[1:]]


def _join_texts(rows: datasets.Dataset, text: Sequence[str]) -> Sequence[str]:
    """The texts of each row, with an empty line between two of them."""
    columns = [rows[name] for name in text]
    if len(columns) == 1:
        return columns[0]  # type: ignore[no-any-return]
    return ["\n\n".join(filter(None, texts)) for texts in zip(*columns, strict=True)]
