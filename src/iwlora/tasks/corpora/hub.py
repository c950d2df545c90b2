"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.errors import IwloraError


def load_from_hub(name: str, hub_id: str, config: str | None, layout: str) -> Mapping[str, Any]:
    """The splits of a data set on the hub, or in its local cache.

    Raises ``IwloraError`` that names ``layout``, the official files to use instead.
    """
    import datasets

    try:
        splits: Mapping[str, Any] = (
            datasets.load_dataset(hub_id, config) if config else datasets.load_dataset(hub_id)
        )
    except (OSError, ValueError) as error:
        raise IwloraError(
            f"{name} could not be fetched from the hub ({error}): give task.data_dir=FOLDER, "
            f"a folder that holds {layout}"
        ) from error
    return splits


def check_class_order(name: str, split: Any, expected: Sequence[str]) -> None:
    """Raise ``IwloraError`` where the hub's class ids do not follow the order ``expected``."""
    classes = tuple(split.features["label"].names)
    if classes != tuple(expected):
        raise IwloraError(
            f"{name}: the hub numbers the classes as {classes}, {tuple(expected)} was expected; "
            "give task.data_dir=FOLDER instead"
        )
