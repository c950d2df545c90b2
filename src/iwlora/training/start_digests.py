"""What two runs must share for their difference to be the method's: data, their order, the head."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from iwlora.methods.contract import Attached
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.model.sharding import full_parameters

_ROWS_READ = 1000


def data_digest(rows: Any, order: EpochSampler, epochs: float) -> str:
    """A hash of the encoded training rows and of the order in which all epochs read them.

    Of the rows it takes the length of each and the token ids of the first thousand.
    """
    first = rows[: min(_ROWS_READ, len(rows))]["input_ids"]
    epochs_rows = map(order.epoch_rows, range(math.ceil(epochs)))
    values = chain([rows["length"][:]], first, epochs_rows)
    return _hash(np.asarray(numbers, dtype=np.int64) for numbers in values)


def head_digest(attached: Attached) -> str | None:
    """A hash of the initial values of the new task head; None for a model without one."""
    initial = full_parameters(attached.model, attached.head).values()
    return _hash(tensor.float().numpy() for tensor in initial) if attached.head else None


def _hash(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
