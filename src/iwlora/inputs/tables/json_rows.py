"""JSON files of rows: one object per line, an array of objects, or one object with the rows in it.

An array is read object by object, so that it may be larger than the memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, NoReturn

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.encoding import encoding_notes, encoding_of
from iwlora.inputs.lines import open_bytes, read_chunks, read_lines
from iwlora.inputs.places import MOST_BYTES
from iwlora.inputs.tables.reading import (
    Problems,
    Reading,
    Records,
    Table,
    ending,
    nested_names,
    nested_value,
)
from iwlora.inputs.tables.squad import is_squad, squad_questions, squad_row
from iwlora.inputs.yaml_json import from_json, parse_mapping

_FORMS = (
    "accepted: one object per line, a list of objects, an object with one list of objects, or an "
    "object with a list for each column"
)
_CHAT = ("messages", "conversations", "tools", "prompt", "completion")
"""Fields of a single row that are lists of objects."""
_NOT_BLANK = re.compile(r"[^ \t\r\n]")
_DECODER = json.JSONDecoder()


class JsonRows(Table):
    """A file of JSON objects, with ``a.b`` for the field b of the field a."""

    @cached_property
    def encoding(self) -> str:
        """The encoding that is given, or found."""
        return self.reading.encoding or encoding_of(self.path)

    def columns(self) -> list[str]:
        """The names in the first row; names with dots are fields inside of others."""
        first = next((row for _, row in self.objects([])), {})
        return [*first, *nested_names(first)]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """As JSON has them."""
        for number, row in self.objects(problems):
            values, absent = [], []
            for name in columns:
                try:
                    values.append(nested_value(row, name))
                except KeyError:
                    absent.append(name)
            known = [*row, *nested_names(row)]
            problems += [(number, str(unknown("column", name, known))) for name in absent]
            if not absent:
                yield number, values

    def objects(self, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The rows, each with its number; what is no object is added to ``problems``."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """The encoding."""
        return encoding_notes(self.path, self.encoding, self.reading.encoding)


class JsonLines(JsonRows):
    """One object per line."""

    def objects(self, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The lines that are not blank."""
        for number, line in read_lines(self.path, self.encoding):
            if line.strip():
                try:
                    yield number, parse_mapping(line, "it")
                except IwloraError as error:
                    problems.append((number, f"{error}; each line must be a JSON object"))


