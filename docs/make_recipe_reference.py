"""Write the reference of recipes from the code: ``python docs/make_recipe_reference.py``.

Names, defaults and accepted values are those of the classes that check a recipe; the meanings are
their docstrings. A test says when the page is no longer what this writes.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from iwlora.compare.plan.search.learning_rate import SearchSettings
from iwlora.design.settings import Choices, DesignSettings
from iwlora.inputs.yaml_json import in_line
from iwlora.methods import METHODS
from iwlora.results.comparison.record import StoppingRule
from iwlora.tasks.kinds import KINDS
from iwlora.tasks.spec import MixedFile, TaskSpec
from iwlora.training.recipe import Recipe
from iwlora.training.train_settings import TrainSettings

PAGE = Path(__file__).with_name("recipe-reference.md")
_HEAD = "| field | default | accepted | meaning |\n|---|---|---|---|"
_NOT_LISTED = {
    Recipe: ("task", "method", "train"),  # they have sections of their own
    DesignSettings: ("choices",),
    TaskSpec: ("draw_rows", "former_kind_defaults"),  # iwlora sets them
}
_FILLED_IN: dict[tuple[type[BaseModel], str], str] = {(SearchSettings, "seeds"): "three draws"}
"""Defaults that are set before a part is checked."""
_UNBOUNDED = (2**31 - 1, 2**32 - 1, 2**32)
"""Largest values that are limits of the machine."""

_TOP = """# All fields of a recipe

What a recipe can set, with defaults, accepted values and meaning. Any field is set on the command
line as `key=value`, with dots between the levels: `train.lr=1e-3`. How the fields play together
is in [train](train.md), [tasks](tasks.md), [methods](methods.md) and [compare](compare.md).

<!-- python docs/make_recipe_reference.py writes this page from the code. -->
"""
_SECTIONS: tuple[tuple[str, str, type[BaseModel], str], ...] = (
    ("The run", "", Recipe, ""),
    ("The training: `train`", "train.", TrainSettings, ""),
    ("The task: `task`", "task.", TaskSpec, "`task: NAME` is short for `task: {name: NAME}`."),
    ("Further training files: each entry of `task.mix`", "", MixedFile, ""),
)
_METHOD = """## The method: `method`

`method.name` is one of `iwlora methods`; `method: NAME` is short for `method: {name: NAME}`. A
method has the options of all tables that name it. `iw-lora-as-written` accepts no others than its
defaults for the measurement and the penalty, but for `max_batches`, `tolerance` and
`penalty_warmup`.
"""
_KIND = """## The kind of a task: `task.kind`

`task.kind.name` is one of the kinds in [tasks](tasks.md); a kind has the options of all tables that
name it.
"""
_COMPARISON = """## The recipe of a comparison

It has the fields above but `method` and `label`, and these. [Compare](compare.md) has examples.

| field | default | meaning |
|---|---|---|"""
_COMPARISON_FIELDS = {
    "methods": "required | The arms: a list of names, or of mappings with `name`, the options of "
    "the method, and for this arm alone a `label`, `train: {lr: ...}`, `search: {lr: [...]}`, and "
    "the fields in `vary`.",
    "seeds": "`[0]` | The draws: each is the `train.seed` of one run of every arm.",
    "stop": "`null` | In the place of `seeds`: adds draws until each arm has a verdict; its fields "
    "are below.",
    "baseline": "`null` | The label of the arm that the others are compared with; null: `lora`, or "
    "the first of `methods` without it.",
    "search": "`null` | Lets every arm search its learning rate; its fields are below.",
    "controls": "`false` | Whether the control arms of each method that has some are added.",
    "vary": "`[]` | Fields of the training data that an arm may set for itself, such as "
    "`task.max_train`.",
    "unequal_budgets": "`false` | Whether arms may train different numbers of parameters; false: "
    "such a comparison is refused.",
}
_DESIGN = """## The recipe of a search of designs

