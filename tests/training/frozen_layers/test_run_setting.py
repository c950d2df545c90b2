"""Runs that skip their frozen blocks: when, how equal, and when they refuse."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe, build
from iwlora.training.row_store.stored_rows import StoredRows
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe, weights

UPPER = [r"encoder.layer.1.attention.self.query", r"encoder.layer.1.output.dense"]


def upper(model: Path, task: dict[str, str], method: str = "lora", **settings: Any) -> Recipe:
    """Only the second of two blocks is adapted."""
    asked = recipe(model, task, method, **settings)
    return asked.model_copy(update={"targets": UPPER}) if method != "head" else asked


def differences(one: Path, other: Path) -> float:
    before, after = weights(one), weights(other)
    return max(float((before[name] - after[name]).abs().max()) for name in before)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The padded tokens that each run computed with its frozen blocks."""
    counts: list[int] = []
    compute = FrozenLayers._compute

    def counting(self: FrozenLayers, inputs: Any, rows: Sequence[int] | None) -> Tensor:
        before = self.computed_tokens
        result = compute(self, inputs, rows)
        counts.append(self.computed_tokens - before)
        return result

    monkeypatch.setattr(FrozenLayers, "_compute", counting)
    return counts


@pytest.mark.parametrize("method", ["iw-lora", "head"])
def test_runs_of_a_comparison_share_them_and_are_equal_to_the_plain_run(
    method: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, computed: list[int]
) -> None:
    asked = upper(tiny_bert, reviews, method, epochs=1)
    assert asked.train.cache_frozen == "auto"
    train(asked, tmp_path / "plain" / "seed-0")  # a run outside of a comparison
    assert computed == []
    assert not [*tmp_path.glob(f"**/{layout.FROZEN_LAYERS}")]
    (tmp_path / layout.COMPARISON).touch()
    train(asked, tmp_path / "first" / "seed-0")
    assert sum(computed) > 0
    assert differences(tmp_path / "plain/seed-0", tmp_path / "first/seed-0") < 1e-5
    computed.clear()
    train(asked.with_train(lr=5e-3), tmp_path / "second" / "seed-0")
    assert computed == []
    (kept,) = (tmp_path / layout.FROZEN_LAYERS).iterdir()
    assert {file.name for file in kept.iterdir()} == {"rows.bin", "index.bin", ".lock", ".lock-0"}


