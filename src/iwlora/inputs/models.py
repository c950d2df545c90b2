"""Models, tokenizers, adapters and data sets of the hub: what their libraries open themselves.

A local folder is first checked for links out of it and for files that are none. The libraries are
imported when they are used: what reads reports needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
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


@contextmanager
def loading_errors(describe: Callable[[str, Exception], str]) -> Iterator[None]:
    """Raise ``IwloraError`` for any error in the block: a broken file gives nearly any.

    Inside, transformers refuses code that nobody decided about, instead of asking on the terminal.

    Args:
        describe: the message for a reason in one line, and for the error that has it.
    """
    from transformers import dynamic_module_utils

    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # what its question waits; 0: it is not asked
    try:
        yield
    except IwloraError:
        raise
    except Exception as error:
        raise IwloraError(describe(_short_reason(error), error)) from error
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds


def _short_reason(error: Exception) -> str:
    """Why a library could not load something, in one line."""
    if isinstance(error, UnpicklingError):  # its own text advises to load the file nevertheless
        return "a file in it contains pickled objects other than tensors, which are never loaded"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
