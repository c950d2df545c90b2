"""Weights that a pretrained file lacks are part of the head: trained, saved, and named."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from conftest import tiny_config
from iwlora import IwloraError, export, load_adapter, load_trained, predict, train
from iwlora.head import head_modules, in_modules
from iwlora.methods import METHODS, split_head
from iwlora.methods.budget import backbone_parameters, count_parameters
from iwlora.methods.loading import merge_adapter
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import sites
from iwlora.training.model.backbone import load_backbone, meta_backbone
from runs import as_foreign, recipe
from tiny_study import save_model

POOLER = "bert.pooler.dense"
IDS = torch.tensor([[2, 6, 7, 8, 3], [2, 9, 10, 11, 3]])


def save_masked_lm(folder: Path) -> Path:
    """A tiny BERT as masked-language-model training leaves it: without a pooler."""
    save_model(folder)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def no_pooler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_masked_lm(tmp_path_factory.mktemp("models") / "no-pooler")


def load(folder: Path, labels: int = 2) -> Any:
    return load_backbone(str(folder), [f"class {number}" for number in range(labels)])[0]


def fresh(folder: Path) -> Any:
    """The model as any user of transformers loads it, with other random weights each time."""
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    output: Tensor = model.eval()(IDS).logits
    return output


# One of each way to attach and to save; the conformance suite checks every row of METHODS.
WAYS = ("full", "head", "houlsby", "prefix", "lora", "adalora", "iw-lora")


@pytest.mark.parametrize("name", WAYS)
def test_every_method_trains_and_saves_them(no_pooler: Path, tmp_path: Path, name: str) -> None:
    """Plain loading draws a new pooler; the saved one replaces it, so the logits are equal."""
    model = load(no_pooler)
    method = METHODS[name]()
    method = method.sized(2) if method.size_knob else method
    targets = sites(model)
    measured = [
        SiteSensitivity(site.name, site.kind, site.depth, site.d_in, site.d_out, 1.0, 0.0)
        for site in targets
    ]
    sensitivity = Sensitivity(tuple(measured), "exact", 1, 0.0, True, 0.0)
    attached = method.attach(model, targets, 0, sensitivity)
    pooler = [name for name in attached.head if "pooler" in name]
    assert len(pooler) == 2
    assert count_parameters(attached)["head_parameters"] == (16 * 16 + 16) + (16 * 2 + 2)
    with torch.no_grad():
        for parameter in map(attached.model.get_parameter, attached.trainable):
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    attached.save(tmp_path)
    trained = logits(attached.model)
    if (tmp_path / "model").exists():
        torch.testing.assert_close(logits(fresh(tmp_path / "model")), trained)
        return
    torch.manual_seed(1)
    loaded = load_adapter(fresh(no_pooler), tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), trained, rtol=1e-5, atol=1e-5)
    if not method.unmergeable:
        torch.testing.assert_close(logits(merge_adapter(loaded)), trained, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def run(no_pooler: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run."""
    folder = tmp_path_factory.mktemp("new-weights") / "run"
    train(recipe(no_pooler, reviews, epochs=1), folder)
    return folder


