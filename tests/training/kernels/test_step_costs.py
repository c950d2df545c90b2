"""Kernels, synchronizations and large tensors of a training step stay within stated bounds.

These counts do not depend on the machine. A step that costs more fails here, and so does one that
costs less by one operation at each site: then lower the number in ``BOUNDS`` to the one printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import TrainerCallback

from counted import BLOCKS, MATRICES
from iwlora.training import prepare as prepare_module
from iwlora.training.run import train
from runs import recipe

SITES = BLOCKS * len(MATRICES)
STEP = 3  # late enough that nothing is created for the first time, and not a step that logs
LARGE = 16 * 7 * 16 * 4  # bytes of a hidden state: 16 rows × 7 tokens × 16 units in float32


@dataclass(frozen=True)
class Costs:
    """Of one optimizer step.

    ``kernels`` are the operations dispatched, views apart: on a GPU, about the kernels launched.
    ``syncs`` are the times that a number is read: there the host waits for the device.
    ``large`` are new tensors as large as a hidden state.
    """

    kernels: int
    syncs: int
    large: int


BOUNDS = {
    ("lora", "fp32"): Costs(kernels=241, syncs=3, large=56),
    ("lora", "bf16"): Costs(kernels=345, syncs=3, large=4),
    ("iw-lora", "fp32"): Costs(kernels=293, syncs=3, large=56),
    ("adalora", "fp32"): Costs(kernels=984, syncs=4, large=174),
}


class Counting(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.syncs = self.large = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self.kernels += not func.is_view
        self.syncs += func is torch.ops.aten._local_scalar_dense.default
        inputs = {x.untyped_storage().data_ptr() for x in tree_leaves(args) if is_tensor(x)}
        for output in filter(is_tensor, tree_leaves(outputs)):
            storage = output.untyped_storage()
            self.large += storage.nbytes() >= LARGE and storage.data_ptr() not in inputs
        return outputs


def is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


class OneStep(TrainerCallback):
    """Counts one step of a run."""

    def __init__(self) -> None:
        self.counting = Counting()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP:
            self.counting.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP + 1:
            self.counting.__exit__(None, None, None)


Change = Callable[[Any], None]


@pytest.fixture
def costs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Costs]:
    """The costs of a step of a method's run, with a change made to its Trainer."""

    def counted(method: str, precision: str, change: Change = lambda trainer: None) -> Costs:
        watch, make = OneStep(), prepare_module.make_trainer

        def watched(*args: Any) -> Any:
            trainer = make(*args)
            change(trainer)
            trainer.callback_handler.callbacks.insert(0, watch)
            return trainer

        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, "make_trainer", watched)
            train(
                recipe(tiny_bert, reviews, method, epochs=1, precision=precision),
                tmp_path / f"run-{len(list(tmp_path.iterdir()))}",
            )
        actual = watch.counting
        return Costs(actual.kernels, actual.syncs, actual.large)

    return counted


@pytest.mark.parametrize(("method", "precision"), BOUNDS)
def test_a_step_costs_no_more_than_stated(
    costs: Callable[..., Costs], method: str, precision: str
) -> None:
    actual, bound = costs(method, precision), BOUNDS[method, precision]
    assert all(a <= b for a, b in zip(astuple(actual), astuple(bound), strict=True)), (
        f"a step of {method} in {precision} has come to cost {actual}; the bound is {bound}"
    )
    assert bound.kernels - actual.kernels < SITES, f"lower the bound to {actual}"
    assert bound.large - actual.large < SITES, f"lower the bound to {actual}"
    assert bound.syncs == actual.syncs, f"lower the bound to {actual}"


def one_more_operation_a_site(trainer: Any) -> None:
    """As a careless scaling or cast in each adapted layer would add."""
    from peft.tuners.lora import LoraLayer

    layers = [m for m in trainer.model.modules() if isinstance(m, LoraLayer)]
    assert len(layers) == SITES
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: output * 1.0)


def a_number_read_each_step(trainer: Any) -> None:
    """As a loss that is logged at every step would."""

    class Read(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
            next(p for p in model.parameters() if p.grad is not None).grad.sum().item()

    trainer.add_callback(Read())


def test_an_added_operation_or_synchronization_would_be_noticed(
    costs: Callable[..., Costs],
) -> None:
    bound = BOUNDS["lora", "fp32"]
    slower = costs("lora", "fp32", one_more_operation_a_site)
    assert slower.kernels > bound.kernels
    assert slower.large > bound.large
    waiting = costs("lora", "fp32", a_number_read_each_step)
    assert waiting.syncs == bound.syncs + 1
