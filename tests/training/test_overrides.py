"""YAML as version 1.2 reads it, overrides, and recipes that come back as they were."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.compare.plan.recipe import load_plan
from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import parse_yaml, to_yaml
from iwlora.methods import METHODS
from iwlora.training.overrides import override, read_yaml
from iwlora.training.recipe import Recipe, TrainSettings, apply_overrides, build, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E3", 1000.0),
        ("2.0e-4", 2e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5", -1.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # Text, whatever version 1.1 or a careless pattern would make of it:
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("falsehood", "falsehood"),
        ("true_label", "true_label"),
        ("nullable", "nullable"),
        ("0.5%", "0.5%"),
        ("1.33M", "1.33M"),
        ("2e-4x", "2e-4x"),
        ("3.1-model", "3.1-model"),
        ("5e", "5e"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("'2e-4'", "2e-4"),
        ("'no'", "no"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = parse_yaml(text, "test")
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", "test"))


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "{a: 1, a: 1}", "x:\n  - {b: 1, c: 2, b: 3}", "1: a\n1: b"]
)
def test_a_key_given_twice(text: str) -> None:
    with pytest.raises(IwloraError, match=r"^f\.yaml is not valid YAML: given twice: [ab1]"):
        parse_yaml(text, "f.yaml")
    parse_yaml(text.replace("a", "z", 1).replace("b", "y", 1).replace("1:", "2:", 1), "f.yaml")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OTHER_TYPES = "2e-4 1e3 no on y ~ null True 010 0o7 0x1F 1_000 1:30 .inf .nan - = << 2001-01-01 5e"
SYNTAX = "# ' \" [ { &a *a !x | > % @ ` a:b"
tricky = st.sampled_from(["", " ", "a: b", "a #b", *OTHER_TYPES.split(), *SYNTAX.split()])


@settings(deadline=None)
@given(plain | tricky | st.lists(tricky) | st.dictionaries(tricky, tricky))
def test_what_is_written_is_read_back(value: object) -> None:
    text = to_yaml(value)
    assert parse_yaml(text, "test") == value
    # Other programs read version 1.1: to them it must not say anything else either.
    assert yaml.safe_load(text) == value


# --- overrides ---


def test_override_changes_a_copy() -> None:
    before = {"train": {"lr": 0.1, "seed": 1}, "model": "a"}
    after = override(before, ["train.lr=2e-4", "model=b", "task.name=glue/rte", "label="])
    assert after == {
        "train": {"lr": 2e-4, "seed": 1},
        "model": "b",
        "task": {"name": "glue/rte"},
        "label": None,
    }
    assert before == {"train": {"lr": 0.1, "seed": 1}, "model": "a"}


def test_override_takes_values_with_equals_signs_and_lists() -> None:
    assert override({}, ["a=b=c", "task.text=[x, y]", "p={q: 1}"]) == {
        "a": "b=c",
        "task": {"text": ["x", "y"]},
        "p": {"q": 1},
    }


def test_the_last_override_counts() -> None:
    assert override({}, ["a=1", "a=2"]) == {"a": 2}


def test_a_short_form_stays_under_its_name() -> None:
    settings = {"task": "glue/rte", "method": "lora"}
    assert override(settings, ["task.max_train=5", "method.rank=2"]) == {
        "task": {"name": "glue/rte", "max_train": 5},
        "method": {"name": "lora", "rank": 2},
    }


def test_all_wrong_overrides_are_told_at_once() -> None:
    with pytest.raises(IwloraError) as caught:
        override({}, ["a", "b=1", "=c", "d..e=1"])
    assert len(str(caught.value).splitlines()) == 3


def test_another_method_drops_only_what_it_does_not_have() -> None:
    settings = {"method": {"name": "iw-lora", "rank": 4, "alpha": 1, "wrong": 2}}
    assert apply_overrides(settings, ["method.name=lora"])["method"] == {
        "name": "lora",
        "rank": 4,
        "wrong": 2,  # a mistake in the file is still told
    }
    kept = apply_overrides(settings, ["method.name=lora", "method.alpha=3"])["method"]
    assert kept["alpha"] == 3
    assert apply_overrides(settings, ["method.rank=5"])["method"]["alpha"] == 1
    assert apply_overrides(settings, ["method.name=iw-lora"])["method"]["alpha"] == 1


# --- recipes ---

fraction = st.floats(0, 0.99)
positive = st.floats(1e-9, 1e9)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 256),
    "bottleneck": st.integers(1, 1024),
    "activation": st.sampled_from(["relu", "gelu", "swish"]),
    "scaling": st.floats(-10, 10),
    "layer_norms": st.booleans(),
    "num_virtual_tokens": st.integers(1, 256),
    "lora_alpha": positive,
    "dropout": fraction,
    "alpha": st.floats(0, 1e6),
    "beta": st.floats(0, 1e6),
    "relative": st.booleans(),
    "route": st.sampled_from(["loss", "gradient", "decoupled"]),
    "schedule": st.sampled_from(["constant", "warmup", "cosine"]),
    "penalty_warmup": st.floats(0, 1),
    "measure": st.sampled_from(["before", "in-flight"]),
    "estimator": st.sampled_from(["exact", "ghost", "sketch", "auto"]),
    "normalize": st.sampled_from(["sum", "max", "mean", "rank"]),
    "max_batches": st.integers(1, 1000),
    "tolerance": st.floats(0, 1),
    "t_init": st.floats(0, 0.4),
    "t_final": st.floats(0.01, 0.5),
    "delta_t": st.integers(1, 100) | st.floats(0.01, 0.99),
    "ratio": positive,
    "permutation": st.none() | st.integers(0, 1000),
    "orthogonality": st.floats(0, 10),
    "beta1": st.floats(0.01, 0.99),
    "beta2": st.floats(0.01, 0.99),
}
TRAIN: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.floats(0, 100_000, exclude_min=True),
    "lr": positive,
    "batch_size": st.integers(1, 64).map(lambda n: 4 * n),
    "accumulate": st.sampled_from([1, 2, 4]),
    "max_length": st.integers(1, 4096),
    "warmup": fraction,
    "weight_decay": st.floats(0, 10),
    "max_grad_norm": st.floats(0, 10),
    "seed": st.integers(0, 2**32 - 1),
    "save_steps": st.none() | st.integers(1, 1000),
    "keep_checkpoints": st.integers(1, 100),
    "report_to": st.lists(
        st.sampled_from(["tensorboard", "wandb", "mlflow", "trackio"]), unique=True
    ),
    "precision": st.sampled_from(["auto", "fp32", "bf16"]),
    "fast_kernels": st.booleans(),
    "shard": st.booleans(),
    "group_by_length": st.booleans(),
    "deterministic": st.booleans(),
}
name = st.text(min_size=1) | tricky.filter(bool)
LABELS = st.from_regex(re.compile(r"\A\w[\w.+=-]*\Z", re.ASCII)) | st.sampled_from(
    ["2e-4", "größe"]
)
files = st.fixed_dictionaries(
    {"train": name, "text": name.filter(lambda n: n != "label"), "label": st.just("label")},
    optional={"validation": name, "test": name, "max_train": st.integers(1, 10**9)},
)
named = st.fixed_dictionaries(
    {"name": st.sampled_from(["glue/rte", "glue/mnli"])},
    optional={"data_dir": name, "max_validation": st.integers(1, 10**9)},
)


def test_every_field_is_covered() -> None:
    """A field that is added must be added to these strategies."""
    assert set(OPTIONS) >= {field for method in METHODS.values() for field in method.model_fields}
    assert set(TRAIN) == set(TrainSettings.model_fields)
    parts = {"model", "task", "method", "budget", "targets", "quantize", "train", "label"}
    assert parts | {"trust_remote_code"} == set(Recipe.model_fields)


@st.composite
def recipes(draw: st.DrawFn, method: str) -> dict[str, Any]:
    options = {field: OPTIONS[field] for field in METHODS[method].model_fields}
    train = draw(st.fixed_dictionaries({}, optional=TRAIN))
    packable = METHODS[method].not_quantizable is None and not train.get("shard")
    return {
        "model": draw(name),
        "task": draw(files | named),
        "method": {"name": method, **draw(st.fixed_dictionaries({}, optional=options))},
        "train": train,
        "quantize": draw(st.sampled_from([None, "4bit"] if packable else [None])),
        "budget": draw(st.none() | st.sampled_from(["0.5%", "1.33M", 300_000, 1.5e6, "7"])),
        "targets": draw(st.just("all") | st.lists(name, min_size=1)),
        "label": draw(st.none() | LABELS),
        "trust_remote_code": draw(st.booleans()),
    }


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)
@given(data=st.data())
def test_a_recipe_comes_back_as_it_was(method: str, data: st.DataObject) -> None:
    recipe = build(data.draw(recipes(method).filter(_pieces_are_equal)))
    again = build(parse_yaml(recipe.to_yaml(), "test"))
    assert again == recipe
    assert again.digest() == recipe.digest()
    assert again.to_yaml() == recipe.to_yaml()


def _pieces_are_equal(drawn: dict[str, Any]) -> bool:
    train = drawn["train"]
    return train.get("batch_size", 32) % train.get("accumulate", 1) == 0


MINIMAL = {"model": "m", "task": {"name": "glue/rte"}, "method": {"name": "iw-lora"}}


@pytest.mark.parametrize(
    "change",
    [
        "model=n",
        "task.name=glue/sst2",
        "task.max_train=5",
        "method.alpha=1e-3",
        "method.name=lora",
        "train.lr=1e-3",
        "train.seed=1",
        "budget=1M",
        "targets=[query]",
        "label=other",
        "trust_remote_code=true",
    ],
)
def test_every_change_changes_the_digest(change: str) -> None:
    recipe = build(MINIMAL)
    assert build(apply_overrides(MINIMAL, [change])).digest() != recipe.digest()
    assert build(MINIMAL).digest() == recipe.digest()


def test_defaults_and_short_forms_do_not_change_the_digest() -> None:
    recipe = build(MINIMAL)
    spelled = build({**MINIMAL, "method": "iw-lora", "task": "glue/rte", "train": {"lr": 2e-4}})
    assert spelled.digest() == recipe.digest()


def test_load_is_build_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ntask: glue/rte\nmethod: lora\ntrain: {lr: 2e-4}\n")
    assert read_yaml(path)["train"]["lr"] == 2e-4
    assert load(str(path), ["train.seed=3"]).train.seed == 3


# --- comparisons ---


def plan_of(tmp_path: Path, **settings: Any) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(to_yaml({"model": "m", "task": "glue/rte", **settings}), encoding="utf-8")
    return path


def test_a_plan_is_methods_times_seeds(tmp_path: Path) -> None:
    arms = ["full", {"name": "lora", "rank": 2, "label": "small", "train": {"lr": 0.1}}]
    path = plan_of(tmp_path, methods=arms, seeds=[3, 1, 3], train={"lr": 0.5, "epochs": 2})
    plan = load_plan(str(path), ["train.epochs=7"])
    assert (plan.labels, plan.seeds) == (["full", "small"], [3, 1])
    assert [(run.label, run.seed) for run in plan.runs] == [
        ("full", 3),
        ("small", 3),
        ("full", 1),
        ("small", 1),
    ]
    small = plan.runs[1].recipe
    assert (small.method.size, small.train.lr, small.train.seed) == (2, 0.1, 3)
    assert (plan.runs[0].recipe.train.lr, plan.runs[0].recipe.train.epochs) == (0.5, 7)
    assert plan.runs[1].folder(tmp_path) == tmp_path / "small" / "seed-3"


def test_a_budget_is_for_the_arms_that_have_a_size(tmp_path: Path) -> None:
    path = plan_of(tmp_path, methods=["full", "lora"], budget="0.5%")
    full, lora = (run.recipe for run in load_plan(str(path)).runs)
    assert (full.budget, lora.budget) == (None, "0.5%")
