"""The official files of XSum (Narayan et al., 2018) and CNN/DailyMail (Hermann et al., 2015)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.inputs.lines import existing, raise_all, read_lines
from iwlora.inputs.yaml_json import from_json

XSUM_SPLIT = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
XSUM_FOLDER = "bbc-summary-data"
# What the web pages have around their articles.
_FURNITURE = {
    "Share this with",
    "Email",
    "Facebook",
    "Messenger",
    "Twitter",
    "Pinterest",
    "WhatsApp",
    "LinkedIn",
    "Linkedin",
    "Copy this link",
    "These are external links and will open in a new window",
}
_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}
_ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")


def xsum(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """(article, summary) of each article: ``ID.summary`` files with parts after ``[SN]``.

    Raises ``IwloraError`` for the files that are missing or lack a part.
    """
    problems: list[str] = []
    for identity in _identities(folder / XSUM_SPLIT, split):
        file = folder / XSUM_FOLDER / f"{identity}.summary"
        try:
            parts = _sections(file)
            yield parts["RESTBODY"], parts["FIRST-SENTENCE"]
        except IwloraError as error:
            problems.append(str(error))
        except KeyError as error:
            problems.append(f"{file}: no part [SN]{error.args[0]}[SN]")
    raise_all(problems)


def _identities(path: Path, split: str) -> list[str]:
    """The names of a split's articles, each of a file of its folder and no place elsewhere."""
    told = f"{path} does not list the articles of {split}"
    try:
        listed = from_json(existing(path).read_text(encoding="utf-8-sig"))[split]
    except (ValueError, KeyError, TypeError) as error:
        raise IwloraError(f"{told} ({error!r})") from None
    if not isinstance(listed, list):
        raise IwloraError(f"{told}: {listed!r:.80} is no list")
    for name in listed:
        if not (isinstance(name, str) and name.isprintable() and name == Path(name).name):
            raise IwloraError(f"{told}: {name!r:.80} is no name of a file")
    return listed


def _sections(path: Path) -> dict[str, str]:
    """The text below each ``[SN]NAME[SN]``, without blank lines and web furniture."""
    lines = [line for _, line in read_lines(path)]
    kept = [line for line in lines if line.strip() and line.strip() not in _FURNITURE]
    parts = "\n".join(kept).split("[SN]")[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=False)}


def cnn_dailymail(folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """(article, highlights) of each story that the split's list of addresses names.

    A story is the file ``SHA1(address).story`` of ``cnn/stories`` or ``dailymail/stories``; its
    highlights follow lines ``@highlight`` and are given a line each. Raises ``IwloraError`` for
    stories that are missing or have no highlights.
    """
    problems: list[str] = []
    lists = folder / _LISTS[split]
    lists = lists if lists.is_file() else folder / "url_lists" / _LISTS[split]
    for number, address in read_lines(lists):
        if not address.strip():
            continue
        name = f"{hashlib.sha1(address.strip().encode()).hexdigest()}.story"
        places = [folder / site / "stories" / name for site in ("cnn", "dailymail")]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            problems.append(f"{lists}, line {number}: no story {name} of {address.strip()}")
            continue
        article, highlights = _story(found)
        if not article or not highlights:
            problems.append(f"{found}: no {'highlights' if article else 'article'}")
            continue
        yield article, highlights
    raise_all(problems)


def _story(path: Path) -> tuple[str, str]:
    article: list[str] = []
    highlights: list[str] = []
    follows = False
    for _, line in read_lines(path):
        text = line.strip()
        if text.startswith("@highlight"):
            follows = True
        elif text:
            (highlights if follows else article).append(_ended(text))
    return " ".join(article), "\n".join(highlights)


def _ended(line: str) -> str:
    """The line with a full stop, where it ends without one."""
    return line if line.endswith(_ENDS) else f"{line} ."
