"""Where training went: ‖Δ_k‖_F and the rank of each matrix, from the adapters that runs saved."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from iwlora.errors import IwloraError
from iwlora.inputs.documents import check_against, read_mapping
from iwlora.results import layout
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run

Alpha = Annotated[float, Field(allow_inf_nan=False)]
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_MOVES_WEIGHTS = ("pissa", "olora", "corda", "loftq")
"""Initialisations that change the frozen weight too, so that scaling · B A is not the update."""


@dataclass(frozen=True)
class Update:
    """What an arm did to one matrix, as means over its seeds."""

    depth: int
    kind: str
    norm: float
    rank: float


class _Lora(BaseModel):
    """What ``adapter_config.json`` says of the scaling."""

    model_config = ConfigDict(strict=True, extra="ignore")

    lora_alpha: Alpha
    alpha_pattern: dict[str, Alpha] | None = None
    use_rslora: bool = False

    def alpha(self, name: str) -> float:
        """Of a matrix, by its name or the end of it, from a dot on."""
        chosen = (a for end, a in (self.alpha_pattern or {}).items() if _ends(name, end))
        return next(chosen, self.lora_alpha)


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")


def updates_of(comparison: Comparison, label: str) -> dict[str, Update]:
    """{site name: its update} of an arm; empty where its runs saved no low-rank adapters."""
    found: dict[str, list[tuple[float, float]]] = {}
    runs = 0
    for run in comparison.of(label):
        norms = update_norms(run)
        if norms is None:
            continue
        runs += 1
        for name, pair in norms.items():
            found.setdefault(name, []).append(pair)
    places = _places(comparison)
    forward = {name: index for index, name in enumerate(places)}
    ordered = sorted(found, key=lambda name: (forward.get(name, len(forward)), _natural(name)))
    return {
        # A seed that pruned a matrix away has neither rank nor update there.
        name: Update(
            *places.get(name, _place(name)),
            math.fsum(norm for norm, _ in found[name]) / runs,
            math.fsum(rank for _, rank in found[name]) / runs,
        )
        for name in ordered
    }


def update_norms(run: Run) -> dict[str, tuple[float, float]] | None:
    """{site name: (‖scaling · B A‖_F, rank)} of a run's adapter; None where it has none such.

    By ‖BA‖_F² = tr((BᵀB)(AAᵀ)), with PEFT's scaling: alpha / r, or alpha / √r for rsLoRA. Runs
    name the matrices of ``alpha_pattern`` as they are, not by a regular expression. Raises
    ``IwloraError`` for an adapter that cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = run.folder / layout.ADAPTER if run.folder else Path()
    config, file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not (config.is_file() and file.is_file()):
        return None
    stored = read_mapping(config)
    if not _is_product(stored):
        return None
    settings = check_against(_Lora, stored, config)
    try:
        tensors = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise IwloraError(f"{folder} is damaged ({error})") from None
    factors: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if match := _NAME.fullmatch(key):
            factors.setdefault(match[1], {})[match[2]] = tensor.astype(np.float64)
        elif "lora_" in key:  # a variant with more to it than a product
            return None
    found = {}
    for name, pair in factors.items():
        A, B = pair.get("A"), pair.get("B")  # (r, d_in), (d_out, r)
        if A is None or B is None or not (A.ndim == B.ndim == 2 and len(A) == B.shape[1] > 0):
            continue
        rank, alpha = len(A), settings.alpha(name)
        scaling = alpha / (math.sqrt(rank) if settings.use_rslora else rank)
        squared = float(np.sum((B.T @ B) * (A @ A.T)))
        found[name] = scaling * math.sqrt(max(squared, 0.0)), float(rank)
    return found or None


def _is_product(stored: Mapping[str, Any]) -> bool:
    """Whether a PEFT configuration describes W + scaling · B A on the frozen W."""
    start = str(stored.get("init_lora_weights", "")).lower()
    plain = not stored.get("use_dora") and not start.startswith(_MOVES_WEIGHTS)
    return plain and stored.get("peft_type") == "LORA"


def _places(comparison: Comparison) -> dict[str, tuple[int, str]]:
    """{site name: (block, kind)} as the runs told them."""
    found: dict[str, tuple[int, str]] = {}
    for run in comparison.runs:
        found |= {one.name: (one.depth, one.kind) for one in run.result.ranks}
        measured = run.sensitivity()
        if measured:
            return {site.name: (site.depth, site.kind) for site in measured.sites}
    return found


def _place(name: str) -> tuple[int, str]:
    """(block, kind) read from a path such as ``encoder.layer.3.attention.self.query``."""
    match = re.search(r"\.(\d+)\.(.+)$", name)
    return (int(match[1]), match[2]) if match else (0, name)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
