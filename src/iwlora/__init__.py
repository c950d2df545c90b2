"""Importance-weighted LoRA: measure which matrices matter, penalise the others, compare honestly.

The public names below are imported on first use, so ``import iwlora`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iwlora.errors import IwloraError
    from iwlora.importance import Importance
    from iwlora.penalty.apply import Penalty
    from iwlora.sensitivity.measure import measure
    from iwlora.sensitivity.record import Sensitivity

_HOME = {
    "IwloraError": "iwlora.errors",
    "Importance": "iwlora.importance",
    "Penalty": "iwlora.penalty.apply",
    "Sensitivity": "iwlora.sensitivity.record",
    "measure": "iwlora.sensitivity.measure",
}

__all__ = [
    "Importance",
    "IwloraError",
    "Penalty",
    "Sensitivity",
    "measure",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'iwlora' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
