"""All arms of a seed see the same data in the same order and start from the same head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from iwlora import train
from iwlora.errors import IwloraError
from iwlora.results.comparison import load_comparison
from iwlora.results.comparison.equal_inputs import unverified_runs
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.run import head_digest
from report_pages import all_texts, content_of
from runs import recipe, with_options


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """The token ids of every batch that a training step gets, a list for each run."""
    batches: list[list[list[int]]] = []
    step, fit = FineTuningTrainer.training_step, FineTuningTrainer.fit

    def watched(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        batches[-1].append(inputs["input_ids"].tolist())
        return step(self, model, inputs, *rest)

    def begun(self: Any, *arguments: Any) -> Any:
        batches.append([])
        return fit(self, *arguments)

    monkeypatch.setattr(FineTuningTrainer, "training_step", watched)
    monkeypatch.setattr(FineTuningTrainer, "fit", begun)
    return batches


def test_arms_start_alike_and_the_hashes_say_so(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, seen: list[Any]
) -> None:
    arms = {
        "full": recipe(tiny_bert, reviews, "full", epochs=1),
        "lora": recipe(tiny_bert, reviews, "lora", epochs=1),
        "iw": with_options(recipe(tiny_bert, reviews, "iw-lora", epochs=1), max_batches=2),
        "seed": recipe(tiny_bert, reviews, "lora", epochs=1, seed=1),
        "order": recipe(tiny_bert, reviews, "lora", epochs=1, group_by_length=False),
    }
    results = {name: train(arm, tmp_path / name) for name, arm in arms.items()}
    assert seen[0] == seen[1] == seen[2], "the very same batches"
    assert seen[3] != seen[1] != seen[4]
    for field, others in (("data_digest", ("seed", "order")), ("head_digest", ("seed",))):
        same = {results[name][field] for name in ("full", "lora", "iw")}
        assert len(same) == 1
        for name in others:
            assert results[name][field] not in same, "the digest must tell them apart"


def test_a_head_that_differs_in_one_number_has_another_hash() -> None:
    from iwlora.methods.contract import Attached

    head = torch.nn.Linear(3, 2)
    attached = Attached(head, (), ("weight", "bias"), lambda _: None, lambda: 0)
    before = head_digest(attached)
    assert head_digest(attached) == before
    with torch.no_grad():
        head.weight[0, 0] += 1e-3
    assert head_digest(attached) != before


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("data_digest", "not the same data in the same order"),
        ("head_digest", "not the same initial head"),
    ],
)
def test_a_comparison_whose_arms_start_apart_is_refused(
    tmp_path: Path, comparison_of: Callable[..., Path], field: str, words: str
) -> None:
    folder = comparison_of(
        tmp_path / "c", arms=["lora", "full"], seeds=2, data_digest="d", head_digest="h"
    )
    assert load_comparison(folder).runs
    path = folder / "full" / "seed-1" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "other"}))
    with pytest.raises(IwloraError, match=f"full and lora did not start alike at seed 1: {words}"):
        load_comparison(folder)


SPLITS = ("train", "selection", "validation", "validation_mismatched")
PARTS = {
    **{f"{column} of {split}": "a" for column in ("texts", "labels") for split in SPLITS},
    "class names": "a",
    "model weights": "a",
    "tokenizer": "a",
    "recipe": "3:a",
    "seed": "0",
}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("labels of validation", "the labels of the data .validation. changed"),
        ("labels of validation_mismatched", "the labels of the data .validation_mism.* changed"),
        ("tokenizer", "the tokenizer is another one"),
        ("labels of selection", "not the same training rows .the labels of the data .selection."),
        ("class names", "the class names are others"),
        ("model weights", "the model weights are others"),
        ("labels of train", "full and lora did not start alike at seed 1: not the same training"),
        ("recipe", None),
    ],
)
def test_runs_compare_only_on_the_same_rows_classes_and_backbone(
    tmp_path: Path, comparison_of: Callable[..., Path], part: str, words: str | None
) -> None:
    folder = comparison_of(
        tmp_path / "c", arms=["lora", "full"], seeds=2, fingerprint={"parts": PARTS}
    )
    assert load_comparison(folder).runs
    path = folder / "full" / "seed-1" / "result.json"
    other = {"fingerprint": {"parts": PARTS | {part: "3:b"}}}
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    if words is None:
        assert load_comparison(folder).runs
        return
    with pytest.raises(IwloraError, match=words):
        load_comparison(folder)


def test_runs_without_fingerprints_are_counted(
    tmp_path: Path, comparison_of: Callable[..., Path]
) -> None:
    folder = comparison_of(tmp_path, arms=["lora"], seeds=2, fingerprint={"parts": PARTS})
    assert not unverified_runs(load_comparison(folder).runs)
    path = folder / "lora" / "seed-1" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": None}))
    (remark,) = unverified_runs(load_comparison(folder).runs)
    assert remark.startswith("1 of 2 runs cannot be verified")
    assert all(remark in text for text in all_texts(content_of(folder)).values())


def test_whole_recipes_may_see_their_data_in_another_order(
    tmp_path: Path, comparison_of: Callable[..., Path]
) -> None:
    """Recipes of runs may differ in epochs; the report then says that they did not start alike."""
    folder = comparison_of(tmp_path, arms=["lora", "full"], seeds=1, data_digest="d")
    path = folder / "full" / "seed-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_digest": "other"}))
    plan = yaml.safe_load((folder / "comparison.yaml").read_text())
    plan["recipe"] = {"recipes": {"lora": {}, "full": {}}}
    (folder / "comparison.yaml").write_text(yaml.safe_dump(plan))
    (remark,) = load_comparison(folder).remarks
    assert remark.endswith("did not start alike at seed 0: not the same data in the same order")
