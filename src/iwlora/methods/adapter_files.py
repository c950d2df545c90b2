"""Adapters in a folder: PEFT's format where PEFT has one, else the parameters and how they attach.

A method whose result is no PEFT adapter saves ``adapter/iwlora_adapter.json``, which says what
attaches it, and ``adapter/adapter.safetensors``, the declared parameters by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.yaml_json import from_json
from iwlora.methods.contract import Method
from iwlora.results import layout

if TYPE_CHECKING:
    from torch import nn

    from iwlora.sites import Site

_OURS = ("iwlora_adapter.json", "adapter.safetensors")
_PEFTS = ("adapter_config.json", "adapter_model.safetensors")


def adapter_files(folder: Path) -> tuple[str, str]:
    """(what says how the adapter attaches, its tensors): names of the files in the folder."""
    return _OURS if (folder / _OURS[0]).is_file() else _PEFTS


def save_declared(
    method: Method,
    model: Any,
    names: Sequence[str],
    sites: Sequence[Site],
    size: int | None,
    folder: Path,
) -> None:
    """Write ``folder/adapter``: the parameters of these names, and what attaches them again.

    For a method whose ``attach`` needs no sensitivity. :func:`load_adapter` reads it.
    """
    from safetensors.torch import save_file

    target = folder / layout.ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    record = {
        "base_model_name_or_path": getattr(model, "name_or_path", ""),
        "method": {"name": method.name, **method.model_dump(mode="json")},
        "size": size,
        "sites": [site.name for site in sites],
    }
    tensors = {name: model.get_parameter(name).detach().cpu().contiguous() for name in names}
    save_file(tensors, target / _OURS[1], metadata={"format": "pt"})
    (target / _OURS[0]).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: Any, folder: str | Path) -> nn.Module:
    """Put a saved adapter on its freshly loaded backbone, in place, and return the whole.

    ``folder`` is what a run saved or ``iwlora export`` wrote; PEFT's own adapters load as PEFT
    loads them. Raises ``IwloraError`` for a folder without an adapter, one that belongs to
    another model, and a method that is not installed.

    >>> from transformers import AutoModelForSequenceClassification
    >>> from iwlora.training.model.backbone import resolve_model_path
    >>> backbone = AutoModelForSequenceClassification.from_pretrained(
    ...     resolve_model_path("builtin/minilm"), num_labels=2)
    >>> type(load_adapter(backbone, "runs/a/adapter")).__name__
    'PeftModelForSequenceClassification'
    """
    saved = Path(folder)
    config, _ = adapter_files(saved)
    if not (saved / config).is_file():
        raise IwloraError(f"{folder} holds no adapter: it has neither {config} nor {_OURS[0]}")
    if config == _OURS[0]:
        return _restore(model, saved)
    from peft import PeftModel

    peft_model: nn.Module = PeftModel.from_pretrained(model, str(saved))
    return peft_model


def merged(model: nn.Module) -> nn.Module:
    """A plain model that computes the same, of one by a method that is not ``unmergeable``."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    plain: nn.Module = model.merge_and_unload()
    return plain


def _restore(model: Any, saved: Path) -> nn.Module:
    import torch
    from safetensors.torch import load_file

    from iwlora.methods import METHODS
    from iwlora.sites import sites

    record = from_json((saved / _OURS[0]).read_text(encoding="utf-8"))
    options = dict(record["method"])
    name = options.pop("name")
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    places = sites(model, record["sites"])
    attached = METHODS[name](**options).attach(model, places, record["size"], seed=0)
    tensors = load_file(saved / _OURS[1])
    expected = {name: attached.model.get_parameter(name) for name in attached.trainable}
    unfit = set(tensors) ^ set(expected)
    unfit |= {name for name in set(tensors) - unfit if tensors[name].shape != expected[name].shape}
    if unfit:
        raise IwloraError(
            f"the adapter in {saved} belongs to another model: {len(unfit)} of its parameters do "
            f"not fit, such as {min(unfit)}"
        )
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])
    return attached.model
