"""The routes by which a penalty reaches the parameters; ``iwlora.Penalty`` explains them."""

from __future__ import annotations

from typing import Final

ROUTES = ("loss", "gradient", "decoupled")
DEFAULT_ROUTE: Final = "gradient"  # works in any training loop and any Trainer
