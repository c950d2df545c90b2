"""The rows that a chat becomes: token ids, and the weight of each token in the loss."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.generation.chat import Message, weight_of
from iwlora.tasks.kinds.generation.chat_template import ChatTemplate, Tools, Turn
from iwlora.tasks.tokenization import TokenFinder

# The names that templates have for what a reply begins with.
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TAGS = re.compile(r"(</?think(?:ing)?>)")


@dataclass
class ChatRow:
    """A rendered chat up to one message, with the turns in it that are learned.

    Args:
        messages: How many messages of the chat are in the text.
        turns: (the turn, its weight, whether the assistant wrote it).
    """

    text: str
    messages: int
    turns: list[tuple[Turn, float, bool]] = field(default_factory=list)


class ChatEncoder:
    """Encodes chats for a tokenizer.

    Args:
        template: The tokenizer's chat template.
        tokens: Finds characters among the tokenizer's tokens.
        learned_roles: The roles whose messages are learned.

    ``unrendered`` counts the fields that the template leaves out, and ``unlearned`` the replies
    that it does not render as a continuation of their prompt.
    """

    def __init__(
        self, template: ChatTemplate, tokens: TokenFinder, learned_roles: Sequence[str]
    ) -> None:
        self.template, self._tokens, self._roles = template, tokens, learned_roles
        self.unrendered: Counter[str] = Counter()
        self.unlearned = 0

    def rows(
        self, messages: Sequence[Message], tools: Tools
    ) -> Iterator[tuple[list[int], list[float]]]:
        """(token ids, weight of each token) of the rows that teach all learned messages of a chat.

        Each message is learned after the text that the model would see at that turn. Where the
        template renders a turn alike later on, one row teaches it and the next one.
        """
        weights = [weight_of(message, self._roles) for message in messages]
        self.check_rendered(messages, tools, [bool(weight) for weight in weights])
        rows: list[ChatRow] = []
        for number, weight in enumerate(weights):
            turn = self._turn(messages, number, tools) if weight else None
            if turn is None:
                continue
            if not (rows and turn.text.startswith(rows[-1].text[: rows[-1].turns[-1][0].end])):
                rows.append(ChatRow("", 0))
            is_reply = messages[number]["role"] == "assistant" and number > 0
            rows[-1].text, rows[-1].messages = turn.text, number + 1
            rows[-1].turns.append((turn, weight, is_reply))
        for row in rows:
            yield self._weighted(row, messages, tools)

    def last_reply(
        self, messages: Sequence[Message], tools: Tools
    ) -> tuple[list[int], list[float]]:
        """(token ids, weights) of the row in which the last message alone counts."""
        self.check_rendered(messages, tools, [False] * (len(messages) - 1) + [True])
        turn = self._reply(messages, tools)
        row = ChatRow(turn.text, len(messages), [(turn, 1.0, True)])
        return self._weighted(row, messages, tools)

    def prompt(self, messages: Sequence[Message], tools: Tools) -> str:
        """The text after which the last reply is to be generated."""
        before = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        if before:  # the template itself refuses an empty chat
            self.check_rendered(before, tools, [False] * len(before))
        return self.template.prompt(before, tools)

    def encoder_text(self, messages: Sequence[Message], tools: Tools) -> str:
        """What an encoder reads; its decoder learns the content of the last reply, all of it.

        Raises:
            IwloraError: The chat asks for more.
        """
        last = messages[-1]
        structured = set(last) - {"role", "content"} if last["role"] == "assistant" else ()
        if structured or tuple(self._roles) != ("assistant",):
            asked = ", ".join(sorted(structured)) or "task.kind.learned_roles"
            raise IwloraError(
                "an encoder-decoder learns the content of the last reply of a chat only, and "
                f"{asked} asks for more; remove it, or use a decoder"
            )
        return self.prompt(messages, tools)

    def notes(self) -> list[str]:
        """What a user should know about the encoded chats."""
        notes = []
        if self.unlearned:
            notes.append(
                f"{self.unlearned} earlier replies are not learned: the chat template does not "
                "render them as continuations of their prompts; the last reply of each chat is"
            )
        if self.unrendered:
            fields = ", ".join(f"{name} of {n} messages" for name, n in self.unrendered.items())
            notes.append(f"the chat template does not render {fields}")
        if self.template.left_out:
            notes.append(
                f"the chat template ends a prompt with {self.template.left_out!r}, which it does "
                "not write before a reply; replies are learned, and generated, without it"
            )
        return notes

    def _turn(self, messages: Sequence[Message], number: int, tools: Tools) -> Turn | None:
        """Message ``number``, in the chat up to it; None where it cannot be learned on its own."""
        if messages[number]["role"] != "assistant" or number == 0:
            return self.template.message(messages, number, tools)
        if number == len(messages) - 1:
            return self._reply(messages, tools)
        turn = self.template.reply(messages[: number + 1], tools)
        self.unlearned += turn is None
        return turn

    def _reply(self, messages: Sequence[Message], tools: Tools) -> Turn:
        turn = self.template.reply(messages, tools)
        if turn is None:
            raise IwloraError(
                "the tokenizer's chat template does not render a reply as a continuation of its "
                "prompt, so the reply cannot be learned on its own"
            )
        return turn

    def _weighted(
        self, row: ChatRow, messages: Sequence[Message], tools: Tools
    ) -> tuple[list[int], list[float]]:
        ids, positions = self._tokens.encode(row.text, [(t.start, t.end) for t, _, _ in row.turns])
        weights = [0.0] * len(ids)
        generated = self.template.generated_tokens(messages[: row.messages], tools)
        for (_, weight, is_reply), (first, stop) in zip(row.turns, positions, strict=True):
            learned = set(range(first, stop))
            if is_reply and generated is not None:
                # The token that ends the turn may stand outside the block, or be ours.
                inside = {k for k in learned if k < len(generated) and generated[k]}
                learned = inside | {stop - 1} if inside else learned
            for token in learned:
                weights[token] = weight
        return ids, weights

    def check_rendered(
        self, messages: Sequence[Message], tools: Tools, learned: Sequence[bool]
    ) -> None:
        """Raise ``IwloraError`` for what the model would need and the template leaves out.

        Args:
            messages: The chat.
            tools: Its tools.
            learned: Whether each message is learned.
        """
        text = self._rendered(messages, tools)
        if tools and text == self._rendered(messages, None):
            raise IwloraError(
                "the tokenizer's chat template does not render tools; leave their column out of "
                "task.text, or use a model whose template renders them"
            )
        for number, message in enumerate(messages):
            is_reply = message["role"] == "assistant"
            # Templates may shorten earlier replies, so each one is looked at in its own turn.
            chat = messages[: number + 1] if is_reply and number else messages
            for name in self._unrendered(chat, number, tools, text):
                is_answer = name in _REASONING or (name == "content" and is_reply)
                if name in ("content", "tool_calls", *_REASONING):
                    if learned[number] or not is_answer:
                        raise IwloraError(
                            f"the tokenizer's chat template does not render {name} of message "
                            f"{number + 1} ({message['role']}), or not all of it, so it would be "
                            "lost; remove it, or use a model whose template renders it"
                        )
                else:
                    self.unrendered[f"{name} ({message['role']})"] += 1

    def _unrendered(
        self, messages: Sequence[Message], number: int, tools: Tools, whole: str
    ) -> Iterator[str]:
        """The fields of a message without which the chat is rendered alike."""
        message = messages[number]
        fields = [name for name in message if name not in ("role", "content", "weight")]
        usual = message["role"] in ("user", "assistant")
        content = message["content"]
        parts = _TAGS.split(content)
        doubtful = range(len(parts)) if not usual or len(parts) > 1 or content not in whole else ()
        if not fields and not doubtful:
            return
        text = self._rendered(messages, tools)

        def is_same(other: Message) -> bool:
            try:
                return text == self._rendered(
                    [*messages[:number], other, *messages[number + 1 :]], tools
                )
            except IwloraError:  # the template needs the field
                return False

        for name in fields:
            if is_same({key: value for key, value in message.items() if key != name}):
                yield name
        for part in doubtful:
            if parts[part].strip() and not _TAGS.fullmatch(parts[part]):
                other = "".join([*parts[:part], f"{parts[part].rstrip()}x", *parts[part + 1 :]])
                if is_same({**message, "content": other}):
                    yield "content"

    def _rendered(self, messages: Sequence[Message], tools: Tools) -> str:
        return self.template.render(messages, tools, prompt=messages[-1]["role"] != "assistant")
