"""The file that lists the rows of the data which cannot be used."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from iwlora import distributed, tasks
from iwlora.errors import BadRow, BadRowsError, IwloraError, count_rows, list_problems, truncate
from iwlora.inputs.formulas import mark_formula
from iwlora.results import layout
from iwlora.results.writing import output_folder, write_text
from iwlora.tasks.spec import TaskSpec


def save_bad_rows(folder: Path, rows: Sequence[BadRow]) -> None:
    """Write ``bad-rows.csv`` into a folder; without rows, remove that of an earlier start."""
    file = folder / layout.BAD_ROWS
    if not rows:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "file", "row", "problem"])
    table.writerows([mark_formula(" ".join(cell.split())) for cell in row] for row in rows)
    write_text(file, text.getvalue())


@contextmanager
def listing_bad_rows(folder: Path) -> Iterator[None]:
    """Write ``bad-rows.csv`` where the block raises for such rows, and name it in the error."""
    try:
        yield
    except BadRowsError as error:
        if distributed.rank() == 0:
            save_bad_rows(folder, error.rows)
        file = str(folder / layout.BAD_ROWS)
        raise BadRowsError(error.rows, error.others, file) from None


def report_bad_rows(specs: Sequence[TaskSpec], folder: Path | None) -> tuple[str, int]:
    """What ``task.on_bad=report`` prints, and how many rows cannot be used.

    Args:
        specs: The data to read.
        folder: Gets ``bad-rows.csv``; None: nothing is written.

    Raises:
        IwloraError: The folder has a finished run, or the problem is not with single rows.
    """
    if folder is not None:
        folder = output_folder(folder, "list of rows")
        if (folder / layout.RESULT).is_file():
            raise IwloraError(f"{folder} holds a finished run; give another folder")
    rows: list[BadRow] = []
    others: list[str] = []
    for spec in specs:
        try:
            rows += tasks.load(spec.model_copy(update={"on_bad": "skip"}), seed=0).bad_rows
        except BadRowsError as error:
            rows += error.rows
            others += error.others
    rows = list(dict.fromkeys(rows))
    if folder is not None:
        save_bad_rows(folder, rows)
    titles = ", ".join(dict.fromkeys(spec.title for spec in specs))
    if not rows:
        return f"{titles}: every row can be used", 0
    where = "--out FOLDER lists" if folder is None else f"{folder / layout.BAD_ROWS} lists"
    listed = list_problems([*others, *(truncate(str(row)) for row in rows)])
    count = count_rows(rows)
    return f"{listed}\n{titles}: {count:,} rows cannot be used; {where} all of them", count
