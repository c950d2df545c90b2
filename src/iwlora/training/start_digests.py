"""What two runs must share for their difference to be the method's: data, their order, the head."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
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
    digest = hashlib.sha256()
    first = rows[: min(_ROWS_READ, len(rows))]["input_ids"]
    for values in (rows["length"][:], *first):
        digest.update(np.asarray(values, dtype=np.int64).tobytes())
    for epoch in range(math.ceil(epochs)):
        order.set_epoch(epoch)
        digest.update(np.fromiter(order, dtype=np.int64).tobytes())
    order.set_epoch(0)
    return digest.hexdigest()[:16]


def head_digest(attached: Attached) -> str | None:
    """A hash of the initial values of the new task head; None for a model without one."""
    return _hash(attached.model, attached.head) if attached.head else None


def _hash(model: Any, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for tensor in full_parameters(model, names).values():
        digest.update(tensor.float().numpy().tobytes())
    return digest.hexdigest()[:16]
