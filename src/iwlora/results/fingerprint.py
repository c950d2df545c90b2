"""What a run was computed from: a digest of each input, so that a change of one can be named."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.results.formats import Document, content_digest

NUMERICS_VERSION = 2
"""Raise it by one when the numbers of a run change although its inputs and libraries do not; the
test of the pinned trajectory then has new numbers."""

COUNTED_ROWS = 500_000
"""Of a split with more rows a change is noticed, and the rows that changed are not counted."""

PROCESSES = "number of processes"
MODEL_PARTS = ("model weights", "model configuration")
PROCESSORS = ("tokenizer", "image processor", "codes")
"""What makes the inputs of a model: a run has one of them."""
_TEXTS, _LABELS = "texts of ", "labels of "

Digests = npt.NDArray[np.uint64]


class Fingerprint(Document):
    """Digests of the inputs of a run; stored with everything that was computed from them.

    Args:
        parts: {input: its digest, or its value where it is short}. Of each split of the data there
            are two, of the texts and of the labels, both in the order of the rows.
        sources: {split: the name of its file, or of its task}, for messages.
        versions: {library: version}. Another version is named and not refused.
        since_beginning: False for a run that a version of iwlora without fingerprints began.

    Example:
        >>> before, now = (Fingerprint(parts={"tokenizer": digest}) for digest in ("a1", "b2"))
        >>> differences(before, now)
        ['the tokenizer is another one']
    """

    format_name: ClassVar[str] = "fingerprint"
    is_sealed: ClassVar[bool] = True

    parts: dict[str, str]
    sources: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    since_beginning: bool = True


class RowDigests(Document):
    """Digests of all rows of each split, and of each row, to count those that changed.

    Args:
        parts: The parts of the fingerprint for the rows: SHA-256 of the texts, and of the labels.
        rows: {part: eight bytes for each row, in base64}, without splits of very many rows. They
            make messages more precise, and decide nothing.
    """

    format_name: ClassVar[str] = "rows"
    is_sealed: ClassVar[bool] = True

    parts: dict[str, str] = Field(default_factory=dict)
    rows: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of_splits(cls, splits: Mapping[str, tuple[Iterable[bytes], Iterable[bytes]]]) -> RowDigests:
        """Of {split: (the texts of each row, the label of each row)}, each without a line break."""
        columns = {_TEXTS + split: texts for split, (texts, _) in splits.items()}
        columns |= {_LABELS + split: labels for split, (_, labels) in splits.items()}
        digests = {part: _digest_rows(rows) for part, rows in columns.items()}
        return cls(
            parts={part: digest for part, (digest, _) in digests.items()},
            rows={
                part: b64encode(rows).decode()
                for part, (_, rows) in digests.items()
                if rows is not None
            },
        )

    def of(self, run: Fingerprint, split: str) -> dict[str, Digests]:
        """The eight bytes of the texts and of the label of each row of a run, if they are known."""
        columns = {"texts": _TEXTS + split, "labels": _LABELS + split}
        if any(self.parts.get(part) != run.parts.get(part) for part in columns.values()):
            return {}
        if not self.rows.keys() >= set(columns.values()):
            return {}
        return {n: np.frombuffer(b64decode(self.rows[part]), "<u8") for n, part in columns.items()}

    @classmethod
    def load_if_intact(cls, path: Path) -> RowDigests:
        """What is in a file; empty if it is missing or damaged."""
        try:
            return cls.load(path)
        except IwloraError:
            return cls()


def differences(
    before: Fingerprint,
    now: Fingerprint,
    rows_before: RowDigests | None = None,
    rows_now: RowDigests | None = None,
    ignored: Collection[str] = (PROCESSES,),
) -> list[str]:
    """Which inputs are not what they were, a clause for each.

    Args:
        before: The fingerprint that was stored.
        now: That of the inputs as they are.
        rows_before: The digests of the single rows, to count those that changed.
        rows_now: The same of now.
        ignored: Parts that may differ.

    Example:
        >>> before, now = (Fingerprint(parts={"seed": seed}) for seed in "01")
        >>> differences(before, now)
        ['the seed is 1, and it was 0']
    """
    changed = [
        name
        for name in {**before.parts, **now.parts}
        if name not in ignored
        and before.parts.get(name) != now.parts.get(name)
        and (name.startswith((_TEXTS, _LABELS)) or name in before.parts.keys() & now.parts.keys())
    ]
    splits = {name.removeprefix(_TEXTS): None for name in changed if name.startswith(_TEXTS)}
    splits |= {name.removeprefix(_LABELS): None for name in changed if name.startswith(_LABELS)}
    clauses = [
        _rows_changed(split, before, now, rows_before or RowDigests(), rows_now or RowDigests())
        for split in splits
    ]
    for name in changed:
        old, new = before.parts.get(name), now.parts.get(name)
        if name in ("seed", PROCESSES):
            clauses.append(f"the {name} is {new}, and it was {old}")
        elif name == "numerics":
            clauses.append("this version of iwlora computes other numbers")
        elif name == "recipe":
            clauses += ["the recipe is another one"] if _same_format(old, new) else []
        elif not name.startswith((_TEXTS, _LABELS)):
            plural = name.endswith("s")
            clauses.append(f"the {name} {'are others' if plural else 'is another one'}")
    return clauses


def of_training(fingerprint: Fingerprint) -> Fingerprint:
    """The parts for the rows that a run learns from, and those that choose its epoch."""
    return _only(fingerprint, lambda name: _split(name) in ("train", "selection"))


def of_scoring(fingerprint: Fingerprint, split: str) -> Fingerprint:
    """The parts that runs must share to be compared: scored rows, class names and backbone.

    The rows are those of all splits whose names begin with ``split``: a task that reports
    ``validation`` may have ``validation_mismatched`` too.
    """
    others = ("class names", *MODEL_PARTS, *PROCESSORS)

    def is_wanted(name: str) -> bool:
        rows = _split(name)
        return name in others if rows is None else rows.startswith(split)

    return _only(fingerprint, is_wanted)


def _only(fingerprint: Fingerprint, is_wanted: Callable[[str], bool]) -> Fingerprint:
    parts = {name: part for name, part in fingerprint.parts.items() if is_wanted(name)}
    return fingerprint.model_copy(update={"parts": parts})


def _split(name: str) -> str | None:
    """The split whose texts or labels a part is for; None for other parts."""
    for prefix in (_TEXTS, _LABELS):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return None


def unverified(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Parts that cannot be compared, because they could not be read now."""
    return [name for name in before.parts if name not in now.parts]


