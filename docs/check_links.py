"""Check the links inside a built site: ``python docs/check_links.py FOLDER``.

Every relative link must lead to a file of the site, and its #fragment to an id on that page.
Links to other sites are not followed, so the check needs no network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The ids of a page and where its links and pictures lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes that name or link something."""
        for name, value in attrs:
            if value and (name == "id" or (name == "name" and tag == "a")):
                self.ids.add(value)
            elif value and name in ("href", "src"):
                self.links.append(value)


def broken_links(site: Path) -> list[str]:
    """The links of all pages below ``site`` that lead nowhere, as ``page: link``."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    broken = []
    for path, page in sorted(pages.items()):
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            exists = target in pages or target.is_file()
            fragment = unquote(parts.fragment)
            if not exists or (fragment and target in pages and fragment not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    return broken


def main() -> int:
    """Print the broken links of the site; the exit code is 1 when there are any."""
    site = Path(sys.argv[1]).resolve()
    if not (site / "index.html").is_file():
        print(f"{site} has no index.html: build the site first, with 'make docs'")
        return 1
    broken = broken_links(site)
    print("\n".join(broken) if broken else "all links inside the site lead somewhere")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
