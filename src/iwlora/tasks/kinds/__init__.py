"""The kinds of tasks: one file and one row each."""

from __future__ import annotations

from collections.abc import Mapping

from iwlora.tasks.kinds.base import Kind
from iwlora.tasks.kinds.classification import Classification

__all__ = ["KINDS", "Kind"]

KINDS: Mapping[str, type[Kind]] = {
    Classification.name: Classification,
}
