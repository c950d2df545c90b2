"""Logits that are checked before they are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError


def finite_logits(values: Any) -> npt.NDArray[np.float64]:
    """Logits in float64; raises ``IwloraError`` where they are NaN or infinite."""
    logits = np.asarray(values, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise IwloraError("the logits are not finite: the model diverged; lower train.lr")
    return logits
