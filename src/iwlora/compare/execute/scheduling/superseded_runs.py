"""Runs with the former choice of a search, which are kept beside the trials of that choice."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.compare.plan.search.options import options_of, with_choice_of
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.training.recipe import Recipe
from iwlora.training.state.run_folder import RunDir


def swap_superseded_run(
    run: PlannedRun, comparison: Path, options: Collection[str] = ()
) -> Path | None:
    """Move a run at a learning rate chosen before out of the folder of ``run``.

    A search that grows may choose another learning rate, or other values of the ``options`` that it
    tries too. The run with the previous choice, which differs in nothing else, is moved next to the
    trials of that choice. If a run with the new choice was kept there before, it is moved back.

    Returns:
        Where the previous run is kept now; None if there was none.

    Raises:
        IwloraError: A folder could not be moved.
    """

    def former_folder(recipe: Recipe) -> Path:
        chosen = options_of(recipe, options)
        return layout.superseded_run_folder(
            comparison, run.label, recipe.train.lr, run.seed, chosen
        )

    folder = run.folder(comparison)
    kept = None
    try:
        if (folder / layout.RECIPE).is_file():
            stored = RunDir(folder).recipe()
            same_otherwise = with_choice_of(run.recipe, stored, options).digest() == stored.digest()
            if stored.digest() == run.recipe.digest() or not same_otherwise:
                return None
            kept = former_folder(stored)
            kept.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(kept)
        kept_before = former_folder(run.recipe)
        if kept_before.is_dir() and not folder.exists():
            kept_before.rename(folder)
    except OSError as error:
        raise IwloraError(
            f"cannot move the run of {run} out of {folder}, to keep it: {error.strerror}"
        ) from None
    return kept
