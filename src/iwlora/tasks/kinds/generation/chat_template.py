"""A tokenizer's chat template: how it renders messages, opens a reply and ends it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.limits import LimitExceeded, memory_limit, time_limit
from iwlora.tasks.kinds.generation.chat import Message
from iwlora.tasks.tokenization import end_of_text_token, shared_length

Tools = list[dict[str, Any]] | None

_SUBJECT = "rendering a chat with the tokenizer's chat template"
_MOST_BYTES = 2**30  # of memory
_QUESTION: Message = {"role": "user", "content": "Hello"}
_WORD = "xyzzy"
_ANSWER: Message = {"role": "assistant", "content": _WORD}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": _WORD, "arguments": {"n": 1}}}],
}


@dataclass(frozen=True)
class Turn:
    """A rendered chat up to one message, of which ``text[start:end]`` is to be learned."""

    text: str
    start: int
    end: int


class ChatTemplate:
    """What a tokenizer's chat template writes around the messages of a chat.

    A template says nowhere how a turn ends, so short chats are rendered to see it.

    Args:
        tokenizer: A tokenizer of transformers; its chat template may be missing until a chat is
            rendered.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def render(self, messages: Sequence[Message], tools: Tools = None, prompt: bool = False) -> str:
        """The chat as text; with ``prompt`` followed by what opens a reply.

        Raises:
            IwloraError: There is no template, or it refuses the chat.
        """
        if not messages:
            raise IwloraError("a chat needs a message before the assistant's")
        text: str = self._apply(messages, tools, tokenize=False, add_generation_prompt=prompt)
        return text

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> str:
        """The text that a reply continues."""
        return self.render(messages, tools, prompt=True).removesuffix(self.left_out)

    def reply(self, messages: Sequence[Message], tools: Tools = None) -> Turn | None:
        """The last message, the assistant's, as a continuation of its prompt and with its end.

        None where the template does not render it as a continuation.
        """
        prompt, text = self.prompt(messages[:-1], tools), self.render(messages, tools)
        if not text.startswith(prompt) or not text[len(prompt) :].strip():
            return None
        return self._ended(text, len(prompt))

    def message(self, messages: Sequence[Message], number: int, tools: Tools = None) -> Turn:
        """The content of message ``number``, and the token that follows it.

        Raises:
            IwloraError: The template does not render the content as it stands.
        """
        text, before = self._first_rendered(messages, number + 1, tools), ""
        if number:
            before = self._first_rendered(messages, number, tools)
        content = messages[number]["content"].strip()
        start = text.find(content, shared_length(text, before))
        if start < 0 or not content:
            raise IwloraError(
                f"the tokenizer's chat template does not render message {number + 1} "
                f"({messages[number]['role']}) as it stands, so it cannot be learned; change "
                "task.kind.learned_roles"
            )
        end = start + len(content)
        mark = self._marks.search(text, end)
        return Turn(text, start, mark.end() if mark else end)

    def generated_tokens(self, messages: Sequence[Message], tools: Tools) -> list[int] | None:
        """1 for the tokens in the template's ``{% generation %}`` blocks, 0 for the others.

        None for a template without them, and for a tokenizer that does not locate its tokens.
        """
        tokenizer = self._tokenizer
        template = tokenizer.get_chat_template(tools=tools)
        if not tokenizer.is_fast or not re.search(r"\{%-?\s*generation\s*-?%\}", template):
            return None
        encoded = self._apply(
            messages, tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        mask: list[int] = encoded["assistant_masks"]
        return mask

    def content(self, ids: list[int]) -> list[int]:
        """The tokens of a written reply, without what the template opens and ends it with."""
        stop = next((k for k, token in enumerate(ids) if token in self.stops), len(ids))
        opening = self._ids(self.opening.rstrip())
        start = len(opening) if opening and ids[: len(opening)] == opening else 0
        closing = self._closing
        is_closed = closing and ids[stop - len(closing) : stop] == closing
        return ids[start : stop - len(closing)] if is_closed else ids[start:stop]

    @cached_property
    def left_out(self) -> str:
        """What ends a prompt but does not stand before a reply, such as DeepSeek-R1's "<think>"."""
        return self._opening[0]

    @cached_property
    def opening(self) -> str:
        """What stands between a prompt and the content of a plain reply."""
        return self._opening[1]

    @cached_property
    def end(self) -> int | None:
        """The id of the token that ends a turn of the assistant."""
        return self._end[0]

    @cached_property
    def stops(self) -> list[int]:
        """The ids of the tokens that end a reply: of text, and of a tool call."""
        ends = [] if self.end is None else [self.end]
        with_call = self._try([_QUESTION, _CALL])
        without = self._try([_QUESTION, {**_CALL, "tool_calls": []}])
        if with_call and with_call != without and _WORD in with_call:
            after = self._ids(with_call[with_call.rindex(_WORD) :].rstrip())
            if self.end not in after and after[-1] in self._mark_ids:
                ends.append(after[-1])
        return ends

    @cached_property
    def _opening(self) -> tuple[str, str]:
        """(``left_out``, ``opening``)."""
        prompt, turn = self._try([_QUESTION], prompt=True), self._try([_QUESTION, _ANSWER])
        if not prompt or not turn or _WORD not in turn:
            return "", ""
        shared = shared_length(prompt, turn)
        for mark in self._marks.finditer(prompt):  # no token is cut in two
            shared = mark.start() if mark.start() < shared < mark.end() else shared
        return prompt[shared:], turn[shared : turn.index(_WORD)]

    @cached_property
    def _closing(self) -> list[int]:
        """The tokens between the content of a plain reply and the token that ends the turn."""
        last = self._try([_QUESTION, _ANSWER]) or ""
        after = self._ids(last.partition(_WORD)[2])
        return after[: after.index(self.end)] if self.end in after else after

    @cached_property
    def _end(self) -> tuple[int | None, bool]:
        """(``end``, whether the template writes it after the last reply of a chat)."""
        last = self._try([_QUESTION, _ANSWER]) or ""
        inner = self._try([_QUESTION, _ANSWER, _QUESTION]) or last
        after, going_on = (self._ids(text.partition(_WORD)[2]) for text in (last, inner))
        shared = after[: shared_length(after, going_on)]
        ends = [token for token in shared if token in self._mark_ids][-1:]
        ends += [token for token in after if token in self._mark_ids][:1]
        ends += [token for token in going_on[:1] if token in self._mark_ids]
        end = ends[0] if ends else end_of_text_token(self._tokenizer)
        return end, end in after

    def _ended(self, text: str, start: int) -> Turn:
        """The reply that begins at ``start``, through the end of its turn, added where missing."""
        end, is_rendered = self._end
        if end is None:
            return Turn(text, start, len(text))
        word = self._tokenizer.convert_ids_to_tokens(end)
        position = text.rfind(word, start) if is_rendered else -1
        if position >= 0:
            return Turn(text, start, position + len(word))
        marks = [mark.end() for mark in self._marks.finditer(text, start)]
        if is_rendered and marks and not text[marks[-1] :].strip():  # the end of a tool call
            return Turn(text, start, marks[-1])
        return Turn(text + word, start, len(text + word))

    @cached_property
    def _mark_ids(self) -> set[int]:
        """The tokens that are no text: those added to the vocabulary, but for white space."""
        added = self._tokenizer.added_tokens_decoder
        return {token for token, word in added.items() if str(word).strip()}

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """Finds the tokens that are no text; longer ones first."""
        words = [self._tokenizer.convert_ids_to_tokens(token) for token in self._mark_ids]
        words = sorted(words, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, words)) or "(?!)")

    @cached_property
    def _reads_parts(self) -> bool:
        """Whether the template reads contents as lists of parts only, as image models' do."""
        as_text = self._try([_QUESTION, _ANSWER], parts=False) or ""
        return _WORD not in as_text and _WORD in (self._try([_QUESTION, _ANSWER], parts=True) or "")

    @cached_property
    def _reads_json(self) -> bool:
        """Whether the template reads arguments of tool calls as JSON only, as DeepSeek-V3's."""
        return self._try([_QUESTION, _CALL], json_arguments=False) is None

    def _first_rendered(self, messages: Sequence[Message], count: int, tools: Tools) -> str:
        """The first ``count`` messages, or as few more as the template accepts."""
        for stop in range(count, len(messages)):
            text = self._try(messages[:stop], tools=tools)
            if text is not None:
                return text
        return self.render(messages, tools)

    def _try(self, messages: Sequence[Message], **options: Any) -> str | None:
        """The rendered chat; None where the template refuses it."""
        tools, prompt = options.pop("tools", None), options.pop("prompt", False)
        try:
            text: str = self._apply(
                messages, tools, tokenize=False, add_generation_prompt=prompt, **options
            )
        except LimitExceeded:
            raise
        except IwloraError:
            return None
        return text

    def _apply(
        self,
        messages: Sequence[Message],
        tools: Tools,
        parts: bool | None = None,
        json_arguments: bool | None = None,
        **options: Any,
    ) -> Any:
        """``apply_chat_template`` on the messages in the form that the template reads."""
        if not self._tokenizer.chat_template:
            raise IwloraError(
                "the tokenizer has no chat template, so messages cannot be rendered; use a model "
                "for chats, or give prompts and completions: task.text=prompt task.label=completion"
            )
        parts = self._reads_parts if parts is None else parts
        has_calls = any("tool_calls" in message for message in messages)
        if json_arguments is None:
            json_arguments = has_calls and self._reads_json
        chat = [_formatted(message, parts, json_arguments) for message in messages]
        try:
            with time_limit(_SUBJECT), memory_limit(_SUBJECT, _MOST_BYTES):
                return self._tokenizer.apply_chat_template(chat, tools=tools or None, **options)
        except LimitExceeded:
            raise
        except Exception as error:  # a template is foreign code: it raises nearly anything
            roles = ", ".join(message["role"] for message in messages)
            raise IwloraError(
                f"the tokenizer's chat template refuses a chat of {roles}: {error}"
            ) from error

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _formatted(message: Message, parts: bool, json_arguments: bool) -> Message:
    """The message as a template reads it: without its weight, which is ours."""
    message = {name: value for name, value in message.items() if name != "weight"}
    if parts:
        message["content"] = [{"type": "text", "text": message["content"]}]
    if json_arguments and "tool_calls" in message:
        message["tool_calls"] = [_with_json_arguments(call) for call in message["tool_calls"]]
    return message


def _with_json_arguments(call: dict[str, Any]) -> dict[str, Any]:
    if "function" in call:
        return {**call, "function": _with_json_arguments(call["function"])}
    return {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
