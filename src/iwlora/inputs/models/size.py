"""Whether a model's configuration describes a model as large as its files with weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, short_repr
from iwlora.inputs.models.hub import cached_folder
from iwlora.inputs.places import inside
from iwlora.inputs.yaml_json import read_mapping

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The files that transformers loads weights from, or the parts that their indices list."""
_BYTES_A_STORED_BYTE = 8
"""In memory: a weight of one byte in the file has four, and a tied one is made twice."""
_BYTES_A_PACKED_BYTE = 32
"""Of a quantized model in memory: no format stores a weight in less than one bit."""
_MORE_BYTES = 2**28
"""What a model may have beyond its file: a new task head, tables of positions, masks."""
_BYTES_A_TENSOR = 2**14
"""What the Python objects around each tensor take at most: millions of empty layers fill memory."""


def check_size(auto_class: Any, source: str | Path, config: PretrainedConfig) -> None:
    """Refuse a configuration that asks for far more memory than the files with weights explain.

    transformers fills with random values what the files lack, and so would allocate all of it.
    """
    stored = _stored_bytes(source, config)
    if stored is None:
        return
    is_packed = getattr(config, "quantization_config", None) is not None
    with built_on_meta(source, stored, is_packed):
        auto_class.from_config(deepcopy(config))


@contextmanager
def built_on_meta(source: str | Path, stored: int, is_packed: bool = False) -> Iterator[None]:
    """A block that makes layers on the meta device, which has no memory, until they are too large.

    Args:
        source: The model.
        stored: The bytes of its files with weights.
        is_packed: Whether these are of a quantized model.

    Raises:
        IwloraError: its configuration describes a far larger model than its files hold.
    """
    import torch
    from torch.nn.modules import module

    limit = _MORE_BYTES + stored * (_BYTES_A_PACKED_BYTE if is_packed else _BYTES_A_STORED_BYTE)
    described = 0

    def count(_module: Any, _name: str, tensor: torch.Tensor | None) -> None:
        nonlocal described
        described += _BYTES_A_TENSOR + (0 if tensor is None else 4 * tensor.numel())
        if described > limit:
            raise IwloraError(
                f"the config.json of model={source} describes a model of {described / 1e6:,.0f} MB "
                f"or more, and its files with weights have {stored / 1e6:,.1f} MB; take a complete "
                "copy of the model, with the config.json that belongs to it"
            )

    hooks = (
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    )
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _stored_bytes(source: str | Path, config: PretrainedConfig) -> int | None:
    """The bytes of the files that the weights are loaded from; None if the hub has some of them.

    Raises ``IwloraError`` for a folder that lacks some of them.
    """
    is_folder = Path(source).is_dir()
    folder = Path(source) if is_folder else cached_folder(str(source))
    if folder is None:
        return None
    named = getattr(config, "transformers_weights", None)
    names = [str(named).removesuffix(".index.json")] if named else _WEIGHTS
    for name in names:
        file, index = inside(folder, name), inside(folder, f"{name}.index.json")
        if file.is_file():
            return file.stat().st_size
        if index.is_file():
            parts = {str(part): inside(folder, str(part)) for part in _parts(index)}
            lacking = sorted(part for part, file in parts.items() if not file.is_file())
            if lacking and is_folder:
                raise IwloraError(
                    f"{index} lists the file {short_repr(lacking[0])}, which is not in the folder; "
                    "take a complete copy of the model"
                )
            return None if lacking else sum(file.stat().st_size for file in parts.values())
    return None


def _parts(index: Path) -> set[Any]:
    """The names of the files that an index lists."""
    names = read_mapping(index).get("weight_map")
    return set(names.values()) if isinstance(names, dict) else set()
