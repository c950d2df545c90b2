"""The scripts that texts are written in, which decide how metrics divide texts into tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import regex

# Scripts that write no spaces between words.
_CHINESE, _KANA = r"\p{Han}", r"\p{Hiragana}\p{Katakana}"
_OTHER_UNSPACED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
UNSPACED = _CHINESE + _KANA + _OTHER_UNSPACED

_LETTERS = {
    "ascii": regex.compile("[a-zA-Z]"),
    "latin": regex.compile(r"\p{Latin}"),
    "chinese": regex.compile(f"[{_CHINESE}]"),
    "kana": regex.compile(f"[{_KANA}]"),
    "other_unspaced": regex.compile(f"[{_OTHER_UNSPACED}]"),
    "arabic": regex.compile(r"\p{Arabic}"),
    "letters": regex.compile(rf"[\p{{L}}{_OTHER_UNSPACED}]"),
}
_UNICODE_TOKEN = regex.compile(
    rf"(?V1)[{UNSPACED}]\p{{M}}*"
    rf"|[[\p{{L}}\p{{N}}]--[{UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{UNSPACED}]]*"
)


@dataclass(frozen=True)
class Letters:
    """How many letters of some texts belong to which script.

    ``latin`` includes ``ascii``. ``other_unspaced`` are Thai, Lao, Khmer, Burmese and Tibetan,
    which write no spaces between words, as ``chinese`` (Han) and ``kana`` do not.
    """

    ascii: int
    latin: int
    chinese: int
    kana: int
    other_unspaced: int
    arabic: int
    letters: int

    @property
    def unspaced(self) -> int:
        """The letters of scripts that write no spaces between words."""
        return self.chinese + self.kana + self.other_unspaced


def count_letters(texts: Iterable[str]) -> Letters:
    """The letters of some texts by their script.

    >>> counts = count_letters(["Berlin", "\u5317\u4eac"])
    >>> counts.latin, counts.chinese, counts.unspaced, counts.letters
    (6, 2, 2, 8)
    """
    counts = dict.fromkeys(_LETTERS, 0)
    for text in texts:
        for name, pattern in _LETTERS.items():
            counts[name] += len(pattern.findall(text))
    return Letters(**counts)


def unicode_tokens(text: str) -> list[str]:
    """Words in any script: runs of letters, marks and digits, without regard to case.

    Each character of a script without spaces between words is a token.

    >>> unicode_tokens("\u00dcber 3 km: \u5317\u4eac")
    ['\u00fcber', '3', 'km', '\u5317', '\u4eac']
    """
    tokens: list[str] = _UNICODE_TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return tokens
