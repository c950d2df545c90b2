"""Parsing the cells of a user's table: texts and lists of texts."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from iwlora.inputs.yaml_json import from_json

# Python parses longer literals slowly; JSON has no such limit.
_LONGEST_LITERAL = 10_000
_BRACKETS = ("[", "(", "{")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_NUMBER_LIKE = re.compile(r"\W*\d[\W\d]*")  # a digit, and no letter
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMPY_TEXTS = re.compile(rf"\[\s*(?:{_QUOTED.pattern})(?:\s+(?:{_QUOTED.pattern}))+\s*\]")
# A decimal comma: "1,500" is refused, since it is 1.5 for one reader and 1500 for another.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d+)")


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


def parse_number(value: Any) -> float:
    """The finite number in a cell; a decimal comma and a percent sign are understood.

    >>> parse_number("1,5"), parse_number("80%"), parse_number(" 2e3 ")
    (1.5, 0.8, 2000.0)
    """
    text = parse_text(value)
    digits, percent = text.removesuffix("%").rstrip(), text.endswith("%")
    comma = _DECIMAL_COMMA.fullmatch(digits)
    if comma and len(comma[1]) == 3:
        readings = f"{digits.replace(',', '.')} or {digits.replace(',', '')}"
        raise ValueError(
            f"holds {text!r}, which may be {readings}; write a decimal point, or no comma"
        )
    try:
        number = float(digits.replace(",", ".") if comma else digits)
    except ValueError:
        raise ValueError(f"holds {text!r}, not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"holds {text}, not a finite number")
    return number / 100 if percent else number


def unread_numbers_note(cells: Iterable[Any]) -> str | None:
    """A note on labels that look like numbers and are read as classes.

    >>> unread_numbers_note(["1,500", "2,250"])
    "labels such as '1,500' are read as classes, not as numbers; for numbers write all of them \
with a decimal point, as in 1.5 or 1500"
    """
    written = sorted({str(cell).strip() for cell in cells})
    numbers = [cell for cell in written if _NUMBER_LIKE.fullmatch(cell)]
    unusual = [cell for cell in numbers if not _WHOLE_NUMBER.fullmatch(cell)]
    if not unusual or 2 * len(numbers) <= len(written):
        return None
    return (
        f"labels such as {unusual[0]!r} are read as classes, not as numbers; for numbers write all "
        "of them with a decimal point, as in 1.5 or 1500"
    )


def looks(name: str) -> str:
    """How a class name looks to a reader: equal for names that only a computer tells apart.

    Letters composed in two ways, characters without width, runs of spaces, and the writing of
    numbers do not count.

    >>> looks("re\u0301sume\u0301") == looks("r\u00e9sum\u00e9"), looks("1") == looks("1.0")
    (True, True)
    """
    visible = "".join(
        c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf"
    )
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", visible):
        return repr(float(visible))
    return " ".join(visible.split())


def whole_characters(value: Any) -> Any:
    r"""The value of a cell; ``ValueError`` if a text in it has half of a character.

    JSON can write such a half (a lone surrogate), which no encoding has.

    >>> whole_characters("a\ud800")
    Traceback (most recent call last):
    ValueError: has half of a character, '\ud800', which no text may hold
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(f"has half of a character, {half!r}, which no text may hold") from None
    return value


def parse_list(value: Any, separator: str | None) -> list[str]:
    """The texts in a cell: a list, or text with ``separator`` (None: spaces) between.

    A text may be a list as JSON or Python writes it.

    >>> parse_list("a; b", ";"), parse_list('["a", "b"]', ";"), parse_list("['a', 'b']", None)
    (['a', 'b'], ['a', 'b'], ['a', 'b'])
    """
    if isinstance(value, str):
        value = _split(value, separator)
    if value is None:
        raise ValueError("is empty")
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"holds a {type(value).__name__}, not a list")
    return [parse_text(item) for item in value]


def written_list(text: str) -> list[Any] | None:
    """The list that a text holds in the notation of JSON, Python or NumPy; None for any other text.

    Python's tuples and sets count as lists.

    >>> written_list("['a', 'b']"), written_list("['a' 'b']"), written_list("[CLS] a")
    (['a', 'b'], ['a', 'b'], None)
    """
    if not text.lstrip().startswith(_BRACKETS):
        return None
    if _NUMPY_TEXTS.fullmatch(text.strip()):  # Python would join the texts to one
        return [ast.literal_eval(token) for token in _QUOTED.findall(text)]
    try:
        value = from_json(text)
    except ValueError:
        try:
            value = ast.literal_eval(text.strip()) if len(text) <= _LONGEST_LITERAL else None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return list(value) if isinstance(value, (list, tuple, set)) else None


def _split(text: str, separator: str | None) -> Any:
    if text.lstrip().startswith(_BRACKETS):
        listed = written_list(text)
        return text.split(separator) if listed is None else listed
    return [part for part in text.split(separator) if part.strip()]
