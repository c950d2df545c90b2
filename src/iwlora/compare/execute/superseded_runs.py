"""Runs at a learning rate that a search no longer chooses: kept with its trials, and reused."""

from __future__ import annotations

from pathlib import Path

from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.training.state.run_folder import RunDir


def swap_superseded_run(run: PlannedRun, comparison: Path) -> Path | None:
    """Move a run at a learning rate chosen before out of the folder of ``run``.

    A search that grows by learning rates or seeds may choose another one. The run at the previous
    learning rate, which differs in nothing else, is moved next to the trials at that learning
    rate. If a run at the new learning rate was kept there before, it is moved back.

    Returns:
        Where the previous run is kept now; None if there was none.

    Raises:
        IwloraError: A folder could not be moved.
    """
    folder = run.folder(comparison)
    kept = None
    try:
        if (folder / layout.RECIPE).is_file():
            recipe = RunDir(folder).recipe()
            lr = recipe.train.lr
            same_otherwise = run.with_learning_rate(lr).recipe.digest() == recipe.digest()
            if lr == run.recipe.train.lr or not same_otherwise:
                return None
            kept = _superseded_folder(run, lr, comparison)
            kept.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(kept)
        kept_before = _superseded_folder(run, run.recipe.train.lr, comparison)
        if kept_before.is_dir() and not folder.exists():
            kept_before.rename(folder)
    except OSError as error:
        raise IwloraError(
            f"cannot move the run of {run} out of {folder}, to keep it: {error.strerror}"
        ) from None
    return kept


def _superseded_folder(run: PlannedRun, lr: float, comparison: Path) -> Path:
    return layout.superseded_run_folder(comparison, run.label, lr, run.seed)
