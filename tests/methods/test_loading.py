"""Results that are no LoRA adapter: saved, loaded, exported, used, and refused where they must."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from commands import run_settings
from conftest import save_tiny
from families.checkpoints import save_checkpoint
from iwlora import IwloraError, build_recipe, export, load_adapter, load_trained, predict, train
from iwlora.methods.loading import merge_adapter
from iwlora.methods.tiny_models import tiny_model
from runs import predictions

OURS = {"iwlora_adapter.json", "adapter.safetensors"}
PEFTS = {"adapter_config.json", "adapter_model.safetensors"}
OPTIONS = {
    "head": {"name": "head"},
    "bitfit": {"name": "bitfit"},
    "houlsby": {"name": "houlsby", "bottleneck": 8},
    "prefix": {"name": "prefix", "num_virtual_tokens": 4},
}
FILES = {"head": OURS, "bitfit": OURS, "houlsby": OURS, "prefix": PEFTS}
MERGEABLE = ("head", "bitfit")
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with weights so large that its features differ from text to text."""
    folder = save_tiny(tmp_path_factory.mktemp("models") / "bert", "bert")
    tensors = load_file(folder / "model.safetensors")
    larger = {name: tensor * (20 if tensor.ndim == 2 else 1) for name, tensor in tensors.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("names", [OURS, PEFTS], ids=["ours", "PEFT's"])
def test_an_adapter_is_not_read_through_a_link_that_leads_out(
    tmp_path: Path, names: set[str]
) -> None:
    (tmp_path / "adapter").mkdir()
    for name in names:
        (tmp_path / name).write_text("{}")
        (tmp_path / "adapter" / name).symlink_to(tmp_path / name)
    with pytest.raises(IwloraError, match="is a symbolic link that leads out of"):
        load_adapter(tiny_model("bert"), tmp_path / "adapter")


@pytest.fixture(scope="module")
def runs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A short run of each method."""
    folder = tmp_path_factory.mktemp("saved")
    for method in FILES:
        short = {"epochs": 2, "lr": 3e-2, "batch_size": 8, "max_length": 32, "precision": "fp32"}
        settings = run_settings(tiny_bert, reviews, method=OPTIONS[method], train=short)
        train(build_recipe(settings), folder / method)
    return {method: folder / method for method in FILES}


def shares(run: Path) -> list[float]:
    """The probability of the first class, from the predictions that the run wrote."""
    logits = [[float(row["logit_neg"]), float(row["logit_pos"])] for row in predictions(run)]
    outcome: list[float] = torch.tensor(logits).softmax(-1)[:, 0].tolist()
    assert max(outcome) - min(outcome) > 0.05, "all rows alike would hide mistakes"
    return outcome


def predicted(run: Path, source: str, out: Path) -> list[float]:
    with predict(run, source, out).open(encoding="utf-8") as stream:
        return [float(row["probability_neg"]) for row in csv.DictReader(stream)]


def probabilities(model: Any, tokenizer: Any, source: str) -> list[float]:
    with Path(source).open(encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    with torch.no_grad():
        logits = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    outcome: list[float] = logits.softmax(-1)[:, 0].tolist()
    return outcome


@pytest.mark.parametrize("method", FILES)
def test_a_run_predicts_what_it_was_scored_by(
    runs: dict[str, Path], reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    outcome = predicted(runs[method], reviews["validation"], tmp_path / "p.csv")
    assert outcome == pytest.approx(shares(runs[method]), abs=1e-5)


@pytest.mark.parametrize("method", FILES)
def test_an_export_loads_on_a_fresh_backbone(
    runs: dict[str, Path], reviews: dict[str, str], tiny_bert: Path, tmp_path: Path, method: str
) -> None:
    to = export(runs[method], tmp_path / "adapter")
    assert {path.name for path in to.iterdir()} == {
        *FILES[method],
        *TOKENIZER,
        "iwlora_export.json",
        "README.md",
    }
    backbone = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    model, (_, tokenizer) = load_adapter(backbone, to), load_trained(runs[method])
    outcome = probabilities(model, tokenizer, reviews["validation"])
    assert outcome == pytest.approx(shares(runs[method]), abs=1e-5)


@pytest.mark.parametrize("method", FILES)
def test_a_merged_export_is_a_plain_model_or_refused(
    runs: dict[str, Path], reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    if method not in MERGEABLE:
        for merge in (
            lambda: export(runs[method], tmp_path / "m", merge=True),
            lambda: load_trained(runs[method], merge=True),
        ):
            with pytest.raises(IwloraError, match=f"{method} cannot be merged: .*out --merge"):
                merge()
        assert not (tmp_path / "m").exists()
        return
    to = export(runs[method], tmp_path / "m", merge=True)
    names = {"config.json", "model.safetensors", "iwlora_export.json", "README.md"}
    assert {path.name for path in to.iterdir()} == TOKENIZER | names
    model, info = AutoModelForSequenceClassification.from_pretrained(to, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    outcome = probabilities(model, load_trained(runs[method])[1], reviews["validation"])
    assert outcome == pytest.approx(shares(runs[method]), abs=1e-5)


def test_the_record_says_what_attaches_it(runs: dict[str, Path], tiny_bert: Path) -> None:
    record = json.loads((runs["houlsby"] / "adapter" / "iwlora_adapter.json").read_text())
    assert record["base_model_name_or_path"] == "", "no folder of this machine"
    assert record["method"]["name"] == "houlsby"
    assert record["method"]["activation"] == "gelu"
    assert "bert.encoder.layer.1.output.dense" in record["sites"]
    tensors = load_file(runs["houlsby"] / "adapter" / "adapter.safetensors")
    counted = json.loads((runs["houlsby"] / "result.json").read_text())
    assert sum(t.numel() for t in tensors.values()) == counted["trainable_parameters"]


def fresh(tiny_bert: Path, **options: Any) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert, **options)


def test_an_adapter_that_does_not_fit_is_reported(
    runs: dict[str, Path], tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(IwloraError, match=r"has no adapter: neither adapter_config.json nor"):
        load_adapter(fresh(tiny_bert), tmp_path)
    with pytest.raises(IwloraError, match=r"belongs to another model: 2 of .* classifier.bias$"):
        load_adapter(fresh(tiny_bert, num_labels=3), runs["houlsby"] / "adapter")
    own = Path(shutil.copytree(runs["houlsby"] / "adapter", tmp_path / "own"))
    tensors = load_file(own / "adapter.safetensors")
    save_file({**tensors, "more": torch.zeros(1)}, own / "adapter.safetensors")
    with pytest.raises(IwloraError, match=r"belongs to another model: 1 of its .* as more$"):
        load_adapter(fresh(tiny_bert), own)
    record = json.loads((own / "iwlora_adapter.json").read_text())
    record["method"]["name"] = "houlsbi"
    (own / "iwlora_adapter.json").write_text(json.dumps(record))
    with pytest.raises(IwloraError, match=r"unknown method .houlsbi.; did you mean 'houlsby'"):
        load_adapter(fresh(tiny_bert), own)


def test_a_damaged_record_is_reported(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["houlsby"], tmp_path / "run"))
    record = run / "adapter" / "iwlora_adapter.json"
    record.write_text(record.read_text()[:40])
    with pytest.raises(IwloraError, match="is damaged: a file in it was cut short"):
        load_trained(run)


def test_an_adapter_whose_tensors_peft_renames_is_loaded_whole(
    tmp_path: Path,
) -> None:
    """PEFT does so for Laguna types; it warns, and leaves some of the adapter as it begins."""
    folder = save_checkpoint(tmp_path / "model", "laguna", "instruction")
    model = AutoModelForCausalLM.from_pretrained(folder)
    name = "model.layers.1.mlp.shared_experts.up_proj"
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=[name]))
    B = adapted.get_parameter(f"base_model.model.{name}.lora_B.default.weight")
    torch.nn.init.normal_(B)
    adapted.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    loaded = load_adapter(plain, tmp_path / "adapter")
    assert torch.equal(loaded.get_parameter(f"base_model.model.{name}.lora_B.default.weight"), B)


def test_an_adapter_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    model = tiny_model("bert")
    get_peft_model(model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[min(tensors)]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(IwloraError, match=r"does not fit its model: .*missing adapter keys"):
        load_adapter(tiny_model("bert"), tmp_path)


@pytest.mark.parametrize("family", ["t5gemma", "t5"])
def test_a_merged_model_ties_what_its_backbone_ties(tmp_path: Path, family: str) -> None:
    folder = save_checkpoint(tmp_path / "model", family, "seq2seq")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tied = model.config.tie_word_embeddings
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r".*\.(q_proj|q)"))
    merged: Any = merge_adapter(adapted)
    assert merged.config.tie_word_embeddings == tied
