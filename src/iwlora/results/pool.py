"""What ``pool.json`` says: how the sources are averaged, and a digest of each of their files."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from iwlora.results.formats import Document, FileName

Weights = Literal["mean", "prototypes"]

_NAME = re.compile(r"[A-Za-z0-9_][\w.+=-]*", re.ASCII)


def is_source_name(name: str) -> bool:
    """Whether a source may have this name, which is also that of its folder.

    >>> is_source_name("tenant-a"), is_source_name("../a"), is_source_name("a,b")
    (True, False, False)
    """
    return _NAME.fullmatch(name) is not None and not name.endswith(".")


def _source_name(name: str) -> str:
    if not is_source_name(name):
        raise ValueError("a name of letters, digits and . _ + = - is needed")
    return name


class PoolRecord(Document):
    """``pool.json``, without dates and history: equal sources give equal bytes.

    Args:
        weights: ``mean``: each source counts the same; ``prototypes``: the more, the nearer a row
            is to the source's training rows.
        average: What is averaged; None: numbers, of a regression.
        sources: {name: {path in the source's folder: SHA-256}}, sorted by name.
    """

    format_name: ClassVar[str] = "pool"
    is_sealed: ClassVar[bool] = True

    weights: Weights
    average: Literal["probabilities", "logits"] | None
    sources: Annotated[
        dict[Annotated[str, AfterValidator(_source_name)], dict[FileName, str]],
        Field(min_length=1),
    ]
