"""What a run leaves loads elsewhere: plain PEFT, plain transformers, the same logits."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from commands import run_settings
from iwlora import IwloraError, build_recipe, export, load_trained, predict, train

BESIDE = {"tokenizer.json", "tokenizer_config.json", "iwlora_export.json", "README.md"}
LOW_RANK = ("lora", "iw-lora", "adalora")
LEARNING_RATE = {"full": 1e-2, "lora": 3e-2, "iw-lora": 3e-2, "adalora": 5e-2}


def texts_of(file: str) -> list[str]:
    with Path(file).open(newline="") as stream:
        return [row["text"].strip() for row in csv.DictReader(stream)]


def written_logits(run: Path) -> Tensor:
    with (run / "predictions" / "validation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return torch.tensor([[float(row["logit_neg"]), float(row["logit_pos"])] for row in rows])


def logits(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found: Tensor = model.eval()(**batch).logits
    return found


@pytest.fixture(scope="module")
def runs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run of each method, long enough to learn the task."""
    folder = tmp_path_factory.mktemp("artifacts")
    found = {}
    for method in ("full", *LOW_RANK):
        options = {"name": method} if method == "full" else {"name": method, "rank": 3}
        longer = {
            "epochs": 6,
            "lr": LEARNING_RATE[method],
            "batch_size": 8,
            "max_length": 32,
            "precision": "fp32",
        }
        settings = run_settings(tiny_bert, reviews, method=options, train=longer)
        result = train(build_recipe(settings), folder / method)
        assert result["metrics"]["accuracy"] > 0.9, "all rows alike would hide mistakes"
        found[method] = folder / method
    return found


@pytest.mark.parametrize("method", LOW_RANK)
def test_an_exported_adapter_is_plain_lora(
    runs: dict[str, Path], tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    to = export(runs[method], tmp_path / "adapter")
    assert {path.name for path in to.iterdir()} == BESIDE | {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = PeftConfig.from_pretrained(to)
    assert config.peft_type == "LORA"
    assert config.base_model_name_or_path == ""

    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    tokenizer = AutoTokenizer.from_pretrained(to)
    texts = texts_of(reviews["validation"])
    frozen = logits(base, tokenizer, texts)
    found = logits(PeftModel.from_pretrained(base, to), tokenizer, texts)
    torch.testing.assert_close(found, written_logits(runs[method]), rtol=1e-5, atol=1e-5)
    assert (found - frozen).abs().max() > 0.1, "the adapter changes nothing: nothing was tested"


@pytest.mark.parametrize("method", LOW_RANK)
def test_merged_equals_unmerged(
    runs: dict[str, Path], reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    to = export(runs[method], tmp_path / "model", merge=True)
    assert {path.name for path in to.iterdir()} == BESIDE | {"config.json", "model.safetensors"}
    model, info = AutoModelForSequenceClassification.from_pretrained(to, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.id2label == {0: "neg", 1: "pos"}
    found = logits(model, AutoTokenizer.from_pretrained(to), texts_of(reviews["validation"]))
    torch.testing.assert_close(found, written_logits(runs[method]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_full_fine_tuning_exports_a_model(
    runs: dict[str, Path], reviews: dict[str, str], tmp_path: Path, merge: bool
) -> None:
    to = export(runs["full"], tmp_path / "model", merge=merge)
    assert {path.name for path in to.iterdir()} == BESIDE | {"config.json", "model.safetensors"}
    model = AutoModelForSequenceClassification.from_pretrained(to)
    found = logits(model, AutoTokenizer.from_pretrained(to), texts_of(reviews["validation"]))
    torch.testing.assert_close(found, written_logits(runs["full"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["full", *LOW_RANK])
def test_load_trained(runs: dict[str, Path], reviews: dict[str, str], method: str) -> None:
    texts = texts_of(reviews["validation"])
    for merge in (False, True):
        model, tokenizer = load_trained(runs[method], merge)
        assert not model.training
        assert isinstance(model, PeftModel) == (method != "full" and not merge)
        found = logits(model, tokenizer, texts)
        torch.testing.assert_close(found, written_logits(runs[method]), rtol=1e-5, atol=1e-5)


def test_the_adapter_has_the_rank_of_the_recipe(runs: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for method in ("lora", "iw-lora"):
        to = export(runs[method], tmp_path / method)
        tensors = load_file(to / "adapter_model.safetensors")
        factors = {name: t for name, t in tensors.items() if "lora_" in name}
        assert len(factors) == 24
        assert {t.shape[0] for name, t in factors.items() if "lora_A" in name} == {3}
        counted = json.loads((runs[method] / "result.json").read_text())
        assert sum(t.numel() for t in factors.values()) == counted["adapter_parameters"] == 3 * 416
        head = [t.numel() for name, t in tensors.items() if "lora_" not in name]
        assert sum(head) == counted["head_parameters"] == 34


def test_adalora_exports_no_more_than_its_budget(runs: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(export(runs["adalora"], tmp_path / "a") / "adapter_model.safetensors")
    ranks = [t.shape[0] for name, t in tensors.items() if "lora_A" in name]
    assert 0 < sum(ranks) <= 3 * 12
    counted = json.loads((runs["adalora"] / "result.json").read_text())["adapter_parameters"]
    assert sum(t.numel() for name, t in tensors.items() if "lora_" in name) == counted


@pytest.mark.usefixtures("needs_minilm")
def test_a_built_in_backbone_is_named_by_its_id_on_the_hub(
    reviews: dict[str, str], tmp_path: Path
) -> None:
    short = {"epochs": 0.01, "batch_size": 4, "max_length": 16}
    settings = run_settings(Path("builtin/minilm"), reviews, train=short)
    train(build_recipe(settings), tmp_path / "run")
    to = export(tmp_path / "run", tmp_path / "adapter")
    named = json.loads((to / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "sentence-transformers/all-MiniLM-L6-v2"
    load_trained(tmp_path / "run")


def test_predict_returns_where_it_wrote(
    runs: dict[str, Path], reviews: dict[str, str], tmp_path: Path
) -> None:
    out = predict(runs["lora"], reviews["validation"], tmp_path / "new" / "p.jsonl")
    assert out == tmp_path / "new" / "p.jsonl"
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    shares = torch.tensor([[row["probability_neg"], row["probability_pos"]] for row in rows])
    truth = written_logits(runs["lora"]).softmax(dim=-1)
    torch.testing.assert_close(shares, truth, rtol=1e-5, atol=1e-5)
    names = ["neg", "pos"]
    assert [row["prediction"] for row in rows] == [names[i] for i in truth.argmax(dim=-1).tolist()]


def test_predict_keeps_rows_with_commas_quotes_and_line_breaks(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    texts = ['a "good", old film', "two\nlines", "größe"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    with predict(runs["lora"], rows, tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv.DictReader(file)] == texts


def test_an_export_is_whole_or_not_there(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iwlora.training.sharing.export.shutil.copyfile", full)
    with pytest.raises(IwloraError, match=r"cannot write .*No space left on device"):
        export(runs["lora"], tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_may_be_filled(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    assert export(runs["lora"], tmp_path / "adapter") == tmp_path / "adapter"
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
