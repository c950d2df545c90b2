"""The task that a finished run learned, as its result says it."""

from __future__ import annotations

from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.tasks.kinds import KINDS
from iwlora.tasks.task import Task
from iwlora.training.state.run_folder import RunDir


def stored_task(run: RunDir) -> Task:
    """What the run learned: kind, columns, classes and metrics, without splits.

    Raises ``IwloraError`` if its ``result.json`` does not say it.
    """
    path, result = run.path / layout.RESULT, run.result()
    options = dict(result.kind or {}) if result else {}
    kind = KINDS.get(str(options.pop("name", None)))
    if result is None or kind is None or not result.text or not result.task_metrics:
        raise IwloraError(
            f"{path} does not say the kind of its task, its text columns and its metrics; was it "
            "edited?"
        )
    text, labels, metrics = map(tuple, (result.text, result.labels, result.task_metrics))
    try:
        columns = tuple(result.label_columns)
        return Task(result.task, text, labels, metrics, kind=kind(**options), label_columns=columns)
    except ValueError as error:
        raise IwloraError(f"{path} describes no valid task ({error}); was it edited?") from None
