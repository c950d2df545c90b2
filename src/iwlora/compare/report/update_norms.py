"""How much training changed each matrix: ‖Δ_k‖_F and rank, from the adapters that runs saved."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_arrays
from iwlora.inputs.yaml_json import read_mapping, validation_errors
from iwlora.results import layout
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run

Alpha = Annotated[float, Field(allow_inf_nan=False)]
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_CHANGES_WEIGHTS = ("pissa", "olora", "corda", "loftq")
"""Initializations that change the frozen weight too, so that scaling · B A is not the update."""


@dataclass(frozen=True)
class Update:
    """How an arm changed one matrix: means over its seeds.

    ``depth`` is the block of the matrix, ``matrix_type`` its role in the block, such as "query".
    """

    depth: int
    matrix_type: str
    norm: float
    rank: float


_Number = TypeVar("_Number", int, float)


def _matching(pattern: Mapping[str, _Number] | None, name: str, default: _Number) -> _Number:
    matches = (v for end, v in (pattern or {}).items() if f".{name}".endswith(f".{end}"))
    return next(matches, default)


class _LoraConfig(BaseModel):
    """The fields of ``adapter_config.json`` that define the scaling."""

    model_config = ConfigDict(strict=True, extra="ignore")

    lora_alpha: Alpha
    alpha_pattern: dict[str, Alpha] | None = None
    r: Annotated[int, Field(ge=1)] = 8
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = None
    use_rslora: bool = False
    target_parameters: list[str] | None = None

    def alpha(self, name: str) -> float:
        """The alpha of a matrix; a pattern is its name or the end of its name after a dot."""
        return _matching(self.alpha_pattern, name, self.lora_alpha)

    def rank(self, name: str) -> int:
        """The rank of a matrix, as its alpha."""
        return _matching(self.rank_pattern, name, self.r)

    def parameter(self, path: str) -> str | None:
        """The adapted parameter of a path in the adapter's file; None if it is a layer's.

        The parameters of a module are wrapped in the order of the list, so that the path of the
        last one is the module's, and that of the one before it ends in ``base_layer``.
        """
        module = path.replace(".base_layer", "")
        names = [n for n in self.target_parameters or () if n.rpartition(".")[0] == module]
        depth = path.count(".base_layer")
        return names[-1 - depth] if depth < len(names) else None


def arm_updates(comparison: Comparison, label: str) -> dict[str, Update]:
    """{site name: update} of an arm; empty if its runs saved no low-rank adapters."""
    by_run = [updates for run in comparison.of(label) if (updates := update_norms(run))]
    positions = _recorded_positions(comparison)
    forward = {name: index for index, name in enumerate(positions)}
    names = {name for updates in by_run for name in updates}
    result = {}
    for name in sorted(names, key=lambda name: (forward.get(name, len(forward)), _natural(name))):
        # A seed that pruned a matrix away counts there with norm 0 and rank 0.
        norms, ranks = zip(*(updates.get(name, (0.0, 0.0)) for updates in by_run), strict=True)
        position = positions.get(name, _position_from_name(name))
        result[name] = Update(*position, fmean(norms), fmean(ranks))
    return result


def update_norms(run: Run) -> dict[str, tuple[float, float]] | None:
    """{site name: (‖scaling · B A‖_F, rank)} of a run's adapter; None if it has no such adapter.

    It computes ‖BA‖_F² = tr((BᵀB)(AAᵀ)), with PEFT's scaling: alpha / r, or alpha / √r for rsLoRA.
    The updates of all experts of a block are one; their number follows from their ranks. The keys
    of ``alpha_pattern`` and ``rank_pattern`` are read as names of matrices, not as regular
    expressions.

    Raises:
        IwloraError: The adapter cannot be read.
    """
    folder = run.folder / layout.ADAPTER if run.folder else Path()
    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not (config_file.is_file() and weights_file.is_file()):
        return None
    stored = read_mapping(config_file)
    if not _is_product(stored):
        return None
    with validation_errors(config_file):
        config = _LoraConfig.model_validate(stored)
    tensors = load_arrays(weights_file)
    factors: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if match := _NAME.fullmatch(key):
            factors.setdefault(match[1], {})[match[2]] = tensor.astype(np.float64)
        elif "lora_" in key:  # a variant whose update is more than a product
            return None
    updates = {}
    for path, pair in factors.items():
        A, B = pair.get("A"), pair.get("B")  # (experts r, d_in), (d_out, r experts)
        if A is None or B is None or not (A.ndim == B.ndim == 2 and len(A) == B.shape[1] > 0):
            continue
        target = config.parameter(path)
        name = target or path
        rank = config.rank(name) if target else len(A)
        if len(A) % rank:
            raise IwloraError(f"{folder} is damaged (the rank of {name} is {rank}, not {len(A)})")
        alpha = config.alpha(name)
        scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank)
        A = A.reshape(-1, rank, A.shape[1])  # (experts, r, d_in)
        B = B.reshape(len(B), rank, -1).transpose(2, 0, 1)  # (experts, d_out, r)
        squared = float(np.sum((B.transpose(0, 2, 1) @ B) * (A @ A.transpose(0, 2, 1))))
        updates[_site_name(name)] = scaling * math.sqrt(max(squared, 0.0)), float(rank)
    return updates or None


def _site_name(name: str) -> str:
    """The path of a matrix; that of a layer's or router's is the path of its module."""
    return name.removesuffix(".weight")


def _is_product(config: Mapping[str, Any]) -> bool:
    """Whether a PEFT configuration describes W + scaling · B A on the frozen W."""
    initialization = str(config.get("init_lora_weights", "")).lower()
    plain = not config.get("use_dora") and not initialization.startswith(_CHANGES_WEIGHTS)
    return plain and config.get("peft_type") == "LORA"


def _recorded_positions(comparison: Comparison) -> dict[str, tuple[int, str]]:
    """{site name: (block, matrix type)} as the runs recorded them."""
    positions: dict[str, tuple[int, str]] = {}
    for run in comparison.runs:
        positions |= {_site_name(s.name): (s.depth, s.kind) for s in run.result.ranks}
        if measured := run.sensitivity():
            return {_site_name(s.name): (s.depth, s.kind) for s in measured.sites}
    return positions


def _position_from_name(name: str) -> tuple[int, str]:
    """(block, matrix type) read from a path such as ``encoder.layer.3.attention.self.query``."""
    match = re.search(r"\.(\d+)\.(.+)$", name)
    return (int(match[1]), match[2]) if match else (0, name)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
