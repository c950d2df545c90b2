"""Reading what runs leave behind: a damaged file is named, never guessed at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import from_json

Schema = TypeVar("Schema", bound=BaseModel)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IwloraError(f"cannot read {path} ({error})") from None


def fields(where: str | Path, text: str, parse: Callable[[str], Any] = from_json) -> dict[str, Any]:
    try:
        fields = parse(text)
    except ValueError as error:
        raise IwloraError(f"{where} is damaged or was cut short ({error})") from None
    if not isinstance(fields, dict):
        raise IwloraError(f"{where} holds a {type(fields).__name__}, not fields with names")
    return fields


def validated(path: Path, found: dict[str, Any], schema: type[Schema]) -> Schema:
    try:
        return schema.model_validate(found)
    except ValidationError as invalid:
        problems = (
            f"{path}: {'.'.join(map(str, error['loc'])) or 'fields'}: {error['msg']}"
            + ("" if error["type"] == "missing" else f" (given: {error['input']!r:.80})")
            for error in invalid.errors()
        )
        raise IwloraError("\n".join(problems)) from None


def status(folder: Path) -> str:
    path = folder / "status.json"
    if not path.exists():
        return "not started"
    stored = fields(path, read_text(path))
    words = ("no result.json; state", stored.get("state"), stored.get("error"))
    return ": ".join(" ".join(str(word).split()) for word in words if word)
