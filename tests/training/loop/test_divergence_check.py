"""NaN and infinite values stop a run before the optimizer moves, with the step and its rows."""

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
from iwlora.training.loop.divergence import DivergenceCheck
from iwlora.training.loop.row_order import EpochSampler, MicroBatchSampler
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.run import train
from runs import recipe, status


@given(
    size=st.integers(12, 40),
    micro_batch=st.integers(1, 3),
    accumulate=st.integers(1, 2),
    processes=st.integers(1, 3),
    grouped=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_the_rows_of_a_step_are_those_that_all_processes_compute(
    size: int, micro_batch: int, accumulate: int, processes: int, grouped: bool, epoch: int
) -> None:
    """Also after epochs whose last step is left out because it is shorter than the processes."""
    lengths = list(range(size)) if grouped else None
    order = EpochSampler(size, micro_batch * accumulate * processes, seed=1, lengths=lengths)
    samplers = [MicroBatchSampler(order, accumulate, rank, processes) for rank in range(processes)]
    order.set_epoch(epoch)
    computed = [row for sampler in samplers for batch in sampler for row in batch]
    first = samplers[0]
    steps = range(epoch * first.steps_per_epoch, (epoch + 1) * first.steps_per_epoch)
    assert sorted(row for step in steps for row in first.step_rows(step)) == sorted(computed)
    assert len(first) == sum(len(first.step_micro_batches(step)[0]) for step in steps)
    assert len(computed) >= size - processes + 1


@pytest.mark.quick
def test_a_last_step_shorter_than_the_processes_is_not_counted() -> None:
    """17 rows in batches of 8: the row left over is too few for 2 processes, not for 1."""
    order = EpochSampler(17, 8, seed=0)
    one, two = (MicroBatchSampler(order, 1, 0, processes) for processes in (1, 2))
    assert (one.steps_per_epoch, two.steps_per_epoch) == (3, 2)
    assert one.step_rows(2) == order.epoch_rows(0)[16:]
    assert two.step_rows(2) == order.epoch_rows(1)[:8]


def test_a_step_is_judged_by_loss_and_gradient() -> None:
    check = DivergenceCheck(lambda step: [step, 99], every=10)
    for step in range(3):
        check.add_loss(torch.tensor(1.0))
        check.add_loss(torch.tensor(2.0))
        check.end_step(step, torch.tensor(3.0))
    check.add_loss(torch.tensor(1.0))
    check.add_loss(torch.tensor(math.inf))
    with pytest.raises(Diverged, match=r"the loss is inf in step 4: .* counted from 0: 3, 99$"):
        check.end_step(3, torch.tensor(1.0))
    check.add_loss(torch.tensor(1.0))
    with pytest.raises(Diverged, match="the norm of the gradient is nan in step 6"):
        check.end_step(5, math.nan)


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

    class Breaking(FineTuningTrainer):
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

    monkeypatch.setattr(prepare_module, "FineTuningTrainer", Breaking)
    run_recipe = recipe(tiny_bert, reviews, accumulate=accumulate)
    rows = MicroBatchSampler(EpochSampler(96, 16, 0, None), accumulate, 0, 1).step_rows(7)
    with pytest.raises(
        Diverged, match=f"the {what} is nan in step 8: .* counted from 0: "
    ) as error:
        train(run_recipe, tmp_path)
    assert len(str(error.value).rsplit(": ", 1)[1].split(", ")) == 13 <= len(rows)
    assert status(tmp_path)["state"] == "diverged"
    parameter, before = seen[0]
    assert torch.equal(parameter, before)