@pytest.mark.quick
def test_predictions_are_the_same_whenever_the_model_is_loaded(
    run: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    stored = (run / "predictions" / "validation.csv").read_text(encoding="utf-8")
    expected = [row["prediction"] for row in csv.DictReader(stored.splitlines())]
    written = set()
    for seed in range(3):
        torch.manual_seed(seed)
        output = predict(run, reviews["validation"], tmp_path / "predictions.csv")
        written.add(output.read_text(encoding="utf-8"))
    (text,) = written
    assert [row["prediction"] for row in csv.DictReader(text.splitlines())] == expected


def test_a_plain_export_has_them(run: Path, no_pooler: Path, tmp_path: Path) -> None:
    trained = logits(load_trained(run)[0])
    adapter = export(run, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert {POOLER, "classifier"} <= set(config["modules_to_save"])
    peft_model = PeftModel.from_pretrained(fresh(no_pooler), str(adapter))
    torch.testing.assert_close(logits(peft_model), trained, rtol=1e-5, atol=1e-5)
    merged = AutoModelForSequenceClassification.from_pretrained(
        export(run, tmp_path / "merged", merge=True)
    )
    torch.testing.assert_close(logits(merged), trained, rtol=1e-5, atol=1e-5)


def test_they_are_named_in_the_result_and_in_the_log(
    run: Path, no_pooler: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["head_modules"] == [POOLER, "classifier"]
    assert result["head_parameters"] == (16 * 16 + 16) + (16 * 2 + 2)
    (note,) = [note for note in result["notes"] if POOLER in note]
    assert "has no weights for bert.pooler.dense (272 parameters)" in note
    with caplog.at_level(logging.WARNING, "iwlora"):
        load(no_pooler)
    assert note in caplog.messages


def test_a_complete_model_has_no_new_weights(
    tiny_bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "iwlora"):
        assert head_modules(load(tiny_bert)) == ["classifier"]
    assert not [record for record in caplog.records if record.name == "iwlora"]


@pytest.mark.quick
def test_a_model_without_weights_counts_like_the_loaded_one(no_pooler: Path) -> None:
    """A budget in percent means the same in the checks of a comparison and in its runs."""
    loaded, counted = load(no_pooler), meta_backbone(str(no_pooler))
    assert {parameter.device.type for parameter in counted.parameters()} == {"meta"}
    assert split_head(counted) == split_head(loaded)
    complete = sum(p.numel() for p in loaded.bert.parameters())
    assert backbone_parameters(counted) == backbone_parameters(loaded) == complete - 272


# A model type, its fields, and what of it was saved -> the head of its sequence classifier.
SMALL = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 24, "vocab_size": 64}
DISTIL = {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 24, "vocab_size": 64}
XLNET = {"n_layer": 2, "d_model": 16, "n_head": 2, "d_inner": 24, "vocab_size": 64}
OTHERS: list[tuple[str, dict[str, Any], Any, list[str]]] = [
    ("albert", SMALL | {"embedding_size": 8}, AutoModelForMaskedLM, ["albert.pooler"]),
    ("bert", SMALL, AutoModelForTokenClassification, [POOLER]),
    ("electra", SMALL | {"embedding_size": 8}, AutoModelForMaskedLM, []),
    ("distilbert", DISTIL, AutoModelForMaskedLM, ["pre_classifier"]),
    ("roberta", SMALL, AutoModelForMaskedLM, []),
    ("mpnet", SMALL, AutoModelForMaskedLM, []),
    ("deberta-v2", SMALL, AutoModelForMaskedLM, ["pooler"]),
    ("xlnet", XLNET, AutoModel, ["sequence_summary", "logits_proj"]),
    ("t5", {}, AutoModel, ["classification_head"]),
    ("bart", {}, AutoModel, ["classification_head"]),
]


@pytest.mark.parametrize(("architecture", "fields", "saved_as", "modules"), OTHERS)
def test_families_whose_files_lack_something(
    tmp_path: Path, architecture: str, fields: dict[str, Any], saved_as: Any, modules: list[str]
) -> None:
    config = AutoConfig.for_model(architecture, **fields) if fields else tiny_config(architecture)
    saved_as.from_config(config).save_pretrained(tmp_path)
    model = meta_backbone(str(tmp_path))
    standard = [name for name in ("classifier",) if hasattr(model, name)]
    assert set(head_modules(model)) == {*modules, *standard}
    backbone, head = split_head(model)
    assert not [name for name in backbone if in_modules(name, modules)]
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert set(info["missing_keys"]) <= set(head), "random weights outside the head"
    assert not [name for name, _ in loaded.named_buffers() if name in info["missing_keys"]]


def test_a_missing_part_of_a_head_is_no_remark(tmp_path: Path, tiny_bert: Path) -> None:
    """A classifier of other classes replaces the saved one, as every task head does."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=5)
    model.save_pretrained(tmp_path)
    assert head_modules(meta_backbone(str(tmp_path))) == ["classifier"]


def without(folder: Path, *names: str) -> Path:
    """The model without some of its weights."""
    save_model(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in names:
        del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_bias_or_a_normalization_joins_the_head(tmp_path: Path) -> None:
    missing = ("encoder.layer.1.output.LayerNorm.bias", "pooler.dense.bias")
    model = load(without(tmp_path / "model", *missing))
    names = ["bert.encoder.layer.1.output.LayerNorm", POOLER, "classifier"]
    assert head_modules(model) == names
    attached = METHODS["pfeiffer"](bottleneck=2).attach(model, sites(model), 0)
    assert count_parameters(attached)["head_parameters"] == 32 + 272 + 34


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.0.attention.self.query.bias",
    ],
)
def test_without_embeddings_or_a_matrix_a_model_is_useless(tmp_path: Path, name: str) -> None:
    folder = without(tmp_path / "model", name)
    for loading in (load, lambda path: meta_backbone(str(path))):
        with pytest.raises(IwloraError, match=rf"1 are missing, such as bert\.{name}"):
            loading(folder)


def test_without_its_experts_a_model_is_useless(tmp_path: Path) -> None:
    small = {key: value for key, value in SMALL.items() if key != "num_hidden_layers"}
    config = AutoConfig.for_model("mixtral", num_hidden_layers=1, num_key_value_heads=2, **small)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if "experts" not in n}
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(IwloraError, match=r"2 are missing, such as model\.layers\.0\.mlp\.experts"):
        meta_backbone(str(tmp_path))


def test_modules_that_end_alike_are_refused_by_peft_methods(no_pooler: Path) -> None:
    """PEFT would train the second module too: it compares the ends of paths."""
    model = load(no_pooler)
    model.bert.encoder.classifier = torch.nn.Linear(2, 2)
    with pytest.raises(IwloraError, match=r"ends like it: bert\.encoder\.classifier"):
        METHODS["lora"](rank=2).attach(model, sites(model), 0)


def test_a_run_that_did_not_save_them_is_refused(
    run: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """As version 0.1.0 left it: the pooler was frozen, random, and is in no file."""
    old = shutil.copytree(run, tmp_path / "old")
    file = old / "adapter" / "adapter_model.safetensors"
    tensors = {name: t for name, t in load_file(file).items() if "pooler" not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((old / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    config["modules_to_save"].remove(POOLER)
    (old / "adapter" / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    as_foreign(old, head_modules=None)
    reason = r"cannot be reproduced: the pretrained model has no weights for bert\.pooler\.dense"
    with pytest.raises(IwloraError, match=reason):
        predict(old, reviews["validation"], tmp_path / "predictions.csv")
    for merge in (False, True):
        with pytest.raises(IwloraError, match=reason):
            export(old, tmp_path / "exported", merge=merge)
        assert not (tmp_path / "exported").exists()
