"""Every cell is a recipe that ``iwlora compare`` accepts."""

from __future__ import annotations

import pytest

from iwlora.compare.plan.preflight import check_budgets
from iwlora.compare.plan.recipe import load_plan
from iwlora.methods import METHODS
from iwlora_study.runner.cells import Cell, load_cells
from iwlora_study.runner.command import STAGES, STUDY
from study_methods import declared, load

CELLS = [cell for stage in STAGES for cell in load_cells(STUDY / stage)]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_cell_is_planned_as_predicted(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in declared():
        monkeypatch.setitem(METHODS, name, load(name))
    data = ["task.data_dir=glue"] if cell.needs_glue else []
    plan = load_plan(str(cell.path), data)
    check_budgets(plan)
    assert plan.baseline in plan.labels
    assert plan.search is not None
    trials, runs = cell.runs()
    assert len(plan.runs) == runs
    # Where options are searched too, the limit of steps ends the search before all are tried.
    assert plan.search.options or len(plan.trials) == trials
    assert not set(plan.search.seeds) & set(plan.seeds)
    recipe = plan.runs[0].recipe
    assert recipe.train.precision == "fp32"  # on every machine the same numbers
    assert recipe.train.max_steps
    assert recipe.task.score_rows
