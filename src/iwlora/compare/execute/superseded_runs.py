"""Runs at a learning rate that a search has left: kept beside its trials, and used again."""

from __future__ import annotations

from pathlib import Path

from iwlora.compare.plan.learning_rate_search import with_rate
from iwlora.compare.plan.recipe import PlannedRun
from iwlora.errors import IwloraError
from iwlora.results.layout import tried_at
from iwlora.training.state.run_folder import RunDir


def make_room(run: PlannedRun, comparison: Path) -> Path | None:
    """Where the reported run at the rate chosen before now lies, or None if there was none.

    A search that grows by rates or seeds may choose anew. The run at the former rate, which
    differs in nothing else, goes to ``<label>/search/lr-<rate>/former/seed-<n>``; one that lies
    there for the rate of ``run`` comes back. Raises ``IwloraError`` where that cannot be done.
    """
    place = run.folder(comparison)
    kept = None
    try:
        if (place / "recipe.yaml").is_file():
            there = RunDir(place).recipe()
            rate = there.train.lr
            if (
                rate == run.recipe.train.lr
                or with_rate(run.recipe, rate).digest() != there.digest()
            ):
                return None
            kept = _former(run, rate, comparison)
            kept.parent.mkdir(parents=True, exist_ok=True)
            place.rename(kept)
        before = _former(run, run.recipe.train.lr, comparison)
        if before.is_dir() and not place.exists():
            before.rename(place)
    except OSError as error:
        raise IwloraError(f"cannot make room for {run} in {place}: {error.strerror}") from None
    return kept


def _former(run: PlannedRun, rate: float, comparison: Path) -> Path:
    return tried_at(comparison, run.label, rate) / "former" / f"seed-{run.seed}"
