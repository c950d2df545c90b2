"""Folders of models: nothing outside of them is read, and the hub's cache is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
)

from commands import call, run_settings, write_recipe
from failing_opens import RAISES, ends_with_each_open_refused
from iwlora.errors import IwloraError
from iwlora.inputs.models.hub import load_hub_dataset
from iwlora.inputs.models.loading import (
    adapter_configuration,
    load_config,
    load_model,
    load_tokenizer,
)
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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts whose address is asked for, on a machine without a network."""
    hosts: list[str] = []

    def no_address(host: str, *_: Any, **__: Any) -> None:
        hosts.append(host)
        raise socket.gaierror("no network")

    for library in (constants, datasets.config):
        monkeypatch.setattr(library, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr("iwlora.inputs.models.hub.getproxies", dict)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("a library waits for the hub"))
    return hosts


@pytest.mark.parametrize(
    "load",
    [load_config, load_tokenizer, adapter_configuration, lambda name: load_hub_dataset(name, None)],
)
def test_without_a_network_the_hub_is_looked_for_once(
    load: Callable[[str], object], asked: list[str]
) -> None:
    with suppress(OSError, ConnectionError, ValueError):  # what the libraries raise
        assert load("nobody/nothing") is None
    assert asked == ["huggingface.co"]
    assert not constants.HF_HUB_OFFLINE  # a network may come later


def test_a_model_on_the_hub_needs_no_extra(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # so that importing it fails
    with pytest.raises(OSError, match=r"couldn.t find them"):
        load_config("nobody/nothing")
    assert asked == ["huggingface.co"]


def test_a_folder_that_is_not_there_is_no_name_on_the_hub(tmp_path: Path, asked: list[str]) -> None:
    with pytest.raises(IwloraError, match=r"there is no folder .*gone, and models on the hub"):
        load_backbone(str(tmp_path / "gone"), ["a", "b"])
    assert not asked


def test_a_proxy_knows_the_hub(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "iwlora.inputs.models.hub.getproxies", lambda: {"https": "http://proxy:3128"}
    )
    with pytest.raises(pytest.fail.Exception, match="waits for the hub"):
        load_config("nobody/nothing")


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


def test_a_file_that_cannot_be_opened_is_never_passed_over(tiny_bert: Path, tmp_path: Path) -> None:
    """transformers takes several such files for missing, and defaults instead."""
    model = described(tiny_bert, tmp_path / "model", is_decoder=True)
    GenerationConfig(max_new_tokens=7).save_pretrained(model)
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["tokenizer_class"]  # so that the type of the model decides
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    def load() -> str:
        loaded = load_model(AutoModelForCausalLM, model)
        return f"{loaded.generation_config.max_new_tokens}: {type(load_tokenizer(model)).__name__}"

    ends = ends_with_each_open_refused(load, model)
    assert len(ends) > 10
    assert {*ends} == {RAISES, "7: BertTokenizer"}


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


def described(model: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a model with other fields in its configuration."""
    copy = Path(shutil.copytree(model, folder))
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": 10**9},
        {"intermediate_size": 10**8},
        {"max_position_embeddings": 10**9},
        {"num_hidden_layers": 10**9},
        {"quantization_config": {"quant_method": "fp8"}, "vocab_size": 10**8},
    ],
    ids=lambda fields: max(fields),
)
def test_a_configuration_far_larger_than_its_weights_is_refused_before_memory_is_taken(
    tiny_bert: Path, tmp_path: Path, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = described(tiny_bert, tmp_path / "model", **fields)
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", None)
    stored = (model / "model.safetensors").stat().st_size / 1e6
    with pytest.raises(IwloraError, match=rf"[\d,]+ MB or more, .* have {stored:,.1f} MB; take"):
        load_model(AutoModelForSequenceClassification, model)


def test_an_index_of_weights_that_are_not_there(tiny_bert: Path, tmp_path: Path) -> None:
    model = described(tiny_bert, tmp_path / "model", num_hidden_layers=2**63)
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(IwloraError, match=r"lists the file 'model-1\.safetensors', which is not"):
        load_model(AutoModel, model)


@pytest.mark.parametrize("form", ["one file", "parts", "PyTorch", "named"])
def test_the_size_of_weights_in_every_form(tiny_bert: Path, tmp_path: Path, form: str) -> None:
    model = described(tiny_bert, tmp_path / "model")
    expected = AutoModel.from_pretrained(model)
    file = model / "model.safetensors"
    size = file.stat().st_size
    if form == "parts":
        file.unlink()
        expected.save_pretrained(model, max_shard_size="100KB")
        size = sum(part.stat().st_size for part in model.glob("model-*.safetensors"))
    elif form == "PyTorch":
        file.unlink()
        torch.save(expected.state_dict(), model / "pytorch_model.bin")
        size = (model / "pytorch_model.bin").stat().st_size
    elif form == "named":
        file.rename(model / "weights.safetensors")
        model = described(model, tmp_path / "named", transformers_weights="weights.safetensors")
    loaded = load_model(AutoModel, model).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.state_dict().items())
    large = described(model, tmp_path / "large", vocab_size=10**8)
    with pytest.raises(IwloraError, match=f"have {size / 1e6:,.1f} MB"):
        load_model(AutoModel, large)


def test_a_new_head_larger_than_the_weights_is_as_transformers_draws_it(tiny_bert: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_bert, num_labels=100_000)
    heads = []
    for load in (
        load_model,
        lambda auto_class, *args, **kw: auto_class.from_pretrained(*args, **kw),
    ):
        torch.manual_seed(0)
        heads.append(load(AutoModelForSequenceClassification, tiny_bert, config=config).classifier)
    assert heads[0].weight.numel() * 4 > (tiny_bert / "model.safetensors").stat().st_size
    assert torch.equal(heads[0].weight, heads[1].weight)
