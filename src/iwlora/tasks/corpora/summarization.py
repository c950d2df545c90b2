"""Summarization: XSum (Narayan et al., 2018) and CNN/DailyMail (Hermann et al., 2015).

The official files as they are unpacked, or the hub's copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwlora.errors import BadRow, IwloraError
from iwlora.inputs.lines import read_lines, read_text
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.corpus import Row, TextPairCorpus, parse_records
from iwlora.tasks.kinds.generation.kind import Seq2Seq

ROUGE = ("rougeL", "rouge1", "rouge2", "perplexity")
XSUM_SPLIT = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
XSUM_FOLDER = "bbc-summary-data"
# Lines that the web pages have around their articles.
_WEB_PAGE_LINES = (
    "Share this with; Email; Facebook; Messenger; Twitter; Pinterest; WhatsApp; LinkedIn; "
    "Linkedin; Copy this link; These are external links and will open in a new window"
).split("; ")
_URL_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}
_SENTENCE_ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")


@dataclass(frozen=True, kw_only=True)
class XSumCorpus(TextPairCorpus):
    """Articles in files ``ID.summary``, whose parts follow markers ``[SN]NAME[SN]``."""

    layout = f"{XSUM_SPLIT} and {XSUM_FOLDER}/"
    """The list of the splits, and the folder of the articles."""

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """(article, summary); ``IwloraError`` lists the files that are missing or lack a part."""

        def parse(identifier: str) -> Row:
            file = folder / XSUM_FOLDER / f"{identifier}.summary"
            parts = _parts(file)
            try:
                return parts["RESTBODY"], parts["FIRST-SENTENCE"]
            except KeyError as error:
                raise ValueError(f"{file}: no part [SN]{error.args[0]}[SN]") from None

        path = folder / XSUM_SPLIT
        identifiers = _article_ids(path, split)
        return parse_records(
            (split, path), "article", zip(identifiers, identifiers, strict=True), parse, bad
        )


def _article_ids(path: Path, split: str) -> list[str]:
    """The names of a split's articles; each must be the name of a file, not a path."""
    problem = f"{path} does not list the articles of {split}"
    text = read_text(path)
    try:
        names = from_json(text)[split]
    except (ValueError, KeyError, TypeError) as error:
        raise IwloraError(f"{problem} ({error!r})") from None
    if not isinstance(names, list):
        raise IwloraError(f"{problem}: {names!r:.80} is not a list")
    for name in names:
        if not (isinstance(name, str) and name.isprintable() and name == Path(name).name):
            raise IwloraError(f"{problem}: {name!r:.80} is not the name of a file")
    return names


def _parts(path: Path) -> dict[str, str]:
    """The text after each ``[SN]NAME[SN]``, without blank lines and lines of the web page."""
    lines = [line for _, line in read_lines(path)]
    kept = [line for line in lines if line.strip() and line.strip() not in _WEB_PAGE_LINES]
    parts = "\n".join(kept).split("[SN]")[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=False)}


@dataclass(frozen=True, kw_only=True)
class CnnDailyMailCorpus(TextPairCorpus):
    """Stories in files ``SHA1(address).story``, whose highlights follow lines ``@highlight``."""

    layout = "cnn/stories/, dailymail/stories/ and all_train.txt"
    """The folders of the stories, and the lists of their addresses."""

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """(article, highlights, one per line) for each address in the split's list.

        Raises ``IwloraError`` for stories that are missing or have no highlights.
        """

        def parse(line: str) -> Row | None:
            address = line.strip()
            if not address:
                return None
            name = f"{hashlib.sha1(address.encode()).hexdigest()}.story"
            candidates = [folder / site / "stories" / name for site in ("cnn", "dailymail")]
            file = next((path for path in candidates if path.is_file()), None)
            if file is None:
                raise ValueError(f"no story {name} of {address}")
            article, highlights = _story(file)
            if not article or not highlights:
                raise ValueError(f"{file}: no {'highlights' if article else 'article'}")
            return article, highlights

        path = folder / _URL_LISTS[split]
        path = path if path.is_file() else folder / "url_lists" / _URL_LISTS[split]
        return parse_records((split, path), "line", read_lines(path), parse, bad)


def _story(path: Path) -> tuple[str, str]:
    article: list[str] = []
    highlights: list[str] = []
    lines = article
    for _, line in read_lines(path):
        text = line.strip()
        if text.startswith("@highlight"):
            lines = highlights
        elif text:
            lines.append(text if text.endswith(_SENTENCE_ENDS) else f"{text} .")
    return " ".join(article), "\n".join(highlights)


TASKS: Mapping[str, TextPairCorpus] = {
    "xsum": XSumCorpus(
        summary="one sentence that sums up a BBC article; 204,045 articles",
        text=("document",),
        target="summary",
        metrics=ROUGE,
        hub_id="EdinburghNLP/xsum",
        kind=Seq2Seq(beams=6, min_target=10, max_target=62, no_repeat_ngram=3),
    ),
    "cnn_dailymail": CnnDailyMailCorpus(
        summary="the highlights of a news article; 287,113 articles",
        text=("article",),
        target="highlights",
        metrics=ROUGE,
        hub_id="abisee/cnn_dailymail",
        hub_config="3.0.0",
        kind=Seq2Seq(beams=4, length_penalty=2.0, min_target=55, max_target=142, no_repeat_ngram=3),
    ),
}
