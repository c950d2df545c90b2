"""Which files of a model are its weights, in a folder and in the hub's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from iwlora import tasks
from iwlora.results.fingerprint import Fingerprint, differences, other_versions
from iwlora.training.model.model_files import model_files
from iwlora.training.state.fingerprint import fingerprint_of, model_parts
from runs import recipe


def test_weights_that_are_loaded_are_not_overlooked(tmp_path: Path) -> None:
    """Another file of safetensors does not stand for a model in PyTorch's format."""
    for name in ("config.json", "pytorch_model.bin", "adapter_model.safetensors"):
        (tmp_path / name).touch()
    names = {path.name for path in model_files(tmp_path)["weights"]}
    assert names == {"pytorch_model.bin", "adapter_model.safetensors"}


def in_hub_cache(model: Path, cache: Path, revision: str) -> None:
    """Store a model as huggingface_hub does: links of a snapshot to blobs."""
    repository = cache / "models--org--tiny"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for folder in ("blobs", "refs"):
        (repository / folder).mkdir(exist_ok=True)
    for file in model.iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs" / "main").write_text(revision)


def test_a_model_of_the_hub_is_its_files_and_its_revision_is_named(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    asked = recipe(Path("org/tiny"), reviews)

    def fingerprint() -> Fingerprint:
        return fingerprint_of(asked, tasks.load(asked.task, 0))[0]

    in_hub_cache(model, tmp_path / "hub", "aaaa")
    before = fingerprint()
    assert model_parts("org/tiny") == model_parts(str(model)), "by content, wherever it is"
    (model / "README.md").write_text("another revision, with the same weights")
    in_hub_cache(model, tmp_path / "hub", "bbbb")
    now = fingerprint()
    assert differences(before, now) == []
    assert other_versions(before, now) == ["org/tiny revision bbbb, and it was revision aaaa"]
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    in_hub_cache(model, tmp_path / "hub", "cccc")
    assert differences(now, fingerprint()) == ["the model weights are others"]
