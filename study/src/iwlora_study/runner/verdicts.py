"""What the scores of a cell say of a form: against LoRA, and against its controls.

All differences are paired by draw and oriented, so that a positive one is an improvement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from iwlora.compare.number_format import display_scale
from iwlora.compare.statistics.floors import mean_floors
from iwlora.compare.statistics.paired_tests import sign_flip_p, summarize
from iwlora.compare.statistics.sequential import verdicts
from iwlora.results.comparison.record import StoppingRule
from iwlora.results.metric_direction import oriented
from iwlora.results.run import RunResult
from iwlora_study.runner.forms import MARGINS, Form, Outcome
from iwlora_study.runner.scores import CellScores

ERROR = 0.05
FEWEST_DRAWS = 5  # with fewer no verdict is given


@dataclass(frozen=True)
class Contrast:
    """An arm minus another in one outcome: the mean improvement in [low, high], and what it says.

    ``verdict`` is "better", "worse", "within" (smaller than the margin, both ways) or "open".
    """

    arm: str
    other: str
    outcome: Outcome
    improvements: tuple[float, ...]
    low: float | None
    high: float | None
    verdict: str

    @property
    def draws(self) -> int:
        """The number of draws that both arms have."""
        return len(self.improvements)

    @property
    def mean(self) -> float:
        """Of the improvements, which are in the order of the draws."""
        return fmean(self.improvements)

    @property
    def p_value(self) -> float:
        """Of the two-sided sign-flip test."""
        return sign_flip_p(self.improvements)


def contrast(scores: CellScores, arm: str, other: str, outcome: Outcome) -> Contrast | None:
    """The paired difference of two arms; None if they share no draw.

    In the confirmation the interval and the verdict are sequential: they hold at all looks. In the
    screen the interval is mean ± t(0.975, n − 1) · sd / √n, for one comparison by itself.
    """
    metric = scores.metric if outcome == "score" else outcome
    own, base = scores.values(arm, outcome), scores.values(other, outcome)
    seeds = sorted(own.keys() & base.keys())
    if not seeds:
        return None
    scale = display_scale(metric)
    values = [scale * oriented(metric, own[seed] - base[seed]) for seed in seeds]
    margin = MARGINS[outcome]
    if scores.stage == "confirm":
        rule = StoppingRule(difference=margin, error=ERROR)
        found = verdicts({arm: values}, rule)[arm]
        interval, verdict = (found.low, found.high), found.outcome
    else:
        summary = summarize(values)
        interval = summary.low, summary.high
        verdict = _verdict(summary.low, summary.high, margin, len(values))
    return Contrast(arm, other, outcome, tuple(values), *interval, verdict)


def _verdict(low: float | None, high: float | None, margin: float, draws: int) -> str:
    if low is None or high is None or draws < FEWEST_DRAWS:
        return "open"
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "within" if -margin < low and high < margin else "open"


@dataclass(frozen=True)
class Finding:
    """A form in a regime: against LoRA, against each control, and what both say together.

    ``verdict`` is "better" if it is better than LoRA and than every control; "floor" if no arm
    learned anything; otherwise that against LoRA, where "better" without the controls is "open".
    """

    form: Form
    scores: CellScores
    against: Contrast
    controls: tuple[Contrast, ...]
    verdict: str

    @property
    def hardest_control(self) -> Contrast | None:
        """The control that the form is least ahead of."""
        return min(self.controls, key=lambda control: control.mean, default=None)


def findings(scores: CellScores, forms: Sequence[Form]) -> list[Finding]:
    """What a cell says of each form that it has, with all controls that it has too."""
    found = []
    for form in forms:
        against = contrast(scores, form.arm, form.against, form.outcome)
        if against is None:
            continue
        others = form.controls_of(scores.stage)
        compared = (contrast(scores, form.arm, other, form.outcome) for other in others)
        controls = tuple(control for control in compared if control is not None)
        verdict = against.verdict
        if on_floor(scores):
            verdict = "floor"
        elif verdict == "better" and not _beats_all(form, scores.stage, controls):
            verdict = "open"
        found.append(Finding(form, scores, against, controls, verdict))
    return found


def _beats_all(form: Form, stage: str, controls: Sequence[Contrast]) -> bool:
    """Whether every control is there and beaten."""
    complete = len(controls) == len(form.controls_of(stage))
    return complete and all(control.verdict == "better" for control in controls)


def on_floor(scores: CellScores) -> bool:
    """Whether no arm of a cell beats the rule that gives every row the same answer.

    An arm beats it if the whole interval of the mean margin, over rows and draws, is above 0. A
    cell without stored floors counts.
    """
    known = [run for run in scores.runs if run.trivial_floors]
    if not known:
        return False
    for arm in scores.arms:
        results = [
            RunResult.from_score(
                arm, "t", run.seed, scores.metric, 0.0, model="m", floors=run.trivial_floors
            )
            for run in known
            if run.arm == arm
        ]
        floors = mean_floors(results)
        if floors and all(floor.low is not None and floor.low > 0 for floor in floors):
            return False
    return True


def lead(finding: Finding) -> float:
    """By how much a form is ahead where it is ahead least, in margins: what decides who goes on.

    The lower end of the interval against LoRA or a control, whichever is smaller, over the margin.
    Minus infinity if a mean is not above 0, a control is missing, or nothing was learned.
    """
    compared = (finding.against, *finding.controls)
    complete = len(finding.controls) == len(finding.form.controls)
    if finding.verdict == "floor" or not complete or any(c.mean <= 0 for c in compared):
        return -math.inf
    lows = [c.low if c.low is not None else -math.inf for c in compared]
    return min(lows) / MARGINS[finding.form.outcome]


MOST_CONFIRMED = 3


def going_on(screened: Sequence[Finding]) -> list[Finding]:
    """The pairs of form and regime that are confirmed: at most three, the largest leads first."""
    ahead = [finding for finding in screened if lead(finding) > -math.inf]
    return sorted(ahead, key=lead, reverse=True)[:MOST_CONFIRMED]
