"""The random start has the rival's tr(A Σ Aᵀ) at every matrix, and LoRA's own directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import default_data_collator as collate

from iwlora.errors import IwloraError
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites as find_sites
from iwlora.testing import Case
from iwlora_study.scaled_random_start import ScaledRandomStart

R, SEED = 4, 3


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def padded_batches(tmp_path: Path) -> list[dict[str, Tensor]]:
    rows = Case(Lora(), "bert", tmp_path).rows
    given = [collate(rows[k : k + 8]) for k in (0, 8, 16)]
    for batch in given:
        batch["attention_mask"][::2, -3:] = 0
    return given


def second_moments(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """{site name: Σ = E[x xᵀ]} over the tokens without padding, by plain hooks in float64."""
    model = tiny_model("bert").double().eval()
    inputs: dict[str, list[Tensor]] = {}
    for site in find_sites(model):
        found = inputs.setdefault(site.name, [])
        site.layer.register_forward_hook(lambda _l, x, _y, found=found: found.append(x[0].detach()))
    for batch in batches:
        model(**batch)
    moments = {}
    for name, found in inputs.items():
        rows = [
            x[batch["attention_mask"] == 1] if x.dim() == 3 else x
            for x, batch in zip(found, batches, strict=True)
        ]
        x = torch.cat(rows)
        moments[name] = x.mT @ x / len(x)
    return moments


@pytest.mark.parametrize("like", ["eva", "lora-ga", "lora-one"])
def test_the_traces_are_the_rivals_and_the_directions_are_loras(like: Any, tmp_path: Path) -> None:
    batches, method = padded_batches(tmp_path), ScaledRandomStart(rank=R, like=like)
    started = {}
    for made in (method, method.rival(), Lora(rank=R)):
        model = tiny_model("bert")
        attached = made.attach(model, find_sites(model), SEED)
        if (initialize := attached.initializer(model_loss)) is not None:
            initialize(batches)
        started[made.name] = {
            name.split("model.model.")[-1].split(".lora_A")[0]: parameter.detach().double()
            for name, parameter in attached.model.named_parameters()
            if "lora_A" in name
        }
        if made is method:
            assert not any(pair.B.any() for pair in attached.pairs)
    scaled, rival, plain = started.values()
    differing = 0
    for name, moment in second_moments(batches).items():
        traces = [float((A[name] @ moment @ A[name].mT).trace()) for A in (scaled, rival, plain)]
        assert traces[0] == pytest.approx(traces[1], rel=1e-3)
        differing += abs(traces[2] / traces[1] - 1) > 0.1
        ratio = scaled[name] / plain[name]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=1e-6)
    assert differing > len(scaled) / 2  # LoRA's own start would fail


def test_a_rank_that_the_rival_cannot_have_is_refused() -> None:
    sites = find_sites(tiny_model("bert"))
    largest = min(site.largest_rank for site in sites)
    ScaledRandomStart(rank=largest).check(sites)
    with pytest.raises(IwloraError, match=r"lora-ga with method.rank"):
        ScaledRandomStart(rank=largest, like="lora-ga").check(sites)
