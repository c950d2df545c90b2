"""The rows of a user's file as columns in Arrow's memory, each cell parsed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import BadRow, BadRowsError, IwloraError, is_of_system
from iwlora.inputs.places import user_path
from iwlora.inputs.tables.reading import Problems
from iwlora.inputs.tables.records import read_records, record_files, record_places
from iwlora.tasks.columns.infer import Columns
from iwlora.tasks.kinds.cells import parse_text, whole_characters
from iwlora.tasks.kinds.contract import IMAGE, OTHER_REFERENCES
from iwlora.tasks.splits import FILE, LINE, arrow_type

if TYPE_CHECKING:
    import pyarrow

# Rows that are Python objects at a time, before Arrow stores them.
CHUNK_ROWS = 4096
# Reading stops after this many rows that cannot be used.
MAX_BAD_ROWS = 100_000


@dataclass(frozen=True)
class ParsedFile:
    """The parsed rows of a file, the line of each, and the first line of each ``Kind.notation``."""

    path: str
    split: str
    line_numbers: array[int]
    rows: pyarrow.Table
    notations: Mapping[str, int] = field(default_factory=dict)

    def with_places(self, is_one_of_several: bool) -> ParsedFile:
        """The file with the columns that say where its rows are: ``LINE``, and ``FILE`` if needed.

        A file is named where the split has the rows of several, or of a folder of texts.
        """
        import pyarrow

        rows = self.rows.append_column(LINE, pyarrow.array(self.line_numbers, pyarrow.int64()))
        file_of = record_files(self.path, self.split)
        if file_of or is_one_of_several:
            names = [file_of(number) if file_of else self.path for number in self.line_numbers]
            rows = rows.append_column(FILE, pyarrow.array(names, pyarrow.string()))
        return replace(self, rows=rows)


def parse_file(
    path: str,
    columns: Columns,
    split: str,
    bad: list[BadRow] | None = None,
    most: int | None = None,
    folder: Path | None = None,
) -> ParsedFile:
    """Read the first ``most`` rows in chunks into Arrow's memory; labels stay class names.

    Files that cells name lie in ``folder``; None: in that of the file.
    Rows that cannot be used are added to ``bad``; where it is None, they raise ``BadRowsError``.
    """
    import pyarrow

    text_type, label_type, _ = map(arrow_type, columns.kind.column_types)
    fields = [(name, text_type) for name in columns.text]
    fields += [] if columns.unlabeled else [("label", label_type)]
    group = [columns.group] if columns.group and columns.group not in columns.text else []
    if split != "train":  # only training rows are held out
        group = []
    fields += [(name, pyarrow.string()) for name in group]
    references = len(columns.label) == 1 and columns.kind.several_references
    fields += [(OTHER_REFERENCES, arrow_type(list[str]))] if references else []
    place = user_path(path)
    parsers = columns.kind.text_parsers(folder or (place if place.is_dir() else place.parent))
    reads_images = columns.kind.reads_images
    fields += [(IMAGE, arrow_type(columns.kind.image_type))] if reads_images else []
    schema = pyarrow.schema(fields)
    line_numbers, batches = array("q"), []
    problems: Problems = []
    notations: dict[str, int] = {}

    def well_formed_rows() -> Iterator[list[Any]]:
        names = [*columns.text, *columns.label, *group]
        records = read_records(path, names, problems, split, columns.reading)
        for number, values in islice(records, most):
            try:
                row = _parse_row(columns, parsers, values[: len(names) - len(group)])
                row += [_parse_cell(name, values[-1], parse_text) for name in group]
                if len(columns.label) == 1:
                    notations.setdefault(columns.kind.notation(values[len(columns.text)]), number)
                if references:
                    row.append(columns.kind.other_references(values[len(columns.text)]))
                if reads_images:
                    row[0], image = row[0]
                    row.append(image)
            except ValueError as error:
                if is_of_system(error):  # else it would be left out as a bad row
                    raise
                problems.append((number, str(error)))
                if len(problems) >= MAX_BAD_ROWS:
                    return
            else:
                line_numbers.append(number)
                yield row

    rows = well_formed_rows()
    while chunk := list(islice(rows, CHUNK_ROWS)):
        values = [list(column) for column in zip(*chunk, strict=True)]
        batches.append(pyarrow.record_batch(values, schema=schema))
    place_of = record_places(path, split)
    found = [BadRow(split, path, place_of(number), problem) for number, problem in problems]
    if len(found) >= MAX_BAD_ROWS:
        raise BadRowsError(found, [f"{path}: reading ended after {len(found):,} bad rows"])
    if found and bad is None:
        raise BadRowsError(found)
    if not line_numbers and not found:
        raise IwloraError(f"{path} holds no rows")
    if bad is not None:
        bad += found
    rows = pyarrow.Table.from_batches(batches, schema)
    return ParsedFile(path, split, line_numbers, rows, notations)


def _parse_row(
    columns: Columns, parsers: Sequence[Callable[[Any], Any]], values: Sequence[Any]
) -> list[Any]:
    """Texts and label of a row; the ``ValueError`` names the column."""
    kind, count = columns.kind, len(columns.text)
    texts = [
        _parse_cell(name, value, parse)
        for name, value, parse in zip(columns.text, values[:count], parsers, strict=False)
    ]
    if columns.unlabeled:
        return texts
    if not columns.label:
        label = _parse_cell(columns.text[0], texts[0], kind.label_from_text)
    elif len(columns.label) == 1:
        label = _parse_cell(columns.label[0], values[count], kind.parse_label)
    else:
        fields = dict(zip(columns.label, values[count:], strict=True))
        label = whole_characters(kind.parse_label(fields))
    return [*texts, kind.complete_label(texts, label)]


def _parse_cell(column: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return whole_characters(parse(value))
    except ValueError as error:
        raise ValueError(f"column {column!r} {error}") from None
