"""Plain texts in a file: with blank lines between them, or one on each line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

from iwlora.errors import IwloraError
from iwlora.inputs.encoding import encoding_notes, encoding_of
from iwlora.inputs.lines import read_lines
from iwlora.inputs.places import MOST_BYTES
from iwlora.inputs.tables.dialect import SAMPLE_LINES, TEXT_WORDS, is_divided
from iwlora.inputs.tables.reading import Problems, Records, Table, positions


class TextFile(Table):
    """A file of texts: with blank lines between them, or, where it has none, one on each line."""

    @cached_property
    def _encoding(self) -> str:
        return self.reading.encoding or encoding_of(self.path)

    @cached_property
    def _has_blank_lines(self) -> bool:
        lines = islice(read_lines(self.path, self._encoding), SAMPLE_LINES)
        return _has_paragraphs([line for _, line in lines])

    def columns(self) -> list[str]:
        """text."""
        next(read_lines(self.path, self._encoding), None)  # raises for a file that cannot be read
        return ["text"]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """Texts, each with the number of its first line."""
        places = positions(self.path, self.columns(), columns)
        yield from ((number, [text for _ in places]) for number, text in self._texts())

    def notes(self) -> list[str]:
        """The encoding, and how the texts are divided."""
        between = "blank lines are between them" if self._has_blank_lines else "one on each line"
        note = f"{self.path}: read as plain texts, {between}; for a table give task.header=true"
        return [*encoding_notes(self.path, self._encoding, self.reading.encoding), note]

    def _texts(self) -> Iterator[tuple[int, str]]:
        lines: list[str] = []
        first, size, most = 1, 0, MOST_BYTES["line"]
        for number, line in read_lines(self.path, self._encoding):
            if lines and not (self._has_blank_lines and line.strip()):
                yield first, "\n".join(lines)
                lines, size = [], 0
            if line.strip():
                first = first if lines else number
                lines.append(line)
                size += len(line)
            if size > most:
                raise IwloraError(
                    f"{self.path}, line {first}: a text of more than {most / 2**20:g} MiB; put "
                    "blank lines between texts"
                )
        if lines:
            yield first, "\n".join(lines)


def looks_like_texts(path: str, lines: Sequence[str]) -> bool:
    """Whether the first lines of a file are texts and no table.

    No delimiter divides them alike, and the first one is longer than the name of a column, or blank
    lines are between texts.
    """
    written = [line for line in lines if line.strip()]
    if not written or is_divided(path, written):
        return False
    return len(written[0].split()) >= TEXT_WORDS or _has_paragraphs(lines)


def _has_paragraphs(lines: Sequence[str]) -> bool:
    return "\n\n" in "\n".join(line.strip() for line in lines).strip()
