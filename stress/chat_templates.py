"""Check what is learned of a chat with every chat template that TRL ships.

    python stress/chat_templates.py [TEMPLATE ...]

``tests/tasks/kinds/test_chat_rows.py`` checks some of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from chat_tokenizers import byte_tokenizer
from iwlora.tasks.kinds.generation.chat_template import ChatTemplate
from iwlora.tasks.kinds.generation.instruction import Instruction

CHAT = [
    {"role": "user", "content": "who runs?"},
    {"role": "assistant", "content": "the dog"},
    {"role": "user", "content": "who sleeps?"},
    {"role": "assistant", "content": "the cat"},
]


def template_names() -> list[str]:
    """The templates that the installed TRL ships."""
    return sorted(file.stem for file in _folder().glob("*.jinja"))


def problems(name: str) -> Iterator[str]:
    """A line for each thing that is not learned as the template has it."""
    tokenizer = byte_tokenizer((_folder() / f"{name}.jinja").read_text(encoding="utf-8"))
    encoder = Instruction().chat_encoder(tokenizer)
    template: ChatTemplate = encoder.template
    rendered = [template.render(CHAT[:stop]) for stop in (2, 4)]
    prompts = [template.prompt(CHAT[:stop]) for stop in (1, 3)]
    replies = []
    for ids, weights in encoder.rows(CHAT, None):
        text = tokenizer.decode(ids)
        if not any(
            text in (whole, whole + tokenizer.decode(template.stops[:1])) for whole in rendered
        ):
            yield f"the row {text!r} is not what the template renders"
        ends = [0, *accumulate(len(tokenizer.decode(token)) for token in ids)]
        learned = [k for k, weight in enumerate(weights) if weight]
        first = [k for k in learned if not weights[k - 1]]
        last = [k for k in learned if k + 1 == len(ids) or not weights[k + 1]]
        for start, end in zip(first, last, strict=True):
            replies.append(tokenizer.decode(ids[start : end + 1]))
            before = text[: ends[start]]
            if before not in prompts:
                yield f"{replies[-1]!r} is learned after {before!r}, which is no prompt"
            if ids[end] != template.end:
                yield f"{replies[-1]!r} does not end as a turn does"
            content = tokenizer.decode(template.content(ids[start : end + 1])).strip()
            if content not in ("the dog", "the cat"):
                yield f"the content of {replies[-1]!r} is read as {content!r}"
    if ["the dog" in reply for reply in replies] != [True, False]:
        yield f"learned is {replies}, not each reply once"


def _folder() -> Path:
    import trl

    return Path(trl.__file__).parent / "chat_templates"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each problem; the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", nargs="*", metavar="TEMPLATE", help="default: all")
    names = parser.parse_args(arguments).templates or template_names()
    lines = [f"{name}: {problem}" for name in names for problem in problems(name)]
    print("\n".join(lines) or f"all {len(names)} templates are learned as they are rendered")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
