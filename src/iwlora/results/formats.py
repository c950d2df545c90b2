"""The versions of the stored formats, and the documents and logs that carry them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict
from typing_extensions import Self

from iwlora.errors import IwloraError, short_repr
from iwlora.inputs import yaml_json
from iwlora.inputs.places import read_bytes
from iwlora.results.writing import append_line, write_text

logger = logging.getLogger("iwlora")

VERSIONS: Mapping[str, int] = {
    "recipe": 4,
    "environment": 2,
    "fingerprint": 1,
    "rows": 1,
    "status": 2,
    "metrics": 2,
    "penalty": 2,
    "sensitivity": 2,
    "run": 2,
    "checkpoint": 2,
    "export": 1,
    "comparison": 2,
    "search": 2,
    "floors": 1,
    "failures": 2,
    "sources": 2,
    "summary": 2,
    "pool": 1,
    "design": 1,
    "decisions": 1,
    "proxies": 1,
    "images": 1,
}
"""What this version of iwlora writes. Version 0.1.0 wrote version 1 of all but the summary, the
export, the pool and the digests, and named it only in sensitivities and summaries: a file without a
``format`` is of version 1. A recipe has a new version when a default changes."""

FIELD = "format"
DIGEST = "digest"


def stamped(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document or record, with the version of its format in front.

    >>> stamped("status", {"state": "done"})
    {'format': 'iwlora-status/2', 'state': 'done'}
    """
    return {FIELD: f"iwlora-{name}/{VERSIONS[name]}", **fields}


def unstamped(
    name: str, fields: Mapping[str, Any], origin: str | os.PathLike[str]
) -> tuple[dict[str, Any], int]:
    """(the fields without their ``format``, its version) of what was read from ``origin``.

    Raises:
        IwloraError: The format is another one, or newer than this version of iwlora knows.

    Example:
        >>> unstamped("status", {"state": "done"}, "status.json")
        ({'state': 'done'}, 1)
        >>> unstamped("status", {"format": "iwlora-status/9"}, "status.json")
        Traceback (most recent call last):
        iwlora.errors.IwloraError: status.json was written by a newer iwlora (its format is \
iwlora-status/9, this version reads up to iwlora-status/2); upgrade iwlora
    """
    rest = dict(fields)
    stamp = rest.pop(FIELD, f"iwlora-{name}/1")
    match = re.fullmatch(rf"iwlora-{name}/([1-9]\d{{0,8}})", str(stamp))
    latest = f"iwlora-{name}/{VERSIONS[name]}"
    if match is None:
        raise IwloraError(f"{origin} has the format {short_repr(stamp)}; accepted is {latest}")
    version = int(match[1])
    if version > VERSIONS[name]:
        raise IwloraError(
            f"{origin} was written by a newer iwlora (its format is {stamp}, this version reads "
            f"up to {latest}); upgrade iwlora"
        )
    return rest, version


