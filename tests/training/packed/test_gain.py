"""The measured gain of a pack: what is timed, for whom, and what cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import VOCABULARY, save_tiny
from iwlora.training.kernels.lora import FusedLoraLinear
from iwlora.training.packed import gain
from iwlora.training.packed.gain import measured_gain
from iwlora.training.packed.shares import NotPackable
from kinds import save_model
from runs import recipe
from tiny_tasks import write_task

RUNS, ROWS = 3, 4


class Steps:
    """What each timed step computes: {frozen matrix: the rows of each product}, and gradients."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.products: list[dict[int, list[int]]] = []
        self.outputs: set[int] = set()
        self.gradients: list[list[int]] = []
        linear, grad = torch.nn.functional.linear, torch.autograd.grad

        def counted_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            if not weight.requires_grad and self.products:
                self.products[-1].setdefault(weight.data_ptr(), []).append(len(x))
                self.outputs.add(len(weight))
            return linear(x, weight, bias)

        def counted_grad(*args: Any, **kwargs: Any) -> Any:
            found = grad(*args, **kwargs)
            if self.gradients:
                self.gradients[-1].append(sum(gradient is not None for gradient in found))
            return found

        def seconds(step: Callable[[], None]) -> float:
            self.products.append({})
            self.gradients.append([])
            step()
            return float(sum(map(len, self.products[-1].values())))

        monkeypatch.setattr(torch.nn.functional, "linear", counted_linear)
        monkeypatch.setattr(torch.autograd, "grad", counted_grad)
        monkeypatch.setattr(gain, "_seconds", seconds)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        pytest.param("bert", "classification", marks=pytest.mark.quick),
        ("llama", "language-modeling"),
        ("bart", "classification"),
    ],
)
def test_together_each_frozen_matrix_multiplies_the_rows_of_all_runs_once(
    architecture: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "model", architecture)
    task, _ = write_task(tmp_path / "task", kind)
    steps = Steps(monkeypatch)
    train = {"batch_size": 2 * ROWS, "accumulate": 2, "fast_kernels": False}
    found = measured_gain(recipe(model, task, **train), RUNS)
    assert found == RUNS, "each product is counted as one second"
    alone, together = steps.products[-2:]
    assert together == {weight: [RUNS * ROWS] for weight in together}
    assert alone == {weight: [ROWS] * RUNS for weight in together}
    assert len(together) >= 6, "of two blocks at least"
    assert (len(VOCABULARY) in steps.outputs) == (kind == "language-modeling"), (
        "the head over the vocabulary"
    )
    (of_all,) = steps.gradients[-1]
    assert steps.gradients[-2] == [of_all // RUNS] * RUNS


def test_every_run_has_the_fast_kernels(
    with_dropout: Path, reviews: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[int] = set()
    original = FusedLoraLinear.forward

    def noted(self: Any, *args: Any) -> Any:
        used.add(id(self))
        return original(self, *args)

    monkeypatch.setattr(FusedLoraLinear, "forward", noted)
    sites_of = []
    for runs in (1, 2):
        used.clear()
        measured_gain(recipe(with_dropout, reviews), runs)
        sites_of.append(len(used))
    assert sites_of[1] == 2 * sites_of[0] > 0


def test_the_gain_is_the_median_ratio_of_the_times(
    with_dropout: Path, reviews: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three pairs of times, 2 / 1, 6 / 1 and 3 / 1."""
    clock: Iterator[float] = iter([0, 2, 2, 3, 3, 9, 9, 10, 10, 13, 13, 14])
    monkeypatch.setattr(gain.time, "perf_counter", lambda: next(clock))
    assert measured_gain(recipe(with_dropout, reviews), runs=2) == 3


def test_what_cannot_be_computed_together_is_not_measured(
    reviews: Mapping[str, str], tmp_path: Path
) -> None:
    deberta = save_tiny(tmp_path / "deberta", "deberta-v2", hidden_dropout_prob=0.1)
    with pytest.raises(NotPackable, match="it computes a tensor of shape"):
        measured_gain(recipe(deberta, reviews), runs=2)
    writer = save_model(tmp_path / "bart", "bart")
    task, _ = write_task(tmp_path / "task", "seq2seq")
    with pytest.raises(NotPackable, match="inputs other than token ids"):
        measured_gain(recipe(writer, task), runs=2)
