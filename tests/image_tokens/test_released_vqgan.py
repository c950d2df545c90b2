"""A released VQGAN, here random weights under the released names, gives the released codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from iwlora.errors import IwloraError
from iwlora.image_tokens.codebooks.vq_model import VqCodebook
from iwlora.image_tokens.released_vqgan import convert_vqgan

WIDTHS, BLOCKS, CODES, LATENT, CODE_WIDTH, SIZE = (32, 64, 64), 2, 12, 8, 6, 16
"""Attention is in the last stage, as in the released networks."""
Weights = dict[str, torch.Tensor]


def vqgan_weights() -> Weights:
    """As ``VQModel.state_dict()`` of the released code names them."""
    random = torch.Generator().manual_seed(0)
    found: Weights = {}

    def draw(name: str, *shape: int) -> None:
        scale = 1.0 if len(shape) == 1 else 1.3 / np.sqrt(np.prod(shape[1:]))
        found[f"{name}.weight"] = torch.randn(shape, generator=random) * scale
        if name != "quantize.embedding":
            found[f"{name}.bias"] = torch.randn(shape[0], generator=random) * 0.1

    def residual(name: str, before: int, after: int) -> None:
        draw(f"{name}.norm1", before)
        draw(f"{name}.conv1", after, before, 3, 3)
        draw(f"{name}.norm2", after)
        draw(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            draw(f"{name}.nin_shortcut", after, before, 1, 1)

    def attention(name: str, width: int) -> None:
        draw(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            draw(f"{name}.{part}", width, width, 1, 1)

    def middle(side: str) -> None:
        residual(f"{side}.mid.block_1", WIDTHS[-1], WIDTHS[-1])
        attention(f"{side}.mid.attn_1", WIDTHS[-1])
        residual(f"{side}.mid.block_2", WIDTHS[-1], WIDTHS[-1])

    last = len(WIDTHS) - 1
    draw("encoder.conv_in", WIDTHS[0], 3, 3, 3)
    width = WIDTHS[0]
    for stage, after in enumerate(WIDTHS):
        for block in range(BLOCKS):
            residual(f"encoder.down.{stage}.block.{block}", width, after)
            width = after
            if stage == last:
                attention(f"encoder.down.{stage}.attn.{block}", width)
        if stage < last:
            draw(f"encoder.down.{stage}.downsample.conv", width, width, 3, 3)
    middle("encoder")
    draw("encoder.norm_out", width)
    draw("encoder.conv_out", LATENT, width, 3, 3)
    draw("quant_conv", CODE_WIDTH, LATENT, 1, 1)
    draw("quantize.embedding", CODES, CODE_WIDTH)
    draw("post_quant_conv", LATENT, CODE_WIDTH, 1, 1)
    draw("decoder.conv_in", width, LATENT, 3, 3)
    middle("decoder")
    for stage in reversed(range(len(WIDTHS))):
        for block in range(BLOCKS + 1):
            residual(f"decoder.up.{stage}.block.{block}", width, WIDTHS[stage])
            width = WIDTHS[stage]
            if stage == last:
                attention(f"decoder.up.{stage}.attn.{block}", width)
        if stage > 0:
            draw(f"decoder.up.{stage}.upsample.conv", width, width, 3, 3)
    draw("decoder.norm_out", width)
    draw("decoder.conv_out", 3, width, 3, 3)
    return found


class Released:
    """The network of the released code, by its formulas."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def convolution(self, x: Any, name: str, stride: int = 1, padding: int | None = None) -> Any:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        around = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, bias, stride, around)

    def normal(self, x: Any, name: str) -> Any:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.group_norm(x, 32, weight, bias, 1e-6)

    def residual(self, x: Any, name: str) -> Any:
        h = self.convolution(F.silu(self.normal(x, f"{name}.norm1")), f"{name}.conv1")
        h = self.convolution(F.silu(self.normal(h, f"{name}.norm2")), f"{name}.conv2")
        if f"{name}.nin_shortcut.weight" in self.weights:
            x = self.convolution(x, f"{name}.nin_shortcut")
        return x + h

    def attention(self, x: Any, name: str) -> Any:
        if f"{name}.q.weight" not in self.weights:
            return x
        h = self.normal(x, f"{name}.norm")
        q, k, v = (self.convolution(h, f"{name}.{part}").flatten(2) for part in "qkv")
        shares = (torch.einsum("bci,bcj->bij", q, k) * x.shape[1] ** -0.5).softmax(2)
        mixed = torch.einsum("bij,bcj->bci", shares, v).view_as(x)
        return x + self.convolution(mixed, f"{name}.proj_out")

    def middle(self, x: Any, side: str) -> Any:
        x = self.attention(self.residual(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self.residual(x, f"{side}.mid.block_2")

    def end(self, x: Any, side: str) -> Any:
        return self.convolution(F.silu(self.normal(x, f"{side}.norm_out")), f"{side}.conv_out")

    def codes(self, pixels: Any) -> Any:
        x = self.convolution(pixels, "encoder.conv_in")
        for stage in range(len(WIDTHS)):
            at = f"encoder.down.{stage}"
            for block in range(BLOCKS):
                x = self.residual(x, f"{at}.block.{block}")
                x = self.attention(x, f"{at}.attn.{block}")
            if stage < len(WIDTHS) - 1:
                x = self.convolution(F.pad(x, (0, 1, 0, 1)), f"{at}.downsample.conv", 2, 0)
        z = self.convolution(self.end(self.middle(x, "encoder"), "encoder"), "quant_conv")
        table = self.weights["quantize.embedding.weight"]
        return torch.cdist(z.flatten(2)[0].T, table).argmin(1)

    def image(self, codes: Any, side: int) -> Any:
        found = self.weights["quantize.embedding.weight"][codes].T.reshape(1, -1, side, side)
        x = self.convolution(self.convolution(found, "post_quant_conv"), "decoder.conv_in")
        x = self.middle(x, "decoder")
        for stage in reversed(range(len(WIDTHS))):
            at = f"decoder.up.{stage}"
            for block in range(BLOCKS + 1):
                x = self.residual(x, f"{at}.block.{block}")
                x = self.attention(x, f"{at}.attn.{block}")
            if stage > 0:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.convolution(x, f"{at}.upsample.conv")
        return self.end(x, "decoder")


def stored(weights: Weights, folder: Path, prefix: str = "") -> Path:
    file = folder / "vqgan.safetensors"
    save_file({f"{prefix}{name}": array for name, array in weights.items()}, file)
    return file


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_codes_and_images_are_those_of_the_released_formulas(prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="pip install 'iwlora[vq]'")
    weights = vqgan_weights()
    folder = convert_vqgan(stored(weights, tmp_path, prefix), tmp_path / "vqgan")
    codebook, released = VqCodebook(folder, SIZE), Released(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    scaled = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / 127.5 - 1).float()
    codes = released.codes(scaled)
    assert len(set(codes.tolist())) > 3
    assert codebook.encode(pixels) == codes.tolist()
    light = released.image(codes, SIZE // 4)[0].permute(1, 2, 0)
    decoded = codebook.decode(codes.tolist()).astype(int)
    expected = ((light + 1) / 2 * 255).clamp(0, 255)
    assert expected.std() > 10
    np.testing.assert_allclose(decoded, expected.numpy(), atol=0.51)


def test_every_weight_is_used_once_and_the_shapes_say_the_configuration(tmp_path: Path) -> None:
    from iwlora.inputs.tensors import load_arrays

    weights = vqgan_weights()
    training_only = {"loss.discriminator.main.0.weight": torch.zeros(1)}
    folder = convert_vqgan(stored(weights | training_only, tmp_path), tmp_path / "vqgan")
    kept = load_arrays(folder / "diffusion_pytorch_model.safetensors")
    assert sorted(array.size for array in kept.values()) == sorted(
        array.numel() for array in weights.values()
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["block_out_channels"] == list(WIDTHS)
    assert config["down_block_types"][-2:] == ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
    assert config["up_block_types"][:2] == ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]
    assert (config["num_vq_embeddings"], config["vq_embed_dim"]) == (CODES, CODE_WIDTH)


def test_a_file_of_something_else_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    weights = vqgan_weights()
    del weights["quantize.embedding.weight"]
    with pytest.raises(IwloraError, match=re.escape("no weights quantize.embedding.weight")):
        convert_vqgan(stored(weights, tmp_path), tmp_path / "vqgan")
    assert not (tmp_path / "vqgan").exists()
