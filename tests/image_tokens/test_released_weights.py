"""Released weights, here random ones under the released names, give the released model's logits."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.special import erf

from image_drawings import small_codebook
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.image_codes import ImageCodes
from iwlora.image_tokens.models import MODELS
from iwlora.image_tokens.released_weights import convert
from numpy_transformers import attention, gelu, layer_norm

pytestmark = pytest.mark.quick
WIDTH, HEADS, BLOCKS, CODES, CLASSES, TOKENS = 8, 2, 2, 12, 3, 9
Weights = dict[str, np.ndarray[Any, Any]]


def random_weights(shapes: dict[str, tuple[int, ...]]) -> Weights:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def flax_weights() -> Weights:
    """As ``flatten_dict(params, sep="/")`` of Flax names them."""
    d, head = WIDTH, WIDTH // HEADS
    norm = {"scale": (d,), "bias": (d,)}
    layers: dict[str, dict[str, tuple[int, ...]]] = {
        "Embed_0/word_embeddings": {"embedding": (CODES + CLASSES + 1, d)},
        "Embed_0/position_embeddings": {"embedding": (TOKENS + 1, d)},
        "Embed_0/embeddings_ln": norm,
        "MlmLayer_0/mlm_dense": {"kernel": (d, d), "bias": (d,)},
        "MlmLayer_0/mlm_ln": norm,
        "MlmLayer_0/mlm_bias": {"bias": (CODES + CLASSES + 1,)},
    }
    for block in range(BLOCKS):
        at, heads = f"TransformerLayer_{block}", {"kernel": (d, HEADS, head), "bias": (HEADS, head)}
        for part in ("query", "key", "value"):
            layers[f"{at}/Attention_0/self_attention/{part}"] = dict(heads)
        out = {"kernel": (HEADS, head, d), "bias": (d,)}
        layers[f"{at}/Attention_0/self_attention/out"] = out
        layers[f"{at}/Attention_0/attention_output_ln"] = norm
        layers[f"{at}/Mlp_0/intermediate_output"] = {"kernel": (d, 20), "bias": (20,)}
        layers[f"{at}/Mlp_0/layer_output"] = {"kernel": (20, d), "bias": (d,)}
        layers[f"{at}/Mlp_0/layer_output_ln"] = norm
    return random_weights(
        {f"{layer}/{name}": shape for layer, of in layers.items() for name, shape in of.items()}
    )


def flax_logits(w: Weights, ids: list[int]) -> Any:
    """The logits of the released transformer for a class token and codes."""

    def norm(x: Any, at: str) -> Any:
        return layer_norm(x, w[f"{at}/scale"], w[f"{at}/bias"], 1e-12)

    def dense(x: Any, at: str) -> Any:
        return x @ w[f"{at}/kernel"] + w[f"{at}/bias"]

    word = w["Embed_0/word_embeddings/embedding"]
    x = norm(word[ids] + w["Embed_0/position_embeddings/embedding"], "Embed_0/embeddings_ln")
    for block in range(BLOCKS):
        at = f"TransformerLayer_{block}"
        own = f"{at}/Attention_0/self_attention"
        q, k, v = (
            np.einsum("td,dhk->thk", x, w[f"{own}/{part}/kernel"]) + w[f"{own}/{part}/bias"]
            for part in ("query", "key", "value")
        )
        flat = (part.reshape(len(ids), WIDTH) for part in (q, k, v))
        mixed = attention(*flat, HEADS, False).reshape(len(ids), HEADS, -1)
        out = np.einsum("thk,hkd->td", mixed, w[f"{own}/out/kernel"]) + w[f"{own}/out/bias"]
        x = norm(out + x, f"{at}/Attention_0/attention_output_ln")
        inner = dense(gelu(dense(x, f"{at}/Mlp_0/intermediate_output")), f"{at}/Mlp_0/layer_output")
        x = norm(inner + x, f"{at}/Mlp_0/layer_output_ln")
    hidden = norm(gelu(dense(x, "MlmLayer_0/mlm_dense")), "MlmLayer_0/mlm_ln")
    return hidden @ word.T + w["MlmLayer_0/mlm_bias/bias"]


def taming_weights() -> Weights:
    d = WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "tok_emb.weight": (CODES, d),
        "pos_emb": (1, TOKENS, d),
        "head.weight": (CODES, d),
        "ln_f.weight": (d,),
        "ln_f.bias": (d,),
    }
    for block in range(BLOCKS):
        at = f"blocks.{block}"
        for layer in ("attn.query", "attn.key", "attn.value", "attn.proj"):
            shapes |= {f"{at}.{layer}.weight": (d, d), f"{at}.{layer}.bias": (d,)}
        shapes |= {f"{at}.mlp.0.weight": (4 * d, d), f"{at}.mlp.0.bias": (4 * d,)}
        shapes |= {f"{at}.mlp.2.weight": (d, 4 * d), f"{at}.mlp.2.bias": (d,)}
        for layer in ("ln1", "ln2"):
            shapes |= {f"{at}.{layer}.weight": (d,), f"{at}.{layer}.bias": (d,)}
    return random_weights({f"transformer.{name}": shape for name, shape in shapes.items()})


def taming_logits(w: Weights, first: Any, codes: list[int]) -> Any:
    """Of the released GPT, given an embedded first token."""

    def dense(x: Any, at: str) -> Any:
        return x @ w[f"transformer.{at}.weight"].T + w[f"transformer.{at}.bias"]

    def norm(x: Any, at: str) -> Any:
        return layer_norm(x, w[f"transformer.{at}.weight"], w[f"transformer.{at}.bias"], 1e-5)

    embedded = np.concatenate([first, w["transformer.tok_emb.weight"][codes[:-1]]])
    x = embedded + w["transformer.pos_emb"][0, : len(codes)]
    for block in range(BLOCKS):
        at = f"blocks.{block}"
        y = norm(x, f"{at}.ln1")
        q, k, v = (dense(y, f"{at}.attn.{part}") for part in ("query", "key", "value"))
        x = x + dense(attention(q, k, v, HEADS, True), f"{at}.attn.proj")
        inner = dense(norm(x, f"{at}.ln2"), f"{at}.mlp.0")
        x = x + dense(inner * (1 + erf(inner / sqrt(2))) / 2, f"{at}.mlp.2")
    return norm(x, "ln_f") @ w["transformer.head.weight"].T


def test_maskgit(tmp_path: Path) -> None:
    weights = flax_weights()
    np.savez(tmp_path / "released.npz", **{f"params/{k}": v for k, v in weights.items()})
    convert(tmp_path / "released.npz", tmp_path / "model", "maskgit", CODES)
    model: Any = MODELS["bert"].from_pretrained(tmp_path / "model").double().eval()
    mask = CODES + CLASSES
    codes = [1, mask, 5, 11, mask, 0, 2, 3, 4]
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    for label in range(CLASSES):
        logits = model(torch.tensor([[label, *codes]])).logits[0].detach().numpy()
        expected = flax_logits(wide, [CODES + label, *codes])[1:, :CODES]
        np.testing.assert_allclose(logits, expected, rtol=1e-8, atol=1e-8)


def test_taming(tmp_path: Path) -> None:
    weights = taming_weights()
    save_file(weights, tmp_path / "released.safetensors")
    convert(tmp_path / "released.safetensors", tmp_path / "model", "taming", CODES, HEADS)
    model: Any = MODELS["gpt2"].from_pretrained(tmp_path / "model", num_labels=2).double().eval()
    of_model = small_codebook()
    convert(tmp_path / "released.safetensors", tmp_path / "b", "taming", CODES, HEADS, of_model)
    assert load_codebook(tmp_path / "b").digest == of_model.digest
    ImageCodes.of(MODELS["gpt2"].from_pretrained(tmp_path / "b").config).check(of_model)
    with pytest.raises(IwloraError, match="9 codes out of 11, and the codebook has 9 out of 12"):
        convert(tmp_path / "released.safetensors", tmp_path / "c", "taming", 11, HEADS, of_model)
    codes = [1, 7, 5, 11, 8, 0, 2, 3, 4]
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    with torch.no_grad():
        logits = model(torch.tensor([[1, *codes]])).logits[0].numpy()
        first = model.class_prompts(torch.tensor([1]))[0].numpy()
    np.testing.assert_allclose(logits, taming_logits(wide, first, codes), rtol=1e-8, atol=1e-8)


def test_what_is_not_released_like_this_is_refused(tmp_path: Path) -> None:
    weights, file = taming_weights(), tmp_path / "a.safetensors"
    save_file({k: v for k, v in weights.items() if "ln_f" not in k}, file)
    for source, options, problem in (
        ("taming", (CODES, HEADS), "has no weights ln_f.weight"),
        ("taming", (CODES,), "heads: missing"),
        ("maskgit", (CODES,), "has no weights Embed_0/word_embeddings/embedding"),
    ):
        with pytest.raises(IwloraError, match=problem):
            convert(file, tmp_path / "model", source, *options)  # type: ignore[arg-type]
    save_file(weights, file)
    with pytest.raises(IwloraError, match="codes=13 and heads=2: the file has 12 ids"):
        convert(file, tmp_path / "model", "taming", 13, 2)
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:100])
    for name in ("pickled.npz", "torn.npz"):
        with pytest.raises(IwloraError, match="damaged"):
            convert(tmp_path / name, tmp_path / "model", "maskgit", CODES)
    assert not (tmp_path / "model").exists()
