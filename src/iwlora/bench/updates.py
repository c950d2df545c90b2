"""Where training went: ‖Δ_k‖_F and the rank of each matrix, from the adapters that runs saved."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwlora.bench.records import Comparison, Run
from iwlora.errors import IwloraError
from iwlora.notation import from_json

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

    By ‖BA‖_F² = tr((BᵀB)(AAᵀ)), with PEFT's scaling: alpha / r, or alpha / √r for rsLoRA. Raises
    ``IwloraError`` for an adapter that cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = run.folder / "adapter" if run.folder else Path()
    config, file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not (config.is_file() and file.is_file()):
        return None
    try:
        settings = from_json(config.read_text(encoding="utf-8"))
        if not _is_product(settings):
            return None
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
        if set(pair) != {"A", "B"} or pair["A"].ndim != 2:
            continue
        A, B = pair["A"], pair["B"]  # (r, d_in), (d_out, r)
        rank = float(_of_pattern(settings.get("rank_pattern"), name, settings["r"]))
        alpha = float(_of_pattern(settings.get("alpha_pattern"), name, settings["lora_alpha"]))
        scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        squared = float(np.sum((B.T @ B) * (A @ A.T)))
        found[name] = scaling * math.sqrt(max(squared, 0.0)), float(len(A))
    return found or None


def _is_product(settings: Any) -> bool:
    """Whether a PEFT configuration describes W + scaling · B A on the frozen W."""
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        return False
    start = str(settings.get("init_lora_weights", "")).lower()
    return not settings.get("use_dora") and not start.startswith(_MOVES_WEIGHTS)


def _of_pattern(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """PEFT's rule: a pattern names the end of a module's path, from a dot on."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


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
