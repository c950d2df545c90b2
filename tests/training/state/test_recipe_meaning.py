"""The recipe's part of a fingerprint: equal for equal meanings, and for no others."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora import IwloraError
from iwlora.training.recipe import Recipe, build
from iwlora.training.state.fingerprint import _recipe_part

BASE: Mapping[str, Any] = {
    "model": "models/tiny",
    "task": {
        "train": "train.csv",
        "validation": "validation.csv",
        "text": ["text"],
        "label": "mood",
        "kind": {"name": "classification"},
        "selection": 0.1,
    },
    "method": {"name": "iw-lora", "rank": 4},
    "targets": ["query", "value", "ffn_up"],
    "train": {"epochs": 3, "lr": 1e-3, "batch_size": 16},
}
ALTERNATIVES = (
    *(True, False, 0, 1, 2, 3, 0.25, 0.5, 1.5, 1e-3, "x", ["x"], [1], {"x": 1.0}, None),
    *("bf16", "fp32", "bfloat16", "balanced", "cosine", "adafactor", "4bit", "1%", "regression"),
    *("gradient", "loss", "decoupled", "before", "lora", "max", "warmup", "norm", "all-linear"),
    *(
        "iw-lora-inverted",
        "sketch",
        "by-class",
        "skip",
        "cp1252",
        ["tensorboard"],
        [{"train": "more.csv"}],
        [0.8, 0.95],
    ),
)
NO_MEANING = {"label", "train.seed", "train.cache_images"}
NEEDS = {("task", "draw"): ("task", "max_train", 100)}
"""{field: another one without which its values are refused, and a value of that}"""
OF_NAMED_TASKS = {("task", name) for name in ("name", "data_dir", "grammar_seed", "grammar_depth")}


NAMED: Mapping[str, Any] = {**BASE, "task": {"name": "glue/rte", "data_dir": "glue"}}


def part(settings: Mapping[str, Any]) -> str:
    return _recipe_part(build(settings))


def shuffled(value: Any, draw: random.Random) -> Any:
    """The same mapping in another order, and with whole numbers as fractions where both are."""
    if isinstance(value, Mapping):
        names = draw.sample(list(value), len(value))
        return {name: shuffled(value[name], draw) for name in names}
    return value


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_equal_meanings_have_equal_digests(draw: random.Random) -> None:
    """In any order, with any of the defaults written down, and in any accepted notation."""
    full = build(BASE).settings()
    written = json.loads(json.dumps(BASE))
    for name, default in draw.sample(list(full["train"].items()), 5):
        written["train"].setdefault(name, default)
    for name, default in draw.sample(list(full["method"].items()), 5):
        written["method"].setdefault(name, default)
    draw.shuffle(written["targets"])
    written["train"]["epochs"] = draw.choice([3, 3.0])
    written["train"]["lr"] = draw.choice([0.001, 1e-3])
    written["task"]["text"] = draw.choice(["text", ["text"]])
    written["task"]["kind"] = draw.choice(["classification", {"name": "classification"}])
    assert part(shuffled(written, draw)) == part(BASE) == part(shuffled(full, draw))


def fields(recipe: Recipe) -> Iterator[tuple[str, ...]]:
    """The path of every field of a recipe."""
    for name, value in recipe.settings().items():
        if name in ("task", "method", "train"):
            yield from ((name, inner) for inner in value)
        else:
            yield (name,)


def variants(path: tuple[str, ...]) -> Iterator[Recipe]:
    """The valid recipes in which a field has another value."""
    before = _base(path)
    for value in ALTERNATIVES:
        settings = before.settings()
        (settings[path[0]] if path[1:] else settings)[path[-1]] = value
        try:
            other = build(settings)
        except (IwloraError, TypeError):
            continue
        if other.settings() != before.settings():
            yield other


def _base(path: tuple[str, ...]) -> Recipe:
    settings = build(BASE).settings()
    if path in NEEDS:
        section, field, value = NEEDS[path]
        settings[section][field] = value
    return build(settings)


FIELDS = [path for path in fields(build(BASE)) if path not in OF_NAMED_TASKS]


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_another_value_of_any_field_is_another_meaning(path: tuple[str, ...]) -> None:
    """But of the name in tables, how images are read, and of the seed, a part of its own."""
    others = {json.dumps(r.settings(), sort_keys=True): _recipe_part(r) for r in variants(path)}
    base = _recipe_part(_base(path))
    if ".".join(path) in NO_MEANING:
        assert set(others.values()) <= {base}
        return
    assert others, "no alternative value is valid: add one"
    assert base not in others.values()
    assert len(set(others.values())) == len(others)


def test_another_task_or_folder_of_its_files_is_another_meaning() -> None:
    changes = {"name": "glue/mrpc"}, {"data_dir": "other"}
    others = [part({**NAMED, "task": {**NAMED["task"], **change}}) for change in changes]
    assert len({part(NAMED), *others}) == 3


def test_another_grammar_of_a_generated_task_is_another_meaning() -> None:
    tasks = [{"name": "builtin/entailment", **other} for other in ({}, *_OTHER_GRAMMARS)]
    assert len({part({**BASE, "task": task}) for task in tasks}) == 3


_OTHER_GRAMMARS = ({"grammar_seed": 1}, {"grammar_depth": 2})
