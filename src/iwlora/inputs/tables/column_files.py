"""Files with one word and its tags on each line, and blank lines between sentences, as CoNLL's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from iwlora.inputs.encoding import encoding_notes, encoding_of
from iwlora.inputs.lines import read_lines
from iwlora.inputs.tables.reading import (
    Problems,
    Records,
    Table,
    ending,
    numbered_columns,
    positions,
)

_DOCUMENT = "-DOCSTART-"
_UNIVERSAL = (
    "id",
    "tokens",
    "lemmas",
    "tags",
    "xpos",
    "feats",
    "heads",
    "relations",
    "deps",
    "misc",
)
"""The columns of CoNLL-U."""
_RANGE = re.compile(r"\d+[-.]\d+")  # words that are written as one, and words that are not written
_TAG = re.compile(r"O|[BIESLU](-\S+)?")


class ColumnFile(Table):
    """Sentences as lists of words and of tags: the first and the last column, but in CoNLL-U."""

    @cached_property
    def _encoding(self) -> str:
        return self.reading.encoding or encoding_of(self.path)

    def columns(self) -> list[str]:
        """tokens, column2, …, tags."""
        if ending(self.path) == ".conllu":
            return list(_UNIVERSAL)
        _, words = next(_sentences(self.path, self._encoding), (1, [(1, [""])]))
        names = numbered_columns(len(words[0][1]))
        return ["tokens", *names[1:-1], *(["tags"] if len(names) > 1 else [])]

    def rows(self, columns: Sequence[str], problems: Problems) -> Records:
        """Lists of texts."""
        names = self.columns()
        places = positions(self.path, names, columns)
        is_universal = ending(self.path) == ".conllu"
        for number, words in _sentences(self.path, self._encoding, is_universal):
            wrong = [(n, fields) for n, fields in words if len(fields) != len(names)]
            problems += [
                (
                    n,
                    f"{len(fields)} columns, the first line has {len(names)}; each line must have "
                    "a word and its tags, or be blank between sentences",
                )
                for n, fields in wrong
            ]
            if not wrong:
                yield number, [[fields[place] for _, fields in words] for place in places]

    def notes(self) -> list[str]:
        """The encoding."""
        return encoding_notes(self.path, self._encoding, self.reading.encoding)


def looks_like_columns(path: str, lines: Sequence[str]) -> bool:
    """Whether the first lines of a text are words with tags, and blank lines between sentences."""
    text = "\n".join(lines).strip("\n")
    words = [line.split() for line in lines if line.strip() and not line.startswith(_DOCUMENT)]
    if "\n\n" not in text or not words or {len(fields) for fields in words} == {1}:
        return False
    if ending(path) == ".tsv":  # blank lines between the rows of a table count for nothing
        return all(_TAG.fullmatch(fields[-1]) for fields in words)
    return 10 * sum(len(fields) == len(words[0]) > 1 for fields in words) >= 9 * len(words)


def _sentences(
    path: str, encoding: str, is_universal: bool = False
) -> Iterator[tuple[int, list[tuple[int, list[str]]]]]:
    """(line of the first word, (line, fields) of each word) of each sentence."""
    words: list[tuple[int, list[str]]] = []
    for number, line in read_lines(path, encoding):
        fields: list[Any] = line.split("\t") if "\t" in line else line.split()
        if line.startswith(_DOCUMENT) or not line.strip():
            if words:
                yield words[0][0], words
            words = []
        elif not (is_universal and (line.startswith("#") or _RANGE.fullmatch(fields[0]))):
            words.append((number, fields))
    if words:
        yield words[0][0], words
