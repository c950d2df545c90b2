"""SVG figures made small, for a page that holds many of them."""

from __future__ import annotations

import re

_UNSEEN = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_IDLE = re.compile(r' id="[a-z]\w*_\d+"')
_FINE = re.compile(r"\d+\.\d{3,}")
_BLANK = re.compile(r"\s*\n\s*")


def small(svg: str) -> str:
    """The same drawing of matplotlib's in about two thirds of the bytes.

    Coordinates to a hundredth of a point, short names for glyphs, no comments, no metadata, and
    no names of groups, which nothing refers to.

    >>> small('<g id="text_1"> <!-- a -->\\n  <use xlink:href="#DejaVuSans-61" x="1.004999"/></g>')
    '<g>\\n<use href="#61" x="1"/></g>'
    """
    svg = _IDLE.sub("", _UNSEEN.sub("", svg))
    svg = _FINE.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), svg)
    return _BLANK.sub("\n", svg.replace("DejaVuSans-", "").replace("xlink:href", "href"))
