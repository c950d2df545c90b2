"""LoRA-FA against PEFT's own optimizer, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_lorafa_optimizer
from peft.optimizers import lorafa as pefts
from torch.testing import assert_close
from transformers import TrainerCallback
from transformers import default_data_collator as collate

from iwlora.methods.low_rank.lora_fa import LoraFa
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites as find_sites
from iwlora.testing import Case, packed_equals_alone
from iwlora.testing.case import BATCH

LR = 1e-2


def descend(
    model: Any,
    optimizer: torch.optim.Optimizer,
    case: Case,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    for callback in callbacks:
        callback.on_train_begin(None, None, None)  # type: ignore[arg-type]
    for start in range(0, 5 * BATCH, BATCH):
        model(**collate(case.rows[start : start + BATCH])).loss.backward()
        for callback in callbacks:
            callback.on_pre_optimizer_step(None, None, None)  # type: ignore[arg-type]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_it_trains_as_pefts_own_optimizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT's would compute the correction in bfloat16, and adds epsilon at another place."""
    monkeypatch.setattr(pefts, "is_bf16_available", lambda: False)
    case = Case(LoraFa(), "bert", tmp_path)
    model: Any = tiny_model("bert").double()
    attached = case.method.attach(model, find_sites(model), seed=7)
    trained = [attached.model.get_parameter(name) for name in attached.trainable]
    optimizer: Any = torch.optim.AdamW(trained, lr=LR, eps=0, weight_decay=0)
    descend(attached.model, optimizer, case, attached.callbacks)

    theirs: Any = tiny_model("bert").double()
    names = [site.name for site in find_sites(theirs)]
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=names,
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    )
    theirs = get_peft_model(theirs, config, autocast_adapter_dtype=False)
    optimizer = create_lorafa_optimizer(theirs, r=4, lora_alpha=16, lr=LR)
    for group in optimizer.param_groups:
        group["eps"] = 0.0
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_A" in name:
                parameter.copy_(attached.model.get_parameter(name))
    descend(theirs, optimizer, case)
    for name in attached.trainable:
        other = theirs.get_parameter(name)
        assert_close(attached.model.get_parameter(name), other, rtol=1e-7, atol=1e-9)
        assert not torch.equal(other, torch.zeros_like(other))


def test_a_is_frozen_and_not_counted(tmp_path: Path) -> None:
    case = Case(LoraFa(), "bert", tmp_path)
    attached, sites = case.attach(), find_sites(tiny_model("bert"))
    frozen = [n for n, p in attached.model.named_parameters() if "lora_A" in n]
    assert not any(attached.model.get_parameter(name).requires_grad for name in frozen)
    assert not set(frozen) & set(attached.adapter)
    assert attached.count() == 4 * sum(site.d_out for site in sites)
    assert attached.derived == 4 * sum(site.d_in for site in sites)


def test_packed_it_ends_as_alone(tmp_path: Path) -> None:
    packed_equals_alone(Case(LoraFa(), "bert", tmp_path))
