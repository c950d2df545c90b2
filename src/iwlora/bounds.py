"""The numbers that settings accept: within bounds that every library below can compute with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_COUNT = 2**31 - 1
"""Of rows, tokens, steps or units: more than a memory holds, and fewer than integers do."""

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False)]
