"""Models, their processors, adapters and data sets of the hub: what libraries open themselves.

A local folder is first checked for links out of it and for files that are none. The libraries are
imported when they are used: what reads reports needs none of them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from iwlora.errors import IwloraError, is_of_system, short_repr
from iwlora.inputs.places import check_folder, inside
from iwlora.inputs.tensors import opening_errors
from iwlora.inputs.yaml_json import read_mapping

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase


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


def load_config(source: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model, in a folder or of a hub id; raises what transformers raises."""
    from transformers import AutoConfig

    with _opening(source):
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
    with _opening(source):
        if not trust_remote_code:  # which may do more than that
            config = arguments.get("config") or load_config(source)
            _check_size(auto_class, source, config)
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

    with _opening(source):
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

    with _opening(source):
        return AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=trust_remote_code
        )


def adapter_configuration(source: str | Path) -> str | None:
    """The file of an adapter beside a model, which ``from_pretrained`` would load with it."""
    from transformers.utils.peft_utils import find_adapter_config_file

    with _opening(source):
        found: str | None = find_adapter_config_file(str(source))
    return found


def load_peft_model(model: Any, folder: Path, config: Any) -> Any:
    """The model with an adapter of PEFT, whose configuration is ``config`` and not the folder's."""
    from peft import PeftModel

    check_folder(folder)
    with opening_errors():
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

    with _hub(datasets.config):
        return datasets.load_dataset(hub_id, configuration)


@contextmanager
def _opening(source: str | Path) -> Iterator[None]:
    if Path(source).is_dir():
        check_folder(source)
        with opening_errors():
            yield
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise FileNotFoundError(
            f"there is no folder {source}, and models on the hub are called NAME or OWNER/NAME"
        )
    with _hub(), opening_errors():
        yield


@contextmanager
def _hub(*others: Any) -> Iterator[None]:
    """A block that asks the hub; where it cannot be found, only its cache is asked.

    Without a network the libraries would look for it again and again, for half a minute.

    Args:
        others: Modules that have a switch of their own beside that of huggingface_hub.
    """
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    known = constants.HF_HUB_OFFLINE or getproxies().get("https") or _has_address(host)
    before = [(switch, switch.HF_HUB_OFFLINE) for switch in (constants, *others)]
    for switch, offline in before:
        switch.HF_HUB_OFFLINE = offline or not known
    try:
        yield
    finally:
        for switch, offline in before:
            switch.HF_HUB_OFFLINE = offline


def _has_address(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


def _check_size(auto_class: Any, source: str | Path, config: PretrainedConfig) -> None:
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
