"""Instruction tuning: completions of prompts, and the assistant's turns of chats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.generation.chat import last_reply, parse_messages
from iwlora.tasks.kinds.generation.kind import Generation


class Instruction(Generation):
    """A completion after a prompt, or a chat that the tokenizer's own template renders.

    Scored by exact match and perplexity. In training every turn of the assistant is learned; in
    scoring only the last one counts.
    """

    name: ClassVar[str] = "instruction"
    summary: ClassVar[str] = "a completion after a prompt, or a chat (a column of messages)"
    text_columns: ClassVar[tuple[int, int]] = (1, 2)

    def parse_text(self, value: Any) -> str:
        """A prompt, or messages (a list of {role, content}, or JSON), which are kept as JSON."""
        messages = parse_messages(value)
        return parse_text(value) if messages is None else json.dumps(messages, ensure_ascii=False)

    def parse_second_text(self, value: Any) -> str:
        """The input of an instruction, which follows it after an empty line; it may be empty."""
        return "" if value is None or not str(value).strip() else parse_text(value)

    def parse_label(self, value: Any) -> str:
        """The completion: a text, or a list with one message of the assistant."""
        if not isinstance(value, (list, tuple)):
            return parse_text(value)
        messages = parse_messages(value)
        if messages is None or len(messages) > 1:
            raise ValueError(f"holds {len(value)} messages; accepted: one, the assistant's")
        return last_reply(messages)

    def complete_label(self, texts: Sequence[Any], label: str) -> str:
        """The label, where a chat that ends with a reply has no other reply as its label."""
        messages = parse_messages(texts[0])
        if messages and messages[-1]["role"] == "assistant" and last_reply(messages) != label:
            raise ValueError("the chat ends with a reply that differs from the label")
        return label

    def label_from_text(self, text: str) -> str:
        """The last turn of a chat, which must be the assistant's."""
        messages = parse_messages(text)
        return str(super().label_from_text(text)) if messages is None else last_reply(messages)
