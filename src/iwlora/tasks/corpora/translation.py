"""The official files of WMT: line-aligned texts for training, SGM for what is scored."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.inputs.lines import read_lines

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
_SETS = {"validation": "newsdev2016", "test": "newstest2016"}


def wmt16(folder: Path, split: str, source: str, target: str) -> Iterator[tuple[str, str]]:
    """(source, target) of each sentence; pairs with an empty side are left out.

    Training reads every ``NAME.PAIR.source`` that has a ``NAME.PAIR.target`` beside it, such as
    ``europarl-v8.ro-en.en``, in the folder or below. Raises ``IwloraError`` for missing files
    and for files of different lengths.
    """
    if split in _SETS:
        stem = f"{_SETS[split]}-{source}{target}"
        pairs = [(f"{stem}-src.{source}.sgm", f"{stem}-ref.{target}.sgm")]
        files = [(_find(folder, one), _find(folder, other)) for one, other in pairs]
        read = _segments
    else:
        languages = (f"{target}-{source}", f"{source}-{target}")
        files = [
            (path, path.with_suffix(f".{target}"))
            for path in sorted(folder.rglob(f"*.{source}"))
            if path.with_suffix("").suffix.lstrip(".") in languages
        ]
        read = _lines
        if not files:
            raise IwloraError(
                f"task.data_dir={folder} holds no training text such as "
                f"europarl-v8.{target}-{source}.{source}"
            )
    for ours, theirs in files:
        left, right = read(ours), read(theirs)
        if len(left) != len(right):
            raise IwloraError(f"{ours} has {len(left)} sentences, {theirs} has {len(right)}")
        yield from ((a, b) for a, b in zip(left, right, strict=True) if a and b)


def _find(folder: Path, name: str) -> Path:
    found = next(iter(sorted(folder.rglob(name))), None)
    if found is None:
        raise IwloraError(f"task.data_dir={folder} holds no {name}")
    return found


def _lines(path: Path) -> list[str]:
    return [line.strip() for _, line in read_lines(path)]


def _segments(path: Path) -> list[str]:
    """The texts between ``<seg>`` and ``</seg>``, their entities resolved."""
    text = "\n".join(line for _, line in read_lines(path))
    return [" ".join(html.unescape(one).split()) for one in _SEGMENT.findall(text)]
