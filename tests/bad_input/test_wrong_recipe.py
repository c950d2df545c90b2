"""A recipe that is wrong in itself: all errors at once, and nothing is written at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import Command, Outcome, call, check_plain, write_recipe


def test_these_checks_can_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        check_plain(Outcome(2, "", "error: a\nTraceback (most recent call last):\n"))
    with pytest.raises(AssertionError):
        check_plain(Outcome(2, "", "error: a\nand another line\n"))
    assert call(capsys, "--version").code == 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method.name=iw-lorra"], ["unknown method 'iw-lorra'", "did you mean 'iw-lora'"]),
        (["method.name=null"], ["unknown method", "accepted: full, "]),
        (["method.name=[lora]"], ["unknown method"]),
        (["method={rank: 4}"], ["method.name: missing"]),
        (["method=5"], ["method.name: missing"]),
        (["task={name: glue/rtee}"], ["unknown task 'glue/rtee'", "did you mean 'glue/rte'"]),
        (["task=glue/rtee"], ["unknown task 'glue/rtee'", "did you mean 'glue/rte'"]),
        (["task={}"], ["no task", "task.name", "task.train=FILE"]),
        (["task.name=glue/rte"], ["task.train", "remove one of the two"]),
        (["task.text=[text, text]"], ["names a column twice"]),
        (["task.label=text"], ["task.label=text is a text column too"]),
        (["method.rnk=4"], ["method.rnk: unknown field", "did you mean 'rank'"]),
        (["train.epoch=1"], ["train.epoch: unknown field", "did you mean 'epochs'"]),
        (["task.lable=mood"], ["task.lable: unknown field", "did you mean 'label'"]),
        (["modle=x"], ["modle: unknown field", "did you mean 'model'"]),
        (["method.alpha=1"], ["method.alpha: unknown field", "accepted: rank, lora_alpha"]),
        (["method.rank=0"], ["method.rank=0", "greater than or equal to 1"]),
        (["method.rank=-3"], ["method.rank=-3"]),
        (["method.rank=4.5"], ["method.rank=4.5", "integer"]),
        (["method.rank=true"], ["method.rank=True", "integer"]),
        (["train.lr=fast"], ["train.lr='fast'", "number"]),
        (["train.lr=.inf"], ["train.lr=inf", "finite"]),
        (["train.lr=0"], ["train.lr=0", "greater than 0"]),
        (["train.seed=-1"], ["train.seed=-1"]),
        (["train.accumulate=3"], ["train.batch_size=16", "train.accumulate=3"]),
        (["train.precision=fp8"], ["train.precision='fp8'", "'fp32' or 'bf16'"]),
        (["train=3"], ["train=3", "mapping"]),
        (["train=[]"], ["train=[]", "mapping"]),
        (["task=[]"], ["task=[]", "mapping"]),
        (["model="], ["model=None", "string"]),
        (["model=''"], ["model=''"]),
        (["targets=[]"], ["targets=[]", "accepted: all, or a list"]),
        (["targets=3"], ["targets=3", "accepted: all, or a list"]),
        (["budget=-3"], ["budget=-3", "0.5%", "1.33M"]),
        (["budget=half"], ["budget='half'", "0.5%"]),
        (["budget=[1]"], ["budget=[1]", "0.5%"]),
        (["label=a/b"], ["label='a/b'"]),
        (["train.lr"], ["'train.lr' is not of the form key=value"]),
        (["=3"], ["'=3' is not of the form key=value"]),
        (["train..lr=3"], ["'train..lr=3' is not of the form key=value"]),
        (["train.lr=[1"], ["train.lr=[1 is not valid YAML"]),
        (["3=4"], ["3: unknown field"]),
        (["method.name=adalora", "method.t_init=0.7"], ["t_init=0.7", "sum to less than 1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_recipe(
    recipe: Path, tmp_path: Path, refused: Command, overrides: list[str], expected: list[str]
) -> None:
    outcome = refused("train", recipe, *overrides, "--out", tmp_path / "run")
    for part in expected:
        assert part in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untouched")
def test_all_errors_at_once(recipe: Path, tmp_path: Path, refused: Command) -> None:
    wrong = {
        "method.rank": "x",
        "method.dropout": "2",
        "train.lr": "fast",
        "train.batch_size": "1.5",
        "train.group_by_length": "maybe",
        "task.max_train": "0",
        "task.text": "3",
        "targets": "3",
        "budget": "much",
        "modle": "y",
    }
    overrides = [f"{key}={value}" for key, value in wrong.items()]
    outcome = refused("train", recipe, *overrides, "--out", tmp_path / "run")
    lines = outcome.err.splitlines()
    for key in wrong:
        found = [line for line in lines if line.startswith(f"error: {key}")]
        assert len(found) == 1, (key, outcome.err)
    assert len(lines) == len(wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "contains no recipe"),
        ("# nothing yet\n", "contains no recipe"),
        ("- model: a\n", "contains no recipe"),
        ("model, task\n", "contains no recipe"),
        ("model: [a\n", "is not valid YAML"),
        ("model: a\n\ttask: b\n", "is not valid YAML"),
        ("model: a\ntask: b\nmodel: c\n", "given twice: model"),
        ("method: {rank: 1, name: lora, rank: 2}\n", "given twice: rank"),
        ("model: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("--- 1\n--- 2\n", "is not valid YAML"),
        ("x: " + "[" * 3000, "is not valid YAML"),
        ("? [a, b]\n: c\n", "is not valid YAML"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_file_that_is_no_recipe(
    tmp_path: Path, refused: Command, command: str, text: str, expected: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    outcome = refused(command, path, "--out", tmp_path / "run")
    assert expected in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_recipe_that_cannot_be_read(tmp_path: Path, refused: Command, command: str) -> None:
    out = tmp_path / "run"
    assert "no such file" in refused(command, tmp_path / "no.yaml", "--out", out).err
    folder = {"train": "no files that are read", "compare": "neither a run (no result.json) nor a "}
    assert folder[command] in refused(command, tmp_path, "--out", out).err
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    assert "cannot read" in refused(command, tmp_path / "latin.yaml", "--out", out).err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"methods": None}, ["methods: missing"]),
        ({"methods": []}, ["methods: missing"]),
        ({"methods": "lora"}, ["methods: missing"]),
        ({"methods": ["lora", "iw-lorra"]}, ["unknown method 'iw-lorra'", "'iw-lora'"]),
        ({"methods": ["lora", 3]}, ["method.name: missing"]),
        ({"methods": ["lora", "lora"]}, ["lora named twice; give each a label"]),
        ({"methods": [{"name": "lora", "rnk": 3}]}, ["method.rnk: unknown field", "'rank'"]),
        ({"methods": [{"name": "lora", "label": "../x"}]}, ["label='../x'"]),
        ({"methods": [{"name": "lora", "train": {"lr": "x"}}]}, ["train.lr='x'"]),
        ({"seeds": []}, ["seeds=[]", "[0, 1, 2]"]),
        ({"seeds": 3}, ["seeds=3", "[0, 1, 2]"]),
        ({"seeds": ["a"]}, ["seeds=['a']"]),
        ({"seeds": [True]}, ["seeds=[True]"]),
        ({"method": {"name": "lora"}}, ["a comparison has 'methods'"]),
        ({"train": {"seed": 1}}, ["train.seed: a comparison has 'seeds'"]),
        (
            {"methods": [{"name": "lora", "rank": 0}], "train": {"lr": -1}, "modle": 1},
            ["method.rank=0", "train.lr=-1", "modle: unknown field"],
        ),
    ],
)
def test_a_wrong_comparison(
    settings: dict[str, Any],
    tmp_path: Path,
    refused: Command,
    change: dict[str, Any],
    expected: list[str],
) -> None:
    plan = {**settings, "methods": ["full", "lora"], "seeds": [0], **change}
    if "method" not in change:
        del plan["method"]
    recipe = write_recipe(tmp_path / "plan.yaml", plan)
    outcome = refused("compare", recipe, "--out", tmp_path / "out")
    for part in expected:
        assert outcome.err.count(part) == 1, outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "compare", "design"])
def test_a_field_where_the_recipe_should_be(tmp_path: Path, refused: Command, command: str) -> None:
    outcome = refused(command, "train.lr=1e-3", "--out", tmp_path / "run")
    assert "train.lr=1e-3: give the file of a recipe first" in outcome.err
    assert not (tmp_path / "run").exists()
