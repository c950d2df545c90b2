"""What an input is, and strategies for values and bytes that damage one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

WORK, KEEP, MODEL = "{work}", "{keep}", "{model}"
"""Placeholders for the input's own folder, the folder of the good results, and a small model."""

Edits = tuple[tuple[tuple[str | int, ...], Any], ...]


@dataclass(frozen=True)
class Input:
    """One command and its files: plain data, so that a seed determines all of it.

    Args:
        arguments: Those of ``iwlora``.
        files: Content that is written; a file whose content is None is removed.
        copies: {folder: good result}: results that are copied into the input's folder and then
            damaged by the other fields.
        cuts: Keep this part of a file, and append these bytes.
        edits: Set these fields of a JSON or YAML file.
        links: {path: target}: symbolic links, which are created last.
        trains: Whether an accepted run trains; the others are stopped where training would begin.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    cuts: Mapping[str, tuple[float, bytes]] = field(default_factory=dict)
    edits: Mapping[str, Edits] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    trains: bool = False


def encoded(text: str) -> bytes:
    """UTF-8; lone surrogates become the bytes that UTF-8 forbids."""
    return text.encode("utf-8", "surrogatepass")


numbers = st.one_of(
    st.sampled_from(
        [
            0,
            -1,
            1,
            2,
            3,
            0.5,
            1.5,
            -0.0,
            1e-300,
            1e300,
            -1e308,
            float("inf"),
            float("nan"),
            2**31,
            2**32,
            2**63,
            2**64,
            10**12,
            10**30,
            -(10**30),
            10**400,
        ]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
)
names = st.one_of(
    st.sampled_from(
        [
            *("", " ", ".", "..", "../x", "/", "/etc/passwd", "~", "null", "a\0b", "a\nb", "%s"),
            *("{x}", "<script>", "\ud800", "\x1b[31m", "é" * 300, "x" * 5000, "$(id)", "-"),
            *("--out", "=", "💥", KEEP, f"{KEEP}/run", f"{KEEP}/run/result.json", f"{WORK}/no"),
        ]
    ),
    st.text(max_size=20),
)
plain = st.one_of(st.none(), st.booleans(), numbers, names)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
rubbish = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(encoded),
    st.sampled_from(
        [
            b"",
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"{",
            b"[]",
            b"{}",
            b"null",
            b"1e999",
            b"NaN",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"9" * 6000,
            b'"\\ud800"',
            b"\xc3\x28",
            b"- " * 5000,
            b"\x08\0\0\0\0\0\0\0{}      ",
            b"\xff" * 16,
            b"PAR1",
            b"PK\x03\x04",
            b"\x80\x04.",
        ]
    ),
)
cuts = st.tuples(st.floats(0, 1), rubbish)


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which a few parts are removed, doubled or replaced."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        end = draw(st.integers(start, min(len(whole), start + 40)))
        middle = draw(st.one_of(st.just(b""), rubbish, st.just(whole[start:end] * 2)))
        whole = whole[:start] + middle + whole[end:]
    return whole
