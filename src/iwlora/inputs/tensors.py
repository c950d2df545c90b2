"""Tensors in safetensors files, and arrays in those of NumPy.

safetensors checks the header before it reads a tensor: its length (at most 100 MB), its JSON, the
types, and that the tensors lie in the file, one behind the other.
"""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open

from iwlora.errors import IwloraError, is_of_system, is_out_of_memory
from iwlora.inputs.limits import check_growth
from iwlora.inputs.places import open_file, reading_errors

_MISSING = "No such file or directory: "
_OF_TORCH = re.compile(r"unable to .*<(?P<path>.+)>.*: (?P<reason>.+) \((?P<number>\d+)\)")


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


def load_numpy_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """{name: array} of a ``.npz`` file; ``IwloraError`` for any other, and for pickled objects."""
    with open_file(path) as stream, reading_errors(path):
        try:
            with np.load(stream, allow_pickle=False) as archive:
                unfolded = sum(entry.file_size for entry in archive.zip.infolist())
                check_growth(str(path), unfolded, os.fstat(stream.fileno()).st_size)
                return {name: archive[name] for name in archive.files}
        except (ValueError, EOFError, AttributeError, zlib.error, BadZipFile) as error:
            raise IwloraError(f"{path} is damaged, or no .npz file: {error}") from error


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
        with opening_errors():
            yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise IwloraError(f"cannot read {path}: {error}") from error
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, OSError) and is_of_system(error):
            raise IwloraError(f"cannot read {path}: {error.strerror}") from error
        raise IwloraError(f"{path} is damaged: {error}") from error


@contextmanager
def opening_errors() -> Iterator[None]:
    """Raise ``OSError`` where a library could not open a file with tensors.

    Otherwise it would seem that the file is missing or damaged: safetensors says that there is no
    such file, whatever the reason, and torch, which maps it, raises ``RuntimeError``.
    """
    try:
        yield
    except RuntimeError as error:
        found = _OF_TORCH.search(str(error))
        if found is None:
            raise
        raise OSError(int(found["number"]), found["reason"], found["path"]) from error
    except FileNotFoundError as error:
        path = str(error).removeprefix(_MISSING).strip('"')  # old versions quote it
        if error.errno is not None or not os.path.exists(path):
            raise
        open_file(path).close()  # it may have the reason
        raise OSError(errno.EAGAIN, "it could not be opened", path) from error
