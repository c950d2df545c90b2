"""The caveats of a comparison: what a reader must know besides its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.budget_parity import budget_ratios, is_unequal
from iwlora.compare.statistics.learning_rate.rules import FORMER_RULE
from iwlora.compare.statistics.learning_rate.ties import tied_learning_rates
from iwlora.errors import listed, short_repr
from iwlora.results.comparison import Comparison
from iwlora.results.comparison.equal_inputs import unverified_runs
from iwlora.results.comparison.record import LOST, LearningRateChoice
from iwlora.results.layout import learning_rate_text
from iwlora.results.metric_direction import lower_is_better


def describe_scoring(comparison: Comparison) -> str:
    """On which data and with which checkpoint the runs are scored, and in what unit."""
    first = comparison.runs[0].result
    points = [metric for metric in comparison.metrics if display_scale(metric) > 1]
    unit = f"; {', '.join(points)} × 100" if points else ""
    primary = comparison.metrics[0]
    unit += f"; of {primary}, lower is better" if lower_is_better(primary) else ""
    data = f"Scored on {first.evaluated_on}" if first.evaluated_on else "Scores as given"
    if lost := first.left_out_rows.get(first.evaluated_on or "", 0):
        data += f" without {lost:,} of its rows, which cannot be used,"
    checkpoint = f" with the {first.selected_on}" if first.selected_on else ""
    spread = "mean ± standard deviation over seeds"
    return f"{data}{checkpoint}; {spread}{unit}.{describe_signatures(comparison)}"


def describe_signatures(comparison: Comparison) -> str:
    """How the metrics were computed for which that depends on the data; "" if it does for none."""
    signatures = comparison.runs[0].result.signatures
    texts = [f"{metric} ({signature})" for metric, signature in signatures.items()]
    return f" Computed as: {', '.join(texts)}." if texts else ""


def describe_pairs(comparison: Comparison) -> str:
    """What the runs of a pair share, as far as it is known."""
    text = "paired by seed"
    if comparison.is_verified:
        text += " on the same scored rows"
    if comparison.vary:
        text += f" with training data that differ in {', '.join(comparison.vary)}"
    return text


def describe_missing(missing: Sequence[tuple[str, int, str]]) -> list[str]:
    """``Comparison.missing`` as text, with the seeds of one arm and status together.

    >>> describe_missing([("a", 0, "failed"), ("a", 1, "not started"), ("a", 2, "not started")])
    ['a, seed 0 (failed)', 'a, seeds 1, 2 (not started)']
    """
    seeds_of: dict[tuple[str, str], list[str]] = {}
    for label, seed, status in missing:
        seeds_of.setdefault((label, status), []).append(str(seed))
    return [
        f"{label}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} ({status})"
        for (label, status), seeds in seeds_of.items()
    ]


def caveats(comparison: Comparison) -> list[str]:
    """Everything that weakens the comparison, one sentence each: the gravest first."""
    results = [run.result for run in comparison.runs]
    notes = dict.fromkeys(" ".join(note.split()) for result in results for note in result.notes)
    resumed = (
        f"{r.label}, seed {r.seed} was resumed at step {r.resumed_at_step}: its training time is "
        "unknown and not counted"
        for r in results
        if r.resumed_at_step
    )
    return [
        *unequal_signatures(comparison),
        *untuned_learning_rates(comparison),
        *constant_predictions(comparison),
        *unequal_budgets(comparison),
        *declared_training_data(comparison),
        *uncertain_importance(comparison),
        *unequal_lengths(comparison),
        *unverified_runs(comparison.runs),
        *comparison.remarks,
        *undecided_searches(comparison),
        *marked_trials(comparison),
        *notes,
        *resumed,
    ]


def unequal_signatures(comparison: Comparison) -> list[str]:
    """A caveat for each metric that the runs did not compute in the same way.

    Runs of older versions stored no signature.
    """
    results = [run.result for run in comparison.runs]
    sentences = []
    for metric in dict.fromkeys(name for result in results for name in result.signatures):
        arms: dict[str, list[str]] = {}
        for result in results:
            signature = result.signatures.get(metric, "not stored, by an older version")
            arms.setdefault(signature, []).append(f"{result.label}, seed {result.seed}")
        if len(arms) > 1:
            ways = "; ".join(f"{signature}: {'; '.join(runs)}" for signature, runs in arms.items())
            sentences.append(f"The runs computed {metric} in different ways. {ways}")
    return sentences


def untuned_learning_rates(comparison: Comparison) -> list[str]:
    """A caveat if the learning rates of several arms were set without a search."""
    unknown = any(run.result.learning_rate is None for run in comparison.runs)
    if comparison.searched is not False or len(comparison.arms) == 1 or unknown:
        return []
    return [
        "The learning rates were set by hand, without a search: an arm may score lower only "
        "because its learning rate is not tuned"
    ]


def constant_runs(comparison: Comparison) -> dict[str, tuple[int, int]]:
    """{label: (runs that predict the same for every row, runs whose predictions tell)}."""
    counts = {}
    for label in comparison.arms:
        saved = [run.predictions for run in comparison.of(label)]
        informative = [pair for pair in saved if pair and len(set(pair[0])) > 1]
        if constant := sum(len(set(predictions)) == 1 for _, predictions in informative):
            counts[label] = constant, len(informative)
    return counts


def constant_predictions(comparison: Comparison) -> list[str]:
    """A caveat that counts the runs of each arm that predict the same for every row.

    Equal scores of such runs do not show that their methods are equal: nothing was learned.
    Runs on rows that all have the same label are not counted, since there it is correct.
    """
    runs = constant_runs(comparison).items()
    counts = [f"{label} {constant} of {known}" for label, (constant, known) in runs]
    if not counts:
        return []
    return [
        "These runs predict the same for every row, so their scores say nothing about the "
        f"method: {', '.join(counts)}"
    ]


def unequal_budgets(comparison: Comparison) -> list[str]:
    """A caveat for each arm whose budget differs from that of the baseline."""
    ratios = budget_ratios(comparison)
    baseline = next((label for label, ratio in ratios.items() if ratio == 1), "")
    return [
        f"≠ {label} has {ratio:.2f} times as many adapter parameters as {baseline}: their budgets "
        "are not equal"
        for label, ratio in ratios.items()
        if is_unequal(ratio)
    ]


def declared_training_data(comparison: Comparison) -> list[str]:
    """A caveat with the training data of each arm, where the comparison lets them differ."""
    if not comparison.vary:
        return []
    arms = []
    for label in comparison.arms:
        data = comparison.training_data(label)
        values = ", ".join(f"{field}={_value_text(value)}" for field, value in data.items())
        arms.append(f"{label} ({values or 'not known'})")
    return [
        f"The arms have different training data, as declared: {'; '.join(arms)}. Their differences "
        "come from data and method together; equal numbers of adapter parameters do not mean equal "
        "training"
    ]


def uncertain_importance(comparison: Comparison) -> list[str]:
    """A caveat for each arm some of whose measurements ended above their tolerance."""
    texts = []
    for label in comparison.arms:
        measured = [s for run in comparison.of(label) if (s := run.sensitivity())]
        uncertain = [s for s in measured if not s.converged and s.tolerance != 0]
        if uncertain:
            errors = [s.share_error for s in uncertain if s.share_error is not None]
            error = f"about {max(errors):.2g} (share_error)" if errors else "an unknown part"
            tolerances = {s.tolerance for s in uncertain if s.tolerance is not None}
            tolerance = f"tolerance of {max(tolerances):g}" if tolerances else "tolerance"
            texts.append(
                f"{label}: {len(uncertain)} of {len(measured)} measurements of the importance "
                f"ended before they reached their {tolerance}; {error} of the importance is "
                "expected to be on the wrong matrices. Take method.measure=before, or raise "
                "method.max_batches"
            )
    return texts


def unequal_lengths(comparison: Comparison) -> list[str]:
    """A caveat with the mean epochs of each arm, where early stopping made them differ."""
    lengths = {
        label: [run.result.epochs for run in comparison.of(label) if run.result.epochs is not None]
        for label in comparison.arms
    }
    if len({epochs for of_arm in lengths.values() for epochs in of_arm}) < 2:
        return []
    means = [f"{label} {sum(e) / len(e):.3g}" for label, e in lengths.items() if e]
    return [
        f"The runs were trained for different numbers of epochs (means: {', '.join(means)}), so "
        "their amounts of computing are not equal"
    ]


def describe_fairness(search: Mapping[str, LearningRateChoice]) -> str:
    """What the searches of all arms had in common."""
    limits = {choice.max_steps for choice in search.values()}
    if limits == {None}:
        return "Every arm gets equally many trials."
    most = max(limit for limit in limits if limit is not None)
    return (
        f"The trials of each arm may take at most {most:,} training steps. All learning rates and "
        "arms share the rows, the order and the start of a draw."
    )


def undecided_searches(comparison: Comparison) -> list[str]:
    """A caveat that names the learning rates that a search cannot tell from the chosen one.

    The scores of such arms may depend on the choice among these rates, not on the method.
    """
    by_score, by_loss = [], []
    for label, choice in comparison.search.items():
        if choice.lr is None:
            continue
        chosen = f"(chosen {learning_rate_text(choice.lr)})"
        low, high = choice.low or choice.lr, choice.high or choice.lr
        within = {trial.lr for trial in choice.trials if low <= trial.lr <= high}
        if len(within) > 1:
            ends = f"{learning_rate_text(low)} to {learning_rate_text(high)}"
            by_loss.append(f"{label} {ends} {chosen}")
        elif choice.rule == FORMER_RULE and (tied := tied_learning_rates(comparison, label)):
            rates = [*map(learning_rate_text, tied)]
            by_score.append(f"{label} {listed(rates)} {chosen}")
    more = "More search.seeds or a larger search.holdout would separate them better"
    texts = []
    if by_score:
        texts.append(
            "The search cannot tell these learning rates from the chosen one, because they score "
            f"within one standard error of it: {'; '.join(by_score)}. {more}"
        )
    if by_loss:
        texts.append(
            "The search leaves several of the tried learning rates open, because they lie in the "
            f"95% interval of the best one: {'; '.join(by_loss)}. {more}"
        )
    return texts


def marked_trials(comparison: Comparison) -> list[str]:
    """A caveat with the trials that diverged, failed or gave all rows the same answer."""
    counts = []
    for label, choice in comparison.search.items():
        marks: dict[str, list[float]] = {}
        for trial in choice.trials:
            mark = trial.state if trial.state in LOST else "gave all rows the same answer"
            if trial.one_class or trial.state in LOST:
                marks.setdefault(mark, []).append(trial.lr)
        counts += [
            f"{label} {len(rates)} {mark} ({listed([*map(learning_rate_text, sorted({*rates}))])})"
            for mark, rates in marks.items()
        ]
    if not counts:
        return []
    return [f"Trials of the search that show no learning, by learning rate: {'; '.join(counts)}"]


def _value_text(value: Any) -> str:
    return "null" if value is None else short_repr(value)
