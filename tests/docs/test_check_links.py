"""The checker of the built site finds links that lead nowhere, and only those."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from documentation import ROOT

pytestmark = pytest.mark.quick


@pytest.fixture
def check_links() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs" / "check_links.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_links_are_found(
    check_links: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a b.png").touch()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"><a href="#top">x</a><a href="sub/page.html#here">x</a><a href="sub/">x</a>'
        '<img src="a%20b.png"><a href="https://example.org/nowhere">x</a>'
    )
    (tmp_path / "sub" / "index.html").write_text("<p>")
    (tmp_path / "sub" / "page.html").write_text('<p id="here"><a href="../index.html#top">x</a>')
    assert check_links.broken_links(tmp_path) == []
    monkeypatch.setattr("sys.argv", ["check_links.py", str(tmp_path)])
    assert check_links.main() == 0
    (tmp_path / "sub" / "page.html").write_text(
        '<p><a href="../index.html#gone">x</a><a href="gone.html">x</a><img src="gone.png">'
    )
    assert check_links.broken_links(tmp_path) == [
        "index.html: sub/page.html#here",
        "sub/page.html: ../index.html#gone",
        "sub/page.html: gone.html",
        "sub/page.html: gone.png",
    ]
    assert check_links.main() == 1


def test_links_within_the_pages_lead_to_files() -> None:
    """Without building the site: the files and pictures that the Markdown pages link exist."""
    import re

    from documentation import read_pages

    for page, text in read_pages().items():
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not link.startswith(("http:", "https:", "mailto:")):
                assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_paths_named_in_the_pages_exist() -> None:
    """Paths in backticks that start at a folder of the repository."""
    import re

    from documentation import read_pages

    folders = "src|tests|recipes|examples|benchmarks|stress"
    for page, text in read_pages().items():
        for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{page}: {path}"
