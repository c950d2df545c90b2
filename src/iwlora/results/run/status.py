"""How a run stands that may have no result yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from iwlora.errors import IwloraError, is_of_system
from iwlora.results import layout
from iwlora.results.formats import Document


class Status(Document):
    """How a run stands: ``state`` is "running", "failed", "diverged" or "done"."""

    format_name: ClassVar[str] = "status"
    is_sealed: ClassVar[bool] = True

    state: str | None = None
    error: str | None = None

    def fields(self) -> dict[str, Any]:
        """Without an error where there is none."""
        return self.model_dump(exclude_none=True)


def state_of(folder: Path) -> str | None:
    """The state of the run in a folder; None if its file is missing or damaged.

    Raises ``IwloraError`` for one that cannot be read now.
    """
    try:
        return Status.load(folder / layout.STATUS).state
    except IwloraError as error:
        if is_of_system(error):
            raise
        return None


def describe_status(folder: Path) -> str:
    """How the run in a folder stands that has no result, for a message.

    Raises ``IwloraError`` for a damaged file.
    """
    path = folder / layout.STATUS
    if not path.exists():
        return "not started"
    status = Status.load(path)
    parts = (f"no {layout.RESULT}; state", status.state, status.error)
    return ": ".join(" ".join(part.split()) for part in parts if part)
