"""Importance-weighted LoRA: measure which matrices matter, penalize the others more, and compare.

The public names below are imported on first use, so ``import iwlora`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iwlora import deprecated_paths
from iwlora.extras import name_missing_extra

if TYPE_CHECKING:
    from iwlora.advice.advise import advise
    from iwlora.errors import IwloraError
    from iwlora.importance import Importance
    from iwlora.methods.loading import load_adapter
    from iwlora.penalty.apply import Penalty
    from iwlora.penalty.callback import IWLoraCallback
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sensitivity.measure import measure
    from iwlora.training.prediction.new_rows import predict
    from iwlora.training.recipe import build as build_recipe
    from iwlora.training.recipe import load as load_recipe
    from iwlora.training.run import train
    from iwlora.training.sharing.export import export
    from iwlora.training.state.artifacts import load_trained

# public name -> (module, attribute)
_HOME = {
    "IWLoraCallback": ("iwlora.penalty.callback", "IWLoraCallback"),
    "Importance": ("iwlora.importance", "Importance"),
    "IwloraError": ("iwlora.errors", "IwloraError"),
    "Penalty": ("iwlora.penalty.apply", "Penalty"),
    "Sensitivity": ("iwlora.results.sensitivity", "Sensitivity"),
    "advise": ("iwlora.advice.advise", "advise"),
    "build_recipe": ("iwlora.training.recipe", "build"),
    "export": ("iwlora.training.sharing.export", "export"),
    "load_adapter": ("iwlora.methods.loading", "load_adapter"),
    "load_recipe": ("iwlora.training.recipe", "load"),
    "load_trained": ("iwlora.training.state.artifacts", "load_trained"),
    "measure": ("iwlora.sensitivity.measure", "measure"),
    "predict": ("iwlora.training.prediction.new_rows", "predict"),
    "train": ("iwlora.training.run", "train"),
}

__all__ = [
    "IWLoraCallback",
    "Importance",
    "IwloraError",
    "Penalty",
    "Sensitivity",
    "advise",
    "build_recipe",
    "export",
    "load_adapter",
    "load_recipe",
    "load_trained",
    "measure",
    "predict",
    "train",
]

__version__ = "0.2.0.dev0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'iwlora' has no attribute {name!r}")
    module, attribute = _HOME[name]
    with name_missing_extra():
        return getattr(import_module(module), attribute)


deprecated_paths.install()
