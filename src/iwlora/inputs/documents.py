"""Mappings in JSON and YAML files: read, and checked against a schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json, parse_yaml

Schema = TypeVar("Schema", bound=BaseModel)


def read_utf8(path: str | os.PathLike[str]) -> str:
    """The text of a file. Raises ``IwloraError`` if it cannot be read or is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise IwloraError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IwloraError(f"cannot read {path} ({error})") from None


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a JSON file, or in a YAML file if its name ends in ``.yaml`` or ``.yml``.

    Raises ``IwloraError`` for a file that cannot be read, is damaged, or holds something else.
    """
    text = read_utf8(path)
    if Path(path).suffix in (".yaml", ".yml"):
        return _mapping(parse_yaml(text, str(path)), path)
    return parse_mapping(text, path)


def parse_mapping(text: str, origin: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a JSON text holds; ``origin`` names it in the ``IwloraError`` for any other.

    >>> parse_mapping('{"step": 3}', "metrics.jsonl, line 1")
    {'step': 3}
    """
    try:
        value = from_json(text)
    except ValueError as error:
        raise IwloraError(f"{origin} is damaged or was cut short ({error})") from None
    return _mapping(value, origin)


def _mapping(value: Any, origin: str | os.PathLike[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise IwloraError(
            f"{origin} holds a {type(value).__name__}; it must hold fields with names"
        )
    return value


def check_against(
    schema: type[Schema], fields: dict[str, Any], origin: str | os.PathLike[str]
) -> Schema:
    """The fields as an instance of the schema; raises ``IwloraError`` with every wrong field."""
    try:
        return schema.model_validate(fields)
    except ValidationError as invalid:
        problems = (
            f"{origin}: {'.'.join(map(str, error['loc'])) or 'fields'}: {error['msg']}"
            + ("" if error["type"] == "missing" else f" (given: {error['input']!r:.80})")
            for error in invalid.errors()
        )
        raise IwloraError("\n".join(problems)) from None
