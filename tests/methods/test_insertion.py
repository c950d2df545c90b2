"""Inserting a method's parameters apart from attaching it, and attaching only one method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch.testing import assert_close

from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.methods.contract import seeded
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick

SEED = 3


def logits(model: Any) -> Any:
    ids = torch.randint(6, 60, (4, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("name", ["lora", "dora", "houlsby", "bitfit"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_what_is_inserted_is_what_is_attached(name: str, architecture: str) -> None:
    method: Any = METHODS[name]()
    method = method.sized(2) if method.size_knob else method
    attached = method.attach(model := tiny_model(architecture), sites(model), SEED)
    plain = tiny_model(architecture)
    frozen = logits(plain)
    kept = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    with seeded(SEED):
        inserted = method.insert(plain, sites(plain))
    expected = [attached.model.get_parameter(name) for name in attached.adapter]
    assert len(inserted) == len(expected)
    assert all(map(torch.equal, inserted, expected))
    assert_close(logits(plain), frozen, rtol=0, atol=0)
    assert all(p.requires_grad for p in kept.values()), "inserting freezes nothing"
    with torch.no_grad():
        for ours, theirs in zip(inserted, expected, strict=True):
            ours.normal_(generator=torch.Generator().manual_seed(1))
            theirs.copy_(ours)
    assert_close(logits(plain), logits(attached.model), rtol=0, atol=0)
    assert not torch.equal(logits(plain), frozen)


def test_two_insertions_leave_each_other_alone() -> None:
    model = tiny_model("bert")
    by_block = [[s for s in sites(model) if s.depth == depth] for depth in (0, 1)]
    with seeded(SEED):
        low = METHODS["lora"](rank=2).insert(model, by_block[0])
        high = METHODS["dora"](rank=3).insert(model, by_block[1])
    assert all(p.requires_grad for p in (*low, *high))
    assert {id(p) for p in low}.isdisjoint(map(id, high))
    assert {p.shape[0] for p in low if p.dim() == 2 and p.shape[0] < 8} == {2}
    assert not hasattr(model, "peft_config")


@pytest.mark.parametrize("name", ["lora+", "eva", "iw-lora", "adalora", "pissa"])
def test_a_variant_that_is_more_than_its_layers_is_not_inserted(name: str) -> None:
    model = tiny_model("bert")
    with pytest.raises(IwloraError, match="can only be attached as a whole"):
        METHODS[name]().insert(model, sites(model))


@pytest.mark.parametrize(
    ("first", "second"),
    [("lora", "houlsby"), ("houlsby", "lora"), ("bitfit", "prefix"), ("adalora", "head")],
)
def test_a_second_method_is_refused(first: str, second: str) -> None:
    model = tiny_model("bert")
    methods: list[Any] = [METHODS[name]() for name in (first, second)]
    methods = [method.sized(2) if method.size_knob else method for method in methods]
    attached = methods[0].attach(model, sites(model), SEED)
    trained = [name for name, p in attached.model.named_parameters() if p.requires_grad]
    for again in (attached.model, copy.deepcopy(model)):
        with pytest.raises(IwloraError, match=r"is attached to this Bert.* already"):
            methods[1].attach(again, sites(again), SEED)
    assert trained == [name for name, p in attached.model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(task_type="SEQ_CLS", target_modules=["query"]),
        PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    ],
    ids=["lora", "prefix"],
)
def test_a_method_on_top_of_an_adapter_of_peft_is_refused(config: Any) -> None:
    """One that was loaded has no mark of the method that trained it."""
    model: Any = get_peft_model(tiny_model("bert"), config)
    for name in ("lora", "bitfit"):
        with pytest.raises(IwloraError, match="an adapter of PEFT is attached to this Bert"):
            METHODS[name]().attach(model, sites(model), SEED)
