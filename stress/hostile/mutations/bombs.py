"""Small files that ask for much: time, memory, depth, rows, layers."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations.documents import mapping

_SIZES = (
    *("max_position_embeddings", "vocab_size", "type_vocab_size", "num_hidden_layers"),
    *("hidden_size", "intermediate_size", "num_attention_heads", "num_labels", "pad_token_id"),
    *("r", "lora_alpha", "model_max_length", "max_length", "added_tokens_decoder"),
)


def sizes(file: Path, random: Random, _outside: Path) -> None:
    """A configuration of a model far larger than its weights."""
    config = mapping(file)
    known = [name for name in _SIZES if name in config] or list(_SIZES)
    name = random.choice(known)
    config[name] = random.choice((0, -1, 10**4, 10**6, 10**9, 2**31, 2**63, 1e9, 10**30))
    file.write_text(json.dumps(config), encoding="utf-8")


def tokenizer(file: Path, random: Random, _outside: Path) -> None:
    """A ``tokenizer.json`` with patterns that backtrack, or vocabularies that repeat or grow."""
    content = mapping(file)
    pattern = random.choice(("(a+)+$", "(?:(?:.*)*)*x", "(", "\\p{L}{1000}{1000}", "(?=(.*)){9}"))
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    how = random.randrange(8)
    if how == 0:
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split] * 3}
    elif how == 1:
        grow = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 1000}
        content["normalizer"] = {"type": "Sequence", "normalizers": [grow] * random.choice((2, 4))}
    elif how == 2:
        vocabulary = {f"w{number}": number for number in range(200_000)}
        content["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    elif how == 3:
        huge = [{"id": 2**31 + number, "content": f"t{number}"} for number in range(100)]
        content["added_tokens"] = huge
    elif how == 4:
        content["model"] = {"type": "Unigram", "vocab": [["a", float("nan")]], "unk_id": 10**9}
    elif how == 5:
        content["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]] * 9}
    elif how == 6:
        content["truncation"] = {"max_length": 0, "stride": 10**9, "strategy": "X", "direction": 1}
    else:
        content["padding"] = {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    file.write_text(json.dumps(content), encoding="utf-8")


def repeated(file: Path, random: Random, _outside: Path) -> None:
    """A list or mapping of a document with a hundred thousand entries."""
    content: Any = mapping(file)
    many = random.choice((20_000, 100_000))
    lists = [name for name, value in content.items() if isinstance(value, list) and value]
    maps = [name for name, value in content.items() if isinstance(value, dict)]
    if lists and random.random() < 0.6:
        name = random.choice(lists)
        content[name] = content[name] * (many // len(content[name]) + 1)
    elif maps:
        content[random.choice(maps)] |= {f"k{number}": number for number in range(many)}
    else:
        content |= {f"k{number}": number for number in range(many)}
    file.write_text(json.dumps(content), encoding="utf-8")


def yaml_aliases(file: Path, random: Random, _outside: Path) -> None:
    """Aliases of aliases: a kilobyte that stands for billions of values."""
    depth, width = random.choice(((9, 9), (30, 2), (3, 50), (7, 30)))
    lines = ["a0: &a0 [x, y]"]
    for level in range(1, depth):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    text = file.read_bytes().decode("utf-8", "replace")
    merged = f"<<: [{', '.join(['*a0'] * 50)}]\n" if random.random() < 0.2 else ""
    file.write_bytes(("\n".join([*lines, merged]) + text).encode())
