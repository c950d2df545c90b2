"""Numbers that are none: which step, which rows, and what nothing was done with them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iwlora.errors import Diverged
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.divergence import Finite
from iwlora.training.loop.row_order import EpochOrder
from iwlora.training.loop.trainer import FineTuner
from iwlora.training.run import train
from runs import recipe, status


@given(st.integers(1, 40), st.integers(1, 12), st.booleans(), st.integers(0, 3))
def test_the_rows_of_a_step_are_those_that_the_order_gives(
    size: int, batch: int, grouped: bool, epoch: int
) -> None:
    order = EpochOrder(size, batch, seed=1, lengths=list(range(size)) if grouped else None)
    order.set_epoch(epoch)
    steps = math.ceil(size / batch)
    told = [row for step in range(epoch * steps, (epoch + 1) * steps) for row in order.rows(step)]
    assert told == list(order)


def test_a_step_is_judged_by_loss_and_gradient() -> None:
    finite = Finite(lambda step: [step, 99], every=10)
    for step in range(3):
        finite.piece(torch.tensor(1.0))
        finite.piece(torch.tensor(2.0))
        finite.step(step, torch.tensor(3.0))
    finite.piece(torch.tensor(1.0))
    finite.piece(torch.tensor(math.inf))
    with pytest.raises(Diverged, match=r"the loss is inf in step 4: .* counted from 0: 3, 99$"):
        finite.step(3, torch.tensor(1.0))
    finite.piece(torch.tensor(1.0))
    with pytest.raises(Diverged, match="the norm of the gradient is nan in step 6"):
        finite.step(5, math.nan)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("what", ["loss", "norm of the gradient"])
def test_a_run_stops_before_the_optimizer_moves(
    what: str,
    accumulate: int,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    class Breaking(FineTuner):
        """Spoils one number in the eighth step."""

        def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 7:
                parameter = self._module.get_parameter(self._trainable[0])
                seen.append((parameter, parameter.detach().clone()))
                handle = parameter.register_hook(lambda g: g * math.nan)
                if what == "loss":
                    handle.remove()
                    self.compute_loss_func = lambda outputs, *_, **__: (
                        outputs.logits.sum() * math.nan
                    )
            return super().training_step(model, *args, **kwargs)

    monkeypatch.setattr(prepare_module, "FineTuner", Breaking)
    wanted = recipe(tiny_bert, reviews, accumulate=accumulate)
    rows = EpochOrder(96, 16, 0, None).rows(7)
    with pytest.raises(Diverged, match=f"the {what} is nan in step 8: .* counted from 0: ") as told:
        train(wanted, tmp_path)
    assert len(str(told.value).rsplit(": ", 1)[1].split(", ")) == 13 <= len(rows)
    assert status(tmp_path)["state"] == "diverged"
    parameter, before = seen[0]
    assert torch.equal(parameter, before)
