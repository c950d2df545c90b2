"""Chats: messages with roles, rendered by the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json

Message = dict[str, str]


def parse_messages(value: Any) -> list[Message] | None:
    """The messages in a list, or in JSON that has roles; None for a plain text.

    Raises:
        ValueError: A message lacks its role or content.

    Example:
        >>> parse_messages('[{"role": "user", "content": "Hi"}]')
        [{'role': 'user', 'content': 'Hi'}]
        >>> parse_messages("Hi") is None
        True
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError:
            return None
        if not any(isinstance(item, dict) and "role" in item for item in value):
            return None
    if not isinstance(value, (list, tuple)):
        return None
    for number, message in enumerate(value, start=1):
        fields = message if isinstance(message, Mapping) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            raise ValueError(f"message {number} is no {{role: ..., content: ...}}")
    if not value:
        raise ValueError("is empty")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def last_reply(messages: Sequence[Message]) -> str:
    """The content of the last message; ``ValueError`` where it is not the assistant's."""
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise ValueError("does not end with a message of the assistant")
    return messages[-1]["content"].strip()


def render_prompt(messages: list[Message], tokenizer: Any) -> str:
    """The chat as text, up to the last reply of the assistant, which is left out."""
    before = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return _render(before, tokenizer, prompt=True)


def render_turns(
    messages: list[Message], tokenizer: Any, every_turn: bool
) -> list[tuple[str, bool]]:
    """The rendered chat in pieces of (text, whether it is learned).

    Learned is the last turn of the assistant, or with ``every_turn`` all of them, each from the
    end of its prompt to the end of its message. Some templates render an earlier turn differently
    once the chat goes on; such a turn is not learned.
    """
    whole = _render(messages, tokenizer)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for number, message in enumerate(messages):
        is_last = number == len(messages) - 1
        if message["role"] != "assistant" or number == 0 or not (every_turn or is_last):
            continue
        prompt = _render(messages[:number], tokenizer, prompt=True)
        turn = _render(messages[: number + 1], tokenizer)
        is_prefix = whole.startswith(prompt) and whole.startswith(turn)
        if not (is_prefix and len(turn) > len(prompt) >= position):
            if is_last:
                raise IwloraError(
                    "the tokenizer's chat template does not render a reply as a continuation of "
                    "its prompt, so the reply cannot be learned on its own"
                )
            continue
        pieces += [(whole[position : len(prompt)], False), (whole[len(prompt) : len(turn)], True)]
        position = len(turn)
    return [*pieces, (whole[position:], False)] if position < len(whole) else pieces


def _render(messages: list[Message], tokenizer: Any, prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise IwloraError(
            "the tokenizer has no chat template, so messages cannot be rendered; use a model "
            "for chats, or give prompts and completions: task.text=prompt task.label=completion"
        )
    if not messages:
        raise IwloraError("a chat needs a message before the assistant's")
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise IwloraError(
            f"the tokenizer's chat template refuses a chat of {roles}: {error}"
        ) from error
    return text
