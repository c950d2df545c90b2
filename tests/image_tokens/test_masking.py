from __future__ import annotations

import numpy as np
import pytest

from iwlora.image_tokens.masking import masked_count, masked_places, step_ratio, still_masked


@pytest.mark.quick
def test_counts_of_49_tokens_are_those_by_hand() -> None:
    unknown, counts = 49, []
    for step in range(1, 13):
        unknown = still_masked(49, unknown, step, 12)
        counts.append(unknown)
    # 49 cos(πt/24), rounded down: 48.6, 47.3, 45.3, 42.4, 38.9, 34.6, 29.8, 24.5, 18.8, 12.7, 6.4
    # and 0.
    assert counts == [48, 47, 45, 42, 38, 34, 29, 24, 18, 12, 6, 1]
    # At least one token becomes known in each step, and one is left for the next.
    assert [still_masked(49, unknown, 1, 12) for unknown in (49, 3, 2, 1)] == [48, 2, 1, 1]
    # 49 cos(πu/2), rounded up: 49, 48.4, 34.6, 0.08
    assert [masked_count(49, u) for u in (0.0, 0.1, 0.5, 0.999)] == [49, 49, 35, 1]


def test_places_and_ratios_follow_from_their_draws_alone_and_are_uniform() -> None:
    draws = [masked_places(9, 4, (0, 0, row)) for row in range(2000)]
    assert all(len(set(places)) == 4 for places in draws)
    assert (draws[7] == masked_places(9, 4, (0, 0, 7))).all()
    shares = np.bincount(np.concatenate(draws), minlength=9) / 2000
    assert np.abs(shares - 4 / 9).max() < 5 * np.sqrt(4 / 9 * 5 / 9 / 2000)
    ratios = [step_ratio((0, 0, step)) for step in range(2000)]
    assert abs(np.mean(ratios) - 0.5) < 5 * np.sqrt(1 / 12 / 2000)
    assert step_ratio((0, 1, 3)) != step_ratio((0, 0, 3)) == ratios[3]