def other_versions(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Libraries that have another version now, such as "torch 2.13, and it was 2.12"."""
    return [
        f"{name} {version}, and it was {before.versions[name]}"
        for name, version in now.versions.items()
        if before.versions.get(name, version) != version
    ]


def recipe_part(settings: Mapping[str, Any], recipe_format: int) -> str:
    """The digest of a recipe's settings, with the version of the format that gives their meaning.

    Settings of different formats cannot be compared by a digest.
    """
    return f"{recipe_format}:{content_digest(settings)}"


def _same_format(before: str | None, now: str | None) -> bool:
    return str(before).partition(":")[0] == str(now).partition(":")[0]


def _rows_changed(
    split: str,
    before: Fingerprint,
    now: Fingerprint,
    rows_before: RowDigests,
    rows_now: RowDigests,
) -> str:
    """What is different in the rows of a split, with the number of rows where it is known."""
    source = now.sources.get(split) or before.sources.get(split) or "the data"
    rows = source if split in source else f"{source} ({split})"
    changed = {
        column: before.parts.get(prefix + split) != now.parts.get(prefix + split)
        for column, prefix in (("texts", _TEXTS), ("labels", _LABELS))
    }
    columns = " and the ".join(column for column, differs in changed.items() if differs)
    if _TEXTS + split not in now.parts or _TEXTS + split not in before.parts:
        return f"the rows of {rows} are {'new' if _TEXTS + split in now.parts else 'not there'}"
    old, new = rows_before.of(before, split), rows_now.of(now, split)
    if old and new:
        count, former = len(new["texts"]), len(old["texts"])
        if count != former:
            return f"{rows} has {count:,} rows, and it had {former:,}"
        if _sorted_rows(old) == _sorted_rows(new):
            return f"the rows of {rows} are in another order"
        number = int(np.logical_or.reduce([old[column] != new[column] for column in changed]).sum())
        return f"the {columns} of {number:,} row{'s' if number > 1 else ''} of {rows} changed"
    return f"the {columns} of {rows} changed"


def _sorted_rows(columns: Mapping[str, Digests]) -> list[tuple[int, ...]]:
    return sorted(zip(*(rows.tolist() for rows in columns.values()), strict=True))


def _digest_rows(rows: Iterable[bytes]) -> tuple[str, bytes | None]:
    """(SHA-256 of all rows, eight bytes of each); None for more than ``COUNTED_ROWS``."""
    together, each, count = hashlib.sha256(), bytearray(), 0
    for row in rows:
        together.update(row + b"\n")
        count += 1
        if count <= COUNTED_ROWS:
            each += hashlib.blake2b(row, digest_size=8).digest()
    return together.hexdigest(), bytes(each) if count <= COUNTED_ROWS else None


def joined(clauses: Iterable[str]) -> str:
    """Clauses as one text: separated by "; ".

    >>> joined(["the seed is 1, and it was 0", "the tokenizer is another one"])
    'the seed is 1, and it was 0; the tokenizer is another one'
    """
    return "; ".join(clauses)


def load_fingerprint(path: str | os.PathLike[str]) -> Fingerprint | None:
    """The fingerprint in a file; None without the file."""
    return Fingerprint.load(path) if Path(path).is_file() else None
