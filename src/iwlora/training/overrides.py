"""Settings from YAML files and ``key=value`` overrides, with all their errors reported at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from iwlora.errors import IwloraError, short_repr
from iwlora.inputs import yaml_json

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ``IwloraError`` for anything else."""
    if is_assignment(str(path)):
        raise no_recipe([str(path)])
    value = yaml_json.read_yaml(path)
    if not isinstance(value, dict):
        raise IwloraError(f"{path} contains no recipe: expected lines like 'model: builtin/minilm'")
    return value


def is_assignment(text: str) -> bool:
    """Whether an argument is ``key=value``, and no path of a file.

    >>> is_assignment("task.train=data/a.csv"), is_assignment("runs/lr=0.1/recipe.yaml")
    (True, False)
    """
    return "=" in text.partition("/")[0] and not os.path.exists(text)


def no_recipe(assignments: Sequence[str]) -> IwloraError:
    """The error for fields to set without a recipe that has them."""
    return IwloraError(
        f"{' '.join(assignments)}: give the file of a recipe first, and then the fields to set; "
        "'iwlora init DATA' prints a recipe for a file of data"
    )


def override(settings: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` assignments, with dots in the key and YAML in the value, to a copy.

    A part given as plain text is the short form of its ``name``, which stays.

    Raises:
        IwloraError: every assignment that is not of this form, one per line.

    Example:
        >>> override({"train": {"lr": 0.1}}, ["train.lr=2e-4", "task.name=glue/rte"])
        {'train': {'lr': 0.0002}, 'task': {'name': 'glue/rte'}}
        >>> override({"task": "glue/rte"}, ["task.max_train=100"])
        {'task': {'name': 'glue/rte', 'max_train': 100}}
    """
    result, problems = dict(settings), []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = key.split(".")
        if not equals or not all(path):
            problems.append(f"{assignment!r} is not of the form key=value, such as train.lr=2e-4")
            continue
        section = result
        for part in path[:-1]:
            inner = section.get(part)
            if isinstance(inner, Mapping):
                section[part] = dict(inner)
            else:
                section[part] = {"name": inner} if isinstance(inner, str) else {}
            section = section[part]
        section[path[-1]] = yaml_json.parse_yaml(text, assignment)
    if problems:
        raise IwloraError("\n".join(problems))
    return result


def validate(model: type[Model], values: Any, prefix: str = "") -> tuple[Model | None, list[str]]:
    """(the checked model, []) or (None, every problem as a sentence with its dotted field)."""
    if not isinstance(values, Mapping):
        return None, [f"{prefix}={short_repr(values)}: accepted: a mapping with its fields"]
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        return None, [_describe(model, problem, prefix) for problem in error.errors()]


def _describe(model: type[BaseModel], problem: Any, prefix: str) -> str:
    parts = [str(part) for part in problem["loc"]]
    name = ".".join([prefix, *parts] if prefix else parts)
    if problem["type"] == "extra_forbidden":
        fields = list(model.model_fields)
        near = difflib.get_close_matches(parts[-1], fields, n=3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        return f"{name}: unknown field{hint} (accepted: {', '.join(fields) or 'none'})"
    if problem["type"] == "missing":
        return f"{name}: missing"
    message: str = problem["msg"].removeprefix("Value error, ")
    if not parts:  # a rule over several fields, whose message names them
        return message if not prefix or prefix in message else f"{prefix}: {message}"
    assignment = f"{name}={short_repr(problem['input'])}"
    if message.startswith(assignment):
        return message
    return f"{assignment}: {message[0].lower()}{message[1:]}"
