"""Reading YAML settings and ``key=value`` overrides, and telling all their errors at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from iwlora.errors import IwloraError

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: ``2e-4`` is a number, ``no`` and ``on`` are words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"given twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|false", re.IGNORECASE), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
    list("-+0123456789."),
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ``IwloraError`` for anything else."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise IwloraError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IwloraError(f"cannot read {path}: {error}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise IwloraError(f"{path} holds no recipe: expected lines like 'model: builtin/minilm'")
    return value


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text; ``origin`` names it in the error.

    >>> parse_yaml("{lr: 2e-4, label: no}", "an example")
    {'lr': 0.0002, 'label': 'no'}
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise IwloraError(f"{origin} is not valid YAML: {told}") from None


def override(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` with dots in the key and YAML in the value.

    >>> override({"train": {"lr": 0.1}}, ["train.lr=2e-4", "task.name=glue/rte"])
    {'train': {'lr': 0.0002}, 'task': {'name': 'glue/rte'}}
    """
    result = _copy(settings)
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = key.split(".")
        if not equals or not all(path):
            problems.append(f"{assignment!r} is not of the form key=value, such as train.lr=2e-4")
            continue
        place = result
        for part in path[:-1]:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[path[-1]] = parse_yaml(text, assignment)
    if problems:
        raise IwloraError("\n".join(problems))
    return result


def validate(model: type[Model], values: Any, prefix: str = "") -> tuple[Model | None, list[str]]:
    """(the checked model, []) or (None, every problem in a sentence with its dotted field)."""
    if not isinstance(values, Mapping):
        return None, [f"{prefix}={values!r}: accepted is a mapping with the fields of {prefix}"]
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        return None, [_told(model, problem, prefix) for problem in error.errors()]


def _told(model: type[BaseModel], problem: Any, prefix: str) -> str:
    parts = [str(part) for part in problem["loc"]]
    name = ".".join([prefix, *parts] if prefix else parts)
    if problem["type"] == "extra_forbidden":
        fields = list(model.model_fields)
        near = difflib.get_close_matches(parts[-1], fields, n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        return f"{name}: unknown field{hint} (accepted: {', '.join(fields) or 'none'})"
    if problem["type"] == "missing":
        return f"{name}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not parts:  # a rule over several fields, which names them itself
        return str(message) if not prefix or prefix in message else f"{prefix}: {message}"
    return f"{name}={problem['input']!r}: {message[0].lower()}{message[1:]}"


def _copy(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }
