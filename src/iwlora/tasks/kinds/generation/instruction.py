"""Instruction tuning: completions of prompts, and the assistant's turns of chats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import Dataset, EncodingInput
from iwlora.tasks.kinds.generation.chat import (
    check_weights,
    parse_messages,
    parse_tools,
    reply_label,
)
from iwlora.tasks.kinds.generation.chat_rows import ChatEncoder
from iwlora.tasks.kinds.generation.chat_template import ChatTemplate
from iwlora.tasks.kinds.generation.kind import Generation
from iwlora.tasks.tokenization import TokenFinder

Role = Annotated[str, Field(min_length=1)]

LONGEST_EXACT = 16
"""Tokens of the longest median target for which exact match is the primary metric."""


class Instruction(Generation):
    """A completion after a prompt, or a chat that the tokenizer's own template renders.

    Scored by exact match and perplexity unless ``metric`` says otherwise. In training every turn
    of the assistant is learned; in scoring only the last one counts.
    """

    name: ClassVar[str] = "instruction"
    summary: ClassVar[str] = "a completion after a prompt, or a chat (a column of messages)"
    text_columns: ClassVar[tuple[int, int]] = (1, 2)
    former_defaults: ClassVar[Mapping[str, Any]] = {"chat_format": 1, "metric": "exact_match"}

    metric: Literal["auto", "rouge", "bleu", "exact_match", "perplexity"] = "auto"  # type: ignore[assignment]
    """The primary metric. auto: exact match, or perplexity where the median target of the scored
    rows has more than 16 tokens; the other one is reported too."""

    learned_roles: Annotated[tuple[Role, ...], Field(min_length=1)] = ("assistant",)
    """Chats: the roles whose messages are learned. A message's own ``weight``, 0 to 1, multiplies
    the loss of its tokens."""
    chat_format: Literal[1, 2] = 2
    """How chats become tokens: 1 is that of runs that older versions began, which cannot be
    continued."""

    def parse_text(self, value: Any) -> str:
        """A prompt, or messages (a list of {role, content}, or JSON), which are kept as JSON."""
        messages = parse_messages(value)
        if messages is None:
            return parse_text(value)
        check_weights(messages, self.learned_roles)
        return json.dumps(messages, ensure_ascii=False)

    def parse_second_text(self, value: Any) -> str:
        """The input of an instruction, or the tools of a chat as JSON; it may be empty."""
        if isinstance(value, (list, tuple)):
            return parse_tools(value)
        return "" if value is None or not str(value).strip() else parse_text(value)

    def parse_label(self, value: Any) -> str:
        """The completion: a text, texts of which the first is learned, or a list with one message
        of the assistant."""
        if not isinstance(value, (list, tuple)) or _are_texts(value):
            return super().parse_label(value)
        messages = parse_messages(value)
        if messages is None or len(messages) > 1:
            raise ValueError(f"holds {len(value)} messages; accepted: one, the assistant's")
        check_weights(messages, self.learned_roles)
        return reply_label(messages[0])

    def other_references(self, value: Any) -> list[str]:
        """The texts in a list of texts after the first."""
        return super().other_references(value) if _are_texts(value) else []

    @property
    def text_metric(self) -> str | None:
        """The metric of the generated texts; None if they are not scored."""
        return "exact_match" if self.metric == "auto" else super().text_metric

    def ranked(
        self, metrics: Sequence[str], rows: Dataset, tokenizer: Any
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The perplexity first where ``metric`` is auto and the median target is long."""
        lengths, _ = self.target_lengths(rows, tokenizer)
        if self.metric != "auto" or not lengths or (tokens := median(lengths)) <= LONGEST_EXACT:
            return tuple(metrics), ()
        note = (
            "runs are ranked by perplexity (lower is better): the median target has "
            f"{tokens:g} tokens, and texts of more than {LONGEST_EXACT} are hardly ever equal; "
            "task.kind.metric=exact_match ranks by exact match"
        )
        return ("perplexity", *(name for name in metrics if name != "perplexity")), (note,)

    def complete_label(self, texts: Sequence[Any], label: str) -> str:
        """The label, where it fits the prompt: a chat's own last reply, a text after a text."""
        messages = parse_messages(texts[0])
        if messages is None:
            if parse_messages(label):
                raise ValueError(
                    "the completion has more than a text, so its prompt must be a chat"
                )
        else:
            parse_tools(texts[1] if len(texts) > 1 else None)
            if messages[-1]["role"] == "assistant" and self._last_reply(messages) != label:
                raise ValueError("the chat ends with a reply that differs from the label")
        return label

    def label_from_text(self, text: str) -> str:
        """The last turn of a chat, which must be the assistant's."""
        messages = parse_messages(text)
        if messages is None:
            return str(super().label_from_text(text))
        return self._last_reply(messages)

    def encode(self, data: EncodingInput) -> Dataset:
        """As ``SourceAndTarget.encode``; a run that an older version began learns no chats."""
        is_former = self.chat_format == 1 and data.training and not data.config.is_encoder_decoder
        if is_former and any(parse_messages(text) for text in data.texts[0][:]):
            raise IwloraError(
                "this recipe is of an older version of iwlora, which encoded chats otherwise: it "
                "learned no end of a turn, and not every reply. Such a run cannot be continued; "
                "train anew in another folder with task.kind.chat_format=2"
            )
        return super().encode(data)

    def chat_encoder(self, tokenizer: Any) -> ChatEncoder:
        """Encodes chats with the tokenizer's template."""
        return ChatEncoder(ChatTemplate(tokenizer), TokenFinder(tokenizer), self.learned_roles)

    def stop_tokens(self, tokenizer: Any, known: Any) -> list[int]:
        """The end of the text, and the ends of a turn in the tokenizer's chat template."""
        ends = ChatTemplate(tokenizer).stops if tokenizer.chat_template else []
        return list(dict.fromkeys([*ends, *super().stop_tokens(tokenizer, known)]))

    @staticmethod
    def _last_reply(messages: Sequence[dict[str, Any]]) -> str:
        return reply_label({k: v for k, v in messages[-1].items() if k != "weight"})


def _are_texts(value: Any) -> bool:
    """Whether a cell is a list of texts, not of messages."""
    is_list = isinstance(value, (list, tuple))
    return is_list and bool(value) and all(isinstance(item, str) for item in value)
