"""The GLUE average over the tasks of several runs, in both common definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from iwlora.compare.report.text_columns import align
from iwlora.errors import IwloraError, raise_all
from iwlora.results.comparison import load
from iwlora.results.comparison.equal_inputs import unequal_scoring
from iwlora.results.run import Run

METRICS: Mapping[str, tuple[str, ...]] = {
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
"""The metrics that GLUE's tables report for each task."""

Scores = Mapping[str, Sequence[float]]


def task_first(scores: Scores) -> float:
    """The mean over tasks of each task's mean: the definition of GLUE and of most papers.

    >>> task_first({"glue/mnli": [0.9, 0.8], "glue/rte": [0.75]})
    0.8
    """
    return fmean(map(fmean, scores.values()))


def every_number(scores: Scores) -> float:
    """The mean of all scores: a task with two scores counts twice.

    >>> round(every_number({"glue/mnli": [0.9, 0.8], "glue/rte": [0.75]}), 4)
    0.8167
    """
    return fmean(value for values in scores.values() for value in values)


def average_table(folders: Sequence[str | Path]) -> str:
    """A table of arms: each GLUE task's scores as means over seeds, × 100, and both averages.

    Args:
        folders: Folders of runs and comparisons.

    Raises:
        IwloraError: A task is not part of GLUE, an arm has two runs of one task and seed, or runs
            that are not scored alike, or the arms were not run on the same tasks.
    """
    arms = _load(folders)
    tasks = [task for task in METRICS if any(task in arm for arm in arms.values())]
    for label, arm in arms.items():
        if absent := [task for task in tasks if task not in arm]:
            raise IwloraError(
                f"{label} has no run of {', '.join(absent)}, so its average would be over other "
                "tasks than those of the other arms"
            )
    short = {task: task.removeprefix("glue/") for task in METRICS}
    rows = [["arm", *(short[task] for task in tasks), "task-first", "every-number"]]
    for label, arm in arms.items():
        means = {task: [*map(fmean, zip(*arm[task].values(), strict=True))] for task in tasks}
        columns = [*means.values(), [task_first(means)], [every_number(means)]]
        rows.append([label, *("/".join(f"{100 * v:.2f}" for v in column) for column in columns)])
    absent = [short[task] for task in METRICS if task not in tasks]
    without = f", without {', '.join(absent)}" if absent else ""
    return "\n".join(
        [
            *align([*zip(*rows, strict=True)]),
            "",
            f"over {len(tasks)} of GLUE's 9 tasks{without}",
            "task-first: the mean over tasks, after averaging the two scores of MNLI (m/mm), "
            "MRPC, QQP and STS-B",
            "every-number: the mean of all scores; a task with two scores counts twice",
        ]
    )


def _load(folders: Sequence[str | Path]) -> dict[str, dict[str, dict[int, list[float]]]]:
    """{label: {task: {seed: scores}}}."""
    arms: dict[str, dict[str, dict[int, list[float]]]] = {}
    pooled: dict[tuple[str, str], list[Run]] = {}
    for run in (run for folder in folders for run in load(folder).runs):
        result = run.result
        if result.task not in METRICS:
            raise IwloraError(
                f"{run.folder}: {result.task} is not a GLUE task; the average is over GLUE tasks "
                f"only: {', '.join(METRICS)}"
            )
        by_seed = arms.setdefault(result.label, {}).setdefault(result.task, {})
        if result.seed in by_seed:
            raise IwloraError(
                f"{result.label} has two runs of {result.task} with seed {result.seed}, one in "
                f"{run.folder}; average them separately"
            )
        by_seed[result.seed] = [result.metrics[name] for name in METRICS[result.task]]
        pooled.setdefault((result.label, result.task), []).append(run)
    raise_all([line for runs in pooled.values() for line in unequal_scoring(runs)])
    return arms
