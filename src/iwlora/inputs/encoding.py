"""The encoding of a text file: UTF-8, UTF-16 with its mark, or the one that alone makes sense."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import pairwise

from iwlora.errors import IwloraError
from iwlora.inputs.lines import CHUNK, UTF_16_MARKS, open_bytes
from iwlora.inputs.places import MOST_BYTES, user_path

_WESTERN = (
    *("äöüß", "àâæçéèêëîïôœùûü", "áéíñóúü", "áâãàçéêíóôõú", "àèéìòóù", "åäöé", "æøåéòôó"),
    *("áéëïíóöü", "áéíóúýþæöð", "àçéèíïóòúü"),
)
_CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "ăâîşţ")
_CYRILLIC = ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя")
_GREEK = ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ",)
_ALPHABETS: Mapping[str, Sequence[str]] = {
    "cp1252": _WESTERN,
    "iso8859-15": _WESTERN,
    "mac_roman": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859-2": _CENTRAL,
    "cp1254": ("çğıöşü",),
    "cp1257": ("äõöüšž", "āčēģīķļņšūž", "ąčęėįšųūž"),
    "cp1251": _CYRILLIC,
    "koi8-r": _CYRILLIC,
    "cp1253": _GREEK,
}
"""{encoding: the letters beyond a to z of languages that are written in it}."""
_EAST_ASIAN = ("gb18030", "shift_jis", "euc-kr", "big5")
_SIGNS = "€‚„…‘’“”•–—«»°§´·¡¿²³½©®™£×ªº\xa0"
_WORDS = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_MOST_WORDS = 20_000


def encoding_of(path: str) -> str:
    """The encoding of a file whose user names none.

    A file that is not UTF-8 has another encoding where only one text comes out of all encodings
    that give words of one language. Raises ``IwloraError`` for any other file.
    """
    status = os.stat(user_path(path)) if user_path(path).is_file() else None
    return _encoding(path, *((status.st_size, status.st_mtime_ns) if status else (0, 0)))


def check_encoding(name: str) -> str:
    """The name of an encoding of text; raises ``ValueError`` for any other.

    >>> check_encoding("latin-1"), check_encoding("rot13")
    Traceback (most recent call last):
    ValueError: no encoding of text; accepted: utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030 \
and the others that Python knows
    """
    try:
        "a".encode(name)
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        raise ValueError(
            "no encoding of text; accepted: utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030 and "
            "the others that Python knows"
        ) from None
    return name


def encoding_notes(path: str, encoding: str, given: str | None) -> list[str]:
    """Which encoding was guessed, if one was."""
    if given or encoding in ("utf-8", "utf-16"):
        return []
    return [f"{path}: not UTF-8, so it is read as {encoding}; task.encoding changes it"]


@lru_cache(maxsize=64)
def _encoding(path: str, _size: int, _changed: int) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as stream:
        part = stream.read(CHUNK)
        if part.startswith(UTF_16_MARKS):
            return "utf-16"
        try:
            while part:
                decoder.decode(part)
                part = stream.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            pass
        else:
            return "utf-8"
    return _other_encoding(path)


def _other_encoding(path: str) -> str:
    words, refusal = _words_beyond_ascii(path)
    readings: dict[tuple[str, ...], str] = {}
    for encoding, alphabets in _ALPHABETS.items():
        texts = _decoded(words, encoding)
        if texts and any(_explains(alphabet, texts) for alphabet in alphabets):
            readings.setdefault(tuple(texts), encoding)
    # In texts of these encodings most characters have two bytes of 128 or more.
    is_paired = 2 * sum(map(_has_pair, words)) > len(words)
    possible = {
        encoding: texts
        for encoding in _EAST_ASIAN
        if is_paired and (texts := _decoded(words, encoding))
    }
    if len(readings) == 1 and not possible and words:
        return next(iter(readings.values()))
    found = {encoding: texts for texts, encoding in readings.items()} | possible
    ways = ", ".join(f"{name} reads {texts[0]!r:.40}" for name, texts in found.items())
    way_out = f"give task.encoding ({ways})" if ways else "give task.encoding, such as cp1252"
    raise IwloraError(f"{refusal}; save the file as UTF-8, or {way_out}")


def _words_beyond_ascii(path: str) -> tuple[list[bytes], str]:
    """The words that are not ASCII, and where the first line is that is not UTF-8."""
    words: dict[bytes, None] = {}
    refusal, is_mixed = "", False
    with open_bytes(path) as stream:
        lines = iter(partial(stream.readline, MOST_BYTES["line"]), b"")
        for number, line in enumerate(lines, start=1):
            try:
                is_mixed = is_mixed or not line.decode("utf-8").isascii()
            except UnicodeDecodeError as error:
                refusal = refusal or (
                    f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x}, number "
                    f"{error.start + 1} of the line)"
                )
                words.update(dict.fromkeys(_WORDS.findall(line)))
            if is_mixed or b"\0" in line or len(words) > _MOST_WORDS:
                break
    return ([] if is_mixed else list(words)), refusal or f"{path}: not UTF-8"


def _decoded(words: Sequence[bytes], encoding: str) -> list[str] | None:
    try:
        return [word.decode(encoding) for word in words]
    except UnicodeDecodeError:
        return None


def _explains(alphabet: str, words: Sequence[str]) -> bool:
    """Whether words are of letters of one alphabet, with signs and capitals where they may be."""
    may_hold_latin = alphabet not in (*_CYRILLIC, *_GREEK)
    for word in words:
        for place, letter in enumerate(word):
            before, after = word[max(place - 1, 0) : place], word[place + 1 : place + 2]
            is_inside = before.isalpha() and after.isalpha()
            if letter.isascii():
                if letter.isalpha() and not may_hold_latin:
                    return False
            elif letter in _SIGNS:
                if is_inside and letter not in "’–—\xa0":
                    return False
            elif letter.lower() not in alphabet or (
                letter.isupper() and before.isalpha() and (before + after).upper() != before + after
            ):
                return False
    return True


def _has_pair(word: bytes) -> bool:
    return any(first > 127 and second > 127 for first, second in pairwise(word))
