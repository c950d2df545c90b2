"""Runs that are trained together end as they end alone, and do not touch each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwlora.errors import Diverged
from iwlora.methods import METHODS
from iwlora.testing import Case
from iwlora.testing.packed import (
    LOSS_TOLERANCE,
    TOLERANCE,
    PackedRun,
    difference_of_losses,
    largest_difference,
    longer_rows,
    train_together,
)
from iwlora.training.packed import pack as pack_module
from iwlora.training.packed.joint_pass import JointPass
from iwlora.training.packed.pack import Pack
from iwlora.training.packed.randomness import OwnRandomness


def run_of(
    folder: Path, method: str, seed: int, architecture: str = "bert", **options: Any
) -> PackedRun:
    case = Case(METHODS[method](), architecture, folder / f"{method}-{seed}")
    rows = longer_rows(case) if seed == 1 else case.rows
    return PackedRun(case, seed, rows, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packed")


def alone(runs: Sequence[PackedRun], folder: Path) -> list[dict[str, Tensor]]:
    return [run.train(folder / f"alone-{number}") for number, run in enumerate(runs)]


def test_runs_of_all_kinds_end_as_alone_and_one_that_diverges_touches_no_other(
    folder: Path,
) -> None:
    """They differ in seed, length of rows, schedule, micro-batches and number of steps."""
    runs = [
        run_of(
            folder, "lora", 1, learning_rate=1e-3, lr_scheduler_type="cosine", max_grad_norm=0.5
        ),
        run_of(folder, "iw-lora", 2, weight_decay=0.1, warmup_steps=5),
        run_of(folder, "bitfit", 3, max_steps=14),
        run_of(folder, "lora-importance-ranks", 4, gradient_accumulation_steps=2),
    ]
    diverging = run_of(folder, "lora", 5, learning_rate=1e200)
    pack = Pack()
    *together, diverged = train_together([*runs, diverging], folder / "together", pack)
    assert pack.passes >= 20
    assert isinstance(diverged, Diverged)
    for expected, found in zip(alone(runs, folder), together, strict=True):
        assert isinstance(found, dict), found
        assert largest_difference(expected, found) <= TOLERANCE


def test_in_float32_the_losses_are_those_of_the_runs_alone(folder: Path) -> None:
    methods = [("lora", 1), ("iw-lora", 2), ("head", 3)]
    runs = [replace(run_of(folder, *method), dtype=torch.float32) for method in methods]
    pack = Pack()
    together = train_together(runs, folder / "float32", pack)
    assert pack.passes > 0
    expected = alone(runs, folder / "float32")
    for one, found in zip(expected, together, strict=True):
        assert isinstance(found, dict), found
        assert difference_of_losses(one, found) <= LOSS_TOLERANCE
    assert difference_of_losses(*expected[:2]) > 10 * LOSS_TOLERANCE, "others would be noticed"


SHORT = {"max_steps": 5}


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[PackedRun]:
    """Three short runs of GPT-2, whose layers store the transposed weight."""
    methods = [("lora", 1), ("head", 2), ("lora", 3)]
    return [run_of(folder, method, seed, "gpt2", **SHORT) for method, seed in methods]


@pytest.fixture(scope="module")
def pair_alone(pair: list[PackedRun], folder: Path) -> list[dict[str, Tensor]]:
    return alone(pair, folder / "pair")


def differences(
    pair: list[PackedRun], expected: list[dict[str, Tensor]], folder: Path, pack: Pack
) -> list[float]:
    found = train_together(pair, folder, pack)
    assert all(isinstance(ended, dict) for ended in found), found
    return [largest_difference(a, b) for a, b in zip(expected, found, strict=True)]  # type: ignore[arg-type]


@pytest.mark.quick
def test_decoders_end_as_alone(
    pair: list[PackedRun], pair_alone: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    assert max(differences(pair, pair_alone, tmp_path, Pack())) <= TOLERANCE


def test_swapped_random_numbers_are_noticed(
    pair: list[PackedRun],
    pair_alone: list[dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = OwnRandomness.alone

    @contextmanager
    def of_another(self: OwnRandomness, run: int) -> Iterator[None]:
        with original(self, (run + 1) % len(self._states)):
            yield

    monkeypatch.setattr(OwnRandomness, "alone", of_another)
    assert min(differences(pair, pair_alone, tmp_path, Pack())) > 1e-6


def test_swapped_outputs_are_noticed(
    pair: list[PackedRun],
    pair_alone: list[dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = JointPass.__init__

    def reversed_outputs(self: JointPass, *arguments: Any) -> None:
        original(self, *arguments)
        self.outputs.reverse()

    monkeypatch.setattr(JointPass, "__init__", reversed_outputs)
    assert max(differences(pair, pair_alone, tmp_path, Pack())) > 1e-6


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_pack_that_the_memory_does_not_hold_is_halved(
    where: str,
    pair: list[PackedRun],
    pair_alone: list[dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A pass that is computed again draws the same random numbers."""
    name = "__init__" if where == "forward" else "gradients"
    original = getattr(JointPass, name)

    def limited(self: JointPass, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if len(self.outputs) > 2:
            raise torch.OutOfMemoryError("planted")
        return result

    monkeypatch.setattr(JointPass, name, limited)
    pack = Pack(most_runs=5)
    with caplog.at_level(logging.WARNING):
        assert max(differences(pair, pair_alone, tmp_path, pack)) <= TOLERANCE
    assert pack.most_runs == 2
    assert "the memory does not hold a step of 3 runs" in caplog.text


def test_a_model_that_cannot_be_shared_is_computed_alone(
    pair: list[PackedRun],
    pair_alone: list[dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(pack_module, "JointModel", refuse)
    pack = Pack()
    with caplog.at_level(logging.WARNING):
        assert max(differences(pair, pair_alone, tmp_path, pack)) == 0
    assert pack.passes == 0
    assert "3 runs are not computed together: RuntimeError: planted" in caplog.text
