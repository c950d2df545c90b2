"""Whether the inputs of a comparison's finished runs are still what they were."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from iwlora import tasks
from iwlora.compare.plan.planned_runs import PlannedRun
from iwlora.results.fingerprint import Fingerprint, RowDigests
from iwlora.results.run import RunResult
from iwlora.training.state.fingerprint import UNVERIFIED, check_result, fingerprint_of
from iwlora.training.state.run_folder import RunDir

logger = logging.getLogger("iwlora")


class InputCheck:
    """Compares finished runs with the inputs as they are; data are read once for each seed."""

    def __init__(self) -> None:
        self._inputs: dict[str, tuple[Fingerprint, RowDigests]] = {}
        self._warned = False

    def check(self, run: PlannedRun, folder: Path, result: RunResult) -> None:
        """Raise ``IwloraError`` if an input of a finished run is not what it was.

        Its recipe was compared when its folder was opened.
        """
        if result.fingerprint is None:
            if not self._warned:
                logger.warning(f"{folder} and perhaps other runs: {UNVERIFIED}")
            self._warned = True
            return
        recipe = run.recipe
        spec = recipe.task.model_dump(mode="json")
        key = json.dumps([recipe.model, spec, recipe.train.seed], sort_keys=True)
        if key not in self._inputs:
            self._inputs[key] = fingerprint_of(recipe, tasks.load(recipe.task, recipe.train.seed))
        now, rows = self._inputs[key]
        same_recipe = {k: v for k, v in result.fingerprint.parts.items() if k in ("recipe", "seed")}
        now = now.model_copy(update={"parts": {**now.parts, **same_recipe}})
        check_result(RunDir(folder), result.fingerprint, now, rows)
