"""The learning rates of the arms, and the search that found them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from iwlora.compare.number_format import format_score
from iwlora.compare.report.caveats import describe_fairness
from iwlora.compare.report.tables.table import EMPTY, Table, count_text, known_text
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.record import LOST, LearningRateChoice
from iwlora.results.durations import format_duration
from iwlora.results.layout import learning_rate_text, options_text


def learning_rate_table(comparison: Comparison) -> Table:
    """The learning rate of each arm, how the search found it, and what it took."""
    choices = comparison.search
    metric = next((choice.metric for choice in choices.values() if choice.metric), "score")
    columns = {
        "arm": [*choices],
        "learning rate": [known_text(learning_rate_text, choice.lr) for choice in choices.values()],
        "options": [options_text(choice.options) or EMPTY for choice in choices.values()],
        "95% interval": [_learning_rate_range(choice) for choice in choices.values()],
        "optimum": [
            "inside the grid" if choice.inside else "not bracketed" for choice in choices.values()
        ],
        "trials": [
            f"{sum(trial.state == 'done' for trial in choice.trials)} of {len(choice.trials)}"
            for choice in choices.values()
        ],
        "training steps": [known_text(count_text, choice.steps) for choice in choices.values()],
        "time": [
            format_duration(sum(trial.seconds or 0.0 for trial in choice.trials))
            for choice in choices.values()
        ],
        f"loss, {metric} (draws) on held-out training rows": [
            "; ".join(_tried(choice, metric)) for choice in choices.values()
        ],
    }
    caption = (
        "The search for each arm's learning rate. Its trials are scored on held-out training rows, "
        f"never on the reported data. {describe_fairness(choices)}"
    )
    if comparison.vary:
        caption += (
            f" Arms that differ in {', '.join(comparison.vary)} may have other held-out rows: "
            "their scores in the search do not compare."
        )
    for unknown in [name for name, cells in columns.items() if {*cells} == {EMPTY}]:
        del columns[unknown]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table("Learning rates", caption, list(columns), rows)


def _learning_rate_range(choice: LearningRateChoice) -> str:
    if choice.low is None or choice.high is None:
        return EMPTY
    return f"{learning_rate_text(choice.low)} to {learning_rate_text(choice.high)}"


def _tried(choice: LearningRateChoice, metric: str) -> Iterator[str]:
    """What each learning rate reached on average over its draws, and why it could not win."""
    begun = [trial for trial in choice.trials if trial.state != "not begun"]
    tried = sorted({(options_text(trial.options), trial.lr) for trial in begun})
    for options, lr in tried:
        trials = [t for t in begun if (options_text(t.options), t.lr) == (options, lr)]
        done = [trial for trial in trials if trial.state == "done"]
        losses = [trial.loss for trial in done if trial.loss is not None]
        means = [f"{fmean(losses):.3f}"] if losses else []
        if scores := [trial.score for trial in done if trial.score is not None]:
            means.append(f"{format_score(metric, fmean(scores))} ({len(scores)})")
        marks: list[str] = [state for state in LOST if any(t.state == state for t in trials)]
        marks += ["one answer"] * any(trial.one_class for trial in done)
        marks += ["added"] * (lr in choice.added)
        name = f"{options} {learning_rate_text(lr)}".strip()
        yield f"{name}: {', '.join([*means, *marks])}"
