"""Tokenizers and embedding tables that do not fit each other: it works, or the message says why."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from families.checkpoints import save_checkpoint
from iwlora import IwloraError, build_recipe, predict, train
from iwlora.tasks.tokenization import check_max_length
from iwlora.training.load import load
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.vocabulary import check_generated_length, token_rows
from tiny_study import VOCABULARY, run_settings, save_model, save_task

ROWS = len(VOCABULARY)


def edit_tokenizer(folder: Path, **changes: Any) -> Path:
    """The model, with other fields in its tokenizer's configuration; None removes a field."""
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    return folder


def add_to_tokenizer(folder: Path, *tokens: str) -> Path:
    """The model, with tokens in its tokenizer that it has no embeddings for."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.add_tokens(list(tokens)) == len(tokens)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["perceiver", "canine"])
def test_a_model_without_a_table_of_tokens_can_be_loaded(tmp_path: Path, family: str) -> None:
    folder = save_checkpoint(tmp_path / "model", family, "classification")
    model, tokenizer = load_backbone(str(folder), ["no", "yes"])
    assert token_rows(model) >= len(tokenizer)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("architecture", "positions"),
    [("bert", 64), ("roberta", 63), ("gpt2", 64), ("bart", 64), ("electra", 64), ("llama", None)],
)
def test_a_text_is_not_longer_than_the_positions(
    tmp_path: Path, architecture: str, positions: int | None
) -> None:
    """The longest text that is accepted can be computed, and one token more cannot."""
    save_model(tmp_path, architecture)
    edit_tokenizer(tmp_path, model_max_length=10**6)
    model, tokenizer = load_backbone(str(tmp_path), ["no", "yes"])
    assert tokenizer.model_max_length == (positions or 10**6)
    if positions is None:
        return
    check_max_length(tokenizer, positions, 1)
    with pytest.raises(IwloraError, match=f"train.max_length={positions + 1}: .* {positions} "):
        check_max_length(tokenizer, positions + 1, 1)
    ids = torch.full((1, positions), 6)
    ids[:, -1] = getattr(model.config, "eos_token_id", None) or 3
    with torch.no_grad():
        assert model(ids).logits.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.cat([ids, ids[:, -1:]], dim=1))


def test_a_decoder_does_not_generate_beyond_its_positions(tmp_path: Path) -> None:
    model, _ = load_backbone(str(save_model(tmp_path, "bart")), ["no", "yes"])
    check_generated_length(model, 64)
    with pytest.raises(IwloraError, match=r"max_target=65: the decoder writes at most 64 tokens"):
        check_generated_length(model, 65)


@pytest.mark.quick
def test_a_model_without_a_padding_token_pads_with_another(tmp_path: Path) -> None:
    """With padding the logits are those without: no other token is looked at."""
    save_model(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    names = ("pad_token", "eos_token")
    edit_tokenizer(tmp_path, tokenizer_class="PreTrainedTokenizerFast", **dict.fromkeys(names))
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token_id is None
    model, tokenizer = load_backbone(str(tmp_path), ["no", "yes"])
    assert tokenizer.pad_token == "[UNK]"
    assert model.config.pad_token_id == tokenizer.pad_token_id == 1
    texts = ["it is a good film", "it is"]
    with torch.no_grad():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = [model(**tokenizer(text, return_tensors="pt")).logits for text in texts]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_a_model_without_any_token_to_pad_with_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    names = ("pad_token", "eos_token", "unk_token", "bos_token")
    edit_tokenizer(tmp_path, tokenizer_class="PreTrainedTokenizerFast", **dict.fromkeys(names))
    with pytest.raises(IwloraError, match="no token to pad texts with"):
        load_backbone(str(tmp_path), ["no", "yes"])


def test_a_padding_token_without_an_embedding_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit_tokenizer(add_to_tokenizer(save_model(tmp_path), "<fill>"), pad_token="<fill>")
    with caplog.at_level(logging.WARNING, "iwlora"):
        model, tokenizer = load_backbone(str(tmp_path), ["no", "yes"])
    assert tokenizer.pad_token_id < token_rows(model) == ROWS
    assert "the token '<fill>' that pads texts has no embedding" in caplog.text


def test_tokens_without_an_embedding_matter_in_texts_only(tmp_path: Path) -> None:
    """Tokenizers are often larger than the table of embeddings; a text may never need the rest."""
    model = add_to_tokenizer(save_model(tmp_path / "model"), "<drug>")
    task = save_task(tmp_path / "task", train=16, validation=4)
    settings = run_settings(model, task)
    train(build_recipe(settings), tmp_path / "run")
    message = (
        rf"the texts contain the token '<drug>', which the model has no embedding for: its "
        rf"tokenizer has {ROWS + 1} tokens, the model {ROWS} embeddings"
    )
    rows = tmp_path / "rows.csv"
    rows.write_text("text\nit is <drug>\n", encoding="utf-8")
    with pytest.raises(IwloraError, match=message):
        predict(tmp_path / "run", rows, tmp_path / "predictions.csv")
    with Path(task["train"]).open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["a <drug> film", "pos"])
    with pytest.raises(IwloraError, match=message):
        load(build_recipe(settings))


def test_a_table_larger_than_the_tokenizer_is_fine(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(save_model(tmp_path))
    model.resize_token_embeddings(ROWS + 7)
    model.save_pretrained(tmp_path)
    assert token_rows(load_backbone(str(tmp_path), ["no", "yes"])[0]) == ROWS + 7
