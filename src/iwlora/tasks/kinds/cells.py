"""Parsing the cells of a user's table: texts and lists of texts."""

from __future__ import annotations

import json
import math
from typing import Any

from iwlora.inputs.yaml_json import from_json


def parse_text(value: Any) -> str:
    """The text in a cell, without spaces at its ends; ``ValueError`` for an empty cell or a list.

    >>> parse_text(" a film "), parse_text(2012), parse_text(True)
    ('a film', '2012', 'true')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("is empty")
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"holds a {type(value).__name__}, not text or a number")
    text = value.strip()
    if not text:
        raise ValueError("is empty")
    return text


def parse_list(value: Any, separator: str | None) -> list[str]:
    """The texts in a cell: a list, a JSON list, or text with ``separator`` (None: spaces) between.

    >>> parse_list("a; b", ";"), parse_list('["a", "b"]', ";"), parse_list("a b", None)
    (['a', 'b'], ['a', 'b'], ['a', 'b'])
    """
    if isinstance(value, str):
        value = _split(value, separator)
    if value is None:
        raise ValueError("is empty")
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"holds a {type(value).__name__}, not a list")
    return [parse_text(item) for item in value]


def _split(text: str, separator: str | None) -> Any:
    if text.lstrip().startswith("["):
        try:
            return from_json(text)
        except ValueError:
            return text.split(separator)
    return [part for part in text.split(separator) if part.strip()]
