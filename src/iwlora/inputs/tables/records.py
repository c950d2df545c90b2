"""The rows of the user's files and folders, whatever their format.

Rows are read one by one, but for spreadsheets and single JSON objects: a file may be larger than
the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.encoding import encoding_of
from iwlora.inputs.lines import BYTE_ORDER_MARK, read_lines
from iwlora.inputs.places import standard_input_file, user_path
from iwlora.inputs.tables.arrow import ArrowFile, ParquetFile
from iwlora.inputs.tables.column_files import ColumnFile, looks_like_columns
from iwlora.inputs.tables.delimited import Delimited
from iwlora.inputs.tables.dialect import SAMPLE_LINES
from iwlora.inputs.tables.folders.images import ImageFolder
from iwlora.inputs.tables.folders.layout import FileFolder, count_files, folder_splits
from iwlora.inputs.tables.folders.texts import TEXT_ENDINGS, TextFolder
from iwlora.inputs.tables.json_rows import open_json
from iwlora.inputs.tables.reading import Problems, Reading, Records, Table, ending
from iwlora.inputs.tables.saved_folders import SavedFolder, is_saved, saved_splits
from iwlora.inputs.tables.spreadsheets import Spreadsheet
from iwlora.inputs.tables.text_files import TextFile, looks_like_texts

JSON_LINES = (".jsonl", ".ndjson", ".json")
_AS_IT_LOOKS = Reading()


def read_records(
    path: str,
    columns: Sequence[str],
    problems: Problems,
    split: str = "train",
    reading: Reading = _AS_IT_LOOKS,
) -> Records:
    """(line or row from 1, fields of the ``columns``) of each row of a file, by its ending.

    Fields are as the format gives them: text in CSV and TSV. What is wrong with single rows is
    added to ``problems``. Of a folder with several splits ``split`` is read. Raises
    ``IwloraError`` for an unknown ending, a missing or empty file, text that is not in its
    encoding, a missing or doubled column.
    """
    return _open(path, split, reading).rows(columns, problems)


def columns_of(path: str, split: str = "train", reading: Reading = _AS_IT_LOOKS) -> list[str]:
    """The names of a file's columns; in JSON, those of the first row, also inside of others."""
    return _open(path, split, reading).columns()


def notes_on(path: str, split: str = "train", reading: Reading = _AS_IT_LOOKS) -> list[str]:
    """What was guessed about a file: its encoding, delimiter, header, sheet."""
    return _open(path, split, reading).notes()


def record_places(path: str, split: str = "train") -> Callable[[int], str]:
    """From the number of a record to where it is in its file: its line, row or text file."""
    try:
        return _open(path, split, _AS_IT_LOOKS).place
    except IwloraError:  # the encoding was given; latin-1 reads anything
        return _open(path, split, Reading(encoding="latin-1")).place


def record_files(path: str, split: str = "train") -> Callable[[int], str] | None:
    """From the number of a record to its file, in a folder of files; None for any other table."""
    folder = None if is_saved(path) or ending(path) in _READERS else _folder_of_files(path)
    if folder is None:
        return None
    place = folder(path, split=split).place
    return lambda number: str(Path(path) / place(number))


def files_of_rows(path: str) -> list[Path]:
    """The files that a path stands for: of a folder of files those of its rows, else itself."""
    folder = None if is_saved(path) or ending(path) in _READERS else _folder_of_files(path)
    if folder is None:
        return [user_path(path)]
    splits = folder_splits(path) or ["train"]
    return [file for split in splits for file, _ in folder(path, split=split).files]


def record_location(path: str, number: int, split: str = "train") -> str:
    """The file and the line (or row) of a record, for an error message."""
    return f"{path}, {record_places(path, split)(number)}"


