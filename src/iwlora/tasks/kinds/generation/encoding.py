"""Sources and targets as token ids, for encoder-decoders and for decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Any

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.kinds.contract import Dataset, EncodingInput
from iwlora.tasks.kinds.generation.chat import Message, parse_messages, render_prompt, render_turns
from iwlora.tasks.kinds.generation.sequence_packing import pack
from iwlora.tasks.kinds.heads import TokenLoss
from iwlora.tasks.tokenization import check_max_length, encode_in_chunks, end_of_text_token

Count = Annotated[int, Field(ge=1, strict=True)]
Texts = Sequence[str]
IdsAndLabels = tuple[list[int], list[int]]


class SourceAndTarget(TokenLoss):
    """How a source and its target become token ids.

    An encoder-decoder reads the source and learns the target. A decoder reads the source as a
    prompt, then ``separator``, and learns the target and the end-of-text token.
    """

    prefix: str = ""
    """Text before every source, such as ``"summarize: "``."""
    separator: str = ""
    """Text between source and target, for decoders."""
    max_target: Count = 64
    """Tokens of a target that are learned, and of the longest generated text."""
    packing: Annotated[bool, Field(strict=True)] = False
    """Decoders: several rows in one of ``train.max_length`` tokens; no row attends to another."""

    def encode(self, data: EncodingInput) -> Dataset:
        """``input_ids`` and ``labels``; for decoders, rows that are scored have ``prompt_ids``."""
        check_max_length(data.tokenizer, data.max_length, 1)
        encode: Callable[[Texts, Texts | None], dict[str, Any]] = _DecoderEncoder(self, data).encode
        if data.config.is_encoder_decoder:
            encode = partial(self._encode_for_encoder_decoder, data)
        sources, targets = _join_texts(data.texts), data.labels

        def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
            return encode(sources[start:stop], None if targets is None else targets[start:stop])

        encoded = encode_in_chunks(len(data.rows), encode_chunk)
        return pack(encoded, data.max_length) if self.packing and data.training else encoded

    def _encode_for_encoder_decoder(
        self, data: EncodingInput, sources: Texts, targets: Texts | None
    ) -> dict[str, Any]:
        """Sources of up to ``max_length`` tokens, and ``labels`` of up to ``max_target`` tokens."""
        if self.packing:
            raise IwloraError(
                "task.kind.packing=true is for decoders, and this model is an encoder-decoder; "
                "remove it"
            )
        chats = map(parse_messages, sources)
        texts = [
            self.prefix + (render_prompt(messages, data.tokenizer) if messages else source)
            for source, messages in zip(sources, chats, strict=True)
        ]
        encoded = dict(data.tokenizer(texts, truncation=True, max_length=data.max_length))
        if targets is not None:
            encoded["labels"] = data.tokenizer(
                text_target=targets, truncation=True, max_length=self.max_target
            )["input_ids"]
        return encoded


@dataclass(frozen=True)
class _DecoderEncoder:
    """Encodes rows for a decoder: source and target in one row, of which the target is learned.

    Of a row longer than ``max_length`` tokens the beginning is cut off; of a target longer than
    ``max_target`` tokens the end.
    """

    options: SourceAndTarget
    data: EncodingInput

    def encode(self, sources: Texts, targets: Texts | None) -> dict[str, Any]:
        """``input_ids`` and ``labels`` to learn from; rows to score have ``prompt_ids`` too."""
        if self.options.max_target >= self.data.max_length:
            raise IwloraError(
                f"task.kind.max_target={self.options.max_target} leaves no room for a prompt in "
                f"train.max_length={self.data.max_length}; a decoder reads both"
            )
        columns: dict[str, Any] = {}
        if targets is not None:
            encoded = map(self._source_and_target, sources, targets)
            columns["input_ids"], columns["labels"] = zip(*encoded, strict=True)
        if not self.data.training:
            prompts = [self._prompt(source) for source in sources]
            columns = {"input_ids": prompts, **columns, "prompt_ids": prompts}
        return columns

    def _prompt(self, source: str) -> list[int]:
        """The tokens before a generated text, with room left for ``max_target`` tokens."""
        messages = parse_messages(source)
        room = self.data.max_length - self.options.max_target
        if messages is None:
            return self._source(source, room)
        return self._ids(render_prompt(messages, self.data.tokenizer))[-room:]

    def _source_and_target(self, source: str, target: str) -> IdsAndLabels:
        """(token ids, labels): target tokens are their own labels, all others are ignored."""
        messages = parse_messages(source)
        if messages is not None:
            if messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": target})
            return self._chat(messages)
        end = end_of_text_token(self.data.tokenizer)
        target_ids = [*self._ids(target), *([] if end is None else [end])]
        target_ids = target_ids[: self.options.max_target]
        prompt = self._source(source, self.data.max_length - len(target_ids))
        return _ignore_first([*prompt, *target_ids], [IGNORE_INDEX] * len(prompt) + target_ids)

    def _chat(self, messages: list[Message]) -> IdsAndLabels:
        ids: list[int] = []
        labels: list[int] = []
        tokenizer, max_length = self.data.tokenizer, self.data.max_length
        for text, learned in render_turns(messages, tokenizer, every_turn=self.data.training):
            piece = self._ids(text)
            ids += piece
            labels += piece if learned else [IGNORE_INDEX] * len(piece)
        return _ignore_first(ids[-max_length:], labels[-max_length:])

    def _source(self, source: str, room: int) -> list[int]:
        """The begin-of-text token, if any, and the last tokens of a source that have room."""
        ids = self._ids(f"{self.options.prefix}{source}{self.options.separator}")
        return [*self._begin, *ids[-max(room - len(self._begin), 1) :]]

    @cached_property
    def _begin(self) -> list[int]:
        """The begin-of-text token, where this tokenizer puts one before a text."""
        tokenizer = self.data.tokenizer
        first = tokenizer("a")["input_ids"][0]
        begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return [first] if first == begin else []

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.data.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _ignore_first(ids: list[int], labels: list[int]) -> IdsAndLabels:
    """No token stands before the first one, so nothing can predict it."""
    return ids, [IGNORE_INDEX, *labels[1:]]


def _join_texts(columns: Sequence[Texts]) -> Texts:
    """The texts of each row, with an empty line between two of them."""
    if len(columns) == 1:
        return columns[0]
    return ["\n\n".join(filter(None, texts)) for texts in zip(*columns, strict=True)]
