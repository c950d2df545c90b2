"""Head first against a loop by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import TrainerCallback
from transformers import default_data_collator as collate

from iwlora.methods.tiny_models import tiny_model
from iwlora.testing import CHECKS, Case, packed_equals_alone
from iwlora.testing.case import BATCH, STEPS
from iwlora_study.head_first.method import HeadFirstLora

HELD = 3  # of the 6 steps


class Watch(TrainerCallback):
    """Keeps what the trained parameters are after each step."""

    def __init__(self, model: Any, names: Any) -> None:
        self.model, self.names, self.after = model, names, list[dict[str, Tensor]]()

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        parameters = {name: self.model.get_parameter(name) for name in self.names}
        self.after.append({name: p.detach().clone() for name, p in parameters.items()})


def test_it_trains_as_a_loop_that_frees_the_adapter_later(tmp_path: Path) -> None:
    """Adapter bytes stay the same at first; then LoRA goes on from that head, Adam's step one."""
    case = Case(HeadFirstLora(share=0.5), "bert", tmp_path)
    model: Any = tiny_model("bert").double()
    attached = case.attach(model)
    start = {n: attached.model.get_parameter(n).detach().clone() for n in attached.trainable}
    watch = Watch(attached.model, attached.trainable)
    options = {"lr_scheduler_type": "constant", "max_grad_norm": 0.1}
    trainer = case.trainer(attached, tmp_path / "trained", **options)
    trainer.add_callback(watch)
    trainer.train()
    for after in watch.after[:HELD]:
        assert all(torch.equal(after[name], start[name]) for name in attached.adapter)
        assert not any(torch.equal(after[name], start[name]) for name in attached.head)

    by_hand = case.attach(tiny_model("bert").double())
    get = by_hand.model.get_parameter
    groups = [[get(name) for name in names] for names in (by_hand.head, by_hand.adapter)]
    settings = {"lr": 3e-3, "eps": 1e-6, "weight_decay": 0.0}
    head, adapter = (torch.optim.AdamW(group, **settings) for group in groups)  # type: ignore[arg-type]
    batches = [collate([case.rows[k] for k in rows]) for rows in trainer.micro_batch_sampler]
    for step in range(STEPS):
        trained = groups[:1] if step < HELD else groups
        by_hand.model.zero_grad()
        by_hand.model(**batches[step]).loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in trained for p in group], 0.1)
        head.step()
        if step >= HELD:
            adapter.step()
    for name in attached.trainable:
        assert_close(attached.model.get_parameter(name), get(name), rtol=1e-5, atol=1e-8)
        assert not torch.equal(get(name), start[name])
    assert len(case.rows) == BATCH * STEPS


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(HeadFirstLora(share=0.4), "bert", tmp_path_factory.mktemp("head-first"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(case: Case, check: Any) -> None:
    check(case)


@pytest.mark.slow
def test_in_a_pack_it_ends_as_alone(case: Case) -> None:
    packed_equals_alone(case)
