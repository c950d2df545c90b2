"""The HTML page in a real browser: offline, without errors, dark, light, wide, narrow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.report.write import write_report

selenium = pytest.importorskip("selenium", reason="pip install selenium")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
HOSTILE = "<img src=x onerror=console.error(1)><script>console.error(2)<script>\"'&"

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver here (Debian: chromium chromium-driver)",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, comparison_of: Callable[..., Path]) -> Path:
    folder = comparison_of(
        tmp_path_factory.mktemp("page") / "c", arms=["lora", "adalora", HOSTILE], seeds=2,
        measure_seconds=2.0, task=f"task {HOSTILE}", notes=[HOSTILE],
    )  # fmt: skip
    return write_report(folder)


def open_page(browser: Any, page: Path, width: int, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_loads_offline_without_errors_and_fits(
    browser: Any, page: Path, width: int, scheme: str
) -> None:
    open_page(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        event["params"]["request"]["url"].partition(":")[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert requested <= {"file", "data"}
    assert "file" in requested, "the log of requests sees the page itself"
    inner, outer = browser.execute_script(
        "const e = document.scrollingElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert inner <= outer, "the page scrolls sideways"
    images = browser.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.alt.length])"
    )
    assert len(images) >= 4
    assert all(width > 0 and alt > 0 for width, alt in images)
    assert browser.execute_script("return document.scripts.length") == 0


OVERLAPS = """
const boxes = [...document.querySelectorAll('h1, .answer, main > h2, main > figure')]
  .map(e => e.getBoundingClientRect());
return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b => a.left < b.right - 1
  && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length;
"""


@pytest.mark.parametrize(("width", "media"), [(390, ""), (1200, ""), (718, "print")])
def test_the_first_screen_reads_on_a_phone_a_desktop_and_paper(
    browser: Any, page: Path, width: int, media: str
) -> None:
    open_page(browser, page, width, "light")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    inner, outer = browser.execute_script(
        "const e = document.scrollingElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert inner <= outer, "the page scrolls sideways, or paper cuts it off"
    assert browser.execute_script(OVERLAPS) == 0
    answers = browser.execute_script(
        "return [...document.querySelectorAll('.answer')].map(e => e.innerText)"
    )
    assert [answer.splitlines()[0] for answer in answers] == [
        *("Is the difference real?", "What does it cost?", "What should I train?"),
    ]
    last, picture = browser.execute_script(
        "return ['.answer:last-child', 'main > figure'].map(q => "
        "document.querySelector(q).getBoundingClientRect().bottom)"
    )
    assert last < picture < (2000 if width < 600 else 1300), "the map follows the answers"
    folded = browser.execute_script(
        "return document.querySelector('details table').checkVisibility()"
    )
    assert folded == (media == "print"), "paper has no heading to click on"
    shot = browser.get_screenshot_as_png()
    assert shot.startswith(b"\x89PNG")
    assert len(shot) > 20_000, "an empty page is smaller"


def test_an_overlap_would_be_noticed(browser: Any, page: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    text = page.read_text(encoding="utf-8")
    bad.write_text(text.replace(".answer {", ".answer { position: absolute;"), encoding="utf-8")
    open_page(browser, bad, 1200, "light")
    assert browser.execute_script(OVERLAPS) > 0


UNFOLD = "document.querySelectorAll('details').forEach(e => { e.open = true })"
CONTRAST = """
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const light = c => c.slice(0, 3).map(v => v / 255).map(
  v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = e => { for (; e; e = e.parentElement) {
  const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
  return [255, 255, 255]; };
return Math.min(...[...document.querySelectorAll('h1, h2, h3, p, td, th, figcaption, dt, pre')]
  .filter(e => e.innerText.trim()).map(e => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_background(browser: Any, page: Path, scheme: str) -> None:
    open_page(browser, page, 1280, scheme)
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    browser.execute_script(UNFOLD)
    assert browser.execute_script(CONTRAST) >= 4.5


def test_a_screen_reader_finds_names_and_roles(browser: Any, page: Path) -> None:
    open_page(browser, page, 1280, "light")
    browser.execute_script(UNFOLD)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles: dict[str, list[str]] = {}
    for node in tree:
        role = node.get("role", {}).get("value", "")
        roles.setdefault(role, []).append(str(node.get("name", {}).get("value", "")))
    assert len(roles["main"]) == 1
    assert len(roles["table"]) >= 3
    assert all(roles["table"]), "every table has a name"
    assert all(roles["image"]), "every image has a text alternative"
    assert all(roles["region"])
    assert roles["columnheader"]
    assert roles["rowheader"]
    headings = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])"
    )
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_a_page_that_breaks_the_rules_would_be_noticed(
    browser: Any, page: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.html"
    text = page.read_text(encoding="utf-8").replace(
        "<main>", '<main><div style="width:3000px">x</div><img src="http://127.0.0.1:9/x.png">'
    )
    bad.write_text(text, encoding="utf-8")
    open_page(browser, bad, 375, "light")
    assert browser.get_log("browser"), "the content security policy reports the refused image"
    inner, outer = browser.execute_script(
        "const e = document.scrollingElement; return [e.scrollWidth, e.clientWidth]"
    )
    assert inner > outer
