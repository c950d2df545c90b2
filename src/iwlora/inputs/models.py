"""Models, tokenizers, adapters and data sets of the hub: what their libraries open themselves.

A local folder is first checked for links out of it and for files that are none. The libraries are
imported when they are used: what reads reports needs none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.inputs.places import check_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def load_config(source: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model, in a folder or of a hub id; raises what transformers raises."""
    from transformers import AutoConfig

    _check(source)
    config: PretrainedConfig = AutoConfig.from_pretrained(
        source, trust_remote_code=trust_remote_code
    )
    return config


def load_model(
    auto_class: Any, source: str | Path, trust_remote_code: bool = False, **arguments: Any
) -> Any:
    """A model, and what else the arguments of ``from_pretrained`` ask for.

    Args:
        auto_class: Such as ``AutoModelForSequenceClassification``.
        source: A folder or a hub id.
        trust_remote_code: Whether its code may run.
        arguments: More of ``from_pretrained``.
    """
    _check(source)
    return auto_class.from_pretrained(source, trust_remote_code=trust_remote_code, **arguments)


def load_tokenizer(source: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id; raises what transformers raises."""
    from transformers import AutoTokenizer

    _check(source)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        source, trust_remote_code=trust_remote_code
    )
    return tokenizer


def load_peft_model(model: Any, folder: Path, config: Any) -> Any:
    """The model with an adapter of PEFT, whose configuration is ``config`` and not the folder's."""
    from peft import PeftModel

    check_folder(folder)
    return PeftModel.from_pretrained(model, str(folder), config=config)


def cached_folder(hub_id: str) -> Path | None:
    """The folder of the hub's cache with a model; None if it is not on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:  # the name of a folder
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def load_hub_dataset(hub_id: str | None, configuration: str | None) -> Any:
    """The splits of a data set on the hub, or in its local cache; raises what datasets raises."""
    import datasets

    return datasets.load_dataset(hub_id, configuration)


def _check(source: str | Path) -> None:
    if Path(source).is_dir():
        check_folder(source)
