"""The averages of GLUE over the tasks of several runs, computed both ways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.results.loading import load

# The numbers that GLUE's tables give for each task.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "glue/cola": ("matthews_correlation",),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("accuracy", "f1"),
    "glue/stsb": ("pearson", "spearman"),
    "glue/qqp": ("accuracy", "f1"),
    "glue/mnli": ("accuracy", "accuracy_mismatched"),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
}

Scores = Mapping[str, Sequence[float]]


def task_first(scores: Scores) -> float:
    """The mean over tasks of each task's mean: GLUE's own average, and that of most papers.

    >>> task_first({"glue/mnli": [0.9, 0.8], "glue/rte": [0.75]})
    0.8
    """
    return _mean([_mean(values) for values in scores.values()])


def every_number(scores: Scores) -> float:
    """The mean of all numbers: a task with two counts twice.

    >>> round(every_number({"glue/mnli": [0.9, 0.8], "glue/rte": [0.75]}), 4)
    0.8167
    """
    return _mean([value for values in scores.values() for value in values])


def averages(folders: Sequence[str | Path]) -> str:
    """A table of arms: each GLUE task's numbers as means over seeds, × 100, and both averages.

    ``folders`` are runs and comparisons. Raises ``IwloraError`` for a task outside GLUE and for
    arms that were not run on the same tasks.
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for folder in folders:
        for run in load(folder).runs:
            result = run.result
            if result.task not in COLUMNS:
                raise IwloraError(
                    f"{run.folder}: {result.task} is no task of GLUE; the averages are of GLUE's"
                )
            numbers = [result.metrics[name] for name in COLUMNS[result.task]]
            if result.seed in found[result.label][result.task]:
                raise IwloraError(
                    f"{result.label} has two runs of {result.task} with seed {result.seed}, one "
                    f"in {run.folder}; average them apart"
                )
            found[result.label][result.task][result.seed] = numbers
    tasks = [name for name in COLUMNS if any(name in arm for arm in found.values())]
    for label, arm in found.items():
        absent = [name for name in tasks if name not in arm]
        if absent:
            raise IwloraError(
                f"{label} has no run of {', '.join(absent)}, so its average is over other tasks"
            )
    head = ["arm", *(name.removeprefix("glue/") for name in tasks), "task-first", "every-number"]
    rows = [head]
    for label, arm in found.items():
        means = {
            name: [_mean(column) for column in zip(*arm[name].values(), strict=True)]
            for name in tasks
        }
        told = ["/".join(f"{100 * value:.2f}" for value in means[name]) for name in tasks]
        both = (task_first(means), every_number(means))
        rows.append([label, *told, *(f"{100 * value:.2f}" for value in both)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    left = [name.removeprefix("glue/") for name in COLUMNS if name not in tasks]
    return "\n".join(
        [
            *lines,
            "",
            f"over {len(tasks)} of GLUE's 9 tasks"
            + (f", without {', '.join(left)}" if left else ""),
            "task-first: m/mm, accuracy/F1 and Pearson/Spearman are averaged within a task first",
            "every-number: all numbers count once",
        ]
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
