"""Reading a saved adapter back, and merging one into its backbone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError, short_repr, unknown
from iwlora.head import add_to_head, head_buffers
from iwlora.inputs.yaml_json import from_json
from iwlora.methods import METHODS
from iwlora.methods.peft_models import patterns_of_parameters
from iwlora.methods.saving import OWN_FORMAT, PEFT_FORMAT, adapter_files
from iwlora.sites import sites as find_sites

# What PEFT's warning says about tensors of the model that the file does not have.
_MISSING = "missing adapter keys"


def load_adapter(model: Any, folder: str | Path) -> nn.Module:
    """Put a saved adapter on its freshly loaded backbone, in place.

    Args:
        model: the backbone with a task head, as transformers loads it.
        folder: the folder that a run saved or that ``iwlora export`` wrote. PEFT's own adapters
            load as PEFT loads them.

    Returns:
        The model with the adapter.

    Raises:
        IwloraError: the folder has no adapter, the adapter belongs to another model, or its
            method is not installed.

    Example:
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
        raise IwloraError(
            f"{folder} has no adapter: neither {PEFT_FORMAT[0]} nor {OWN_FORMAT[0]} is in it"
        )
    if config == OWN_FORMAT[0]:
        return _load_parameters(model, saved)
    with patterns_of_parameters():
        return _load_peft_adapter(model, saved)


def merge_adapter(model: nn.Module) -> nn.Module:
    """A plain model that computes the same, for every method that is not ``unmergeable``."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    tied = getattr(model.get_base_model().config, "tie_word_embeddings", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")
        plain: Any = model.merge_and_unload()
    if tied and _output_embeddings_are_tied(plain):
        # PEFT looks for them at the input of the encoder; T5Gemma ties them to the decoder's.
        plain.config.tie_word_embeddings = tied
    return plain  # type: ignore[no-any-return]


def _output_embeddings_are_tied(model: Any) -> bool:
    weight = getattr(model.get_output_embeddings(), "weight", None)
    named = model.named_parameters(remove_duplicate=False)
    return sum(parameter is weight for _, parameter in named) > 1


def _load_peft_adapter(model: Any, saved: Path) -> nn.Module:
    """As PEFT loads it, and all of it.

    PEFT renames tensors for adapters of older versions of transformers. For some types, such as
    Laguna, it renames those of current ones too; it warns, and leaves the adapter as it begins.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peft_model: Any = PeftModel.from_pretrained(model, str(saved))
    missing = [str(warning.message) for warning in caught if _MISSING in str(warning.message)]
    for warning in caught:
        if _MISSING not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing:
        tensors = load_file(saved / PEFT_FORMAT[1])
        loaded = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
        if loaded.keys() != tensors.keys():
            raise IwloraError(
                f"the adapter in {saved} does not fit its model: {short_repr(missing[0])}"
            )
        for name, value in loaded.items():
            value.copy_(tensors[name])
    return peft_model  # type: ignore[no-any-return]


def _load_parameters(model: Any, saved: Path) -> nn.Module:
    from safetensors.torch import load_file

    record = from_json((saved / OWN_FORMAT[0]).read_text(encoding="utf-8"))
    options = dict(record["method"])
    name = options.pop("name")
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    method = METHODS[name](**options)
    if record["size"] is not None:  # which a budget had set in version 0.1.0
        method = method.sized(record["size"])
    for origin, modules in record.get("head", {}).items():  # version 0.1.0 did not write it
        add_to_head(model, modules, pretrained=origin == "pretrained")
    attached = method.attach(model, find_sites(model, record["sites"]), seed=0)
    tensors = load_file(saved / OWN_FORMAT[1])
    state: dict[str, Tensor] = {
        name: attached.model.get_parameter(name) for name in attached.trainable
    }
    state |= head_buffers(attached.model)
    misfits = set(tensors) ^ set(state)
    misfits |= {name for name in set(tensors) - misfits if tensors[name].shape != state[name].shape}
    if misfits:
        raise IwloraError(
            f"the adapter in {saved} belongs to another model: {len(misfits)} of its parameters do "
            f"not fit, such as {min(misfits)}"
        )
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(tensors[name])
    return attached.model
