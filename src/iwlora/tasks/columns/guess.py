"""Which columns hold the text and the label: by the names of columns, then by their contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from iwlora.tasks.columns.contents import (
    Cells,
    is_binary,
    is_text,
    may_be_text,
    numbers_rows,
    repeats,
)
from iwlora.tasks.columns.names import (
    EXACT,
    SUBJECTS,
    USUAL,
    WEAK_TEXTS,
    KindNames,
    Names,
    is_identifier,
    language_pair,
    last_word,
    numbered_pair,
    plain,
    spelled,
)

Find: TypeAlias = Callable[[str], str | None]
"""From a usual name to the file's own spelling of it."""
_GENERATED = ("seq2seq", "instruction")
_TEXTS_ALONE = "language-modeling"
_TABLE_KINDS = {kind for kind, _, _ in USUAL.kinds}


@dataclass(frozen=True)
class Guess:
    """The columns of text and label, none where that is unclear, and the kind where names say it.

    ``other_texts`` and ``other_labels`` are further values of ``task.text`` and ``task.label``, the
    likeliest first; where a column is unclear, they have an equal right.
    """

    kind: str | None
    text: tuple[str, ...]
    label: tuple[str, ...]
    other_texts: tuple[tuple[str, ...], ...] = ()
    other_labels: tuple[tuple[str, ...], ...] = ()
    label_in_text: bool = False

    @property
    def unclear(self) -> str | None:
        """The field that must be given, if there is one."""
        return "text" if not self.text else None if self.label or self.label_in_text else "label"


def guess_columns(columns: Sequence[str], cells: Cells, given: Guess) -> Guess:
    """``given`` with what it leaves open.

    Args:
        columns: The names of the file's columns.
        cells: Their cells in the first rows; names alone decide about columns that it lacks.
        given: What the recipe says.
    """
    table, exact = _Table(columns, cells), partial(_exact, columns)
    if given.kind == _TEXTS_ALONE:
        return _with_alternatives(_texts_alone(table, given), given, table)
    guess = _usual_kind(EXACT.kinds, exact, given) or _exact_columns(columns, exact, given)
    if guess is None:
        guess = _guess_by_similar_names(table, given)
    if guess.unclear == "label" and not given.kind and table.is_text_alone():
        guess = _texts_alone(table, given)
    return _with_alternatives(guess, given, table)


def _texts_alone(table: _Table, given: Guess) -> Guess:
    """Texts without a label."""
    text, others = (given.text, []) if given.text else _first(table.text_ranks(()))
    return Guess(
        _TEXTS_ALONE, text, (), tuple((name,) for name in others), label_in_text=bool(text)
    )


def _exact(columns: Sequence[str], name: str) -> str | None:
    return name if name in columns else None


def _usual_kind(kinds: Sequence[KindNames], find: Find, given: Guess) -> Guess | None:
    """The first of ``kinds`` that fits the file and what the recipe gives."""
    for name, texts, labels in kinds:
        found = tuple(column for text in texts if (column := find(text)))
        if len(found) < len(texts) or (given.kind and given.kind != name):
            continue
        if given.text and given.text != found:
            continue
        usual = tuple(column for label in labels if (column := find(label)))
        # Another label makes another kind: columns text and mood are not text and summary.
        if given.label and labels and not given.kind and not set(given.label) <= set(usual):
            continue
        label = given.label or usual[:1]
        if label or not labels:
            others = tuple((column,) for column in usual if column not in label)
            return Guess(name, found, label, (), others, label_in_text=not label)
    return None


def _exact_columns(columns: Sequence[str], find: Find, given: Guess) -> Guess | None:
    """The columns of a task with classes or numbers, if the usual names are spelled as usual."""
    candidates = [name for name in columns if name not in given.label]
    text = given.text or _pair(EXACT, partial(_exact, candidates))
    text = text or tuple(name for name in EXACT.texts if name in candidates)[:1]
    if not text and given.label and len(candidates) == 1 and not is_identifier(candidates[0]):
        text = (candidates[0],)
    usual = [name for name in EXACT.labels if find(name) and name not in text]
    label = given.label or tuple(usual[:1])
    return Guess(given.kind, text, label) if text and label else None


