"""Reading a saved adapter back, and merging one into its backbone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from iwlora.errors import IwloraError, short_repr, unknown
from iwlora.head import add_to_head, head_buffers
from iwlora.inputs.models.loading import load_peft_model, loading_errors
from iwlora.inputs.places import check_folder
from iwlora.inputs.tensors import load_tensors
from iwlora.inputs.yaml_json import read_mapping, validation_errors
from iwlora.methods import METHODS, Method
from iwlora.methods.peft_config import checked_settings, peft_config
from iwlora.methods.peft_models import patterns_of_parameters
from iwlora.methods.saving import OWN_FORMAT, PEFT_FORMAT, adapter_files, saved_name
from iwlora.sites import sites as find_sites

# What PEFT's warning says about tensors of the model that the file does not have.
_MISSING = "missing adapter keys"


class _Record(BaseModel):
    """``iwlora_adapter.json``: how to attach the method again."""

    model_config = ConfigDict(strict=True, extra="ignore")

    method: dict[str, Any]
    size: int | None  # which a budget had set in version 0.1.0
    sites: list[str]
    head: dict[Literal["pretrained", "new"], list[str]] = {}  # version 0.1.0 did not write it

    @classmethod
    def read(cls, file: Path) -> _Record:
        """The record in a file; raises ``IwloraError`` for another content."""
        with validation_errors(file):
            return cls.model_validate(read_mapping(file))

    def saved_method(self) -> Method:
        """The method with its size; raises ``IwloraError`` if it is not installed."""
        options = dict(self.method)
        name = options.pop("name", None)
        if not isinstance(name, str) or name not in METHODS:
            raise unknown("method", str(name), METHODS)
        with validation_errors(f"the method of {OWN_FORMAT[0]}"):
            method = METHODS[name](**options)
        return method if self.size is None else method.sized(self.size)


def load_adapter(model: Any, folder: str | Path) -> nn.Module:
    """Put a saved adapter on its freshly loaded backbone, in place.

    Args:
        model: the backbone with a task head, as transformers loads it.
        folder: the folder that a run saved or that ``iwlora export`` wrote. PEFT's own adapters
            load as PEFT loads them.

    Returns:
        The model with the adapter.

    Raises:
        IwloraError: the folder has no adapter, a damaged one or a link that leads out of it, the
            adapter belongs to another model, or its method is not installed.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> from iwlora.training.model.backbone import resolve_model_path
        >>> backbone = AutoModelForSequenceClassification.from_pretrained(
        ...     resolve_model_path("builtin/minilm"), num_labels=2)
        >>> type(load_adapter(backbone, "runs/a/adapter")).__name__
        'PeftModelForSequenceClassification'
    """
    saved = Path(folder)
    check_folder(saved)
    config, _ = adapter_files(saved)
    if not (saved / config).is_file():
        raise IwloraError(
            f"{folder} has no adapter: neither {PEFT_FORMAT[0]} nor {OWN_FORMAT[0]} is in it"
        )
    if config == OWN_FORMAT[0]:
        return _load_parameters(model, saved)
    if not any((saved / name).is_file() for name in (PEFT_FORMAT[1], "adapter_model.bin")):
        # PEFT would take the folder for the name of a repository, and ask the hub.
        raise IwloraError(f"{folder} has no adapter: {PEFT_FORMAT[1]} is not in it")
    with patterns_of_parameters():
        return _load_peft_adapter(model, saved)


def check_settings(folder: Path, method: Method) -> None:
    """Raise ``IwloraError`` for an adapter that a run of this method does not save.

    It names the field and the value.
    """
    name = adapter_files(folder)[0]
    if name == PEFT_FORMAT[0]:
        checked_settings(folder / name, method.adapter_settings())
        return
    given = _Record.read(folder / name).saved_method()
    given = given.model_copy(
        update={field: getattr(method, field) for field in type(method).resolved_fields}
    )
    if (type(given), given.model_dump()) != (type(method), method.model_dump()):
        raise IwloraError(
            f"{folder / name}: method={short_repr(given)} was given, and the recipe of the run "
            f"determines {short_repr(method)}"
        )


def why_unmergeable(folder: Path, method: Method) -> str | None:
    """Why the trained model of a run cannot be merged; None if it can.

    Args:
        folder: what the run saved, which knows the parts of a random design.
        method: the method of its recipe.
    """
    name = adapter_files(folder)[0]
    saved = _Record.read(folder / name).saved_method() if name == OWN_FORMAT[0] else method
    return saved.unmergeable


def merge_adapter(model: nn.Module) -> nn.Module:
    """A plain model that computes the same, for every method that is not ``unmergeable``."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return _merge_inserted(model)
    tied = getattr(model.get_base_model().config, "tie_word_embeddings", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")
        plain: Any = model.merge_and_unload()
    if tied and _output_embeddings_are_tied(plain):
        # PEFT looks for them at the input of the encoder; T5Gemma ties them to the decoder's.
        plain.config.tie_word_embeddings = tied
    return plain  # type: ignore[no-any-return]


def _merge_inserted(model: nn.Module) -> nn.Module:
    """Merge PEFT's layers in a model that PEFT has not wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    inserted = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in inserted:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    return model


def _output_embeddings_are_tied(model: Any) -> bool:
    weight = getattr(model.get_output_embeddings(), "weight", None)
    named = model.named_parameters(remove_duplicate=False)
    return sum(parameter is weight for _, parameter in named) > 1


def _load_peft_adapter(model: Any, saved: Path) -> nn.Module:
    """As PEFT loads it, and all of it.

    PEFT gets a checked configuration and does not read the file. It renames tensors for adapters
    of older versions of transformers. For some types, such as Laguna, it renames those of current
    ones too; it warns, and leaves the adapter as it begins.
    """
    from peft import get_peft_model_state_dict

    settings = checked_settings(saved / PEFT_FORMAT[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with loading_errors(lambda reason, _: f"cannot load the adapter in {saved}: {reason}"):
            peft_model: Any = load_peft_model(model, saved, peft_config(settings))
    missing = [str(warning.message) for warning in caught if _MISSING in str(warning.message)]
    for warning in caught:
        if _MISSING not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if missing:
        tensors = load_tensors(saved / PEFT_FORMAT[1])
        loaded = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
        if loaded.keys() != tensors.keys():
            raise IwloraError(
                f"the adapter in {saved} does not fit its model: {short_repr(missing[0])}"
            )
        for name, value in loaded.items():
            value.copy_(tensors[name])
    return peft_model  # type: ignore[no-any-return]


def _load_parameters(model: Any, saved: Path) -> nn.Module:
    record = _Record.read(saved / OWN_FORMAT[0])
    method = record.saved_method()
    for origin, modules in record.head.items():
        add_to_head(model, modules, pretrained=origin == "pretrained")
    attached = method.attach(model, find_sites(model, record.sites), seed=0)
    tensors = load_tensors(saved / OWN_FORMAT[1])
    state: dict[str, Tensor] = {
        saved_name(name): attached.model.get_parameter(name) for name in attached.trainable
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
