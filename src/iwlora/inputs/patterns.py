"""Regular expressions from outside: some take years on a short text, so their time is limited."""

from __future__ import annotations

import re
from collections.abc import Iterable

from iwlora.errors import IwloraError, short_repr
from iwlora.inputs.limits import time_limit


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression; raises ``IwloraError`` for a text that is none.

    >>> compile_pattern("*")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: '*' is no regular expression: nothing to repeat at position 0
    """
    shown = short_repr(pattern)
    try:
        with time_limit(f"reading the regular expression {shown}"):
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise IwloraError(f"{shown} is no regular expression: {error}") from None


def full_matches(pattern: str, texts: Iterable[str]) -> set[str]:
    """The texts that a regular expression matches as a whole.

    Raises ``LimitExceeded`` for one that takes too long.

    >>> sorted(full_matches("a+", ["a", "aa", "ab"]))
    ['a', 'aa']
    """
    compiled = compile_pattern(pattern)
    with time_limit(f"matching the regular expression {short_repr(pattern)}"):
        return {text for text in texts if compiled.fullmatch(text)}
