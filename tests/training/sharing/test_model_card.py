"""The model card of an export: its metadata, its numbers, and its code, which is executed."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from iwlora import export
from iwlora.training.run import train
from iwlora.training.state.verify import verify
from runs import predictions, recipe

MakeRun = Callable[[str], Path]


@pytest.fixture(scope="module")
def run(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> MakeRun:
    """A run of a method; each is trained once."""
    folder = tmp_path_factory.mktemp("cards")

    def trained(method: str) -> Path:
        if not (folder / method).exists():
            train(recipe(tiny_bert, reviews, method, epochs=4, lr=3e-2), folder / method)
        return folder / method

    return trained


def card_of(folder: Path) -> ModelCard:
    return ModelCard(folder.joinpath("README.md").read_text(encoding="utf-8"))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("method", "merge", "library"),
    [
        ("lora", False, "peft"),
        ("lora", True, "transformers"),
        ("bitfit", False, "iwlora"),
    ],
)
def test_the_code_of_the_card_predicts_what_the_run_predicted(
    run: MakeRun,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    merge: bool,
    library: str,
) -> None:
    to = export(run(method), tmp_path / "exported", merge=merge)
    card = card_of(to)
    assert card.data.library_name == library
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    monkeypatch.chdir(to)
    one_of_each = {row["prediction"]: row for row in predictions(run(method))}
    assert method == "bitfit" or len(one_of_each) == 2, "one class alone shows little"
    for row in one_of_each.values():
        example = code.replace("'the base model'", repr(str(tiny_bert)))
        example = example.replace('"the text"', repr(row["text"]))
        assert row["text"] in example
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example, {})
        assert printed.getvalue().strip() == row["prediction"]


def test_the_card_says_what_the_result_says(
    run: MakeRun, tmp_path: Path, tiny_bert: Path, reviews: dict[str, str]
) -> None:
    to = export(run("lora"), tmp_path / "exported")
    card, stored = card_of(to), json.loads((run("lora") / "result.json").read_text())
    data: Any = card.data
    assert (data.pipeline_tag, data.license, data.base_model) == ("text-classification", None, None)
    assert set(data.tags) == {"iwlora", "lora"}
    found = {entry.metric_type: entry.metric_value for entry in data.eval_results}
    assert found == pytest.approx(stored["metrics"])
    assert {entry.dataset_split for entry in data.eval_results} == {"validation"}
    assert {entry.dataset_name for entry in data.eval_results} == {"train.csv"}
    score, half = stored["metrics"]["accuracy"], stored["half_width"]
    assert f"| {score:.4f} (95% interval {score - half:.4f} to {score + half:.4f}) |" in card.text
    for floor in stored["floors"]:
        assert f"{floor['metrics']['accuracy']:.4f}" in card.text
        assert f"{floor['low']:+.4f} to {floor['high']:+.4f}" in card.text
    assert stored["fingerprint"]["parts"]["texts of train"] in card.text
    for place in (str(tiny_bert), str(Path(reviews["train"]).parent), str(tmp_path)):
        assert place not in card.content


def test_its_owner_may_edit_the_card(run: MakeRun, tmp_path: Path) -> None:
    to = export(run("lora"), tmp_path / "exported")
    card = card_of(to)
    card.data.license = "mit"
    card.save(to / "README.md")
    assert {check.state for check in verify(to)} == {"intact"}
