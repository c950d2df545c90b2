"""Recipes: written and read back unchanged, with digests that every change changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.inputs.yaml_json import parse_yaml
from iwlora.methods import METHODS
from iwlora.training.overrides import read_yaml
from iwlora.training.recipe import Recipe, TrainSettings, apply_overrides, build, load
from tricky_text import tricky

fraction = st.floats(0, 0.99)
positive = st.floats(1e-9, 1e9)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 256),
    "bottleneck": st.integers(1, 1024),
    "activation": st.sampled_from(["relu", "gelu", "swish"]),
    "scaling": st.floats(-10, 10),
    "layer_norms": st.booleans(),
    "num_virtual_tokens": st.integers(1, 256),
    "memory": st.integers(1, 1024),
    "prompts": st.integers(1, 1024),
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
    "gamma": positive,
    "first_step": st.floats(0, 10),
    "mode": st.sampled_from(["ipm", "kpm"]),
    "samples": st.integers(1, 1000),
    "permutation": st.none() | st.integers(0, 1000),
    "orthogonality": st.floats(0, 10),
    "beta1": st.floats(0.01, 0.99),
    "beta2": st.floats(0.01, 0.99),
    "preset": st.none(),
    "design_seed": st.just(0),
    "tokens": st.integers(1, 256),
    "factors": st.none() | st.integers(1, 64),
    "hidden": st.none() | st.integers(1, 256),
    "instances": st.booleans(),
    "groups": st.sampled_from(["uniform", "spindle"]),
    "strategies": st.sampled_from([[["lora", "pfeiffer"]], [["lora", "pfeiffer", "bitfit"]]]),
    "allocation": st.sampled_from([None, "uniform", "increasing", "importance", [2.0]]),
    "tuned": st.sampled_from(["all", [1]]),
    "part_size": st.integers(1, 256),
    "options": st.sampled_from([{}, {"lora": {"lora_alpha": 8.0}}]),
    "lr_factors": st.sampled_from([{}, {"pfeiffer": 0.5}]),
    "adapter_parameters": st.none() | st.integers(1, 10**9),
    "from_scratch": st.booleans(),
    "sizes": st.none(),
}
TRAIN: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.floats(0, 100_000, exclude_min=True),
    "lr": positive,
    "max_steps": st.none() | st.integers(1, 10**6),
    "optimizer": st.sampled_from(["adamw", "adamw_8bit", "adafactor"]),
    "betas": st.just([0.9, 0.999]),  # adafactor excludes others
    "scheduler": st.sampled_from(["linear", "cosine", "constant"]),
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
    "frozen_dtype": st.sampled_from(["float32", "bfloat16"]),
    "class_weights": st.sampled_from(["none", "balanced", {"a": 2.0, "1": 0.5}]),
    "early_stopping": st.none(),  # needs task.selection
    "average_last": st.none() | st.integers(1, 1000),
    "sampler": st.sampled_from(["shuffle", "balanced"]),
    "gradient_checkpointing": st.booleans(),
    "cache_frozen": st.sampled_from(["auto", False]),  # true excludes three others
    "cache_images": st.booleans(),
    "fast_kernels": st.booleans(),
    "shard": st.booleans(),
    "group_by_length": st.booleans(),
    "deterministic": st.booleans(),
}
name = st.text(min_size=1) | tricky.filter(bool)
PATTERNS = st.sampled_from([r".*\.layers\.[0-3]\..*", "query"])
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
    parts = {"model", "task", "method", "budget", "targets", "exclude"}
    parts |= {"quantize", "train", "label"}
    parts |= {"modules_to_save", "add_tokens", "trainable_token_indices"}
    assert parts | {"trust_remote_code"} == set(Recipe.model_fields)


@st.composite
def recipes(draw: st.DrawFn, method: str) -> dict[str, Any]:
    pinned = getattr(METHODS[method], "pinned", ())
    fields = [field for field in METHODS[method].model_fields if field not in pinned]
    options = {field: OPTIONS[field] for field in fields}
    train = draw(st.fixed_dictionaries({}, optional=TRAIN))
    quantizable = METHODS[method].not_quantizable is None and not train.get("shard")
    tokens = METHODS[method].no_token_training is None and not train.get("shard")
    return {
        "model": draw(name),
        "modules_to_save": draw(st.lists(name)),
        "add_tokens": draw(st.lists(name) if tokens else st.just([])),
        "trainable_token_indices": draw(st.lists(st.integers(0)) if tokens else st.just([])),
        "task": draw(files | named),
        "method": {"name": method, **draw(st.fixed_dictionaries({}, optional=options))},
        "train": train,
        "quantize": draw(st.sampled_from([None, "4bit"] if quantizable else [None])),
        "budget": draw(st.none() | st.sampled_from(["0.5%", "1.33M", 300_000, 1.5e6, "7"])),
        "targets": draw(st.just("all") | PATTERNS | st.lists(name, min_size=1)),
        "exclude": draw(PATTERNS | st.lists(name)),
        "label": draw(st.none() | LABELS),
        "trust_remote_code": draw(st.booleans()),
    }


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_a_recipe_comes_back_as_it_was(method: str, data: st.DataObject) -> None:
    recipe = build(data.draw(recipes(method).filter(_is_consistent)))
    again = build(parse_yaml(recipe.to_yaml(), "test"))
    assert again == recipe
    assert again.digest() == recipe.digest()
    assert again.to_yaml() == recipe.to_yaml()


def _is_consistent(drawn: dict[str, Any]) -> bool:
    train, method = drawn["train"], METHODS[drawn["method"]["name"]]
    return (
        train.get("batch_size", 32) % train.get("accumulate", 1) == 0
        and not (train.get("shard") and train.get("optimizer", "adamw") != "adamw")
        and not (train.get("shard") and train.get("average_last"))
        and not (
            train.get("frozen_dtype") == "bfloat16"
            and (train.get("precision") == "fp32" or train.get("shard") or drawn["quantize"])
        )
        and not (train.get("gradient_checkpointing") and method.not_checkpointable)
    )


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


@pytest.mark.quick
def test_defaults_and_short_forms_do_not_change_the_digest() -> None:
    recipe = build(MINIMAL)
    spelled = build({**MINIMAL, "method": "iw-lora", "task": "glue/rte", "train": {"lr": 2e-4}})
    assert spelled.digest() == recipe.digest()


@pytest.mark.quick
def test_load_is_build_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ntask: glue/rte\nmethod: lora\ntrain: {lr: 2e-4}\n")
    assert read_yaml(path)["train"]["lr"] == 2e-4
    assert load(str(path), ["train.seed=3"]).train.seed == 3


@pytest.mark.quick
def test_all_targets_of_an_old_recipe_are_all_linear_layers() -> None:
    recipe = build({"model": "m", "task": {"name": "glue/rte"}, "method": {"name": "lora"}})
    assert recipe.with_former_defaults(3).targets == "all"
    assert recipe.with_former_defaults(2).targets == "all-linear"
    chosen = recipe.model_copy(update={"targets": ["query"]})
    assert chosen.with_former_defaults(1).targets == ["query"]
