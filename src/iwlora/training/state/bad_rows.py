"""The file that lists the rows of the data which cannot be used."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from iwlora import distributed, tasks
from iwlora.errors import BadRow, BadRowsError, IwloraError, count_rows, list_problems, truncate
from iwlora.inputs.formulas import mark_formula
from iwlora.results import layout
from iwlora.results.writing import output_folder, write_text
from iwlora.tasks.spec import TaskSpec

logger = logging.getLogger("iwlora")


def save_bad_rows(file: Path, rows: Sequence[BadRow]) -> None:
    """Write the list of the rows; without rows, remove that of an earlier start."""
    if not rows:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "file", "row", "problem"])
    table.writerows([mark_formula(" ".join(cell.split())) for cell in row] for row in rows)
    write_text(file, text.getvalue())


def bad_rows_file(folder: str | Path | None) -> Path | None:
    """Where a dry run lists them: None without a folder, and for one that has a finished run."""
    if folder is None or (Path(folder) / layout.RESULT).is_file():
        return None
    return output_folder(folder, "list of rows") / layout.BAD_ROWS


@contextmanager
def listing_bad_rows(file: Path | None) -> Iterator[None]:
    """Write the list where the block raises for such rows, and name it in the error.

    Without a file, the error says how to get the list.
    """
    try:
        yield
    except BadRowsError as error:
        if file is not None and distributed.rank() == 0:
            save_bad_rows(file, error.rows)
        where = f"with --out FOLDER its {layout.BAD_ROWS}" if file is None else str(file)
        raise BadRowsError(error.rows, error.others, where) from None


def save_left_out(file: Path, rows: Sequence[BadRow]) -> None:
    """Write the list of the rows that are left out, and warn of them."""
    distributed.run_on_main_process(lambda: save_bad_rows(file, rows))
    if rows:
        count = count_rows(rows)
        what = "row cannot be used and is" if count == 1 else "rows cannot be used and are"
        logger.warning(f"{count:,} {what} left out ({file.name} lists all)")


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
        save_bad_rows(folder / layout.BAD_ROWS, rows)
    titles = ", ".join(dict.fromkeys(spec.title for spec in specs))
    if not rows:
        return f"{titles}: every row can be used", 0
    where = "--out FOLDER lists" if folder is None else f"{folder / layout.BAD_ROWS} lists"
    listed = list_problems([*others, *(truncate(str(row)) for row in rows)])
    count = count_rows(rows)
    return f"{listed}\n{titles}: {count:,} rows cannot be used; {where} all of them", count
