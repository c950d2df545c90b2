"""The records of CSV and TSV files, read one by one."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import read_lines

# Python's own limit for a field, 128 KiB, is less than a long document.
LONGEST_FIELD = 2**31 - 1
DELIMITED: Mapping[str, Any] = {".csv": (",", csv.QUOTE_MINIMAL), ".tsv": ("\t", csv.QUOTE_NONE)}
"""{ending of a file: (delimiter, quoting)}."""


def read_fields(path: str) -> Iterator[tuple[int, list[str]]]:
    """(the line where it starts, the fields) of each record; blank lines are passed over.

    Raises ``IwloraError`` as :func:`iwlora.inputs.lines.read_lines`, and for a quote that does not
    end.
    """
    delimiter, quoting = DELIMITED[Path(path).suffix.lower()]
    lines = (f"{line}\n" for _, line in read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        start = reader.line_num + 1
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
