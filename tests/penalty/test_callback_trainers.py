"""One ``add_callback`` on other Trainers: sequence to sequence, and TRL's for SFT and DPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

import iwlora
from conftest import VOCABULARY, WORDS, tiny_config
from iwlora.penalty.lora_pairs import lora_pairs

pytestmark = [
    pytest.mark.filterwarnings("ignore:the penalty (had|dominates)"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

COMMON: dict[str, Any] = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 2,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
}
NAMES = {"llama": ["q_proj", "v_proj", "up_proj"], "t5": ["q", "v", "wi"]}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return BertTokenizerFast(
        str(vocabulary), model_max_length=64, eos_token="[SEP]", bos_token="[CLS]"
    )


def adapted(auto: Any, architecture: str) -> Any:
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(architecture))
    return get_peft_model(model, LoraConfig(r=4, target_modules=NAMES[architecture]))


def sizes(model: nn.Module) -> dict[str, float]:
    return iwlora.Penalty(model, dict.fromkeys((p.name for p in lora_pairs(model)), 1.0)).norms()


def check(callback: iwlora.IWLoraCallback, folder: Path) -> None:
    """It measured, penalised and wrote so."""
    assert callback.sensitivity is not None
    assert callback.sensitivity.batches >= 2
    lines = (folder / "penalty.jsonl").read_text(encoding="utf-8").splitlines()
    sites = json.loads(lines[-1])["sites"]
    assert sites.keys() == callback.sensitivity.values.keys()
    assert all(site["ratio"] > 0 for site in sites.values())


def test_seq2seq_trainer(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    words = torch.randint(6, len(VOCABULARY), (32, 6), generator=random)
    rows = [{"input_ids": row, "labels": row[:3]} for row in words]
    model = adapted(AutoModelForSeq2SeqLM, "t5")
    args = Seq2SeqTrainingArguments(output_dir=str(tmp_path), **COMMON)
    trainer = Seq2SeqTrainer(model=model, args=args, train_dataset=rows)
    callback = iwlora.IWLoraCallback(alpha=0.1)
    trainer.add_callback(callback)
    trainer.train()
    check(callback, tmp_path)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_trl_sft_trainer(alpha: float, tokenizer: Any, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    texts = [" ".join(WORDS[(row * 7 + k) % 30] for k in range(6)) for row in range(32)]
    computed = []
    for callback in (None, iwlora.IWLoraCallback(alpha=alpha)):
        model = adapted(AutoModelForCausalLM, "llama")
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(output_dir=str(tmp_path), max_length=32, **COMMON),
            train_dataset=datasets.Dataset.from_dict({"text": texts}),
            processing_class=tokenizer,
        )
        if callback is not None:
            trainer.add_callback(callback)
        trainer.train()
        computed.append(sizes(model))
    assert (computed[0] == computed[1]) == (alpha == 0)
    if alpha:
        check(callback, tmp_path)


def test_trl_dpo_trainer_measures_in_flight_for_its_loss_is_its_own(
    tokenizer: Any, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    prompts = [f"{WORDS[row % 20]} {WORDS[row * 3 % 20]}" for row in range(32)]
    rows = {"prompt": prompts, "chosen": [" good great"] * 32, "rejected": [" bad awful"] * 32}
    model = adapted(AutoModelForCausalLM, "llama")
    trainer = trl.DPOTrainer(
        model=model,
        args=trl.DPOConfig(output_dir=str(tmp_path), max_length=32, **COMMON),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    callback = iwlora.IWLoraCallback(alpha=0.1, measure="before")
    trainer.add_callback(callback)
    trainer.train()
    check(callback, tmp_path)
    assert len(callback.history) == 2  # at steps 4 and 6; the first two were read
