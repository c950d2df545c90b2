"""JSON and YAML, read and written: a text of any size or depth gives a value or an error."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from iwlora.errors import IwloraError, list_problems, truncate
from iwlora.inputs.places import read_bytes

_MOST_NODES = 100_000
_SHORT = 10_000  # characters: a text whose nodes are kept
_DEEPEST = 200  # brackets that wait for their end; the time to read more grows with their square


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises ``ValueError`` for any other text, and for deep nesting.

    >>> from_json('{"rank": 8}')
    {'rank': 8}
    >>> from_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: ``2e-4`` is a number, ``no`` and ``on`` are words."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        name = node.tag.removeprefix("tag:yaml.org,2002:")
        is_scalar = isinstance(node, yaml.ScalarNode)
        plain = is_scalar and name in _SCALARS and re.fullmatch(_SCALARS[name], node.value)
        if not plain and name not in ("str", "seq", "map"):
            # The functions for explicit tags trust the value.
            value = f"{node.value!r:.80}" if is_scalar else "this value"
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"the tag {node.tag!r:.80} with {value} is not accepted",
                node.start_mark,
            )
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"given twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


_SCALARS = {  # tag: what a plain scalar of this type looks like
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9]\d*)",
    "float": r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Only double quotes keep the line breaks of Unicode apart from "\n".
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)

_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _regex = re.compile(rf"(?:{_pattern})\Z")
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _regex, None)


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text; ``origin`` names it in the ``IwloraError`` for any other.

    A short text whose aliases repeat each other unfolds into billions of values, or into one
    without end: such a text is refused too.

    >>> parse_yaml("{lr: 2e-4, label: no}", "an example")
    {'lr': 0.0002, 'label': 'no'}
    """
    try:
        if _depth(text) > _DEEPEST:
            raise ValueError("nested too deeply")
        node = _kept_nodes(text) if len(text) <= _SHORT else _nodes(text)
        return None if node is None else _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = truncate(" ".join(str(error).split()))
        raise IwloraError(f"{truncate(origin)} is not valid YAML: {reason}") from None


def _nodes(text: str) -> yaml.Node | None:
    node = _Loader(text).get_single_node()
    if node is not None and _unfolded(node, {}) > _MOST_NODES:
        raise ValueError(f"its aliases unfold into more than {_MOST_NODES:,} values")
    return node


# Of a comparison each recipe is read several times in a row; making its nodes takes the time.
_kept_nodes = lru_cache(maxsize=64)(_nodes)


def _depth(text: str) -> int:
    """The most brackets that are open at once, quoted ones counted too."""
    steps = (1 if sign in "[{" else -1 for sign in text if sign in "[]{}")
    return max(accumulate(steps), default=0)


def _unfolded(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, each alias counted as what it repeats."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # what is met again inside of itself has no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else chain(*node.value)
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def to_yaml(value: Any) -> str:
    """Plain values as a YAML text that :func:`parse_yaml` reads back as they were.

    >>> print(to_yaml({"lr": 2e-4, "label": "2e-4"}), end="")
    lr: 0.0002
    label: '2e-4'
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def assignment(field: str, value: Any) -> str:
    """``field=value`` as it is typed in a shell, with YAML in the value.

    >>> print(assignment("task.text", "Class Index"), assignment("task.label", ["a", "1"]))
    'task.text=Class Index' 'task.label=[a, "1"]'
    """
    return shlex.quote(f"{field}={in_line(value)}")


def in_line(value: Any) -> str:
    """A plain value as YAML on one line.

    >>> in_line({"name": "multi-label", "separator": "/", "beams": 1}), in_line("null")
    ('{name: multi-label, separator: /, beams: 1}', '"null"')
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{in_line(k)}: {in_line(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_line, value))}]"
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return json.dumps(value)


def _reads_as_itself(text: str) -> bool:
    """Whether YAML reads a text without quotation marks as that text, in a list too."""
    try:
        return bool(parse_yaml(f"[{text}]", text) == [text])
    except IwloraError:
        return False


def read_utf8(path: str | os.PathLike[str], kind: str = "text") -> str:
    """The text of a file of a kind in :data:`iwlora.inputs.places.MOST_BYTES`.

    Raises ``IwloraError`` if it cannot be read, is too large or is not UTF-8.
    """
    try:
        return read_bytes(path, kind).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise IwloraError(f"cannot read {path}: {error}; save it as UTF-8") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file; raises ``IwloraError`` as :func:`read_mapping`."""
    return _parse_json(read_utf8(path, "JSON"), path)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value in a YAML file; raises ``IwloraError`` as :func:`read_mapping`."""
    return parse_yaml(read_utf8(path, "YAML"), str(path))


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a JSON file, or in a YAML file if its name ends in ``.yaml`` or ``.yml``.

    Raises ``IwloraError`` for a file that cannot be read, is damaged, or holds something else.
    """
    is_yaml = Path(path).suffix in (".yaml", ".yml")
    return _mapping(read_yaml(path) if is_yaml else read_json(path), path)


def parse_mapping(text: str, origin: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a JSON text holds; ``origin`` names it in the ``IwloraError`` for any other.

    >>> parse_mapping('{"step": 3}', "metrics.jsonl, line 1")
    {'step': 3}
    """
    return _mapping(_parse_json(text, origin), origin)


def _parse_json(text: str, origin: str | os.PathLike[str]) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise IwloraError(f"{origin} is damaged or was cut short ({error})") from None


def _mapping(value: Any, origin: str | os.PathLike[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise IwloraError(
            f"{origin} holds a {type(value).__name__}; it must hold fields with names"
        )
    return value


@contextmanager
def validation_errors(origin: str | os.PathLike[str]) -> Iterator[None]:
    """Raise the ``ValidationError`` of the block as an ``IwloraError`` that names the fields."""
    try:
        yield
    except ValidationError as invalid:
        problems = [
            f"{origin}: {'.'.join(map(str, error['loc'])) or 'fields'}: {error['msg']}"
            + ("" if error["type"] == "missing" else f" (given: {error['input']!r:.80})")
            for error in invalid.errors()
        ]
        raise IwloraError(list_problems(problems)) from None
