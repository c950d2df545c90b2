"""Models that are trained on this machine when a run first names them, and then kept."""

from __future__ import annotations

from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.results.file_digests import user_cache

KEPT = {"builtin/stroke-codes": "stroke-codes-1"}
"""{name: its folder in the cache}; the number changes with what the model is trained on, or how."""


def kept_folder(name: str) -> Path:
    """Where a model of ``KEPT`` is, or will be: in ``iwlora/models`` in the user's cache folder."""
    return user_cache() / "models" / KEPT[name]


def is_kept(name: str) -> bool:
    """Whether it has been trained; the folder appears as a whole."""
    return (kept_folder(name) / "config.json").is_file()


def kept_model(name: str) -> Path:
    """The folder of a model of ``KEPT``.

    Raises:
        IwloraError: It has not been trained yet.
    """
    if not is_kept(name):
        raise IwloraError(
            f"model={name} is trained when a run or a comparison first names it, in a few minutes, "
            "and is not there yet; 'iwlora train recipes/images/transfer.yaml' trains it"
        )
    return kept_folder(name)
