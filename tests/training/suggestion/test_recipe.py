"""The recipe that is suggested for a file: its fields, its reasons, and its text."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from iwlora.compare.plan.recipe import plan_settings
from iwlora.compare.plan.suggestion import suggest_comparison
from iwlora.inputs.yaml_json import assignment
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import build
from iwlora.training.suggestion import settings as rules
from iwlora.training.suggestion.recipe import suggest, suggest_for_task

pytestmark = pytest.mark.quick


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def films(file: Path, count: int = 40, text: str = "text", label: str = "label") -> str:
    return written(
        file, [{text: f"film {n} was shown in the park", label: "ab"[n % 2]} for n in range(count)]
    )


ODD = [
    ("text", "label"),
    ("true", "1"),
    ("a: b", "# c"),
    ("é\u2028\x07\ufffeü", "[x"),
    ("it's", "-1"),
]


@pytest.mark.parametrize(("text", "label"), ODD)
def test_the_text_is_read_back_as_the_recipe(
    text: str, label: str, tiny_bert: Path, tmp_path: Path
) -> None:
    data = films(tmp_path / "ein Film.jsonl", text=text, label=label)
    given = [f"model={tiny_bert}", "label=first", "method.alpha=0.1", "method.name=iw-lora"]
    suggested = suggest(data, given)
    file = tmp_path / "recipe.yaml"
    file.write_text(suggested.commented(), encoding="utf-8")
    assert build(read_yaml(file)) == suggested.recipe
    assert suggested.recipe.task.text == [text]
    assert suggested.recipe.task.label == label
    printed = [assignment(field, value) for field, value in suggested.fields()]
    assert all(f"  {a} " in b for a, b in zip(printed, suggested.lines(), strict=False))
    assert override({}, [shlex.split(a)[0] for a in printed]) == suggested.settings
    comparison = suggest_comparison(data, given[:1])
    assert read_comparison(comparison.commented()) == dict(comparison.settings)
    assert plan_settings(comparison.settings).labels == ["lora", "iw-lora"]


def read_comparison(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_a_comment_that_is_left_out_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    suggested = suggest(films(tmp_path / "films.jsonl"), [f"model={tiny_bert}", "train.seed=3"])
    assert set(suggested.reasons) >= {f for f, _ in suggested.fields()} - {"model", "train.seed"}
    text = suggested.commented()
    for field, _ in suggested.fields():
        name = field.rpartition(".")[2]
        lines = text.splitlines()
        place = next(n for n, line in enumerate(lines) if line.lstrip().startswith(f"{name}:"))
        assert lines[place - 1].lstrip().startswith("# "), field
    assert "  # as given\n  seed: 3" in text


def test_length_and_rows_follow_the_data(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": "film " * (30 if n == 5 else 6), "label": n % 2} for n in range(50)]
    for n, row in enumerate(rows):
        row["text"] += f"was {n}"
    data = written(tmp_path / "rows.jsonl", rows)
    model = [f"model={tiny_bert}"]
    train = suggest(data, model).recipe.train
    longest = max(len(row["text"].split()) for row in rows if len(row["text"]) < 100)
    assert (train.max_length % 16, train.max_length > longest) == (0, True)
    assert (train.batch_size, train.epochs) == (16, 10)
    assert suggest(data, model).recipe.task.max_train is None
    monkeypatch.setattr(rules, "MOST_ROWS", 20)
    bounded = suggest(data, model)
    assert bounded.recipe.task.max_train == 20
    assert "of 45 rows" in bounded.reasons["task.max_train"]
    assert suggest(data, [*model, "task.max_train=30"]).recipe.task.max_train == 30


def test_rows_to_report_do_not_stop_it(tiny_bert: Path, tmp_path: Path) -> None:
    data = films(tmp_path / "films.jsonl")
    with Path(data).open("a", encoding="utf-8") as file:
        file.write('{"text": "", "label": "a"}\n')
    (note,) = suggest(data, [f"model={tiny_bert}"]).notes[1:]
    assert note == "1 row cannot be used; task.on_bad=skip leaves such rows out"
    report = suggest(data, [f"model={tiny_bert}", "task.on_bad=report"])
    assert report.recipe.task.on_bad == "report"


def test_official_files_of_glue(glue_dir: Path, tiny_bert: Path) -> None:
    recipe = suggest(str(glue_dir / "RTE" / "train.tsv"), [f"model={tiny_bert}"]).recipe
    assert (recipe.task.text, recipe.task.label) == (["sentence1", "sentence2"], "label")
    assert (recipe.method.name, recipe.train.epochs) == ("lora", 6)


def test_a_named_task_gets_the_same_settings(tiny_bert: Path) -> None:
    given = [f"model={tiny_bert}", "task.max_train=90", "train.lr=0.01"]
    suggestion = suggest_for_task("builtin/sentiment", given)
    recipe = suggestion.recipe
    assert (recipe.task.name, recipe.task.max_train) == ("builtin/sentiment", 90)
    assert (recipe.train.batch_size, recipe.train.epochs, recipe.train.lr) == (16, 10, 0.01)
    assert "90 rows to train on" in suggestion.reasons["task.name"]
    assert "train.lr" not in suggestion.reasons
