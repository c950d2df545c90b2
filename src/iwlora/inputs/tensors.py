"""Tensors in safetensors files.

safetensors checks the header before it reads a tensor: its length (at most 100 MB), its JSON, the
types, and that the tensors lie in the file, one behind the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from iwlora.errors import IwloraError, is_out_of_memory
from iwlora.inputs.places import open_file


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """{name: tensor} of a safetensors file, on the CPU; ``IwloraError`` for any other file."""
    from safetensors.torch import load_file

    with _open_checked(path):
        return load_file(path)


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """{name: array} of a safetensors file, without torch; ``IwloraError`` for any other file."""
    from safetensors.numpy import load_file

    with _open_checked(path):
        return load_file(path)


def tensor_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of the tensors in a safetensors file; ``IwloraError`` for any other file."""
    with _open_checked(path), safe_open(path, framework="np") as file:
        return list(file.keys())


def tensor_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that were stored with tensors; ``IwloraError`` for any other file."""
    with _open_checked(path), safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


@contextmanager
def _open_checked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise ``IwloraError`` for whatever is wrong with the file that is read in the block."""
    open_file(path).close()
    try:
        yield
    except RuntimeError as error:  # of the system, while torch maps the file
        if is_out_of_memory(error):
            raise
        raise IwloraError(f"cannot read {path}: {error}") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise IwloraError(f"{path} is damaged: {error}") from error
