"""No control character of a foreign text reaches a terminal or a report."""

from __future__ import annotations

import io
import json
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tqdm.auto import tqdm

from commands import Outcome, call, run_settings, spawn, write_recipe
from conftest import drawn_figures
from iwlora.inputs.control_characters import VisibleStream, unfiltered, visible, visible_output
from iwlora.training.recipe import build
from iwlora.training.run import train
from runs import as_foreign

EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202egnp.exe\x08\x00\x7f\u2028"
MARKS = {
    unicodedata.lookup(name)
    for name in ("LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK")
}
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def controls(text: str) -> set[str]:
    """The characters that a terminal obeys, by the tables of Unicode."""
    return {
        letter
        for letter in text
        if letter not in "\n\t"
        and (
            unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(letter) in DIRECTIONS
            or letter in MARKS
        )
    }


def test_exactly_the_control_characters_are_replaced() -> None:
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    changed = {letter for letter in every if visible(letter) != letter}
    assert changed == controls("".join(every))
    assert len(changed) > 65 + 2048
    assert not controls(visible(EVIL))
    assert controls(EVIL), "a check that cannot fail is none"
    assert visible("a\tb\r\nc\n") == "a\tb\nc\n"
    assert visible("日本語 ünï 👩‍💻 עברית") == "日本語 ünï 👩‍💻 עברית"


def test_json_says_the_same() -> None:
    document = json.dumps({"name": EVIL}, ensure_ascii=False)
    assert json.loads(visible(document)) == {"name": EVIL}


def test_output_is_visible_inside_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    with visible_output():
        print("a", EVIL)
        print(EVIL, file=sys.stderr)
        sys.stdout.writelines([EVIL])
        assert unfiltered(sys.stdout) is not sys.stdout
    print("\x1b[0m")
    printed = capsys.readouterr()
    assert controls(printed.out) == {"\x1b"}
    assert printed.out.startswith(
        "a \\u001b]0;owned\\u0007\\u001b[2J\\u000d\\u009b31m\\u202egnp.exe"
    )
    assert not controls(printed.err)
    assert unfiltered(sys.stdout) is sys.stdout


def test_progress_bars_draw_as_before() -> None:
    drawn = []
    for wrap in (lambda stream: stream, VisibleStream):
        screen = io.StringIO()
        options: dict[str, Any] = {"file": wrap(screen), "bar_format": "{bar}|{n}", "ncols": 20}
        with tqdm(range(2), **options) as outer, tqdm(range(2), position=1, **options) as inner:
            outer.update()
            inner.update()
            inner.set_postfix(loss="1")
        drawn.append(screen.getvalue())
    assert drawn[0] == drawn[1]
    assert "\x1b[A" in drawn[0]
    assert "\r" in drawn[0]


# --- commands ---


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    settings = run_settings(tiny_bert, reviews)
    few = {**settings, "train": {**settings["train"], "epochs": 0.1}}
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(build(few), folder)
    return folder


def spoken(outcome: Outcome) -> str:
    assert not controls(outcome.out + outcome.err), outcome
    return outcome.out + outcome.err


def test_a_foreign_run_in_a_report(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / f"run{EVIL}".replace("\0", "")))
    scores = {EVIL: {"f1": 0.5, "precision": 0.5, "recall": 0.5, "rows": 2}}
    as_foreign(run, notes=[EVIL], labels=["a", EVIL], label_scores=scores)
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "# \x1b[2J\u202e\r\n")
    environment = json.loads((run / "environment.json").read_text())
    del environment["digest"]
    (run / "environment.json").write_text(json.dumps({**environment, "gpu": EVIL}))
    with drawn_figures():
        outcome = call(capsys, "report", run)
    assert outcome.code == 0, outcome
    assert "\\u001b" in spoken(outcome)
    pages = [path for path in run.rglob("*") if path.suffix in (".html", ".md", ".csv", ".tex")]
    pages += [run / "summary.json", *run.rglob("*.svg")]
    assert len(pages) > 5
    for page in pages:
        if "predictions" not in page.parts and "adapter" not in page.parts:
            assert not controls(page.read_text(encoding="utf-8")), page
    assert "\\u202e" in (run / "report.html").read_text()


def test_names_in_messages(
    finished: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = EVIL.replace("\0", "")
    table = tmp_path / f"{evil}.csv"
    table.write_text(f"text,{evil}\na,b\n", encoding="utf-8")
    settings = {**json.loads(json.dumps(run_settings(finished / "x", reviews))), "label": "a"}
    recipe = write_recipe(tmp_path / "r.yaml", settings)
    commands: list[list[object]] = [
        ["report", tmp_path / evil],
        ["train", tmp_path / f"{evil}.yaml", "--out", tmp_path / "out"],
        ["train", recipe, f"task.train={json.dumps(str(table))}", "--out", tmp_path / "out"],
        ["predict", finished, "--input", table, "--output", tmp_path / "o.csv"],
        ["tasks", "show", f"task.train={json.dumps(str(table))}"],
    ]
    for command in commands:
        outcome = call(capsys, *command)
        assert outcome.code == 2, outcome
        assert "\\u001b" in spoken(outcome), command


def test_a_process_says_no_control_characters(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": EVIL, "error": EVIL}))
    outcome = spawn("report", tmp_path, cwd=tmp_path)
    assert outcome.code == 2
    assert "\\u009b31m" in spoken(outcome)
