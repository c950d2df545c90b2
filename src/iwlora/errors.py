"""Errors that a user can act on: what was given, what is accepted, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IwloraError(ValueError):
    """A mistake in the input, told in words; the command line prints it without a traceback."""


def unknown(what: str, given: str, choices: Iterable[str]) -> IwloraError:
    """The error for a name that is not one of ``choices``, with the near ones.

    >>> print(unknown("method", "ia-lora", ["full", "lora", "iw-lora"]))
    unknown method 'ia-lora'; did you mean 'iw-lora', 'lora'? (accepted: full, lora, iw-lora)
    """
    accepted = list(choices)
    near = difflib.get_close_matches(given, accepted, n=3)
    hint = f"; did you mean {', '.join(repr(name) for name in near)}?" if near else ";"
    return IwloraError(f"unknown {what} {given!r}{hint} (accepted: {', '.join(accepted)})")
