"""What reaches a terminal or a browser: no control characters, no scripts, nothing loaded."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_PROGRESS = re.compile(r"\r(?: {8,}|[^\r\n]*?\d\S* \[[^\]\r\n]*\])(?:\x1b\[A)*")
"""A progress bar: it returns to the beginning of its line, or goes up to that of another one."""

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""Control characters but for tab and line break, separators of lines, marks of direction."""


def control_characters(text: bytes) -> list[str]:
    """Characters of a terminal's output that move, hide or reverse other text."""
    decoded = text.decode("utf-8", "surrogateescape")
    return sorted(set(_CONTROL.findall(without_bars(decoded).replace("\r\n", "\n"))))


def without_bars(text: str) -> str:
    """What was printed, without progress bars."""
    return _PROGRESS.sub("", text)


class _Page(HTMLParser):
    """Notes everything in a page that runs, or that is loaded from elsewhere."""

    ACTIVE = frozenset(
        "script iframe object embed applet form base frame frameset audio video source".split()
    )
    LOADS = frozenset("src href data action formaction poster background srcset xlink:href".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.ACTIVE:
            self.found.append(f"<{tag}>")
        for name, content in attrs:
            text = (content or "").strip().lower()
            inside = text.startswith(("#", "data:image/")) or not text
            if name.startswith("on"):
                self.found.append(f"<{tag} {name}>")
            elif name in self.LOADS and not inside:
                self.found.append(f"<{tag} {name}={text[:60]}>")
            elif name == "style" and "url(" in text and "url(#" not in text:
                self.found.append(f"<{tag} style={text[:60]}>")
            elif tag == "meta" and name == "http-equiv" and text != "content-security-policy":
                self.found.append(f"<meta {text}>")

    handle_startendtag = handle_starttag


def active_content(page: bytes) -> list[str]:
    """What an HTML page or SVG picture runs or loads; control characters in it."""
    text = page.decode("utf-8", "surrogateescape")
    parser = _Page()
    parser.feed(text)
    parser.close()
    return parser.found + [f"control character {sign!r}" for sign in control_characters(page)]
