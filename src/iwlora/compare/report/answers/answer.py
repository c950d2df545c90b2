"""An answer of the first screen: a question, one sentence, the evidence, commands to copy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A question, its answer in one sentence, the evidence, and commands to copy."""

    question: str
    short: str
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
