"""The VQGAN of Taming Transformers, from its released weights: a VQModel of diffusers.

The names and shapes are those of the released code. They were never read from a released file,
only from files with random weights: see :func:`convert_vqgan`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from iwlora.errors import IwloraError
from iwlora.image_tokens.released_weights import Arrays, Taker
from iwlora.inputs.tensors import load_arrays
from iwlora.results.writing import write_text

_PREFIX = "first_stage_model."
"""Of the VQGAN in the file of a transformer."""
_GROUPS = 32
"""Of each normalization, which the weights do not say."""


def convert_vqgan(file: str | Path, folder: str | Path) -> Path:
    """Write the released VQGAN in a file as a folder with a ``VQModel`` of diffusers.

    ``iwlora codes --vq FOLDER`` and :class:`iwlora.image_tokens.codebooks.vq_model.VqCodebook`
    read it. Widths, depths and the places of attention are read from the shapes. The discriminator
    and the perceptual loss, which training needs, are left out.

    Args:
        file: safetensors with the released names, of the VQGAN alone or with its transformer.
            Pickles must be converted elsewhere.
        folder: To write.

    Returns:
        ``folder`` as a path.

    Raises:
        IwloraError: The file cannot be read, or lacks weights, as one of a VQGAN with another
            quantizer does.

    Source:
        Esser et al. 2021, arXiv:2012.09841; github.com/CompVis/taming-transformers,
        ``taming/modules/diffusionmodules/model.py`` and ``taming/models/vqgan.py``.
    """
    from safetensors.numpy import save_file

    arrays = load_arrays(file)
    config, weights = of_vqgan({n.removeprefix(_PREFIX): array for n, array in arrays.items()})
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_text(Path(folder) / "config.json", json.dumps(config, indent=1) + "\n")
    stored = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    target = Path(folder) / "diffusion_pytorch_model.safetensors"
    save_file(stored, target, metadata={"format": "pt"})
    return Path(folder)


def of_vqgan(arrays: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """(configuration, weights) of a VQModel for the weights of a VQGAN.

    The stages of its decoder are numbered from the image, those of diffusers from the codes.
    """
    take = _VqganTaker(arrays)
    stages = take.count(r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight")
    blocks = take.count(r"encoder\.down\.0\.block\.(\d+)\.conv1\.weight")
    codes = take("quantize.embedding.weight")
    convolutions = ("quant_conv", "post_quant_conv")
    ends = [f"{side}.{end}" for side in ("encoder", "decoder") for end in ("conv_in", "conv_out")]
    weights: dict[str, Any] = {"quantize.embedding.weight": codes}
    for layer in (*convolutions, *ends):
        weights |= take.same(layer, layer)
    for side, name, sampling, depth in (
        ("encoder", "down", "downsample", blocks),
        ("decoder", "up", "upsample", blocks + 1),
    ):
        weights |= take.same(f"{side}.norm_out", f"{side}.conv_norm_out")
        for part in (0, 1):
            weights |= take.residual(
                f"{side}.mid.block_{part + 1}", f"{side}.mid_block.resnets.{part}"
            )
        weights |= take.attention(f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0")
        for stage in range(stages):
            old = f"{side}.{name}.{stage}"
            place = stage if side == "encoder" else stages - 1 - stage
            new = f"{side}.{name}_blocks.{place}"
            for part in range(depth):
                weights |= take.residual(f"{old}.block.{part}", f"{new}.resnets.{part}")
                if take.has_attention(side, name, stage):
                    weights |= take.attention(f"{old}.attn.{part}", f"{new}.attentions.{part}")
            if place < stages - 1:
                weights |= take.same(f"{old}.{sampling}.conv", f"{new}.{sampling}rs.0.conv")
    take.check()
    widths = [len(arrays[f"encoder.down.{n}.block.0.conv1.weight"]) for n in range(stages)]
    if wrong := [width for width in widths if width % _GROUPS]:
        raise IwloraError(f"the file has stages of {wrong[0]} channels; accepted: multiples of 32")
    config = {
        "_class_name": "VQModel",
        "in_channels": arrays["encoder.conv_in.weight"].shape[1],
        "out_channels": len(arrays["decoder.conv_out.weight"]),
        "block_out_channels": widths,
        "down_block_types": [
            f"{'Attn' if take.has_attention('encoder', 'down', stage) else ''}DownEncoderBlock2D"
            for stage in range(stages)
        ],
        "up_block_types": [
            f"{'Attn' if take.has_attention('decoder', 'up', stage) else ''}UpDecoderBlock2D"
            for stage in reversed(range(stages))
        ],
        "layers_per_block": blocks,
        "latent_channels": len(arrays["encoder.conv_out.weight"]),
        "num_vq_embeddings": len(codes),
        "vq_embed_dim": codes.shape[1],
        "norm_num_groups": _GROUPS,
    }
    return config, weights


class _VqganTaker(Taker):
    """Takes the parts of a VQGAN."""

    def count(self, pattern: str) -> int:
        """How many numbers the group of a pattern has among the names."""
        found = (re.fullmatch(pattern, name) for name in self.arrays)
        return len({match[1] for match in found if match})

    def has_attention(self, side: str, name: str, stage: int) -> bool:
        """Whether the blocks of a stage are followed by attention."""
        return f"{side}.{name}.{stage}.attn.0.q.weight" in self.arrays

    def residual(self, old: str, new: str) -> dict[str, Any]:
        """A residual block, whose shortcut is a convolution where the width changes."""
        weights: dict[str, Any] = {}
        for layer in ("norm1", "conv1", "norm2", "conv2"):
            weights |= self.same(f"{old}.{layer}", f"{new}.{layer}")
        if f"{old}.nin_shortcut.weight" in self.arrays:
            weights |= self.same(f"{old}.nin_shortcut", f"{new}.conv_shortcut")
        return weights

    def attention(self, old: str, new: str) -> dict[str, Any]:
        """A block of attention, whose convolutions of width 1 are linear layers."""
        weights = self.same(f"{old}.norm", f"{new}.group_norm")
        for former, now in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            kernel = self(f"{old}.{former}.weight")
            weights[f"{new}.{now}.weight"] = kernel.reshape(kernel.shape[:2])
            weights[f"{new}.{now}.bias"] = self(f"{old}.{former}.bias")
        return weights
