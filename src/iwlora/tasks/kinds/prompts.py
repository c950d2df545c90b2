"""Sources and targets as token ids: for encoder-decoders, for decoders, for chats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.kinds.sequence_packing import packed
from iwlora.tasks.padding import IGNORED
from iwlora.tasks.tokenization import check_length, in_chunks

if TYPE_CHECKING:
    import datasets

    from iwlora.tasks.kinds.generation import Generation
    from iwlora.tasks.task import Task

Message = dict[str, str]
Learned = tuple[list[int], list[int]]


def plain_messages(value: Any) -> list[Message] | None:
    """The messages in a list, or in JSON that has roles; None for what is not meant as such.

    The ``ValueError`` says what is wrong with a message.

    >>> plain_messages('[{"role": "user", "content": "Hi"}]')
    [{'role': 'user', 'content': 'Hi'}]
    >>> plain_messages("Hi") is None
    True
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError:
            return None
        if not any(isinstance(one, dict) and "role" in one for one in value):
            return None
    if not isinstance(value, (list, tuple)):
        return None
    for number, message in enumerate(value, start=1):
        fields = message if isinstance(message, Mapping) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            raise ValueError(f"message {number} is no {{role: ..., content: ...}}")
    if not value:
        raise ValueError("is empty")
    return [{"role": one["role"], "content": one["content"]} for one in value]


def reply(messages: Sequence[Message]) -> str:
    """The last message, which must be the assistant's; ``ValueError`` where it is not."""
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise ValueError("does not end with a message of the assistant")
    return messages[-1]["content"].strip()


def encoder_decoder_rows(
    kind: Generation, task: Task, rows: datasets.Dataset, tokenizer: Any, max_length: int
) -> datasets.Dataset:
    """Sources of up to ``max_length`` tokens; ``labels`` of up to ``max_target``."""
    check_length(tokenizer, max_length, 1)
    if kind.packing:
        raise IwloraError(
            "task.kind.packing=true is for decoders, and this model is an encoder-decoder; "
            "remove it"
        )
    sources = _sources(task, rows)
    targets = rows["label"] if "label" in rows.column_names else None

    def chunk(start: int, stop: int) -> Mapping[str, Any]:
        texts = [kind.prefix + _source(text, tokenizer) for text in sources[start:stop]]
        encoded = dict(tokenizer(texts, truncation=True, max_length=max_length))
        if targets is not None:
            encoded["labels"] = tokenizer(
                text_target=targets[start:stop], truncation=True, max_length=kind.max_target
            )["input_ids"]
        return encoded

    return in_chunks(len(rows), chunk)


def decoder_rows(
    kind: Generation,
    task: Task,
    rows: datasets.Dataset,
    tokenizer: Any,
    max_length: int,
    training: bool,
) -> datasets.Dataset:
    """Source and target in a row, of which the target is learned; to answer, the prompt apart.

    Of what is over ``max_length`` tokens the beginning is cut, of a target over ``max_target``
    the end.
    """
    check_length(tokenizer, max_length, 1)
    if kind.max_target >= max_length:
        raise IwloraError(
            f"task.kind.max_target={kind.max_target} leaves no room for a prompt in "
            f"train.max_length={max_length}; a decoder reads both"
        )
    sources = _sources(task, rows)
    targets = rows["label"] if "label" in rows.column_names else None
    writer = _Writer(kind, tokenizer, max_length)

    def chunk(start: int, stop: int) -> Mapping[str, Any]:
        texts = sources[start:stop]
        columns: dict[str, Any] = {}
        if targets is not None:
            pairs = [
                writer.learned(text, target, every_turn=training)
                for text, target in zip(texts, targets[start:stop], strict=True)
            ]
            columns = {
                "input_ids": [ids for ids, _ in pairs],
                "labels": [labels for _, labels in pairs],
            }
        if not training:
            prompts = [writer.prompt(text) for text in texts]
            columns = {"input_ids": prompts, **columns, "prompt_ids": prompts}
        return columns

    encoded = in_chunks(len(rows), chunk)
    return packed(encoded, max_length) if kind.packing and training else encoded


