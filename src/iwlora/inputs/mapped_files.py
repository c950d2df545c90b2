"""The bytes of a large file without a copy in memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.inputs.places import open_file, reading_errors


def mapped_bytes(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """The bytes of a file, mapped into memory as long as the array lives.

    Only the parts that are looked at are read from the disk. A file that is extended later does
    not extend the array. Raises ``IwloraError`` as :func:`iwlora.inputs.places.open_file`.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"abc"), file.flush()
    ...     bytes(mapped_bytes(file.name)[1:])
    b'bc'
    """
    with open_file(path) as stream, reading_errors(path):
        if os.fstat(stream.fileno()).st_size == 0:  # which no system maps
            return np.empty(0, np.uint8)
        mapped: Any = np.memmap(stream, np.uint8, "r")
        return mapped.view(np.ndarray)  # type: ignore[no-any-return]
