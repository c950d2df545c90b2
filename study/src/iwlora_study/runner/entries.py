"""Reads the lists of the study, whose entries are checked."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import read_yaml

Entry = TypeVar("Entry", bound=BaseModel)


def load_entries(path: Path, entry: type[Entry]) -> list[Entry]:
    """The entries of a list in a YAML file, in its order.

    Raises:
        IwloraError: An entry is not accepted.
    """
    try:
        return [entry.model_validate(values) for values in read_yaml(path)]
    except (ValidationError, TypeError) as error:
        raise IwloraError(f"{path}: {error}") from None
