"""The conformance suite over the starts and over signal to noise, on one architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.methods import Method
from iwlora.testing import Case
from iwlora.testing.checks import CHECKS
from iwlora.testing.packed import packed_equals_alone
from iwlora_study.lora_one import LoraGaControl, LoraOne
from iwlora_study.scaled_random_start import ScaledRandomStart
from iwlora_study.signal_to_noise import SignalToNoise

METHODS = (
    LoraOne(),
    LoraGaControl(gradient="noise"),
    ScaledRandomStart(like="lora-one"),
    SignalToNoise(),
    SignalToNoise(sets="ranks", assign="permuted"),
)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{getattr(m, 'sets', '')}")
def test_conformance(method: Method, tmp_path: Path) -> None:
    case = Case(method, "bert", tmp_path)
    for check in CHECKS:
        check(case)


@pytest.mark.slow
def test_packed_runs_have_their_own_learning_rates(tmp_path: Path) -> None:
    packed_equals_alone(Case(SignalToNoise(), "bert", tmp_path))
