"""What a pass of several runs may draw: nothing that the runs do not draw for themselves."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from iwlora.training.packed.randomness import ProcessState


@pytest.mark.quick
@pytest.mark.parametrize("draw", [lambda: torch.rand([]), random.random, np.random.rand])
def test_every_draw_is_noticed_on_a_gpu_too(draw: Callable[[], object]) -> None:
    """Models that leave out whole layers at random draw on the CPU, wherever they compute."""
    before, after = ProcessState(torch.device("cpu")), ProcessState(torch.device("cpu"))
    before.cuda = after.cuda = torch.get_rng_state()  # nothing was drawn there
    assert after.equals(before)
    draw()
    after.save()
    after.cuda = before.cuda
    assert not after.equals(before)
