"""A comparison with frozen blocks computed once, end to end: the scores of the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import TRAIN, call, run_settings, write_recipe
from counted import result
from iwlora.compare.execute import floors as execute_floors
from iwlora.results import layout
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.training.frozen_layers.run_setting import kept_frozen_layers
from iwlora.training.frozen_layers.skipping import FrozenLayers
from warm_processes import forked_runs

WIDTH, BYTES = 16, 4
LEARNING_RATES = {"slow": 2e-3, "fast": 1e-2}


def compared(folder: Path, setting: Any, labels: list[str], settings: dict[str, Any]) -> Path:
    """The folder of a comparison whose arms differ in the learning rate, two runs at once."""
    arms = [
        {"name": "lora", "rank": 4, "label": label, "train": {"lr": LEARNING_RATES[label]}}
        for label in labels
    ]
    train = {**TRAIN, "cache_frozen": setting}
    recipe = {**settings, "methods": arms, "seeds": [0, 1], "train": train}
    del recipe["method"]
    write_recipe(folder.with_suffix(".yaml"), recipe)
    return folder


def test_all_runs_share_what_is_computed_once(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = run_settings(tiny_bert, reviews, targets=r".*layer\.1\..*")

    def compare(name: str, setting: Any, *labels: str) -> Path:
        folder = compared(tmp_path / name, setting, [*labels], settings)
        recipe = folder.with_suffix(".yaml")
        outcome = call(capsys, "compare", recipe, "--jobs", 2, "--out", folder)
        assert outcome.code == 0, outcome.err
        return folder

    def kept(folder: Path) -> dict[str, bytes]:
        (store,) = (folder / layout.FROZEN_LAYERS).iterdir()
        return {file.name: file.read_bytes() for file in store.glob("*.bin")}

    of_floors: list[FrozenLayers | None] = []

    def kept_layers(*arguments: Any) -> FrozenLayers | None:
        of_floors.append(kept_frozen_layers(*arguments))
        return of_floors[-1]

    monkeypatch.setattr(execute_floors, "kept_frozen_layers", kept_layers)
    with forked_runs():
        plain = compare("plain", False, "fast")
        once = compare("once", True, "slow")
        of_first_arm = kept(once)
        compare("once", True, "slow", "fast")
    for seed in (0, 1):
        expected = pytest.approx(result(plain, "fast", seed)["metrics"], abs=1e-5)
        assert result(once, "fast", seed)["metrics"] == expected
        assert result(once, "slow", seed)["metrics"] != expected
    # The linear probe of the floors reads them too: for training rows and for scored rows.
    assert [layers and layers.computed_tokens for layers in of_floors] == [0, 0]
    of_probe, expected = (ComparisonFloors.of(folder).predicted for folder in (once, plain))
    assert of_probe == expected
    assert not (plain / layout.FROZEN_LAYERS).exists()
    # The second arm and, within the first one, the second draw found every row.
    assert kept(once) == of_first_arm
    texts = {
        line.split(",")[1]
        for split in ("train", "validation")
        for line in Path(reviews[split]).read_text(encoding="utf-8").splitlines()[1:]
    }
    tokens = sum(len(text.split()) + 2 for text in texts)  # [CLS] and [SEP]
    assert len(of_first_arm["rows.bin"]) == tokens * WIDTH * BYTES
