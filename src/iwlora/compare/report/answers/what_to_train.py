"""What should I train? The third answer of a report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from statistics import fmean

from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.answers.findings import Finding, size_text
from iwlora.compare.report.answers.learning import below_reading
from iwlora.compare.report.answers.what_it_costs import Costs
from iwlora.compare.statistics.analysis import Analysis
from iwlora.compare.statistics.budget_parity import is_unequal
from iwlora.results import layout
from iwlora.results.metric_direction import oriented
from iwlora.results.run import Run

QUESTION = "What should I train?"


def what_to_train(
    analysis: Analysis, found: Sequence[Finding], without: Sequence[Sequence[str]]
) -> Answer:
    """The best arm that is shown to be better than the baseline, else the baseline.

    Args:
        analysis: The comparison on each task.
        found: What is known of each arm.
        without: ``without[task]`` are the arms that learned nothing there.
    """
    base = analysis.baseline
    better = [finding.arm for finding in found if finding.state == "better"]
    arm = max(better, key=lambda label: _mean_gain(analysis, label)) if better else base
    runs = [run for comparison in analysis.comparisons for run in comparison.of(arm)[:1]]
    if any(arm in of_task for of_task in without):
        return Answer(
            QUESTION,
            f"None of these yet: {arm} learned nothing, and no other method is shown to be better.",
            ("Try a larger learning rate, more epochs or more rows.",),
        )
    if not runs:
        return Answer(QUESTION, f"Not known: {base} has no finished run.")
    if better:
        short = f"Train {arm}: it is shown to be better than {base}."
    elif not found:
        short = f"Train {arm}: it is the only method with a result here."
    else:
        yet = " yet" if any(finding.state == "open" for finding in found) else ""
        short = f"Train {arm}: no other method is shown to be better{yet}."
    evidence = [
        f"The {floor} needs no fine-tuning, and {arm} is not shown to beat it. Try more rows, more "
        "epochs or a larger learning rate first."
        for floor in dict.fromkeys(below_reading(c, arm) for c in analysis.comparisons)
        if floor
    ]
    evidence += [] if better else [*_cheaper(analysis, found)]
    commands = []
    for number, run in enumerate(runs, start=1):
        evidence += _adapter_sentence(run)
        commands += _command(run, f"-{number}" if len(runs) > 1 else "")
    if not commands:
        evidence.append("The results came without recipes, so there is no command to copy.")
    return Answer(QUESTION, short, tuple(evidence), tuple(commands))


def _mean_gain(analysis: Analysis, label: str) -> float:
    rows = [row for task in analysis.tasks for row in task.differences if row.arm == label]
    return fmean(oriented(row.metric, row.summary.mean) for row in rows)


def _cheaper(analysis: Analysis, found: Sequence[Finding]) -> Iterator[str]:
    """The arms that cost less than the baseline and are not shown to differ from it."""
    comparison = analysis.comparisons[0]
    base = Costs.of([run.result for run in comparison.of(analysis.baseline)])
    rows = {row.arm: row for row in analysis.tasks[0].differences}
    for label in [finding.arm for finding in found if finding.state in ("none", "within")]:
        cost = Costs.of([run.result for run in comparison.of(label)])
        if len(analysis.tasks) > 1 or not _is_cheaper(cost, base):
            continue
        size = size_text(rows[label].metric, rows[label].summary)
        yield (
            f"{label} costs less: {cost.against(base)}. Its difference from {analysis.baseline} "
            f"is {size}. Train it if this interval is good enough for you."
        )


def _is_cheaper(cost: Costs, base: Costs) -> bool:
    """Whether time or parameters are clearly lower, and neither is clearly higher."""
    pairs = [(cost.seconds, base.seconds), (cost.parameters, base.parameters)]
    ratios = [own / other for own, other in pairs if own and other]
    unequal = [ratio for ratio in ratios if is_unequal(ratio)]
    return bool(unequal) and max(unequal) < 1


def _adapter_sentence(run: Run) -> list[str]:
    if run.folder is None:
        return []
    for name, what in ((layout.ADAPTER, "adapter"), (layout.MODEL, "model")):
        if (run.folder / name).is_dir():
            result = run.result
            which = f"{result.label}, seed {result.seed}"
            return [f"The trained {what} of {which} is in {run.folder / name}."]
    return []


def _command(run: Run, suffix: str) -> list[str]:
    """The command that repeats a run in a folder of another name."""
    if run.folder is None or not (run.folder / layout.RECIPE).is_file():
        return []
    recipe, out = str(run.folder / layout.RECIPE), f"runs/{run.result.label}-again{suffix}"
    return [shlex.join(["iwlora", "train", recipe, "--out", out])]
