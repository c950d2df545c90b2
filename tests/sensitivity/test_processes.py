"""Several processes measure their batches together: all get what one would, on all batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

import iwlora
from iwlora.errors import IwloraError
from sensitivity_models import batches, classifier

COUNT = 2


def _measure(rank: int, folder: str, options: dict[str, Any], shares: list[int]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=COUNT
    )
    data = batches(sum(shares))[rank::COUNT][: shares[rank]]
    if options.pop("broken", False):
        loss = lambda model, batch: model(**batch).loss * (float("inf") if rank else 1.0)  # noqa: E731
        with pytest.raises(IwloraError, match="not finite in calibration batch 1"):
            iwlora.measure(classifier("bert"), data, loss=loss)
        return
    found = iwlora.measure(classifier("bert"), data, **options)
    told = [found.values, found.stderr, found.batches, found.share_error, found.converged]
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


def together(folder: Path, shares: list[int], **options: Any) -> list[Any]:
    multiprocessing.spawn(_measure, (str(folder), options, shares), nprocs=COUNT)
    one, two = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(COUNT))
    assert one == two, "the processes came to different results"
    found: list[Any] = one
    return found


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"tolerance": 0}, [3, 3]),
        ({"tolerance": 0, "estimator": "sketch"}, [3, 2]),
        ({"tolerance": 0, "statistic": "mean"}, [3, 3]),
        ({"tolerance": 0.5, "max_batches": 20}, [7, 7]),
    ],
)
def test_two_processes_equal_one(
    tmp_path: Path, options: dict[str, Any], shares: list[int]
) -> None:
    values, stderr, count, error, converged = together(tmp_path, shares, **options)
    one = iwlora.measure(classifier("bert"), batches(sum(shares)), **options)
    assert values == pytest.approx(one.values, rel=1e-12)
    assert (count, converged) == (one.batches, one.converged)
    if options.get("statistic") != "mean":  # its readings are along a process's own mean
        assert stderr == pytest.approx(one.stderr, rel=1e-9)
        assert error == pytest.approx(one.share_error, rel=1e-9)


def test_a_broken_batch_of_one_process_stops_all(tmp_path: Path) -> None:
    multiprocessing.spawn(_measure, (str(tmp_path), {"broken": True}, [2, 2]), nprocs=COUNT)