@contextmanager
def standard_input(name: str | None = None) -> Iterator[str]:
    """The path of a file with what standard input gives, until the block ends.

    Args:
        name: Its format: an ending of ``_READERS`` without the point; None: by its first bytes.

    Raises:
        IwloraError: There is no such format, or too much to read.
    """
    if name is not None and f".{name}" not in _READERS:
        accepted = [suffix.removeprefix(".") for suffix in _READERS]
        raise unknown("format", name, accepted)
    with standard_input_file(lambda first: f".{name}" if name else _ending_of(first)) as path:
        yield str(path)


def _ending_of(first: bytes) -> str:
    """The ending of a file that begins with these bytes.

    >>> [_ending_of(first) for first in (b'{"text": "a"}', b"text\\tid\\n", b"text,id\\n")]
    ['.jsonl', '.tsv', '.csv']
    """
    begin = first.removeprefix(BYTE_ORDER_MARK).lstrip()
    for mark, suffix in ((b"{", ".jsonl"), (b"[", ".json"), (b"PAR1", ".parquet")):
        if begin.startswith(mark):
            return suffix
    header = begin.partition(b"\n")[0]
    return ".tsv" if b"\t" in header and b"," not in header else ".csv"


def splits_of(path: str) -> list[str]:
    """The splits in a folder that ``datasets`` saved, or of files; none of anything else."""
    if is_saved(path):
        return saved_splits(path)
    return [] if ending(path) in _READERS else folder_splits(path)


def is_image_folder(path: str) -> bool:
    """Whether a path is a folder of images, with a folder for each class if there are classes."""
    return not is_saved(path) and _folder_of_files(path) is ImageFolder


def _folder_of_files(path: str) -> type[FileFolder] | None:
    """The kind of a folder of files; where it has texts and images, of which there are more."""
    texts, images = count_files(path, TEXT_ENDINGS, ImageFolder.endings)
    if not texts and not images:
        return None
    return ImageFolder if images > texts else TextFolder


def _open(path: str, split: str, reading: Reading) -> Table:
    if is_saved(path):
        return SavedFolder(path, reading, split)
    suffix = ending(path)
    folder = None if suffix in _READERS else _folder_of_files(path)
    if folder is not None:
        return folder(path, reading, split)
    if suffix not in _READERS:
        raise IwloraError(
            f"{path}: {_unreadable(path, suffix)} (accepted: {', '.join(_READERS)}, of text also "
            "with .gz; a folder of .txt files or of images, with a folder for each class if there "
            "are classes; a folder that datasets' save_to_disk wrote)"
        )
    return _READERS[suffix](path, reading)


def _unreadable(path: str, suffix: str) -> str:
    place = user_path(path)
    if place.is_dir():
        return "the folder has no files that are read"
    if suffix in ImageFolder.endings:
        return "one image is no table; give the folder that it is in"
    return f"unknown file type {suffix!r}" if suffix or place.exists() else "no such file or folder"


def _open_text(path: str, reading: Reading) -> Table:
    """A table with a delimiter, words with their tags, or plain texts."""
    lines = islice(read_lines(path, reading.encoding or encoding_of(path)), SAMPLE_LINES)
    sample = [line for _, line in lines]
    if reading.delimiter is None and not reading.plain_texts and looks_like_columns(path, sample):
        return ColumnFile(path, reading)
    is_table = reading.delimiter is not None or reading.header is not None
    may_be_texts = ending(path) == ".txt" and not is_table
    if may_be_texts and (reading.plain_texts or looks_like_texts(path, sample)):
        return TextFile(path, reading)
    return Delimited(path, reading)


_READERS: Mapping[str, Callable[[str, Reading], Table]] = {
    ".csv": Delimited,
    **dict.fromkeys((".tsv", ".txt"), _open_text),
    **dict.fromkeys(JSON_LINES, open_json),
    **dict.fromkeys((".xlsx", ".ods"), Spreadsheet),
    ".parquet": ParquetFile,
    **dict.fromkeys((".arrow", ".feather"), ArrowFile),
    **dict.fromkeys((".conll", ".conllu", ".bio", ".iob"), ColumnFile),
}
