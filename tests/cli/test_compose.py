"""``iwlora compose``, and what ``predict`` and ``report`` do with a pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import call, check_plain


@pytest.mark.quick
def test_a_pool_from_one_command_to_the_next(
    finished: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, part = tmp_path / "pool", tmp_path / "part"
    made = call(capsys, "compose", f"a={finished}", f"b={finished}", "--out", pool)
    assert made == (0, f"{pool}\n", "")
    assert call(capsys, "compose", pool, "--remove", "b", "--out", part).code == 0
    rows = ("--input", reviews["validation"], "--max-rows", 2, "--output", "-")
    head, first, _ = call(capsys, "predict", pool, *rows, "--use", "b,a").out.splitlines()
    assert head.startswith("row,line,id,text,label,prediction,sources,probability_neg")
    assert ',"a,b",' in first
    assert set(call(capsys, "verify", pool).out.split("\n")[0].split()) == {"intact", "pool.json"}
    shown = call(capsys, "report", pool, "--use", "a,b")
    assert shown.code == 0
    assert "## What each source adds" in shown.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compose", "{run}", "{run}", "--out", "{tmp}/p"], "have the same name 'run'"),
        (["compose", "{tmp}", "--out", "{tmp}/p"], "is not the folder of a run"),
        (["predict", "{run}", "--use", "a", "--input", "x", "--output", "-"], "--use chooses"),
        (["report", "{run}", "--use", "a"], "--use is for a pool"),
        (["report", "{pool}", "--open"], "--open is for runs and comparisons"),
        (["export", "{pool}", "--to", "{tmp}/e"], "is not the folder of a run"),
        (
            ["predict", "{pool}", "--input", "{rows}", "--output", "{pool}/sources/x.csv"],
            "belongs to",
        ),
    ],
)
def test_wrong_calls(
    finished: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    places = {"run": finished, "tmp": tmp_path, "pool": tmp_path / "pool"}
    call(capsys, "compose", f"a={finished}", "--out", places["pool"])
    given = [text.format(**places, rows=reviews["validation"]) for text in arguments]
    outcome = call(capsys, *given)
    assert outcome.code == 2
    check_plain(outcome)
    assert expected in outcome.err