class JsonArray(JsonRows):
    """A list of objects."""

    unit: ClassVar[str] = "row"

    def objects(self, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The items of the list; raises ``IwloraError`` where it is no JSON, with the line."""
        for number, item in enumerate(_Items(self.path, self.encoding), start=1):
            if isinstance(item, Mapping):
                yield number, item
            else:
                found = type(item).__name__
                problems.append((number, f"a {found}; each item of the list must be an object"))


class JsonObject(JsonRows):
    """One object that holds the rows: a list of them, a list for each column, or SQuAD's form."""

    unit: ClassVar[str] = "row"

    @cached_property
    def _value(self) -> Mapping[str, Any]:
        text, most = "", MOST_BYTES["JSON"]
        for part in read_chunks(self.path, self.encoding):
            text += part
            if len(text) > most:
                raise IwloraError(
                    f"{self.path} is larger than {most / 2**20:g} MiB, the most that is read of "
                    "one object; write its rows as a list, or one per line"
                )
        try:
            return parse_mapping(text.removeprefix("\ufeff"), self.path)
        except IwloraError as error:
            raise IwloraError(f"{error}; {_FORMS}") from None

    def objects(self, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The rows in the object."""
        if not is_squad(self._value):
            yield from enumerate(self._rows(), start=1)
            return
        try:
            questions = list(squad_questions(self._value))
        except (KeyError, TypeError) as error:
            raise IwloraError(f"{self.path} is not a file of SQuAD: {error!r}") from None
        for number, (identifier, (entry, context)) in enumerate(questions, start=1):
            try:
                yield number, {"id": identifier, **squad_row(entry, context)}
            except ValueError as error:
                problems.append((number, f"question {identifier}: {error}"))

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        value = self._value
        lists = {name: rows for name, rows in value.items() if _are_objects(rows)}
        if len(lists) == 1:
            return next(iter(lists.values()))
        if len(lists) > 1:
            raise IwloraError(
                f"{self.path} holds {len(lists)} lists of rows ({', '.join(lists)}); save each as "
                "a file of its own, for task.train, task.validation and task.test"
            )
        columns = {
            name: list(cells.values()) if isinstance(cells, Mapping) else cells
            for name, cells in value.items()
        }
        cells = list(columns.values())
        if all(isinstance(column, list) for column in cells) and len({*map(len, cells)}) == 1:
            return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]
        raise IwloraError(
            f"{self.path} holds one object (fields: {', '.join(value) or 'none'}) in which there "
            f"is no list of rows; {_FORMS}"
        )


def open_json(path: str, reading: Reading) -> JsonRows:
    """The table in a JSON file, whose form its first lines tell."""
    with open_bytes(path) as stream:
        start = stream.read(2**16).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")
    if start.startswith(b"["):
        return JsonArray(path, reading)
    lines = JsonLines(path, reading)
    return lines if _has_lines(lines) else JsonObject(path, reading)


def _has_lines(table: JsonLines) -> bool:
    """Whether a file has one object per line, also if the first one is damaged."""
    lines = (line for _, line in read_lines(table.path, table.encoding) if line.strip())
    if not (parsed := [*map(_parsed, islice(lines, 3))]):
        return True
    first, *more = parsed
    if isinstance(first, Mapping):
        return bool(more) or ending(table.path) != ".json" or not _holds_rows(first)
    return bool(more) and all(isinstance(value, Mapping) for value in more)


def _parsed(line: str) -> Any:
    try:
        return from_json(line)
    except ValueError:
        return None


def _holds_rows(value: Mapping[str, Any]) -> bool:
    """Whether an object is a table, not a row of one."""
    fields = [cells for name, cells in value.items() if name not in _CHAT]
    if is_squad(value) or any(map(_are_objects, fields)):
        return True
    sizes = {len(cells) if isinstance(cells, (list, Mapping)) else -1 for cells in fields}
    return len(fields) > 1 and len(sizes) == 1 and -1 not in sizes


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


class _Items:
    """The items of a JSON array in a file, one by one."""

    def __init__(self, path: str, encoding: str) -> None:
        self._path, self._parts = path, read_chunks(path, encoding)
        self._text, self._place, self._is_all = "", 0, False
        self._lines, self._column = 0, 0  # of what was dropped from the text

    def __iter__(self) -> Iterator[Any]:
        self._more(1)
        self._text = self._text.removeprefix("\ufeff")
        self._place = self._text.index("[") + 1
        while self._sign() != "]":
            yield self._item()
            if self._sign() == ",":
                self._place += 1
                if self._sign() == "]":
                    self._refuse("an item is missing after the comma", self._place)
            elif self._sign() != "]":
                self._refuse("a comma or ] is missing", self._place)
        self._place += 1
        if self._sign():
            self._refuse("there is something after the list", self._place)

    def _sign(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            found = _NOT_BLANK.search(self._text, self._place)
            if found:
                self._place = found.start()
                return found[0]
            self._place = len(self._text)
            if not self._more(1):
                return ""

    def _item(self) -> Any:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
                if end < len(self._text) or self._is_all:
                    self._place = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_all or len(self._text) - self._place > MOST_BYTES["line"]:
                    self._refuse(error.msg, error.pos)
            except RecursionError:
                self._refuse("nested too deeply", self._place)
            self._more(len(self._text) - self._place)

    def _more(self, count: int) -> bool:
        """Read so many characters more, or to the end; whether there were any."""
        dropped = self._text[: self._place]
        self._lines, self._column = self._position(self._place)
        parts = [self._text[len(dropped) :]]
        self._place, read = 0, 0
        while read < count and not self._is_all:
            part = next(self._parts, None)
            self._is_all = part is None
            parts.append(part or "")
            read += len(parts[-1])
        self._text = "".join(parts)
        return read > 0

    def _position(self, place: int) -> tuple[int, int]:
        """The lines, and the characters of the last line, before a place in the text."""
        lines = self._text.count("\n", 0, place)
        start = self._text.rfind("\n", 0, place) + 1
        return self._lines + lines, place - start + (0 if lines else self._column)

    def _refuse(self, reason: str, place: int) -> NoReturn:
        line, column = self._position(min(place, len(self._text)))
        raise IwloraError(
            f"{self._path}, line {line + 1}, column {column + 1} is damaged or was cut short "
            f"({reason}); the list must end with ] and hold objects with commas between"
        ) from None
