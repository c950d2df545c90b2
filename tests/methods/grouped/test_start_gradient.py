"""The gradient of a mixture at its start against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.grouped.start_gradient import start_gradient_squares
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick


def test_they_are_those_of_the_mean_gradient_and_nothing_changes() -> None:
    model = tiny_model("bert", blocks=3).double().train()
    method = Grouped(strategies=[["lora", "bitfit"], ["pfeiffer"], ["prefix"]], part_size=2)
    attached = method.attach(model, sites(model), 0)
    random = torch.Generator().manual_seed(0)
    batches = [
        {
            "input_ids": torch.randint(6, 60, (3, 5), generator=random),
            "labels": torch.tensor([0, 1, 1]),
        }
        for _ in range(2)
    ]

    def loss(model: Any, batch: Any) -> Any:
        return model(**batch).loss

    found = start_gradient_squares(attached, batches, loss)
    assert model.training
    assert not any(p.grad is not None for p in model.parameters())
    model.eval()
    (sum(loss(model, batch) for batch in batches) / 2).backward()
    gradients = {name: model.get_parameter(name).grad for name in attached.adapter}
    squares = {name: float(g.double().square().sum()) for name, g in gradients.items()}
    assert found == pytest.approx(squares, rel=1e-6)
    assert all(square == 0 for name, square in squares.items() if "lora_A" in name)
    assert sum(square for name, square in squares.items() if "lora_B" in name) > 0
    with pytest.raises(ValueError, match="no batches"):
        start_gradient_squares(attached, [], loss)
