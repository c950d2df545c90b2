"""What happens in a run or a comparison, one line for each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Event(str):
    """A line for people, which also has a name and the fields that a log in JSON gets.

    >>> event = Event("checkpoint", "checkpoint of step 20", step=20)
    >>> event.name, event.fields, event.upper()
    ('checkpoint', {'step': 20}, 'CHECKPOINT OF STEP 20')
    """

    name: str
    fields: dict[str, Any]

    def __new__(cls, name: str, text: str, **fields: Any) -> Event:
        """An event with its text."""
        event = super().__new__(cls, text)
        event.name, event.fields = name, fields
        return event


Report = Callable[[Event], None]
"""What gets the events."""


def ignore(event: Event) -> None:
    """Report nothing."""
