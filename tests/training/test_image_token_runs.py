"""Runs that learn the codes of images, with methods of each family, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import iwlora
from image_drawings import save_images, save_model
from interruptions import Killed, kill_at
from iwlora.errors import IwloraError
from iwlora.results.run import RunResult
from iwlora.tasks.kinds.images.collator import DIGEST, open_row
from runs import predictions, recipe, weights, with_options


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "masked": save_model(folder / "masked"),
        "next-code": save_model(folder / "next-code", "next-code"),
    }


def task_of(images: Path) -> dict[str, object]:
    return {"train": str(images), "kind": {"name": "image-tokens"}}


@pytest.mark.parametrize("order", ["masked", "next-code"])
def test_training_lowers_the_loss_of_a_source_that_then_is_a_model(
    order: str,
    images: Path,
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, opened = tmp_path / "source", list[str]()

    def counted(row: Any) -> Any:
        opened.append(row[DIGEST])
        return open_row(row)

    monkeypatch.setattr("iwlora.tasks.kinds.images.tokens.open_row", counted)
    asked = recipe(models[order], task_of(images), "full", epochs=8, lr=2e-2, batch_size=8)
    first = iwlora.train(asked, tmp_path / "run")
    assert len(opened) == 24 + 8, "each image is encoded once, for the floor too"
    assert [floor["name"] for floor in first["floors"]] == ["untuned model"]
    assert (tmp_path / "run" / "codes" / "codes.safetensors").is_file()
    untrained = recipe(models[order], task_of(images), "head", epochs=1, lr=1e-9, batch_size=24)
    before = iwlora.train(untrained, tmp_path / "before")["metrics"]["nll"]
    assert first["metrics"]["nll"] < before - 0.3
    iwlora.export(tmp_path / "run", source)
    again = recipe(source, task_of(images), "head", epochs=1, lr=1e-9, batch_size=24)
    second = iwlora.train(again, tmp_path / "again")
    # Two classes again, so that the class prompts come from the source too.
    assert second["metrics"]["nll"] == pytest.approx(first["metrics"]["nll"], abs=1e-5)
    with Image.open(tmp_path / "run" / "predictions" / "samples.jpg") as sheet:
        assert sheet.size == (5 * (4 * 14 + 2),) * 2, "16 images, each five times as wide"
    rows = predictions(tmp_path / "run")
    total = sum(float(row["nll"]) * int(row["tokens"]) for row in rows)
    mean = total / sum(int(row["tokens"]) for row in rows)
    assert first["metrics"] == pytest.approx({"nll": mean, "loss": mean})
    assert RunResult.load(tmp_path / "run" / "result.json").labels == ["disc", "square"]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("bitfit", "adalora", "houlsby")]


@pytest.mark.parametrize("method", ["iw-lora", "pfeiffer", "prefix", *SLOW])
def test_other_methods_learn_codes_and_reload(
    method: str, images: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    options = {"epochs": 2, "lr": 1e-2, "batch_size": 8}
    asked = recipe(models["masked"], task_of(images), method, **options)
    result = iwlora.train(asked, tmp_path)
    assert result["head_parameters"] == 2 * 16 + 2 * 16
    model, codebook = iwlora.load_trained(tmp_path)
    assert codebook.tokens == 9
    reloaded = dict(model.state_dict())
    assert all(torch.isfinite(value).all() for value in reloaded.values())


def test_a_resumed_run_has_the_same_weights(
    images: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 2, "lr": 1e-2, "batch_size": 8, "save_steps": 2}
    asked = recipe(models["masked"], task_of(images), "prompt-generator", **options)
    asked = with_options(asked, instances=True)
    result = iwlora.train(asked, tmp_path / "whole")
    assert result["adapter_parameters"] == (2 + 4 + 24 + 2) * 16
    with monkeypatch.context() as patched:
        kill_at(5, patched)
        with pytest.raises(Killed):
            iwlora.train(asked, tmp_path / "resumed")
    assert iwlora.train(asked, tmp_path / "resumed")["resumed_at_step"] == 4
    whole, resumed = (weights(tmp_path / name) for name in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert len({*map(tuple, whole["class_prompts.instances"].tolist())}) == 24, "each has learned"
    model, _ = iwlora.load_trained(tmp_path / "whole")
    assert model.class_prompts.images == (12, 12)
    with pytest.raises(IwloraError, match="'iwlora generate' makes images of a class"):
        iwlora.predict(tmp_path / "whole", images / "validation", tmp_path / "p.csv")
    with pytest.raises(IwloraError, match="no other tool has its class prompts"):
        iwlora.export(tmp_path / "whole", tmp_path / "adapter")
