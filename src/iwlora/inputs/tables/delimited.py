"""CSV, TSV and their relatives, record by record."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

from iwlora.errors import IwloraError
from iwlora.inputs.encoding import encoding_notes, encoding_of
from iwlora.inputs.lines import read_lines
from iwlora.inputs.tables.dialect import SAMPLE_LINES, Dialect, find_dialect
from iwlora.inputs.tables.reading import Problems, Records, Table, numbered_columns, positions

# Python's own limit for a field, 128 KiB, is less than a long document.
LONGEST_FIELD = 2**31 - 1
_OWN = Dialect(",", csv.QUOTE_MINIMAL, header=True)
"""Of the files that this package writes."""


def read_fields(
    path: str, dialect: Dialect = _OWN, encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """(the line where it starts, the fields) of each record; blank lines are passed over.

    Raises ``IwloraError`` as :func:`iwlora.inputs.lines.read_lines`, and for a quote that does not
    end.
    """
    first = dialect.first_line
    lines = (f"{line}\n" for number, line in read_lines(path, encoding) if number >= first)
    reader = csv.reader(lines, delimiter=dialect.delimiter, quoting=dialect.quoting, strict=True)
    while True:
        start = reader.line_num + first
        limit = csv.field_size_limit(LONGEST_FIELD)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise IwloraError(f"{path}, line {start}: {error}") from error
        finally:
            csv.field_size_limit(limit)
        if fields:
            yield start, fields


class Delimited(Table):
    """A file of records whose fields a delimiter divides."""

    @cached_property
    def _encoding(self) -> str:
        return self.reading.encoding or encoding_of(self.path)

    @cached_property
    def _dialect(self) -> Dialect:
        lines = islice(read_lines(self.path, self._encoding), SAMPLE_LINES)
        return find_dialect(self.path, [line for _, line in lines], self.reading)

    def columns(self) -> list[str]:
        """The fields of the header, or column1, column2, …"""
        _, first = next(read_fields(self.path, self._dialect, self._encoding), (1, []))
        return first if self._dialect.header else numbered_columns(len(first))

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """As the format gives them: texts."""
        header = self.columns()
        hint = (
            "" if self._dialect.header else "; if the first line is a header, give task.header=true"
        )
        places = positions(self.path, header, columns, hint)
        records = read_fields(self.path, self._dialect, self._encoding)
        for number, fields in islice(records, int(self._dialect.header), None):
            if len(fields) == len(header):
                yield number, [fields[place] for place in places]
            else:
                others = "header has" if self._dialect.header else "first line has"
                wrong = (
                    f"{len(fields)} fields, the {others} {len(header)}; quote a field that holds"
                )
                way_out = f"{self._dialect.delimiter!r}, or give task.delimiter"
                problems.append((number, f"{wrong} {way_out}"))

    def notes(self) -> list[str]:
        """The encoding, the delimiter and the missing header."""
        notes = encoding_notes(self.path, self._encoding, self.reading.encoding)
        return notes + self._dialect.notes(self.path, self.reading)
