"""Sequence to sequence: a text from a text, such as summaries and translations."""

from __future__ import annotations

from typing import ClassVar, Literal

from iwlora.tasks.kinds.generation.kind import Generation


class Seq2Seq(Generation):
    """A text from a text, scored by ROUGE unless ``metric`` says otherwise."""

    name: ClassVar[str] = "seq2seq"
    summary: ClassVar[str] = "a text from a text: summaries, translations"

    separator: str = "\n"
    metric: Literal["rouge", "bleu", "exact_match"] = "rouge"
