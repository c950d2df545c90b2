"""Folders of models: nothing outside of them is read, and the hub's cache is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from commands import call, run_settings, write_recipe
from iwlora.errors import IwloraError
from iwlora.inputs.models import load_config, load_model, load_tokenizer
from iwlora.methods.loading import load_adapter
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.backbone import load_tokenizer as load_checked_tokenizer


def in_the_hubs_cache(model: Path, cache: Path) -> Path:
    """The files of a model as the hub's client keeps them: links to blobs named by a hash."""
    snapshot = cache / "models--a--b" / "snapshots" / "0123"
    blobs = cache / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        shutil.copyfile(file, blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_a_model_in_the_layout_of_the_hubs_cache(tiny_bert: Path, tmp_path: Path) -> None:
    snapshot = in_the_hubs_cache(tiny_bert, tmp_path / "hub")
    (tmp_path / "link").symlink_to(snapshot)  # which its user named
    expected = load_model(AutoModel, tiny_bert).state_dict()
    for folder in (snapshot, tmp_path / "link"):
        loaded = load_model(AutoModel, folder).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
        assert load_config(folder).vocab_size == load_config(tiny_bert).vocab_size
        words = load_tokenizer(folder).get_vocab()
        assert words == load_tokenizer(tiny_bert).get_vocab()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "new"])
def test_links_out_of_a_model_are_refused(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    away = tmp_path / "away"
    if (model / name).exists():
        (model / name).rename(away)
    else:
        away.touch()
    (model / name).symlink_to(away)
    for load in (
        load_config,
        load_tokenizer,
        load_checked_tokenizer,
        lambda folder: load_model(AutoModel, folder),
        lambda folder: load_backbone(str(folder), ["a", "b"]),
    ):
        with pytest.raises(IwloraError, match=f"{name} is a symbolic link that leads out of"):
            load(model)


def test_a_pipe_in_a_model_ends_the_command_at_once(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    settings: dict[str, Any] = {**run_settings(tiny_bert, reviews), "model": str(model)}
    recipe = write_recipe(tmp_path / "r.yaml", settings)
    outcome = call(capsys, "train", recipe, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "tokenizer.json: it is a named pipe" in outcome.err


def test_links_out_of_an_adapter_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (tmp_path / "elsewhere.json").write_text("{}")
    (adapter / "adapter_config.json").symlink_to(tmp_path / "elsewhere.json")
    backbone = load_model(AutoModelForSequenceClassification, tiny_bert)
    with pytest.raises(IwloraError, match="leads out of"):
        load_adapter(backbone, adapter)
