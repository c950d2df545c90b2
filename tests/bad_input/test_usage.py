"""Wrong calls, and one in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Command, call, check_plain, spawn


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "{tmp}/m.json", "--task", "glue/rtee"], ["unknown task", "'glue/rte'"]),
        (["--out", "{tmp}/m.json"], ["no task"]),
        (["--out", "{tmp}/m.png", *"{task}".split()], ["ends in .json"]),
        (["--out", "{tmp}/folder.json", *"{task}".split()], ["ends in .json"]),
        (["--out", "{tmp}/file/m.json", *"{task}".split()], ["file"]),
        (["--out", "{tmp}/m.json", "{task}", "--max-batches", "0"], ["method.max_batches=0"]),
        (["--out", "{tmp}/m.json", "{task}", "--tolerance", "-1"], ["method.tolerance=-1"]),
        (["--out", "{tmp}/m.json", "{task}", "targets=[querry]"], ["did you mean 'query'"]),
        (["--out", "{tmp}/m.json", "{task}", "method.name=lora"], ["lora measures nothing"]),
        (["--out", "{tmp}/m.json", "{task}", "train.max_length=65"], ["at most 64"]),
    ],
)
def test_measure(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    refused: Command,
    arguments: list[str],
    expected: list[str],
) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("mine")
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    given: list[str] = []
    for argument in arguments:
        given += task if argument == "{task}" else [argument.replace("{tmp}", str(tmp_path))]
    if "train.max_length=65" not in given:
        given.append("train.max_length=32")
    outcome = refused("measure", "--model", tiny_bert, *given)
    for part in expected:
        assert part in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["train"],
        ["report", "a", "b"],
        ["train", "r.yaml", "--out", "o", "--fast"],
        ["measure", "--model", "m", "--out", "o", "--max-batches", "many"],
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    outcome = call(capsys, *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("usage: iwlora")
    assert "Traceback" not in outcome.err


def test_as_a_process(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    wrong = spawn("train", recipe, "method.rank=0", "train.lr=x", "--out", out)
    assert wrong.code == 2
    assert len(wrong.err.splitlines()) == 2
    check_plain(wrong)
    assert not out.exists()
