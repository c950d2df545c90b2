"""``full`` with new weights in place of the pretrained ones."""

from __future__ import annotations

import pytest
import torch

from iwlora.methods.contract import split_head
from iwlora.methods.selective.full_fine_tuning import Full
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick


def trained(seed: int, from_scratch: bool = True) -> dict[str, torch.Tensor]:
    model = tiny_model("bert")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)  # as no new weights are
    Full(from_scratch=from_scratch).attach(model, sites(model), seed)
    assert all(parameter.requires_grad for parameter in model.parameters())
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_the_backbone_is_a_new_one_and_the_head_stays() -> None:
    pretrained, first, again, other = (
        trained(0, from_scratch=False),
        *(trained(seed) for seed in (0, 0, 1)),
    )
    backbone, head = split_head(tiny_model("bert"))
    for name in head:
        assert torch.equal(first[name], pretrained[name])
    matrices = [name for name in backbone if first[name].dim() > 1]
    for name in backbone:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], pretrained[name])
    values = torch.cat([first[name].flatten() for name in matrices])
    assert abs(values.mean()) < 0.005, "nothing of the pretrained weights is left"
    assert values.std() == pytest.approx(0.02, rel=0.1)
    assert all(not torch.equal(first[name], other[name]) for name in matrices)
