"""Tokenizers for chats, and templates with the habits of published ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# A turn ends with <|im_end|>, which is not the end of a text.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The last reply begins with a block for its reasoning, earlier ones do not.
REWRITING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A prompt ends with what no reply begins with.
PROMPT_THINKS = CHATML.replace("assistant\n{% endif", "assistant\n<think>{% endif")
# Nothing ends a turn but the beginning of the next one.
OPEN_END = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Plain words end a turn.
WORDS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} #\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% if m.name %}{{ m.name }} {% endif %}"
    "{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool>{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MARK = re.compile(
    r"<\|[^<>\s'{}]*?\|>|<｜[^<>\s'{}]*?｜>|<\|?[a-z_]+\|?>|</[a-z_]+>|\[/?[A-Z_]+\]|<\|[A-Z_]+\|>"
)
_SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}


def byte_tokenizer(template: str) -> Any:
    """A byte-level tokenizer with a token for each mark in a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE(vocab={byte: k for k, byte in enumerate(alphabet)}, merges=[])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = {*_MARK.findall(template), "<|user|>", "<|assistant|>"}
    words = [*sorted(marks), *_SPECIAL.values()]
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)
    fast.chat_template = template
    return fast


def save_decoder(folder: Path, template: str, seed: int = 0) -> Path:
    """A tiny Llama with a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(template)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_chats(path: Path, rows: list[dict[str, Any]]) -> str:
    """A file of JSON Lines, as a recipe names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
