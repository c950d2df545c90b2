"""The source model that is missing is trained once, by the first run that names it, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

import iwlora
from iwlora.errors import IwloraError
from iwlora.tasks.corpora.images import strokes
from iwlora.training.image_generation import source_model
from iwlora.training.model.backbone import published_name, resolve_model_path
from runs import recipe

NAME = "builtin/stroke-codes"


def test_a_missing_source_is_trained_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(strokes, "ROWS", {"train": 35, "test": 7})
    monkeypatch.setattr(source_model, "_CODES", 8)
    monkeypatch.setitem(source_model._TRAIN, "epochs", 1)
    with pytest.raises(IwloraError, match="is trained when a run or a comparison first names it"):
        resolve_model_path(NAME)
    task = {"name": "builtin/strokes", "kind": {"name": "image-tokens"}}
    asked = recipe(NAME, task, "prompt-generator", epochs=1, lr=1e-3, batch_size=32)
    first = iwlora.train(asked, tmp_path / "first")
    folder = Path(resolve_model_path(NAME))
    assert sorted(file.name for file in folder.parent.iterdir()) == [
        "stroke-codes-1",
        "stroke-codes-1.lock",
    ]
    weights = (folder / "model.safetensors").stat()
    assert caplog.text.count("is trained now") == 1
    assert iwlora.train(asked, tmp_path / "second")["metrics"] == first["metrics"]
    assert (folder / "model.safetensors").stat() == weights
    assert published_name(NAME) == ""
