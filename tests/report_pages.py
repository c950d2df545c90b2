"""The content of reports in tests, and a parser for their HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from iwlora.compare.report.content import ReportContent, build_content
from iwlora.compare.report.formats.html import html_page
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.terminal import terminal_text
from iwlora.compare.statistics.analysis import analyze
from iwlora.results.comparison import load


def content_of(folder: Path) -> ReportContent:
    """The content of the report of a comparison or run folder."""
    return build_content(analyze([load(folder)]))


def page_without_images(content: ReportContent) -> Page:
    """The HTML page; nothing is drawn."""
    return Page(html_page(content, [["" for _ in s.figures] for s in content.sections]))


def all_texts(content: ReportContent) -> dict[str, str]:
    """{format: text} of the formats that a person reads; nothing is drawn."""
    return {
        "terminal": terminal_text(content),
        "Markdown": markdown(content),
        "HTML": page_without_images(content).text,
    }


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text without the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element with this tag."""
        return [attributes for name, attributes in self.tags if name == tag]
