"""Writing a trained adapter: in PEFT's format where PEFT has one, else the parameters by name.

The adapter of a method that PEFT does not know is ``adapter/iwlora_adapter.json``, which names the
method, its options and its sites, and ``adapter/adapter.safetensors``, the parameters by name.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.head import declared_modules, head_buffers
from iwlora.methods.contract import Method
from iwlora.methods.peft_models import head_state
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results import layout
from iwlora.sites import Site

OWN_FORMAT = ("iwlora_adapter.json", "adapter.safetensors")
PEFT_FORMAT = ("adapter_config.json", "adapter_model.safetensors")


def adapter_files(folder: Path) -> tuple[str, str]:
    """The names of (the configuration, the tensors) of the adapter in a folder."""
    return OWN_FORMAT if (folder / OWN_FORMAT[0]).is_file() else PEFT_FORMAT


def save_parameters(
    method: Method, model: Any, names: Sequence[str], sites: Sequence[Site], folder: Path
) -> None:
    """Write ``folder/adapter``: parameters by name, and how to attach the method again.

    For a method whose ``attach`` needs no sensitivity. ``iwlora.load_adapter`` reads it.

    Args:
        method: the method, with the size that was attached.
        model: the trained model.
        names: the parameters to save, the head's included.
        sites: the adapted matrices.
        folder: the parent of the folder ``adapter``.
    """
    from safetensors.torch import save_file

    target = folder / layout.ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    record = {
        "base_model_name_or_path": getattr(model, "name_or_path", ""),
        "method": {"name": method.name, **method.model_dump(mode="json")},
        "size": method.size,
        "sites": [site.name for site in sites],
        "head": declared_modules(model),
    }
    tensors = {saved_name(name): model.get_parameter(name) for name in names} | head_buffers(model)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(on_cpu, target / OWN_FORMAT[1], metadata={"format": "pt"})
    (target / OWN_FORMAT[0]).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def saved_name(name: str) -> str:
    """The name of a parameter in the file: as in the backbone, whatever PEFT has put around it.

    >>> saved_name("encoder.layer.0.query.base_layer.bias")
    'encoder.layer.0.query.bias'
    >>> saved_name("encoder.layer.0.query.lora_A.default.weight")
    'encoder.layer.0.query.lora_A.weight'
    """
    return re.sub(r"(\.lora_\w+)\.default(?=\.)", r"\1", name.replace(".base_layer.", "."))


def save_as_lora(peft_model: Any, pairs: Sequence[LowRankPair], folder: Path) -> None:
    """Write ``folder/adapter`` as a plain LoRA adapter with these updates, and the head."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    trained = peft_model.peft_config["default"]
    ranks = {pair.name: pair.A.shape[0] for pair in pairs}
    if not ranks:
        raise IwloraError(
            "nothing is left of the adapter: all of its parts were found equally important and "
            "pruned, as without any gradient; another method.beta1 and beta2, a larger train.lr or "
            "more training may tell them apart"
        )
    alphas = {pair.name: pair.scaling * ranks[pair.name] for pair in pairs}
    highest = max(ranks, key=lambda name: ranks[name])
    uniform = len(set(ranks.values())) == 1
    config = LoraConfig(
        r=ranks[highest],
        lora_alpha=alphas[highest],  # type: ignore[arg-type]
        lora_dropout=trained.lora_dropout,
        rank_pattern={} if uniform else ranks,
        alpha_pattern={} if uniform else alphas,
        target_modules=list(ranks),
        modules_to_save=trained.modules_to_save,
        trainable_token_indices=trained.trainable_token_indices,
        task_type=trained.task_type,
        fan_in_fan_out=trained.fan_in_fan_out,
        base_model_name_or_path=trained.base_model_name_or_path,
        inference_mode=True,
    )
    tensors = {f"base_model.model.{pair.name}.lora_A.weight": pair.A for pair in pairs}
    tensors |= {f"base_model.model.{pair.name}.lora_B.weight": pair.B for pair in pairs}
    tensors |= head_state(peft_model)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    target = folder / layout.ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    save_file(on_cpu, target / PEFT_FORMAT[1], metadata={"format": "pt"})
    config.save_pretrained(str(target))


def save_declared(
    method: Method,
    model: Any,
    names: Sequence[str],
    sites: Sequence[Site],
    size: int | None,
    folder: Path,
) -> None:
    """Deprecated: :func:`save_parameters`, with the argument ``size`` of version 0.1.0."""
    warnings.warn(
        "save_declared(method, model, names, sites, size, folder) is deprecated; write "
        "save_parameters(method, model, names, sites, folder)",
        DeprecationWarning,
        stacklevel=2,
    )
    save_parameters(method if size is None else method.sized(size), model, names, sites, folder)