@dataclass
class _Writer:
    """Turns one row at a time into token ids for a decoder."""

    kind: Generation
    tokenizer: Any
    max_length: int

    def __post_init__(self) -> None:
        from iwlora.tasks.kinds.generation import end_of

        first = self.tokenizer("a")["input_ids"][0]
        begins = self.tokenizer.bos_token_id
        if begins is None:
            begins = self.tokenizer.cls_token_id
        self._begin = [first] if first == begins else []
        end = end_of(self.tokenizer)
        self._end = [] if end is None else [end]

    def prompt(self, text: str) -> list[int]:
        """What stands before an answer, with room left for it."""
        messages = plain_messages(text)
        room = self.max_length - self.kind.max_target
        if messages is None:
            return self._cut(self._ids(self.kind.prefix + text + self.kind.separator), room)
        return self._ids(_rendered_prompt(messages, self.tokenizer))[-room:]

    def learned(self, text: str, target: str, every_turn: bool) -> Learned:
        """(token ids, labels): the target's ids are their own labels, all others are ignored."""
        messages = plain_messages(text)
        if messages is not None:
            if messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": target})
            return self._chat(messages, every_turn)
        answer = [*self._ids(target), *self._end][: self.kind.max_target]
        before = self.kind.prefix + text + self.kind.separator
        prompt = self._cut(self._ids(before), self.max_length - len(answer))
        return _ignore_first([*prompt, *answer], [IGNORED] * len(prompt) + answer)

    def _chat(self, messages: list[Message], every_turn: bool) -> Learned:
        ids: list[int] = []
        labels: list[int] = []
        for text, learn in _turns(messages, self.tokenizer, every_turn):
            part = self._ids(text)
            ids += part
            labels += part if learn else [IGNORED] * len(part)
        return _ignore_first(ids[-self.max_length :], labels[-self.max_length :])

    def _cut(self, ids: list[int], room: int) -> list[int]:
        kept = max(room - len(self._begin), 1)
        return [*self._begin, *ids[-kept:]]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def _ignore_first(ids: list[int], labels: list[int]) -> Learned:
    """Nothing stands before the first token, so nothing predicts it."""
    return ids, [IGNORED, *labels[1:]]


def _sources(task: Task, rows: datasets.Dataset) -> Sequence[str]:
    """The texts of each row, an empty line between two."""
    columns = [rows[name] for name in task.text]
    if len(columns) == 1:
        return columns[0]  # type: ignore[no-any-return]
    return ["\n\n".join(filter(None, texts)) for texts in zip(*columns, strict=True)]


def _source(text: str, tokenizer: Any) -> str:
    messages = plain_messages(text)
    return text if messages is None else _rendered_prompt(messages, tokenizer)


def _rendered_prompt(messages: list[Message], tokenizer: Any) -> str:
    """The chat up to where the assistant answers."""
    before = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return _render(before, tokenizer, prompt=True)


def _render(messages: list[Message], tokenizer: Any, prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise IwloraError(
            "the tokenizer has no chat template, so messages cannot be rendered; take a model "
            "for chats, or give prompts and completions: task.text=prompt task.label=completion"
        )
    if not messages:
        raise IwloraError("a chat needs a message before the assistant's")
    from jinja2 import TemplateError

    try:
        found: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise IwloraError(
            f"the tokenizer's chat template refuses a chat of {roles}: {error}"
        ) from error
    return found


def _turns(messages: list[Message], tokenizer: Any, every_turn: bool) -> list[tuple[str, bool]]:
    """The rendered chat in pieces, with whether a piece is learned.

    A turn is learned from the end of its prompt to the end of its message. An earlier turn that
    the template renders otherwise once the chat goes on is read, not learned.
    """
    whole = _render(messages, tokenizer)
    pieces: list[tuple[str, bool]] = []
    at = 0
    for number, message in enumerate(messages):
        last = number == len(messages) - 1
        if message["role"] != "assistant" or number == 0 or not (every_turn or last):
            continue
        begin = _render(messages[:number], tokenizer, prompt=True)
        end = _render(messages[: number + 1], tokenizer)
        if not (whole.startswith(begin) and whole.startswith(end) and len(end) > len(begin) >= at):
            if last:
                raise IwloraError(
                    "the tokenizer's chat template renders an answer otherwise than its prompt "
                    "announces, so it cannot be learned apart from it"
                )
            continue
        pieces += [(whole[at : len(begin)], False), (whole[len(begin) : len(end)], True)]
        at = len(end)
    return [*pieces, (whole[at:], False)] if at < len(whole) else pieces
