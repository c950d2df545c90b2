"""The trainable parameters of the best epoch so far, in a file that says if it was changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors, tensor_metadata
from iwlora.results.writing import replacing


def save(file: Path, tensors: Mapping[str, Tensor], score: float, epoch: float) -> None:
    """Store the parameters of an epoch in place of an earlier one's."""
    metadata = {"score": repr(score), "epoch": repr(epoch)}
    metadata["digest"] = _digest(tensors, metadata)
    with replacing(file) as new:
        save_file(dict(tensors), new, metadata=metadata)


def load(file: Path) -> dict[str, Tensor]:
    """The stored parameters; ``IwloraError`` if they are not what :func:`save` stored."""
    metadata, tensors = tensor_metadata(file), load_tensors(file)
    digest = metadata.pop("digest", None)  # older versions stored none
    if digest is not None and digest != _digest(tensors, metadata):
        raise IwloraError(
            f"{file} is damaged: it is not what was stored; remove the folder {file.parent}, and "
            "the run begins again"
        )
    return tensors


def score_and_epoch(file: Path) -> tuple[float, float]:
    """The score of the stored epoch, and its number."""
    metadata = tensor_metadata(file)
    return float(metadata["score"]), float(metadata["epoch"])


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of tensors and their metadata."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
