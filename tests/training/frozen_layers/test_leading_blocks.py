"""Which blocks are frozen, from what a pass records and from names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attention_functions import t5_calls_attention_functions
from iwlora.head import add_to_head
from iwlora.methods import METHODS
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites
from iwlora.training.frozen_layers.leading_blocks import (
    first_trained_block,
    free_blocks,
    has_dropout,
    leading_blocks,
)

INPUTS = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}


def frozen(method: str, architecture: str = "bert", depths: tuple[int, ...] = (2,)) -> int:
    model = tiny_model(architecture, blocks=3)
    chosen = [site for site in sites(model) if site.depth in depths]
    size = {"bottleneck": 4} if method == "parallel" else {}
    attached = METHODS[method](**size).attach(model, chosen, seed=0)
    found = leading_blocks(attached.model, lambda: attached.model(**INPUTS))
    return len(found.frozen) if found else 0


@pytest.mark.parametrize(
    ("method", "depths", "expected"),
    [
        ("lora", (2,), 2),
        ("lora", (1, 2), 1),
        ("lora", (0, 2), 0),
        ("adalora", (2,), 2),
        ("parallel", (2,), 2),
        ("head", (), 3),
        ("bitfit", (), 0),
        ("full", (), 0),
        ("prefix", (), 0),
    ],
)
def test_the_gradient_says_which_blocks_are_frozen(
    method: str, depths: tuple[int, ...], expected: int
) -> None:
    assert frozen(method, depths=depths) == expected


@pytest.mark.quick
@pytest.mark.parametrize(
    "architecture", ["bert", pytest.param("t5", marks=t5_calls_attention_functions)]
)
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"groups": [1, 1, 1], "strategies": [["lora"], ["prefix"], ["pfeiffer"]]}, 0),
        (
            {
                "groups": [1, 1, 1],
                "strategies": [["lora"], ["prefix"], ["pfeiffer"]],
                "tuned": [2, 3],
            },
            1,
        ),
        ({"groups": [2, 1], "strategies": [["lora"], ["lora"]], "tuned": [2]}, 2),
        ({"preset": "random", "groups": [2, 1], "tuned": [2]}, 2),
    ],
)
def test_blocks_of_groups_that_are_not_tuned_are_frozen(
    architecture: str, settings: dict[str, Any], expected: int
) -> None:
    model, method = tiny_model(architecture, blocks=3), METHODS["grouped"](**settings, part_size=2)
    assert free_blocks(model, method, sites(model)) == expected
    attached = method.attach(model, sites(model), seed=0)
    rows = {**INPUTS, "input_ids": torch.tensor([[5, 6, 1]])}  # 1 ends a text of T5
    found = leading_blocks(attached.model, lambda: attached.model(**rows))
    assert (len(found.frozen) if found else 0) == expected


@pytest.mark.quick
def test_trained_embeddings_leave_no_block_frozen() -> None:
    model = tiny_model("bert")
    model.requires_grad_(False)
    model.bert.embeddings.word_embeddings.weight.requires_grad_(True)
    assert leading_blocks(model, lambda: model(**INPUTS)) is None


def test_the_first_block_of_t5_makes_what_the_others_need() -> None:
    model = tiny_model("t5", blocks=3)
    model.requires_grad_(False)
    inputs = {name: x.clone() for name, x in INPUTS.items()}
    inputs["input_ids"][0, -1] = model.config.eos_token_id
    found = leading_blocks(model, lambda: model(**inputs))
    assert found is not None
    assert [block.makes_extras for block in found.frozen] == [True, False, False]


@pytest.mark.quick
def test_names_say_the_same() -> None:
    model = tiny_model("bert", blocks=3)
    named = [site.name for site in sites(model) if site.depth == 2]
    assert first_trained_block(model, named) == 2
    assert first_trained_block(model, [*named, "bert.encoder.layer.1.output.LayerNorm"]) == 1
    assert first_trained_block(model, ["classifier"]) == 3
    assert first_trained_block(model, ["bert.embeddings.LayerNorm"]) == 0


@pytest.mark.quick
def test_dropout_is_found_where_it_is() -> None:
    model = tiny_model("bert", blocks=3)
    assert not has_dropout(model)
    model.classifier_dropout = 0.5
    assert not has_dropout(model)  # behind the blocks
    model.bert.encoder.layer[1].output.dropout.p = 0.1
    assert has_dropout(model)
    assert has_dropout(model, 2)
    assert not has_dropout(model, 1)
    llama = tiny_model("llama")
    assert not has_dropout(llama)
    llama.model.layers[0].self_attn.attention_dropout = 0.1
    assert has_dropout(llama, 1)


def test_a_new_module_inside_is_behind_the_blocks() -> None:
    model = tiny_model("bert")
    add_to_head(model, ["bert.embeddings.dropout"])
    model.bert.embeddings.dropout.p = 0.1
    assert not has_dropout(model, 1)