def test_dropout_keeps_auto_off_and_true_leaves_it_out(
    with_dropout: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    computed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is computed each time, because nothing may be stored, is the same run."""
    (tmp_path / layout.COMPARISON).touch()
    asked = upper(with_dropout, reviews, epochs=1)
    train(asked, tmp_path / "auto" / "seed-0")
    assert computed == []
    asked = asked.with_train(cache_frozen=True)
    result = train(asked, tmp_path / "stored" / "seed-0")
    assert "the first block had no dropout in training (train.cache_frozen)" in result["notes"]
    computed.clear()
    monkeypatch.setattr(StoredRows, "add", lambda *_: None)
    monkeypatch.setattr(StoredRows, "read", lambda _, keys: [None] * len(keys))
    train(asked, tmp_path / "each-time" / "seed-0")
    assert sum(computed) > 0
    assert differences(tmp_path / "stored/seed-0", tmp_path / "each-time/seed-0") < 1e-5
    assert differences(tmp_path / "stored/seed-0", tmp_path / "auto/seed-0") > 1e-4


def test_what_prompts_read_is_computed_once_for_all_epochs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, computed: list[int]
) -> None:
    asked = recipe(tiny_bert, reviews, "apt", epochs=2)
    train(asked, tmp_path / "plain")
    assert computed == []
    asked = asked.with_train(cache_frozen=True)
    train(asked, tmp_path / "kept")
    _, *rows = Path(reviews["train"]).read_text().splitlines()
    of_an_epoch = sum(len(row.split(",")[1].split()) + 2 for row in rows)  # with [CLS] and [SEP]
    assert 0 < sum(computed) < of_an_epoch
    assert differences(tmp_path / "plain", tmp_path / "kept") < 1e-5
    with pytest.raises(IwloraError, match="=1 was given, and apt reads every block; take true"):
        train(asked.with_train(cache_frozen=1), tmp_path / "number")


def test_prompts_have_the_same_dropout_with_and_without_a_store(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """It never reaches what they read, so there is nothing to leave out, and nothing to note."""
    asked = recipe(with_dropout, reviews, "apt", epochs=2)
    train(asked, tmp_path / "plain")
    result = train(asked.with_train(cache_frozen=True), tmp_path / "kept")
    assert differences(tmp_path / "plain", tmp_path / "kept") < 1e-5
    assert "dropout" not in " ".join(result["notes"])


def test_a_resumed_run_is_equal_bit_by_bit(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    asked = upper(tiny_bert, reviews, epochs=1, cache_frozen=1, save_steps=2)
    train(asked, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    for name in ("result.json", "checkpoints/checkpoint-6"):
        (tmp_path / "resumed" / name).rename(tmp_path / Path(name).name)
    result = train(asked, tmp_path / "resumed")
    assert result["resumed_at_step"] == 4
    assert differences(tmp_path / "whole", tmp_path / "resumed") == 0


def test_without_a_frozen_block_a_note_says_so(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    asked = recipe(tiny_bert, reviews, cache_frozen=True)
    prepared = prepare(asked, RunDir.open(tmp_path / "run", asked), progress=False)
    assert prepared.frozen is None
    assert "no block is below all that train: train.cache_frozen has no effect" in prepared.notes


def test_more_blocks_than_are_frozen_are_refused(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(IwloraError, match=r"=2 was given, and lora trains in or below block 1 "):
        train(upper(tiny_bert, reviews, cache_frozen=2), tmp_path / "run")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "other"),
    [
        (True, {"train": {"gradient_checkpointing": True}}),
        (3, {"train": {"shard": True}}),
        (True, {"quantize": "4bit"}),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    setting: bool | int, other: dict[str, Any], tiny_bert: Path, reviews: dict[str, str]
) -> None:
    settings = {"model": str(tiny_bert), "task": reviews, "method": "lora", **other}
    settings["train"] = {"cache_frozen": setting, **settings.get("train", {})}
    with pytest.raises(IwloraError, match=f"cache_frozen={str(setting).lower()} was given with"):
        build(settings)
    for accepted in ("auto", False):
        settings["train"]["cache_frozen"] = accepted
        build(settings)


@pytest.mark.quick
@pytest.mark.parametrize("wrong", ["maybe", "true", 0, -1, 1.5, None])
def test_other_values_are_refused(wrong: Any, tiny_bert: Path, reviews: dict[str, str]) -> None:
    settings = {"model": str(tiny_bert), "task": reviews, "method": "lora"}
    accepted = "accepted are auto, true, false, and a number of blocks from 1 on"
    with pytest.raises(IwloraError, match=f"^train.cache_frozen={wrong!r}: {accepted}$"):
        build({**settings, "train": {"cache_frozen": wrong}})
    for right in (True, False, "auto", 3):
        kept = build({**settings, "train": {"cache_frozen": right}}).train.cache_frozen
        assert (type(kept), kept) == (type(right), right)


@pytest.mark.parametrize("setting", ["auto", True])
def test_a_model_that_cannot_skip_them_is_noticed(
    setting: Any,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loss of a few rows is compared before the first step."""
    (tmp_path / layout.COMPARISON).touch()
    right = FrozenLayers._activations
    monkeypatch.setattr(FrozenLayers, "_activations", lambda *args: right(*args).roll(1, 1))
    asked = upper(tiny_bert, reviews, epochs=1, cache_frozen=setting)
    if setting is True:
        with pytest.raises(IwloraError, match=r"cannot be skipped: its loss becomes .*take false"):
            train(asked, tmp_path / "a" / "seed-0")
        return
    with caplog.at_level(logging.WARNING, "iwlora"):
        # Runs of a pack share a pass of all blocks, so nothing is skipped and nothing is noticed.
        train(asked, tmp_path / "packed" / "seed-0", joined=lambda *_: nullcontext())
        assert "each time" not in caplog.text
        train(asked, tmp_path / "a" / "seed-0")
    assert "they are computed each time" in caplog.text


def test_other_weights_have_a_store_of_their_own(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, computed: list[int]
) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / layout.COMPARISON).touch()
    other = tmp_path / "model"
    other.mkdir()
    for file in tiny_bert.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if "layer.0" in name and name.endswith("query.bias"))
    tensors[name] = tensors[name] + torch.ones(())
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    for number, model in enumerate((tiny_bert, other)):
        computed.clear()
        train(upper(model, reviews, epochs=1), tmp_path / f"arm-{number}" / "seed-0")
        assert sum(computed) > 0
    assert len([*(tmp_path / layout.FROZEN_LAYERS).iterdir()]) == 2