def _pair(names: Names, find: Find) -> tuple[str, ...]:
    for first, second in names.pairs:
        one, other = find(first), find(second)
        if one and other:
            return one, other
    return ()


def _guess_by_similar_names(table: _Table, given: Guess) -> Guess:
    usual = _usual_kind(USUAL.kinds, table.find, given) or _translation(table, given)
    if usual and not table.is_generated(usual, given):
        usual = None
    if usual:
        classes = [] if given.label or given.kind else table.named_classes(usual)
        is_certain = usual.kind != "seq2seq" and _usual_kind(EXACT.kinds, table.find, given)
        pair = () if given.text else table.pair(given.label)
        if is_certain or not classes:
            return usual
        if not pair:  # texts to generate, or classes: each has a right
            others = (usual.label, *((name,) for name in classes))
            return Guess(None, usual.text, (), other_labels=others)
    if given.kind in _TABLE_KINDS:
        texts = tuple((name,) for name in table.long_texts() if name not in given.label)
        labels = tuple(name for name in texts if name != given.text)
        return replace(given, other_texts=texts, other_labels=labels)
    return _classified(table, given)


def _classified(table: _Table, given: Guess) -> Guess:
    """The columns of a task with classes or numbers."""
    text, label = given.text, given.label
    texts: list[str] = []
    labels: list[str] = []
    if not text:
        text = table.pair(given.label)
    if not text:
        text, texts = _first(table.text_ranks(given.label))
    if not label:
        label, labels = _first(table.label_ranks(text or tuple(texts)))
        binary = table.binary_columns(text)
        if len(label) == 1 and label[0] in binary and plain(label[0]) not in _STRONG:
            labels = binary if len(binary) > 1 else labels
            label = () if len(binary) > 1 else label
    choices: list[tuple[str, ...]] = [(name,) for name in labels]
    if len(labels) > 1 and not label and set(labels) <= set(table.binary_columns(text)):
        choices.insert(0, tuple(labels))
    return Guess(given.kind, text, label, tuple((name,) for name in texts), tuple(choices))


def _first(ranks: Sequence[tuple[bool, Sequence[str]]]) -> tuple[tuple[str, ...], list[str]]:
    """(the column, []) of the first rank with one, or ((), those that have an equal right)."""
    for is_ordered, names in ranks:
        if names:
            return ((names[0],), []) if is_ordered or len(names) == 1 else ((), list(names))
    return (), []


def _translation(table: _Table, given: Guess) -> Guess | None:
    """Two columns that are named by languages: a text and its translation."""
    pair = language_pair(table.columns)
    if pair is None or given.kind not in (None, "seq2seq"):
        return None
    source, target = pair if (given.text or pair[:1]) == pair[:1] else pair[::-1]
    if given.label == (source,) and not given.text:
        source, target = target, source
    if given.text not in ((), (source,)) or given.label not in ((), (target,)):
        return None
    return Guess("seq2seq", (source,), (target,), other_texts=((target,),))


def _with_alternatives(guess: Guess, given: Guess, table: _Table) -> Guess:
    """The guess with what else its columns may be, where something was guessed."""
    if guess.unclear:
        return guess
    texts, labels = guess.other_texts, guess.other_labels
    if not given.text and not texts and len(guess.text) == 1 and guess.kind not in _TABLE_KINDS:
        names = [name for _, rank in table.text_ranks(guess.label) for name in rank]
        texts = tuple((name,) for name in dict.fromkeys(names) if name not in guess.text)
    if not given.label and guess.label and not labels:
        ranks = table.label_ranks(guess.text)
        # Beside a text to generate a column is a label only if its name says so.
        names = [name for _, rank in ranks[: 2 if guess.kind else None] for name in rank]
        labels = tuple((name,) for name in dict.fromkeys(names) if name not in guess.label)
    labels = () if given.label else labels
    return replace(guess, other_texts=texts, other_labels=labels)


