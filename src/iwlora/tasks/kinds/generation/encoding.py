"""Sources and targets as token ids, for encoder-decoders and for decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.collators import IGNORE_INDEX
from iwlora.tasks.kinds.contract import Dataset, EncodingInput
from iwlora.tasks.kinds.generation.chat import Message, parse_messages, parse_tools
from iwlora.tasks.kinds.generation.chat_rows import ChatEncoder
from iwlora.tasks.kinds.generation.chat_template import Tools
from iwlora.tasks.kinds.generation.sequence_packing import pack
from iwlora.tasks.kinds.generation.text_loss import TextLoss
from iwlora.tasks.tokenization import (
    begin_of_text_tokens,
    check_max_length,
    encode_in_chunks,
    end_of_text_token,
)

Texts = Sequence[str]


@dataclass(frozen=True)
class Source:
    """What a target answers: a text, or a chat with its tools."""

    text: str
    messages: list[Message] | None = None
    tools: Tools = None


@dataclass(frozen=True)
class EncodedRow:
    """Token ids, and the weight of each of them in the loss."""

    ids: list[int]
    weights: list[float]

    @property
    def labels(self) -> list[int]:
        """The ids that have a weight; the others are ignored."""
        pairs = zip(self.ids, self.weights, strict=True)
        return [token if weight else IGNORE_INDEX for token, weight in pairs]


class SourceAndTarget(TextLoss):
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

    def chat_encoder(self, tokenizer: Any) -> ChatEncoder | None:
        """Encodes sources that are chats; None for kinds whose sources are texts."""
        return None

    def encode(self, data: EncodingInput) -> Dataset:
        """``input_ids`` and ``labels``; for decoders, rows that are scored have ``prompt_ids``.

        Rows to learn from have ``weights`` where messages of chats have a weight between 0 and 1.
        """
        check_max_length(data.processor, data.max_length, 1)
        chats, columns, targets = self.chat_encoder(data.processor), data.texts, data.labels
        decoder = _DecoderEncoder(self, data, chats)
        encode: Callable[..., dict[str, Any]] = decoder.encode
        if data.config.is_encoder_decoder:
            encode = partial(self._encode_for_encoder_decoder, data, chats)

        def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
            rows = zip(*(column[start:stop] for column in columns), strict=True)
            sources = [_source(texts, chats is not None) for texts in rows]
            return encode(sources, None if targets is None else targets[start:stop])

        encoded = encode_in_chunks(len(data.rows), encode_chunk)
        data.notes.extend(decoder.notes())
        return pack(encoded, data.max_length) if self.packing and data.training else encoded

    def _encode_for_encoder_decoder(
        self,
        data: EncodingInput,
        chats: ChatEncoder | None,
        sources: Sequence[Source],
        targets: Texts | None,
    ) -> dict[str, Any]:
        """Sources of up to ``max_length`` tokens, and ``labels`` of up to ``max_target`` tokens."""
        if self.packing:
            raise IwloraError(
                "task.kind.packing=true is for decoders, and this model is an encoder-decoder; "
                "remove it"
            )
        texts = []
        for source in sources:
            text = source.text
            if chats and source.messages:
                text = chats.encoder_text(source.messages, source.tools)
            texts.append(self.prefix + text)
        encoded = dict(data.processor(texts, truncation=True, max_length=data.max_length))
        if targets is not None:
            encoded["labels"] = data.processor(
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
    chats: ChatEncoder | None

    def encode(self, sources: Sequence[Source], targets: Texts | None) -> dict[str, Any]:
        """``input_ids`` and ``labels`` to learn from; rows to score have ``prompt_ids`` too."""
        if self.options.max_target >= self.data.max_length:
            raise IwloraError(
                f"task.kind.max_target={self.options.max_target} leaves no room for a prompt in "
                f"train.max_length={self.data.max_length}; a decoder reads both"
            )
        columns: dict[str, Any] = {}
        if targets is not None:
            pairs = zip(sources, targets, strict=True)
            rows = [row for source, target in pairs for row in self._rows(source, target)]
            columns = {"input_ids": [row.ids for row in rows], "labels": [r.labels for r in rows]}
            if self._has_weights:
                columns["weights"] = [row.weights for row in rows]
        if not self.data.training:
            prompts = [self._prompt(source) for source in sources]
            is_chat = [source.messages is not None for source in sources]
            columns = {"input_ids": prompts, **columns, "prompt_ids": prompts, "is_chat": is_chat}
        return columns

    def notes(self) -> list[str]:
        """What a user should know about the encoded rows."""
        return self.chats.notes() if self.chats and self.data.training else []

    @cached_property
    def _has_weights(self) -> bool:
        """Whether a message has a weight between 0 and 1; weights of 0 and 1 are in the labels."""
        if not (self.chats and self.data.training):
            return False
        cells = [*self.data.texts, self.data.labels]
        chats = (parse_messages(c) for column in cells for c in column[:] if '"weight"' in c)
        return any(0 < message.get("weight", 1) < 1 for chat in chats for message in chat or ())

    def _prompt(self, source: Source) -> list[int]:
        """The tokens before a generated text, with room left for ``max_target`` tokens."""
        room = self.data.max_length - self.options.max_target
        if self.chats is None or source.messages is None:
            return self._source(source.text, room)
        return self._ids(self.chats.prompt(source.messages, source.tools))[-room:]

    def _rows(self, source: Source, target: str) -> list[EncodedRow]:
        """The rows that teach, or score, the target: several for some chats, or none."""
        if self.chats is not None and source.messages is not None:
            return self._chat_rows(self.chats, source, target)
        end = end_of_text_token(self.data.processor)
        target_ids = [*self._ids(target), *([] if end is None else [end])]
        target_ids = target_ids[: self.options.max_target]
        prompt = self._source(source.text, self.data.max_length - len(target_ids))
        weights = [0.0] * len(prompt) + [1.0] * len(target_ids)
        return [_first_unlearned([*prompt, *target_ids], weights)]

    def _chat_rows(self, chats: ChatEncoder, source: Source, target: str) -> list[EncodedRow]:
        messages = list(source.messages or ())
        if messages[-1]["role"] != "assistant":
            reply = {"role": "assistant", "content": target}
            messages += parse_messages(target) or [reply]
        if not self.data.training:
            rows = [chats.last_reply(messages, source.tools)]
        else:
            rows = list(chats.rows(messages, source.tools))
        length = self.data.max_length
        encoded = [_first_unlearned(ids[-length:], weights[-length:]) for ids, weights in rows]
        return [row for row in encoded if any(row.weights) or not self.data.training]

    def _source(self, source: str, room: int) -> list[int]:
        """The begin-of-text token, if any, and the last tokens of a source that have room."""
        ids = self._ids(f"{self.options.prefix}{source}{self.options.separator}")
        return [*self._begin, *ids[-max(room - len(self._begin), 1) :]]

    @cached_property
    def _begin(self) -> list[int]:
        return begin_of_text_tokens(self.data.processor)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.data.processor(text, add_special_tokens=False)["input_ids"]
        return ids


def _first_unlearned(ids: list[int], weights: list[float]) -> EncodedRow:
    """No token stands before the first one, so nothing can predict it."""
    return EncodedRow(ids, [0.0, *weights[1:]])


def _source(texts: Texts, may_be_chat: bool) -> Source:
    """The source in the text columns of a row: an empty line is between two texts."""
    messages = parse_messages(texts[0]) if may_be_chat else None
    if messages is None:
        return Source("\n\n".join(filter(None, texts)) if len(texts) > 1 else texts[0])
    try:
        tools = parse_tools(texts[1] if len(texts) > 1 else None)
    except ValueError as error:
        raise IwloraError(f"the column with the tools of a chat {error}") from None
    return Source("", messages, from_json(tools) if tools else None)
