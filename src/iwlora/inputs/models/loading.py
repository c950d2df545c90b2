"""Models, their processors and adapters: what libraries open themselves.

The libraries are imported when they are used: what reads reports needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.models.hub import cached_folder, opening
from iwlora.inputs.models.size import check_size
from iwlora.inputs.places import check_folder
from iwlora.inputs.tensors import opening_errors

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase


def load_config(source: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model, in a folder or of a hub id; raises what transformers raises."""
    from transformers import AutoConfig

    with opening(source):
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

    Raises:
        IwloraError: its configuration describes a far larger model than its files hold.
    """
    with opening(source):
        if not trust_remote_code:  # which may do more than that
            config = arguments.get("config") or load_config(source)
            check_size(auto_class, source, config)
        loaded = auto_class.from_pretrained(
            source, trust_remote_code=trust_remote_code, **arguments
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.can_generate() and (generation := _generation_config(source)):
            model.generation_config = generation
    return loaded


def _generation_config(source: str | Path) -> GenerationConfig | None:
    """How texts are generated; None if no file says it.

    transformers takes a file that it cannot read for none, and defaults instead.
    """
    from transformers import GenerationConfig

    folder = Path(source) if Path(source).is_dir() else cached_folder(str(source))
    if folder is None or not (folder / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(folder)


def load_tokenizer(source: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id; raises what transformers raises."""
    from transformers import AutoTokenizer

    with opening(source):
        try:
            config = load_config(source, trust_remote_code)
        except (OSError, ValueError) as error:
            if is_of_system(error):  # transformers would choose another class of tokenizers
                raise
            config = None  # it is not there, or of a type that transformers does not know
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, config=config, trust_remote_code=trust_remote_code
        )
    return tokenizer


def load_image_processor(source: str | Path, trust_remote_code: bool = False) -> Any:
    """The image processor in a folder or of a hub id; raises what transformers raises.

    It computes with Pillow and NumPy, so that torchvision is not needed, and results do not depend
    on whether it is there.
    """
    # transformers offers it at its top only where torchvision is installed, up to version 5.12.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    with opening(source):
        return AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=trust_remote_code
        )


def adapter_configuration(source: str | Path) -> str | None:
    """The file of an adapter beside a model, which ``from_pretrained`` would load with it."""
    from transformers.utils.peft_utils import find_adapter_config_file

    with opening(source):
        found: str | None = find_adapter_config_file(str(source))
    return found


def load_peft_model(model: Any, folder: Path, config: Any) -> Any:
    """The model with an adapter of PEFT, whose configuration is ``config`` and not the folder's."""
    from peft import PeftModel

    check_folder(folder)
    with opening_errors():
        return PeftModel.from_pretrained(model, str(folder), config=config)


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
