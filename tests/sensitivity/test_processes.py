"""Several processes measure their batches together: all get the result of one on all batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

import iwlora
from iwlora.errors import IwloraError
from iwlora.testing.processes import run_in_two_processes
from sensitivity_models import batches, classifier

# (options of measure, the number of batches of each process)
CASES: list[tuple[dict[str, Any], list[int]]] = [
    ({"tolerance": 0}, [3, 3]),
    ({"tolerance": 0, "estimator": "sketch"}, [3, 2]),
    ({"tolerance": 0, "statistic": "mean"}, [3, 3]),
    ({"tolerance": 0.5, "max_batches": 20}, [7, 7]),
]


def share(counts: list[int], rank: int) -> list[Any]:
    """The batches of a process: every second one, and no more than its count."""
    return batches(sum(counts))[rank::2][: counts[rank]]


def measure_cases(rank: int, folder: Path) -> None:
    """Measure every case, then batches of which those of process 1 have an infinite loss."""
    distributed.init_process_group("gloo")
    for number, (options, counts) in enumerate(CASES):
        measured = iwlora.measure(classifier("bert"), share(counts, rank), **options)
        parts = [
            measured.values,
            measured.stderr,
            measured.batches,
            measured.share_error,
            measured.converged,
        ]
        (folder / f"{number}-{rank}.json").write_text(json.dumps(parts))

    def loss(model: Any, batch: Any) -> Any:
        return model(**batch).loss * (float("inf") if rank else 1.0)

    with pytest.raises(IwloraError, match="not finite in calibration batch 1"):
        iwlora.measure(classifier("bert"), share([2, 2], rank), loss=loss)
    (folder / f"refused-{rank}").touch()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes measured."""
    folder = tmp_path_factory.mktemp("pair")
    run_in_two_processes(measure_cases, folder)
    return folder


@pytest.mark.parametrize("number", range(len(CASES)))
def test_two_processes_equal_one(folder: Path, number: int) -> None:
    first, second = (json.loads((folder / f"{number}-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second, "the processes have different results"
    values, stderr, count, error, converged = first
    options, counts = CASES[number]
    one = iwlora.measure(classifier("bert"), batches(sum(counts)), **options)
    assert values == pytest.approx(one.values, rel=1e-12)
    assert (count, converged) == (one.batches, one.converged)
    if options.get("statistic") != "mean":  # its numbers are along the mean of a process
        assert stderr == pytest.approx(one.stderr, rel=1e-9)
        assert error == pytest.approx(one.share_error, rel=1e-9)


def test_a_broken_batch_of_one_process_stops_all(folder: Path) -> None:
    assert all((folder / f"refused-{rank}").is_file() for rank in (0, 1))