def content_digest(content: Any) -> str:
    """A digest of plain values: equal for mappings whose fields are in another order.

    >>> content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    True
    """
    canonical = json.dumps(content, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def with_digest(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping that a file holds, with a digest of all its other fields."""
    return {**stored, DIGEST: content_digest(stored)}


def check_digest(stored: Mapping[str, Any], origin: str | os.PathLike[str]) -> None:
    """Raise ``IwloraError`` for a mapping that is not what :func:`with_digest` made.

    One without a digest was written by an older version.
    """
    rest = dict(stored)
    if DIGEST in rest and rest.pop(DIGEST) != content_digest(rest):
        raise IwloraError(
            f"{origin} is damaged: its content is not what its digest says; restore the file"
        )


_TEXT_DIGEST = "# digest: "


def with_text_digest(text: str) -> str:
    """A YAML text that people edit, and a comment at its end with a digest of the text."""
    return f"{text}{_TEXT_DIGEST}{content_digest(text)}\n"


def fits_text_digest(text: str) -> bool | None:
    """Whether a text is what :func:`with_text_digest` made; None for one without the comment.

    >>> text = with_text_digest("lr: 0.1\\n")
    >>> fits_text_digest(text), fits_text_digest(text.replace("1", "2", 1))
    (True, False)
    """
    before, mark, _ = text.rpartition(_TEXT_DIGEST)
    return text == with_text_digest(before) if mark else None


def _stays_inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError("a path that stays in the folder is needed")
    return name


FileName = Annotated[str, AfterValidator(_stays_inside)]
"""A path below the folder that the document is in."""


class StoredModel(BaseModel):
    """Fields of a stored file, checked without converting their types; unknown ones are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Document(StoredModel):
    """A mapping with a file of its own: JSON, or YAML where the file's name ends in ``.yaml``.

    A subclass says the name of its format. With ``is_sealed`` the file holds a digest of its own
    content, and one that was changed by anything else is refused.
    """

    format_name: ClassVar[str]
    is_sealed: ClassVar[bool] = False

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read and check a file. Raises ``IwloraError`` with everything that is wrong with it."""
        return cls.parse(yaml_json.read_mapping(path), path)

    @classmethod
    def parse(cls, stored: Mapping[str, Any], origin: str | os.PathLike[str]) -> Self:
        """Check a mapping that was read from ``origin``, as :meth:`load` does."""
        fields, version = unstamped(cls.format_name, stored, origin)
        if cls.is_sealed:
            check_digest(stored, origin)
            fields.pop(DIGEST, None)
        with yaml_json.validation_errors(origin):
            return cls.model_validate(cls.upgraded(fields, version))

    @classmethod
    def upgraded(cls, fields: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of an older version as this one has them."""
        return fields

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to ``path``, atomically."""
        stored, as_yaml = self.stored(), Path(path).suffix == ".yaml"
        text = yaml_json.to_yaml(stored) if as_yaml else json.dumps(stored, indent=1) + "\n"
        write_text(path, text)

    def stored(self) -> dict[str, Any]:
        """The mapping that the file holds: all fields and the format."""
        stored = stamped(self.format_name, self.fields())
        return with_digest(stored) if self.is_sealed else stored

    def fields(self) -> dict[str, Any]:
        """All fields as plain values."""
        return self.model_dump(mode="json")


def append_record(path: Path, name: str, fields: Mapping[str, Any]) -> None:
    """Add a record of the format ``name`` with a digest, as :func:`append_line` adds a line."""
    append_line(path, json.dumps(with_digest(stamped(name, fields))))


def read_log(path: Path, cut_short: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, record) of each line of a log that is not blank.

    Raises ``IwloraError`` for a damaged line. With ``cut_short`` incomplete lines, as killed
    processes leave them, are passed over.
    """
    for number, line in enumerate(yaml_json.read_utf8(path).split("\n"), start=1):
        if line.strip() and not (cut_short and not line.endswith("}")):
            origin = f"{path}, line {number}"
            yield origin, parse_record(line, origin)


def parse_record(line: str, origin: str) -> dict[str, Any]:
    """The record in a line of a log; ``IwloraError`` where it is not what was written."""
    record = yaml_json.parse_mapping(line, origin)
    check_digest(record, origin)
    return {name: value for name, value in record.items() if name != DIGEST}


def truncate_log(path: Path, step: int, write: bool = True) -> list[dict[str, Any]]:
    """The records up to ``step``, where training resumes; none without the file.

    With ``write``, later and incomplete records are removed from the file. So are damaged ones,
    which a warning names.
    """
    kept, records = [], []
    text = read_bytes(path, "text").decode("utf-8", "replace") if path.is_file() and step else ""
    *lines, _ = text.split("\n")  # a killed process may have been writing the last one
    for number, line in enumerate(lines, start=1):
        origin = f"{path}, line {number}"
        try:
            record = parse_record(line, origin)
            is_kept = record["step"] <= step
        except (IwloraError, KeyError, TypeError):
            logger.warning(f"{origin} is damaged, and is left out")
            continue
        if is_kept:
            kept.append(line + "\n")
            records.append(record)
    if write and path.is_file():
        write_text(path, "".join(kept))
    return records
