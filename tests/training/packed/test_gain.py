"""The measured gain of a pack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from iwlora.training.packed import gain
from runs import recipe


@pytest.mark.quick
def test_the_gain_is_the_ratio_of_the_times(
    with_dropout: Path, reviews: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three pairs of times, 2 / 1, 6 / 1 and 3 / 1, the median."""
    clock: Iterator[float] = iter([0, 2, 2, 3, 3, 9, 9, 10, 10, 13, 13, 14])
    monkeypatch.setattr(gain.time, "perf_counter", lambda: next(clock))
    assert gain.measured_gain(recipe(with_dropout, reviews), runs=2) == 3
