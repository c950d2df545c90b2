"""A decoder that has learned a few chats by heart writes them, and stops."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import iwlora
from chat_tokenizers import CHATML, REWRITING, save_decoder, write_chats

ANSWERS = {"ab": "xy", "cd": "z", "ef": "yx", "gh": "zz"}


def chats() -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ANSWERS.items()
    ]


@pytest.mark.parametrize("template", [CHATML, REWRITING], ids=["chatml", "rewriting"])
def test_a_memorised_chat_is_written_and_ends(template: str, tmp_path: Path) -> None:
    rows = write_chats(tmp_path / "chats.jsonl", chats())
    model = save_decoder(tmp_path / "model", template)
    recipe = iwlora.build_recipe(
        {
            "model": str(model),
            "task": {
                "train": rows,
                "validation": rows,
                "kind": {"name": "instruction", "max_target": 24},
            },
            "method": {"name": "full"},
            "train": {
                "epochs": 60,
                "lr": 1e-2,
                "batch_size": 4,
                "max_length": 96,
                "precision": "fp32",
            },
        }
    )
    result = iwlora.train(recipe, tmp_path / "run")
    assert result["metrics"]["perplexity"] < 1.05
    assert result["metrics"]["exact_match"] == 1.0

    from iwlora.training.prediction.new_rows import predict

    written = predict(tmp_path / "run", rows, tmp_path / "answers.csv")
    with written.open(newline="", encoding="utf-8") as stream:
        assert [row["prediction"] for row in csv.DictReader(stream)] == list(ANSWERS.values())

    from iwlora.training.sharing.export import export

    exported = export(tmp_path / "run", tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(exported)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(exported).eos_token_id == [stop, tokenizer.eos_token_id]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "ab"}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        ids = AutoModelForCausalLM.from_pretrained(exported).generate(**prompt, max_new_tokens=24)
    assert ids[0, -1] == stop  # others stop too, with no setting of theirs