_STRONG = {plain(name) for name in USUAL.labels}
_SUBJECTS = {plain(name) for name in SUBJECTS}
_TEXTS = {plain(name) for name in USUAL.texts}


class _Table:
    """The names of a file's columns and their first cells, and what may be a text or a label."""

    def __init__(self, columns: Sequence[str], cells: Cells) -> None:
        self.columns = columns
        self._cells = {name: cells.get(name, ()) for name in columns}
        self._free = [name for name in columns if columns.count(name) == 1]
        self._free = [name for name in self._free if not is_identifier(name)]

    def find(self, name: str) -> str | None:
        """The file's own spelling of a usual name."""
        return spelled(self.columns, name)

    def pair(self, taken: Sequence[str]) -> tuple[str, ...]:
        """The two columns of a task on pairs of texts."""
        free = [name for name in self._free if name not in taken]
        free = [name for name in free if may_be_text(self._cells[name])]
        names = (*USUAL.texts, *WEAK_TEXTS)
        return _pair(USUAL, partial(spelled, free)) or numbered_pair(free, names) or ()

    def is_generated(self, guess: Guess, given: Guess) -> bool:
        """Whether the label of a guess may be a text to generate: its cells are no classes."""
        if guess.kind not in _GENERATED or given.kind or not guess.label:
            return True
        return not repeats(self._cells.get(guess.label[0], ()))

    def is_text_alone(self) -> bool:
        """Whether there is one column beside those that number or name the rows: a long text."""
        return len(self._free) == 1 and self.long_texts() == self._free

    def long_texts(self) -> list[str]:
        """The columns of long and varied texts."""
        return [name for name in self._free if is_text(self._cells[name])]

    def text_ranks(self, taken: Sequence[str]) -> list[tuple[bool, list[str]]]:
        """[(whether the first one comes before the others, columns that may hold the text)]."""
        free = [name for name in self._free if name not in taken]
        free = [name for name in free if may_be_text(self._cells[name])]
        labels = self.named_labels()
        return [
            (True, [name for name in map(partial(spelled, free), USUAL.texts) if name]),
            (False, [n for n in free if last_word(n) in _TEXTS and not repeats(self._cells[n])]),
            (False, [name for name in self.long_texts() if name in free and name not in labels]),
            (True, [name for name in map(partial(spelled, free), WEAK_TEXTS) if name]),
        ]

    def label_ranks(self, taken: Sequence[str]) -> list[tuple[bool, list[str]]]:
        """[(whether the first one comes before the others, columns that may hold the label)]."""
        free = [name for name in self._free if name not in taken]
        free = [name for name in free if not numbers_rows(self._cells[name])]
        return [
            (True, [name for name in map(partial(spelled, free), USUAL.labels) if name]),
            (False, [name for name in free if plain(name) in _SUBJECTS]),
            (False, [name for name in free if last_word(name) in _STRONG | _SUBJECTS]),
            (False, [name for name in free if repeats(self._cells[name])]),
        ]

    def named_labels(self) -> list[str]:
        """The columns that have the name of a label."""
        return [name for _, names in self.label_ranks(())[:2] for name in names]

    def named_classes(self, guess: Guess) -> list[str]:
        """The columns beside those of a guess that have the name of a label, and its contents."""
        named = [n for n in self.named_labels() if n not in (*guess.text, *guess.label)]
        return [name for name in named if not self._cells[name] or repeats(self._cells[name])]

    def binary_columns(self, taken: Sequence[str]) -> list[str]:
        """The columns of 0 and 1."""
        return [n for n in self._free if n not in taken and is_binary(self._cells[n])]
