"""Takes the scores of a cell out of the folder of its comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.compare.report.tables.classes import ClassPredictions, class_predictions
from iwlora.compare.statistics.calibration import expected_calibration_error, reliability
from iwlora.results import layout
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.results.comparison.record import ComparisonRecord, Search
from iwlora.results.run import Run, load_run, state_of
from iwlora_study.runner.cells import Cell
from iwlora_study.runner.scores import CellScores, StoredRun

TEMPERATURES = np.geomspace(0.25, 16.0, 121)
Probabilities = npt.NDArray[np.float64]
_LOST = ("failed", "diverged")


@dataclass(frozen=True)
class Spent:
    """What the processes of a cell took: processor seconds of all of them, and wall seconds."""

    processor: float = 0.0
    wall: float = 0.0


def collect(
    cell: Cell, stage: str, folder: Path, spent: Spent, *, ended: bool
) -> CellScores | None:
    """The scores of a cell's finished runs; None while there are none.

    Args:
        cell: The cell.
        stage: "screen" or "confirm".
        folder: Of its comparison.
        spent: The time of its processes.
        ended: Whether the comparison ended by itself; one that was stopped has no floors yet.

    Raises:
        IwloraError: A file of the comparison is damaged.
    """
    if not (folder / layout.COMPARISON).exists():
        return None
    record = ComparisonRecord.load(folder / layout.COMPARISON)
    floors = ComparisonFloors.of(folder)
    runs, first, missing = [], None, False
    for label in record.methods:
        for seed in record.seeds:
            run_folder = layout.run_folder(folder, label, seed)
            if (run_folder / layout.RESULT).exists():
                run = floors.beside(load_run(run_folder), folder)
                first = first or run
                runs.append(stored_run(run))
            elif (state := state_of(run_folder)) in _LOST:
                runs.append(StoredRun(arm=label, seed=seed, state=str(state)))
            else:
                missing = True
    if first is None:
        return None
    searched = folder / layout.SEARCH
    fingerprint = first.result.fingerprint
    return CellScores(
        cell=cell.name,
        stage=stage,
        settings=dict(cell.settings),
        digest=cell.digest,
        complete=ended and not missing,
        metric=first.result.primary_metric,
        baseline=record.baseline or "lora",
        kind=str((first.result.kind or {}).get("name", "classification")),
        runs=runs,
        searches=Search.load(searched).arms if searched.exists() else {},
        machine=machine(first.environment()),
        versions=dict(fingerprint.versions) if fingerprint else {},
        processor_seconds=round(spent.processor, 2),
        wall_seconds=round(spent.wall, 2),
    )


def machine(environment: Mapping[str, Any]) -> str:
    """The kind of machine, without its name.

    >>> machine({"processor": "AMD EPYC", "cores": 1, "gpu": None})
    'AMD EPYC, 1 core a run'
    """
    kind, cores = environment.get("gpu") or environment["processor"], environment["cores"]
    return f"{kind}, {cores} core{'s' * (cores != 1)} a run"


def stored_run(run: Run) -> StoredRun:
    """What is kept of a finished run."""
    result = run.result
    parts = result.fingerprint.parts if result.fingerprint else {}
    return StoredRun(
        arm=result.label,
        seed=result.seed,
        lr=result.learning_rate,
        metrics={**result.metrics, **dict(_calibration(run))},
        trivial_floors=[floor for floor in result.floors if floor.trivial],
        trainable_parameters=result.trainable_parameters,
        adapter_parameters=result.adapter_parameters,
        one_answer=run.gives_one_answer,
        seconds=result.total_seconds,
        digests={name: digest[:16] for name, digest in parts.items()},
        notes=result.notes,
    )


def _calibration(run: Run) -> Iterator[tuple[str, float]]:
    """ECE on the study rows, and ECE and loss after the temperature of the official split."""
    study = class_predictions(run)
    if study is None or study.probabilities is None:
        return
    yield "calibration_error", _calibration_error(study.probabilities, study.labels)
    official = _official(run)
    if official is None or official.probabilities is None:
        return
    chosen = temperature(official.probabilities, official.labels)
    rescaled = with_temperature(study.probabilities, chosen)
    yield "temperature", chosen
    yield "loss_rescaled", log_loss(rescaled, study.labels)
    yield "calibration_error_rescaled", _calibration_error(rescaled, study.labels)


def _official(run: Run) -> ClassPredictions | None:
    """The predictions for the official split, which is scored beside the study rows."""
    assert run.folder is not None
    kept = sorted((run.folder / layout.PREDICTIONS).glob("*.csv"))
    others = [path.stem for path in kept if path.stem != run.result.evaluated_on]
    if len(others) != 1:
        return None
    result = run.result.model_copy(update={"evaluated_on": others[0]})
    return class_predictions(Run(run.folder, result))


def _calibration_error(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    right = probabilities.argmax(-1) == labels
    return expected_calibration_error(reliability(probabilities.max(-1), right))


def log_loss(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    """The mean of -log p(label).

    >>> round(log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 4)
    0.4904
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def with_temperature(probabilities: Probabilities, value: float) -> Probabilities:
    """softmax(logits / T), from the probabilities softmax(logits): p^(1/T) / Σ p^(1/T).

    >>> with_temperature(np.array([[0.2, 0.8]]), 0.5).round(3).tolist()
    [[0.059, 0.941]]

    Source:
        Guo et al. 2017, arXiv:1706.04599.
    """
    logits = np.log(np.maximum(probabilities, 1e-12)) / value
    raised: Probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    rescaled: Probabilities = raised / raised.sum(-1, keepdims=True)
    return rescaled


def temperature(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    """The temperature with the lowest loss on these rows, of 121 between 1/4 and 16."""
    losses = [log_loss(with_temperature(probabilities, value), labels) for value in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])
