"""BERT and GPT-2 over the codes of an image in NumPy, written from the formulas.

They know the names of the released weights and nothing of the model's code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any
Weights = dict[str, Array]


def layer_norm(x: Array, gain: Array, shift: Array, eps: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * gain + shift


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(q: Array, k: Array, v: Array, heads: int, is_causal: bool) -> Array:
    """(tokens, width) each."""
    width = q.shape[1] // heads
    parts = []
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        scores = q[:, at] @ k[:, at].T / math.sqrt(width)
        if is_causal:
            scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(shares / shares.sum(-1, keepdims=True) @ v[:, at])
    return np.concatenate(parts, axis=1)


def bert(weights: Weights, prompts: Array, codes: list[int], heads: int, count: int) -> Array:
    """(N, count) logits of an image, given (S, width) prompts of its class."""
    eps = 1e-12

    def dense(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    word = weights["bert.embeddings.word_embeddings.weight"]
    position = weights["bert.embeddings.position_embeddings.weight"]
    token_type = weights["bert.embeddings.token_type_embeddings.weight"]
    embedded = [word[code] + position[1 + n] + token_type[0] for n, code in enumerate(codes)]
    x = np.concatenate([prompts, norm(np.array(embedded), "bert.embeddings.LayerNorm")])
    for block in range(sum(name.endswith("query.weight") for name in weights)):
        at = f"bert.encoder.layer.{block}"
        q, k, v = (dense(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = dense(attention(q, k, v, heads, False), f"{at}.attention.output.dense")
        x = norm(x + mixed, f"{at}.attention.output.LayerNorm")
        inner = dense(gelu(dense(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = norm(x + inner, f"{at}.output.LayerNorm")
    hidden = gelu(dense(x, "cls.predictions.transform.dense"))
    hidden = norm(hidden, "cls.predictions.transform.LayerNorm")
    logits = hidden @ word.T + weights["cls.predictions.bias"]
    return logits[len(prompts) :, :count]


def gpt2(weights: Weights, prompts: Array, codes: list[int], heads: int, count: int) -> Array:
    """(N, count) logits, of code n from the prompts and the codes before it."""
    eps = 1e-5

    def dense(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    word, position = weights["transformer.wte.weight"], weights["transformer.wpe.weight"]
    embedded = [word[code] + position[1 + n] for n, code in enumerate(codes)]
    x = np.concatenate([prompts + position[0], np.array(embedded)])
    for block in range(sum(name.endswith("c_attn.weight") for name in weights)):
        at = f"transformer.h.{block}"
        q, k, v = np.split(dense(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn"), 3, axis=1)
        x = x + dense(attention(q, k, v, heads, True), f"{at}.attn.c_proj")
        inner = gelu(dense(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc"))
        x = x + dense(inner, f"{at}.mlp.c_proj")
    logits = norm(x, "transformer.ln_f") @ word.T
    first = len(prompts) - 1
    return logits[first : first + len(codes), :count]
