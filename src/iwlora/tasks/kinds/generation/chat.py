"""Chats: messages with roles, in the forms that files hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.errors import short_repr
from iwlora.inputs.yaml_json import from_json

Message = dict[str, Any]

# The roles of ShareGPT's {from, value}.
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}


def parse_messages(value: Any) -> list[Message] | None:
    """The messages in a list, or in JSON that has roles; None for a plain text.

    All fields of a message are kept, but for those that are null. ShareGPT's ``from`` and
    ``value`` become ``role`` and ``content``, parts of text are joined, and what OpenAI's API
    called ``function_call`` becomes ``tool_calls``, whose arguments are mappings.

    Raises:
        ValueError: A message lacks its role or content, or has a field of another form.

    Example:
        >>> parse_messages('[{"from": "human", "value": "Hi"}]')
        [{'role': 'user', 'content': 'Hi'}]
        >>> parse_messages("Hi") is None
        True
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError:
            return None
        if not any(isinstance(item, dict) and {"role", "from"} & set(item) for item in value):
            return None
    if not isinstance(value, (list, tuple)):
        return None
    if not value:
        raise ValueError("is empty")
    return [_parse_message(number, message) for number, message in enumerate(value, start=1)]


def parse_tools(value: Any) -> str:
    """The JSON of a list of tools, each a mapping; "" for an empty cell."""
    tools = value
    if isinstance(value, str):
        try:
            tools = from_json(value) if value.strip() else []
        except ValueError:
            raise ValueError("is no JSON list of tools") from None
    if tools is None or (isinstance(tools, (list, tuple)) and not tools):
        return ""
    if not (isinstance(tools, (list, tuple)) and all(isinstance(t, Mapping) for t in tools)):
        raise ValueError(f"holds {short_repr(tools)}; accepted: a list of tools as JSON schemas")
    return json.dumps(_without_null(tools), ensure_ascii=False)


def reply_label(message: Message) -> str:
    """The label of a reply: its content, or JSON where it has more than that.

    Raises:
        ValueError: The message is not the assistant's, or is empty.
    """
    if message["role"] != "assistant":
        raise ValueError("does not end with a message of the assistant")
    plain = set(message) == {"role", "content"}
    label: str = message["content"].strip() if plain else json.dumps([message], ensure_ascii=False)
    if not label:
        raise ValueError("ends with an empty message of the assistant")
    return label


def weight_of(message: Message, learned_roles: Sequence[str]) -> float:
    """The weight of a message's tokens in the loss; 0 where its role is not learned."""
    return float(message.get("weight", 1)) if message["role"] in learned_roles else 0.0


def check_weights(messages: Sequence[Message], learned_roles: Sequence[str]) -> None:
    """Raise ``ValueError`` for a weight on a message whose role is not learned."""
    for number, message in enumerate(messages, start=1):
        if message.get("weight") and message["role"] not in learned_roles:
            raise ValueError(
                f"gives message {number} a weight, but its role {message['role']!r} is not "
                "learned; add it to task.kind.learned_roles, or remove the weight"
            )


def _parse_message(number: int, value: Any) -> Message:
    message = _without_null(value) if isinstance(value, Mapping) else {}
    if "from" in message and "role" not in message:
        role = message.pop("from")
        if role not in _SHAREGPT_ROLES:
            raise ValueError(
                f"message {number} is from {short_repr(role)} (accepted: "
                f"{', '.join(_SHAREGPT_ROLES)})"
            )
        message = {"role": _SHAREGPT_ROLES[role], "content": message.pop("value", None), **message}
    if "function_call" in message:
        call = {"type": "function", "function": message.pop("function_call")}
        message.setdefault("tool_calls", [call])
    if message.get("role") == "function":
        message["role"] = "tool"
    if "tool_calls" in message:
        message["tool_calls"] = [
            _parse_tool_call(number, call) for call in _listed(message["tool_calls"])
        ]
    # An empty field says as little as a missing one; files with one schema have many of them.
    message = {k: v for k, v in message.items() if k == "content" or v not in ([], "")}
    if isinstance(message.get("content"), (list, tuple)):
        message["content"] = _joined_parts(number, message["content"])
    if "tool_calls" in message:
        message.setdefault("content", "")
    if not all(isinstance(message.get(name), str) for name in ("role", "content")):
        raise ValueError(f"message {number} is no {{role: ..., content: ...}}")
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
        raise ValueError(
            f"gives message {number} the weight {short_repr(weight)}; accepted: 0 to 1"
        )
    is_reply = message["role"] == "assistant" and weight
    if is_reply and not message["content"].strip() and "tool_calls" not in message:
        raise ValueError(
            f"has nothing to learn in message {number}: the assistant's content is empty; remove "
            "the message, or give it the weight 0"
        )
    return message


def _parse_tool_call(number: int, call: Any) -> Any:
    """A tool call whose arguments are a mapping where they are one in JSON."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
        raise ValueError(
            f"message {number} has the tool call {short_repr(call)}; accepted: {{type: function, "
            "function: {name: ..., arguments: {...}}}"
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, Mapping):
        raise ValueError(
            f"message {number} calls {function['name']} with arguments that are no map"
        )
    parsed = {**function, "arguments": arguments}
    return {**call, "function": parsed} if "function" in call else parsed


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _joined_parts(number: int, parts: Sequence[Any]) -> str:
    """The text of a content in parts; ``ValueError`` for an image and the like."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type") != "text"):
            name = part.get("type") if isinstance(part, Mapping) else None
            raise ValueError(
                f"message {number} has a part that is no text ({name or short_repr(part)}); only "
                "text is learned"
            )
        texts.append(text)
    return "".join(texts)


def _without_null(value: Any) -> Any:
    """The value without null fields, which Parquet adds to give all rows one schema."""
    if isinstance(value, Mapping):
        return {str(key): _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, (list, tuple)) else value
