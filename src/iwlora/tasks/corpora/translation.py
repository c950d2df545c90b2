"""Translation: WMT16, as the official files or the hub's copy.

Training texts are pairs of line-aligned files; the scored texts are SGM files.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwlora.errors import BadRow, IwloraError
from iwlora.inputs.lines import read_lines, read_text
from iwlora.inputs.places import files_below
from iwlora.tasks.corpora.corpus import Row, TextPairCorpus
from iwlora.tasks.kinds.generation.kind import Seq2Seq

_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>", re.DOTALL | re.IGNORECASE)
_TEST_SETS = {"validation": "newsdev2016", "test": "newstest2016"}


@dataclass(frozen=True, kw_only=True)
class Wmt16Corpus(TextPairCorpus):
    """Sentences of two languages, named as the files name them (``en``, ``ro``).

    Training reads every ``NAME.PAIR.source`` with a ``NAME.PAIR.target`` next to it, such as
    ``europarl-v8.ro-en.en``, in the folder or below.
    """

    layout = "*.ro-en.en, *.ro-en.ro and newstest2016-enro-src.en.sgm"
    """The files of English and Romanian."""

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """(source, target) of each sentence; pairs with an empty side are left out.

        Raises ``IwloraError`` for missing files and for files of different lengths.
        """
        (source,), target = self.text, self.target
        if split in _TEST_SETS:
            stem = f"{_TEST_SETS[split]}-{source}{target}"
            names = (f"{stem}-src.{source}.sgm", f"{stem}-ref.{target}.sgm")
            files = [(_find(folder, names[0]), _find(folder, names[1]))]
            read = _segments
        else:
            files = _training_files(folder, source, target)
            read = _lines
        rows: list[Row] = []
        for source_file, target_file in files:
            sources, targets = read(source_file), read(target_file)
            if len(sources) != len(targets):
                raise IwloraError(
                    f"{source_file} has {len(sources)} sentences, {target_file} has {len(targets)}"
                )
            rows += [pair for pair in zip(sources, targets, strict=True) if all(pair)]
        if not rows:
            raise IwloraError(f"task.data_dir={folder} holds no rows of {split}")
        return rows


def _training_files(folder: Path, source: str, target: str) -> list[tuple[Path, Path]]:
    language_pairs = (f"{target}-{source}", f"{source}-{target}")
    files = [
        (path, path.with_suffix(f".{target}"))
        for path in files_below(folder)
        if path.suffix == f".{source}" and path.with_suffix("").suffix.lstrip(".") in language_pairs
    ]
    if not files:
        raise IwloraError(
            f"task.data_dir={folder} holds no training text such as "
            f"europarl-v8.{target}-{source}.{source}"
        )
    return files


def _find(folder: Path, name: str) -> Path:
    path = next((path for path in files_below(folder) if path.name == name), None)
    if path is None:
        raise IwloraError(f"task.data_dir={folder} holds no {name}")
    return path


def _lines(path: Path) -> list[str]:
    return [line.strip() for _, line in read_lines(path)]


def _segments(path: Path) -> list[str]:
    """The texts between ``<seg>`` and ``</seg>``, their entities resolved."""
    return [" ".join(html.unescape(text).split()) for text in _SEGMENT.findall(read_text(path))]


TASKS: Mapping[str, TextPairCorpus] = {
    "wmt16/en-ro": Wmt16Corpus(
        summary="translate from English to Romanian; 610,320 sentences",
        text=("en",),
        target="ro",
        metrics=("bleu", "chrf", "perplexity"),
        hub_id="wmt/wmt16",
        hub_config="ro-en",
        kind=Seq2Seq(beams=4, max_target=128, metric="bleu"),
    )
}
