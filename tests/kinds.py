"""Tiny models of every architecture that can do the tasks of ``tiny_tasks``."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import save_tiny, tiny_config

ENCODERS = ("bert", "roberta", "deberta-v2", "electra")
DECODERS = ("gpt2", "llama")
WRITERS = ("t5", "bart", *DECODERS)

CHAT = (
    "{% for m in messages %}{{ '[MASK]' + m['role'][0] + ' ' + m['content'] + '[SEP]' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '[MASK]a ' }}{% endif %}"
)


def save_model(folder: Path, architecture: str) -> Path:
    """A tiny model whose tokenizer gives what the architecture reads and ends texts as it asks."""
    import torch
    import transformers as hf

    save_tiny(folder, "bert" if architecture == "electra" else architecture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if architecture == "llama":  # its words are not tied to its embeddings
            hf.AutoModelForCausalLM.from_config(tiny_config("llama")).save_pretrained(folder)
        elif architecture == "electra":
            like = tiny_config("bert").to_dict()
            del like["model_type"]
            hf.ElectraModel(hf.ElectraConfig(**like, embedding_size=8)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"eos_token_id": 3, "bos_token_id": 2, "decoder_start_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[SEP]"
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    if architecture not in ("bert", "deberta-v2", "electra"):
        file = folder / "tokenizer_config.json"
        names = {"model_input_names": ["input_ids", "attention_mask"]}
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | names))
    return folder
