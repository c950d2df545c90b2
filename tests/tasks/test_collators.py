"""Collators: what a decoder reads is what the model itself would make of the labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from families.checkpoints import save_checkpoint
from iwlora.tasks.collators import IGNORE_INDEX, EncoderDecoderCollator


@pytest.mark.quick
@pytest.mark.parametrize("family", ["t5", "bart", "mbart", "blenderbot", "m2m_100", "pegasus"])
def test_a_decoder_reads_the_labels_as_the_model_shifts_them(tmp_path: Path, family: str) -> None:
    folder = save_checkpoint(tmp_path / "model", family, "seq2seq")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    rows = [
        {"input_ids": [2, 6, 7, 3], "attention_mask": [1] * 4, "labels": [8, 9, 3]},
        {"input_ids": [2, 6, 3], "attention_mask": [1] * 3, "labels": [8, 3]},
    ]
    batch = EncoderDecoderCollator(AutoTokenizer.from_pretrained(folder), model)(rows)
    assert "decoder_input_ids" in batch
    assert batch["labels"][1, 2] == IGNORE_INDEX
    with torch.no_grad():
        read = model(**{name: value for name, value in batch.items() if name != "labels"})
        own = {name: value for name, value in batch.items() if name != "decoder_input_ids"}
        assert torch.equal(read.logits, model(**own).logits)
