"""The codes of a trained VQ model: a network that encodes images and decodes codes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iwlora.errors import IwloraError, short_repr
from iwlora.extras import locate_package
from iwlora.image_tokens.codebook import (
    MOST_CODES,
    MOST_TOKENS,
    NETWORK,
    Codebook,
    Pixels,
    pixels_of,
)
from iwlora.inputs.models.loading import loading_errors
from iwlora.inputs.models.size import built_on_meta
from iwlora.inputs.places import check_folder
from iwlora.inputs.tensors import load_tensors
from iwlora.inputs.yaml_json import read_mapping
from iwlora.results.file_digests import file_digest
from iwlora.results.formats import content_digest
from iwlora.results.writing import write_text

if TYPE_CHECKING:
    from PIL.Image import Image

_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_FIELD = "image_codes"
"""In the config.json of the copy beside a transformer: the size of images, and what black is."""
DARKEST = (-1, 0)
"""What black may be for a network, white being 1."""


class _Type(NamedTuple):
    """How the networks of a library are built and called.

    ``codes`` and ``stages`` are fields of its configuration: the number of codes, and one value for
    each resolution, of which each has half the width of the one before.
    """

    codes: str
    stages: str
    build: Callable[[Mapping[str, Any], int], Any]
    encode: Callable[[Any, Any], Any]
    decode: Callable[[Any, Any, int], Any]


def _build_janus(config: Mapping[str, Any], side: int) -> Any:
    from transformers.models.janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    return JanusVQVAE(JanusVQVAEConfig(**{**config, "num_patches": side}))


def _build_diffusers(config: Mapping[str, Any], _: int) -> Any:
    locate_package("diffusers", "a VQModel of diffusers")
    from diffusers import VQModel

    return VQModel.from_config(dict(config))


def _decode_diffusers(network: Any, codes: Any, side: int) -> Any:
    found = network.quantize.embedding(codes).view(1, side, side, -1).permute(0, 3, 1, 2)
    spatial = found if network.config.norm_type == "spatial" else None
    return network.decoder(network.post_quant_conv(found), spatial)


_TYPES: Mapping[str, _Type] = {
    "janus_vqgan": _Type(
        codes="num_embeddings",
        stages="channel_multiplier",
        build=_build_janus,
        encode=lambda network, pixels: network.encode(pixels).image_tokens,
        decode=lambda network, codes, _: network.decode(codes),
    ),
    "VQModel": _Type(
        codes="num_vq_embeddings",
        stages="block_out_channels",
        build=_build_diffusers,
        encode=lambda network, pixels: network.quantize(network.encode(pixels).latents)[2][2],
        decode=_decode_diffusers,
    ),
}
"""{model_type of transformers, or _class_name of diffusers: its networks}."""


class VqCodebook(Codebook):
    """A VQ model, which encodes an image with one network and decodes codes with another.

    Unlike those of patches, its decoded images need not have the codes that they are made of, and
    its codes may differ between machines where an image lies between two of them.

    Args:
        folder: With ``config.json`` and the weights, as transformers or diffusers saved them.
        size: The width and height of images, in pixels.
        darkest: What black is for the network: -1 or 0. White is 1.

    Raises:
        IwloraError: The files are damaged, of another type of model, or do not fit the size.

    Source:
        van den Oord et al. 2017, arXiv:1711.00937; Esser et al. 2021, arXiv:2012.09841.
    """

    def __init__(self, folder: Path, size: int, darkest: int = DARKEST[0]) -> None:
        check_folder(folder)
        stored = read_mapping(folder / _CONFIG)
        self._folder, self._size, self._darkest = folder, size, darkest
        self._config = {name: value for name, value in stored.items() if name != _FIELD}
        if problem := self._problem():
            raise IwloraError(f"{folder} {problem}")
        self._network = self._loaded()

    @classmethod
    def in_folder(cls, folder: Path) -> VqCodebook:
        """The one that :meth:`save_pretrained` wrote into a folder.

        Raises:
            IwloraError: It is damaged.
        """
        stored = read_mapping(folder / _CONFIG).get(_FIELD)
        if not isinstance(stored, dict) or stored.keys() != {"size", "darkest"}:
            raise IwloraError(
                f"{folder / _CONFIG} does not say of which size images are; 'iwlora codes --vq' "
                "makes the folder"
            )
        return cls(folder, stored["size"], stored["darkest"])

    def _problem(self) -> str | None:
        if not isinstance(self._name, str) or self._name not in _TYPES:
            return (
                f"has a model of the type {short_repr(self._name)}; accepted types of VQ models: "
                f"{', '.join(_TYPES)}"
            )
        stages, count = (self._config.get(name) for name in (self._type.stages, self._type.codes))
        if type(count) is not int or not 2 <= count <= MOST_CODES:
            return f"has {self._type.codes}={short_repr(count)}; accepted: 2 to {MOST_CODES:,}"
        if not isinstance(stages, list) or not 1 <= len(stages) <= 10:
            return f"has {self._type.stages}={short_repr(stages)}; accepted: a list of 1 to 10"
        if self._darkest not in DARKEST:
            return f"has darkest={short_repr(self._darkest)}; accepted: -1 or 0"
        size = self._size
        if type(size) is not int or not 1 <= size // self._patch <= math.isqrt(MOST_TOKENS):
            return f"has images of size={short_repr(size)}; accepted: {self._patch} or more"
        if size % self._patch:
            return f"has images of size={size}; accepted: multiples of {self._patch}"
        return None if self._weights else f"has none of {', '.join(_WEIGHTS)}"

    @property
    def _name(self) -> Any:
        return self._config.get("_class_name", self._config.get("model_type"))

    @property
    def _type(self) -> _Type:
        return _TYPES[self._name]

    @property
    def _weights(self) -> Path | None:
        files = (self._folder / name for name in _WEIGHTS)
        return next((file for file in files if file.is_file()), None)

    @property
    def _patch(self) -> int:
        """The width and height of what a code stands for, in pixels."""
        return int(2 ** (len(self._config[self._type.stages]) - 1))

    @property
    def _side(self) -> int:
        return self.size // self._patch

    def _loaded(self) -> Any:
        weights = self._weights
        assert weights is not None
        with loading_errors(
            lambda reason, _: f"cannot load the VQ model in {self._folder}: {reason}"
        ):
            with built_on_meta(self._folder, weights.stat().st_size):
                network = self._type.build(self._config, self._side)
            network.load_state_dict(load_tensors(weights), strict=True, assign=True)
            network.float().eval().requires_grad_(False)
            self._check_shapes(network)
        return network

    def _check_shapes(self, network: Any) -> None:
        """Encode and decode a gray image, since a configuration may describe other shapes."""
        import torch

        gray = torch.zeros(1, 3, self.size, self.size)
        with torch.inference_mode():
            codes = self._type.encode(network, gray).reshape(1, -1)
            decoded = self._type.decode(network, codes, self._side)
        if codes.shape[1] != self.tokens or decoded.shape != gray.shape:
            raise IwloraError(
                f"{self._folder} makes {codes.shape[1]} codes of an image of {self.size} × "
                f"{self.size} pixels, and of these one of the shape {tuple(decoded.shape[1:])}; "
                f"accepted: {self.tokens} codes, and (3, {self.size}, {self.size})"
            )

    @property
    def count(self) -> int:
        """The number of codes."""
        return int(self._config[self._type.codes])

    @property
    def tokens(self) -> int:
        """The number of codes of an image."""
        return self._side**2

    @property
    def size(self) -> int:
        """The width and height of images, in pixels."""
        return self._size

    @cached_property
    def digest(self) -> str:
        """A hash of the configuration, the weights and the size of images."""
        assert self._weights is not None
        content = [self._stored(), file_digest(self._weights)]
        return content_digest(content)[:16]

    def encode(self, image: Image | Pixels) -> list[int]:
        """The codes of an image, which is scaled to the size of the codebook.

        Raises:
            IwloraError: It is not square.
        """
        import torch

        pixels = pixels_of(image, self.size, 3).transpose(2, 0, 1)[None].astype(np.float32)
        scaled = torch.from_numpy(pixels / 255 * (1 - self._darkest) + self._darkest)
        with torch.inference_mode():
            codes: list[int] = self._type.encode(self._network, scaled).flatten().tolist()
        return codes

    def decode(self, codes: Sequence[int]) -> Pixels:
        """The image of some codes, (height, width, 3).

        Raises:
            IwloraError: The number of codes is another one, or a code is unknown.
        """
        import torch

        self.check(codes)
        with torch.inference_mode():
            found = self._type.decode(self._network, torch.tensor([list(codes)]), self._side)
            light = (found[0].permute(1, 2, 0) - self._darkest) / (1 - self._darkest)
            pixels: Pixels = (255 * light.clamp(0, 1)).round().to(torch.uint8).numpy()
        return pixels

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``vq-model/`` into a folder: a copy of the weights, and the configuration."""
        assert self._weights is not None
        target = Path(folder) / NETWORK
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._weights, target / self._weights.name)
        write_text(target / _CONFIG, json.dumps(self._stored(), indent=1) + "\n")

    def _stored(self) -> dict[str, Any]:
        return {**self._config, _FIELD: {"size": self.size, "darkest": self._darkest}}