It has the fields of a run but `label`, `train.lr`, `train.seed` and `task.holdout`; `budget` is
required, and `method` holds options of `grouped` that all designs share. `confirm` has the fields
`methods`, `seeds` or `stop`, `search`, `controls` and `unequal_budgets` of a comparison;
`confirm: null` leaves the comparison out. [Design](design.md) has an example.
"""
_OF_DESIGN: tuple[tuple[str, str, type[BaseModel], str], ...] = (
    ("The search: `design`", "design.", DesignSettings, ""),
    ("Its choices: `design.choices`", "design.choices.", Choices, ""),
)
_OF_COMPARISON: tuple[tuple[str, str, type[BaseModel], str], ...] = (
    ("When draws end: `stop`", "stop.", StoppingRule, ""),
    ("The search of learning rates: `search`", "search.", SearchSettings, ""),
)


def page() -> str:
    """The text of the page."""
    parts = [_TOP]
    for title, prefix, model, before in _SECTIONS:
        parts += _section(title, prefix, model, before)
    parts += [_METHOD, *_options(METHODS, "method."), _KIND, *_options(KINDS, "task.kind.")]
    parts += [_COMPARISON, *(f"| `{name}` | {text} |" for name, text in _COMPARISON_FIELDS.items())]
    parts.append("")
    for title, prefix, model, before in _OF_COMPARISON:
        parts += _section(title, prefix, model, before)
    parts.append(_DESIGN)
    for title, prefix, model, before in _OF_DESIGN:
        parts += _section(title, prefix, model, before)
    return "\n".join(parts).rstrip("\n") + "\n"


def _section(title: str, prefix: str, model: type[BaseModel], before: str) -> Iterator[str]:
    yield f"## {title}\n"
    if before:
        yield f"{before}\n"
    yield _HEAD
    for name, default, accepted, meaning in fields(model):
        yield f"| `{prefix}{name}` | {default} | {accepted} | {meaning} |"
    yield ""


def _options(models: Mapping[str, type[BaseModel]], prefix: str) -> Iterator[str]:
    """A table for the options that the same models have; a default that differs names its models.

    An option whose meaning differs between models is another option.
    """
    options: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for owner, model in models.items():
        for name, default, accepted, meaning in fields(model):
            options.setdefault((name, meaning), {})[owner] = default, accepted
    tables: dict[tuple[str, ...], list[str]] = {}
    for (name, meaning), owners in options.items():
        defaults: dict[str, list[str]] = {}
        for owner, (default, _) in owners.items():
            defaults.setdefault(default, []).append(owner)
        (usual, _), *others = sorted(defaults.items(), key=lambda item: -len(item[1]))
        default = "; ".join([usual, *(f"{_names(having)}: {value}" for value, having in others)])
        accepted = max((each for _, each in owners.values()), key=len)
        row = f"| `{prefix}{name}` | {default} | {accepted} | {meaning} |"
        tables.setdefault(tuple(owners), []).append(row)
    for names, rows in tables.items():
        yield f"**{_names(names)}**\n\n{_HEAD}\n" + "\n".join(rows) + "\n"
    if without := [name for name in models if not any(name in owners for owners in tables)]:
        yield f"No options: {_names(without)}.\n"


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """(name, default, accepted values, meaning) of each field that a recipe may set."""
    meanings = docstrings(model)
    schemas = model.model_json_schema().get("properties", {})
    for name, field in model.model_fields.items():
        if name in (*_NOT_LISTED.get(model, ()), *getattr(model, "fitted_options", ())):
            continue
        value = field.get_default(call_default_factory=True)
        default = "required" if field.is_required() else f"`{in_line(_plain(value))}`"
        default = _FILLED_IN.get((model, name), default)
        if name not in meanings:
            raise ValueError(f"{model.__name__}.{name} has no docstring")
        yield name, default, _accepted(schemas[name]), _markdown(meanings[name])


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """{field: what stands below it, or below ``Args`` of its class}."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        arguments = (ast.get_docstring(definition) or "").partition("Args:\n")[2]
        found |= dict(re.findall(r"^    (\w+): ((?:.+\n?)(?: {8}.+\n?)*)", arguments, re.MULTILINE))
        for field, after in pairwise(definition.body):
            match field, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = text
    return found


def _accepted(schema: Mapping[str, Any]) -> str:
    """The values that a field accepts, in words."""
    if "anyOf" in schema:
        shared = {key: value for key, value in schema.items() if key != "anyOf"}
        return ", ".join(dict.fromkeys(_accepted({**shared, **each}) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if parts := schema.get("prefixItems"):
        return f"a list of {len(parts)}: {_accepted(parts[0])}"
    if schema.get("type") == "array":
        return f"a list: {_accepted(schema['items'])}"
    words = {
        "null": "`null`",
        "boolean": "`true`, `false`",
        "string": "text",
        "integer": "a whole number" + _bounds(schema),
        "number": "a number" + _bounds(schema),
    }
    return words.get(schema.get("type", ""), "a mapping")


def _bounds(schema: Mapping[str, Any]) -> str:
    """Such as " above 0, at most 1"."""
    words = {"exclusiveMinimum": "above", "gt": "above", "minimum": "from", "ge": "from"}
    lower = [f" {word} {schema[key]:g}" for key, word in words.items() if key in schema][:1]
    words = {"exclusiveMaximum": "below", "maximum": "at most"}
    upper = [
        f" {word} {schema[key]:,g}"
        for key, word in words.items()
        if schema.get(key, _UNBOUNDED[0]) not in _UNBOUNDED
    ]
    return ",".join(lower + upper)


def _markdown(text: str) -> str:
    """A docstring in one cell of a table."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join(text.split()))
    text = re.sub(r"\bNone\b", "null", text.replace("``", "`"))
    text = text[:1].upper() + text[1:] if re.match("[a-z]+ ", text) else text
    return text.replace("|", r"\|")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return list(value) if isinstance(value, tuple) else value


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
