"""What only the model or the data can tell is found before anything is measured or trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import Command, call, check_unfinished


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=builtin/minilmm"], ["unknown model", "did you mean 'builtin/minilm'"]),
        (["method.rank=17"], ["method.rank=17", "1 to 16", "(16 × 16)"]),
        (["method.name=iw-lora", "method.rank=17"], ["method.rank=17", "1 to 16"]),
        (["method.name=adalora", "method.rank=12"], ["method.rank=12", "1 to 16"]),
        (["targets=[querry]"], ["unknown target 'querry'", "did you mean 'query'"]),
        (["targets=[bert.pooler.dense]"], ["unknown target 'bert.pooler.dense'"]),
        (["method.name=iw-lora", "targets=[nothing]"], ["unknown target 'nothing'"]),
        (["budget=1"], ["is 1 parameters", "at least 416"]),
        (["train.max_length=65"], ["train.max_length=65", "at most 64"]),
        (["train.max_length=2"], ["train.max_length=2", "at least 3"]),
        (["task.train=no/such.csv"], ["cannot read no/such.csv"]),
        (["task.validation=no/such.csv"], ["cannot read no/such.csv"]),
        (["task.train=rows.docx"], ["rows.docx", "unknown file type"]),
        (["task.text=[text, txt]"], ["unknown column 'txt'", "did you mean 'text'"]),
        (["task.label=moods"], ["unknown column 'moods'", "did you mean 'mood'"]),
        (["task={name: glue/rte, data_dir: no/such}"], ["task.data_dir=no/such", "RTE/train.tsv"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_model_or_the_data_refuse(
    recipe: Path, tmp_path: Path, refused: Command, overrides: list[str], expected: list[str]
) -> None:
    outcome = refused("train", recipe, *overrides, "--out", tmp_path / "run")
    for part in expected:
        assert part in outcome.err
    check_unfinished(tmp_path / "run")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"text,mood\n", "holds no rows"),
        (b"text,mood\na film,pos,extra\n", "line 2: 3 fields, the header has 2"),
        (b"text,mood\na film,pos\n,neg\n", "line 3: column 'text' is empty"),
        (b"text,mood\na film,pos\nb film,pos\n", "one class only"),
        (b"text,mood\nna\xefve,pos\n", "line 2: not UTF-8"),
    ],
)
def test_a_broken_data_file(
    recipe: Path, tmp_path: Path, refused: Command, content: bytes, expected: str
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(content)
    outcome = refused("train", recipe, f"task.train={rows}", "--out", tmp_path / "run")
    assert expected in outcome.err
    assert str(rows) in outcome.err
    check_unfinished(tmp_path / "run")


@pytest.mark.usefixtures("untouched")
def test_a_label_seen_only_in_validation(recipe: Path, tmp_path: Path, refused: Command) -> None:
    rows = tmp_path / "validation.csv"
    rows.write_text("text,mood\na good film,pos\na film,mixed\na bad film,neg\n")
    outcome = refused("train", recipe, f"task.validation={rows}", "--out", tmp_path / "run")
    assert f"{rows}, line 3: label 'mixed' is not in" in outcome.err
    assert "neg, pos" in outcome.err
    check_unfinished(tmp_path / "run")


def test_the_corrected_recipe_may_have_the_folder(
    recipe: Path, tmp_path: Path, refused: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    refused("train", recipe, "method.rank=17", "--out", out)
    assert call(capsys, "train", recipe, "--out", out).code == 0
    assert json.loads((out / "result.json").read_text())["rank"] == 4
