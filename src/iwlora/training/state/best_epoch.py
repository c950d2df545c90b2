"""The trainable parameters of the best epoch so far, in a file that says if it was changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors, tensor_metadata
from iwlora.inputs.yaml_json import parse_mapping
from iwlora.results.writing import replacing

if TYPE_CHECKING:
    from torch import Tensor

_ENTRY = "best epoch"


def save(file: Path, tensors: Mapping[str, Tensor], score: float, epoch: float) -> None:
    """Store the parameters of an epoch in place of an earlier one's."""
    from safetensors.torch import save_file

    facts = {"score": repr(score), "epoch": repr(epoch)}
    facts["digest"] = _digest(tensors, facts)
    with replacing(file) as new:
        # One entry: safetensors writes several in a random order.
        save_file(dict(tensors), new, metadata={_ENTRY: json.dumps(facts)})


def load(file: Path) -> dict[str, Tensor]:
    """The stored parameters; ``IwloraError`` if they are not what :func:`save` stored."""
    facts, tensors = _facts(file), load_tensors(file)
    digest = facts.pop("digest", None)  # older versions stored none
    if digest is not None and digest != _digest(tensors, facts):
        raise IwloraError(
            f"{file} is damaged: it is not what was stored; remove the folder {file.parent}, and "
            "the run begins again"
        )
    return tensors


def score_and_epoch(file: Path) -> tuple[float, float]:
    """The score of the stored epoch, and its number."""
    facts = _facts(file)
    return float(facts["score"]), float(facts["epoch"])


def _facts(file: Path) -> dict[str, str]:
    """The score, the epoch and the digest; older versions stored them one by one."""
    metadata = tensor_metadata(file)
    facts = parse_mapping(metadata[_ENTRY], file) if _ENTRY in metadata else metadata
    if not {"score", "epoch"} <= facts.keys():
        raise IwloraError(f"{file} is damaged: it does not say which epoch it has")
    return facts


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of tensors and their metadata."""
    import torch

    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
