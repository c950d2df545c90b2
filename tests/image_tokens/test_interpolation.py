from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from iwlora.image_tokens.interpolation import interpolate


@pytest.mark.quick
def test_the_arc_has_a_constant_speed_and_both_ways_end_where_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 3, 4, 8, generator=generator, dtype=torch.float64)
    for kind in ("linear", "spherical"):
        torch.testing.assert_close(interpolate(start, end, 0.0, kind), start)
        torch.testing.assert_close(interpolate(start, end, 1.0, kind), end)
    torch.testing.assert_close(interpolate(start, end, 0.25, "linear"), start + (end - start) / 4)
    points = [interpolate(start, end, step / 5, "spherical") for step in range(6)]
    directions = [point / point.norm(dim=-1, keepdim=True) for point in points]
    whole = torch.acos((directions[0] * directions[-1]).sum(-1))
    for number, (one, next_one) in enumerate(pairwise(directions)):
        torch.testing.assert_close(torch.acos((one * next_one).sum(-1)), whole / 5)
        length = start.norm(dim=-1) * (1 - number / 5) + end.norm(dim=-1) * number / 5
        torch.testing.assert_close(points[number].norm(dim=-1), length)
    same = interpolate(start, 2 * start, 0.5, "spherical")
    torch.testing.assert_close(same, 1.5 * start)
    assert torch.isfinite(interpolate(start, -start, 0.5, "spherical")).all()
