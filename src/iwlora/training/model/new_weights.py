"""Weights that a pretrained file lacks: they start at random values and belong to the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from iwlora.errors import IwloraError
from iwlora.head import add_to_head, head_modules, in_modules, new_modules
from iwlora.sites import sites
from iwlora.training.model.vocabulary import token_embeddings


def check_weights(model: str, loaded: PreTrainedModel, loading_info: Mapping[str, Any]) -> None:
    """Refuse a file whose weights cannot be used, and declare the weights that it lacks.

    transformers draws weights that it does not have at random. In the task head that is right.
    Elsewhere, as in the pooler of a BERT that was trained as a language model, they would differ
    in every process that loads the model. So every method must train and save them.

    Args:
        model: the name of the model, for messages.
        loaded: the model, on any device; :func:`iwlora.head.add_to_head` declares its new modules.
        loading_info: what ``from_pretrained`` returns about missing and mismatched weights.

    Raises:
        IwloraError: weights are NaN, infinite or of another shape; weights are missing without
            which the model is useless, or that no adapter can save alone.
    """
    for name, parameter in loaded.named_parameters():
        bad = 0 if parameter.is_meta else int((~parameter.isfinite()).sum())
        if bad:
            raise IwloraError(
                f"model={model}: {bad} of {parameter.numel()} values of its {name} are NaN or "
                "infinite; take another copy of the model"
            )
    missing = _missing(loaded, loading_info)
    essential = _essential_names(loaded)
    mismatched = [key for key, *_ in loading_info["mismatched_keys"]]
    reshaped = [key for key in mismatched if not in_modules(key, head_modules(loaded))]
    useless = [key for key in missing if {key, key.rpartition(".")[0]} & essential]
    if reshaped or useless:
        example = min(reshaped or useless)
        raise IwloraError(
            f"the weights of model={model} do not belong to its config.json: "
            f"{len(reshaped)} have another shape, {len(useless)} are missing, such as {example}"
        )
    new = [key for key in missing if not in_modules(key, head_modules(loaded))]
    for key in new:
        path = key.rpartition(".")[0]
        if any(True for child in loaded.get_submodule(path).children() for _ in child.parameters()):
            raise IwloraError(
                f"model={model} has no weights for {key}, and no adapter can save them alone, "
                f"because {path or 'the model'} also contains pretrained modules; take a complete "
                "copy of the model"
            )
    add_to_head(loaded, dict.fromkeys(key.rpartition(".")[0] for key in new))


def new_weights_notes(model: str, loaded: PreTrainedModel) -> tuple[str, ...]:
    """A sentence that names the modules outside the task head that start at random values.

    Args:
        model: the name of the model.
        loaded: the model, before a method is attached to it.
    """
    modules = new_modules(loaded)
    if not modules:
        return ()
    count = sum(p.numel() for path in modules for p in loaded.get_submodule(path).parameters())
    return (
        f"model={model} has no weights for {', '.join(modules)} ({count:,} parameters): they start "
        "at random values, and are trained and saved with the task head",
    )


def _missing(loaded: PreTrainedModel, loading_info: Mapping[str, Any]) -> list[str]:
    """Parameters and buffers that are not in the file, in the order of the model.

    Not among them are weights that are tied to one in the file, and buffers of one value, such as
    counters, which are the same whenever the model is loaded.
    """
    parameters = dict(loaded.named_parameters(remove_duplicate=False))
    buffers = {
        name: buffer
        for name, buffer in loaded.named_buffers()
        if not buffer.is_meta and (buffer != buffer.flatten()[:1]).any()
    }
    missing = set(loading_info["missing_keys"])
    pretrained = {id(value) for name, value in parameters.items() if name not in missing}
    return [
        name
        for name, value in (parameters | buffers).items()
        if name in missing and id(value) not in pretrained
    ]


def _essential_names(loaded: PreTrainedModel) -> set[str]:
    """Modules, and parameters of experts, that must be pretrained: random, a model is useless."""
    embeddings = [
        token_embeddings(loaded),
        # A language model without the layer from its states to tokens would generate at random.
        loaded.get_output_embeddings(),
    ]
    names = {name for name, module in loaded.named_modules() if module in embeddings}
    return names | {site.name for site in sites(loaded)}
