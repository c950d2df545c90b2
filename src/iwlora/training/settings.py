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


_SCALARS = {  # tag: (what a plain scalar of this type looks like, its first characters)
    "null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    "bool": (r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    "int": (r"[-+]?(0|[1-9]\d*)", tuple("-+0123456789")),
    "float": (
        r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        tuple("-+0123456789."),
    ),
}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Only double quotes keep the line breaks of Unicode apart from "\n".
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)

_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
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


def to_yaml(value: Any) -> str:
    """Plain values as a YAML text that :func:`parse_yaml` reads back as they were.

    >>> print(to_yaml({"lr": 2e-4, "label": "2e-4"}), end="")
    lr: 0.0002
    label: '2e-4'
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def override(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` with dots in the key and YAML in the value.

    A part given as plain text is the short form of its ``name``, which stays.

    >>> override({"train": {"lr": 0.1}}, ["train.lr=2e-4", "task.name=glue/rte"])
    {'train': {'lr': 0.0002}, 'task': {'name': 'glue/rte'}}
    >>> override({"task": "glue/rte"}, ["task.max_train=100"])
    {'task': {'name': 'glue/rte', 'max_train': 100}}
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
            inner = place.get(part)
            if not isinstance(inner, dict):
                place[part] = {"name": inner} if isinstance(inner, str) else {}
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
    given = f"{name}={problem['input']!r}"
    return message if message.startswith(given) else f"{given}: {message[0].lower()}{message[1:]}"


def _copy(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }
