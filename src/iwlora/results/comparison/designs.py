"""The files of a search of designs: its recipe, and what its stages decided."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from iwlora.results.comparison.record import Looks, RaceRule
from iwlora.results.formats import Document, StoredModel
from iwlora.results.run import Amount, Count, Label, Name

SearchKind = Literal["race", "paper", "screen", "grid"]
"""``grid``: learning rates, which are chosen by the curve of the loss."""


class SearchedSpace(StoredModel):
    """What a search that goes on must share.

    Args:
        run: The settings of all runs: model, data, training.
        design: Those of the search, such as its seed.
        choices: {stage: the labels of its choices}.
    """

    run: dict[str, Any]
    design: dict[str, Any]
    choices: dict[str, Any]


class GrowingNumbers(StoredModel):
    """What a search that goes on may have more of."""

    draws: Looks
    models: Count
    designs: Count


class DesignRecord(Document):
    """``design.yaml``: the settings of a search, with all choices.

    Args:
        space: What must stay.
        growing: What may grow.
        confirm: The settings of its confirmation, which may get more methods and seeds.
    """

    format_name: ClassVar[str] = "design"

    space: SearchedSpace
    growing: GrowingNumbers
    confirm: dict[str, Any] = Field(default_factory=dict)


class DrawnRun(StoredModel):
    """A run of a stage: a design, and its score on held-out training rows.

    Args:
        choice: Its label in the stage.
        draw: Its number in the stage, from 0; all choices of a draw share everything else.
        seed: Of the run.
        point: The whole design, as options of ``grouped``: ``groups``, ``allocation``, ``tuned``
            and ``strategies``.
        score: As the run has it; None: it failed.
        loss: On the same rows.
        adapter_parameters: Those of the run.
        seconds: Of training and measuring.
        folder: Below that of the search.
    """

    choice: Label
    draw: Count
    seed: Count
    point: dict[str, Any]
    score: float | None = None
    loss: float | None = None
    adapter_parameters: Count | None = None
    seconds: Amount | None = None
    folder: str


class ChoiceSummary(StoredModel):
    """What is known of a choice of a stage.

    Scores and differences are as printed (points, where a score is a share), higher ones better.

    Args:
        value: The choice itself.
        state: ``kept``: goes into the next stages; ``dropped``; ``open``: as good as the one that
            is kept, for all that is known; ``not taken``: learning rates, which no test compares.
        draws: The number of runs with a score.
        failed: The number of runs without one.
        mean: Of the scores.
        sd: Their standard deviation.
        difference: Its mean minus that of the kept choice, over the draws that both have.
        low: The lower end of the interval of ``difference``.
        high: The upper end.
        dropped_after: The number of draws.
        dropped_by: The choice that is better.
        p_value: Of the two being equal, corrected for all pairs and looks.
    """

    label: Label
    value: Any
    state: Literal["kept", "dropped", "open", "not taken"]
    draws: Count
    failed: Count = 0
    mean: float | None = None
    sd: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    dropped_after: Count | None = None
    dropped_by: Label | None = None
    p_value: float | None = None


class EffectSummary(StoredModel):
    """What a strategy in a group adds to the score; None: the designs cannot tell."""

    group: Count
    strategy: Name
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


class LayerMeasurements(Document):
    """``proxies.json`` of a search: what is measured in each layer of the frozen model.

    Args:
        batches: Of the gradients at the start.
        sensitivity: {layer: √Σ s_k² over its matrices}.
        start: {layer: {part: ‖∂L/∂θ‖² / size before the first step}}; of biases ‖∂L/∂θ‖².
    """

    format_name: ClassVar[str] = "proxies"
    is_sealed: ClassVar[bool] = True

    batches: Count
    sensitivity: dict[str, Amount]
    start: dict[str, dict[Name, Amount]]


class ProxySummary(StoredModel):
    """How well a number that is known before training orders the scores of designs.

    Args:
        name: Of the proxy.
        rho: Spearman's correlation with the scores of the runs.
        low: The lower end of its interval over draws; None: there are too few.
        high: The upper end.
        runs: That have a score.
        draws: That they are of.
        permuted_rho: The mean correlation if the layers have each other's values; None for a proxy
            that is not made of what was measured in layers.
        p_value: The chance that permuted values have at least as large an absolute correlation.
    """

    name: str
    rho: float
    low: float | None = None
    high: float | None = None
    runs: Count
    draws: Count
    permuted_rho: float | None = None
    p_value: float | None = None


class StageSummary(StoredModel):
    """A stage: its choices, its runs, and what it decided.

    Args:
        name: Of the stage.
        component: Which part of a design it chooses, or ``lr``.
        group: The group, from 1, whose strategies it chooses.
        search: How it searched.
        verdict: ``found``: one choice is left; ``open``: several are, and the kept one has the best
            mean of them; ``best mean``: chosen without a test.
        found: What it decided, as a sentence.
        value: The kept value of the component.
        race: The rule of a race.
        impossible: {label: why} of choices that no design can have within the budget.
        redrawn: How many designs were refused and drawn again.
        folder: Of its comparison, below that of the search.
        effects: Of a factorial screen.
    """

    name: Label
    component: Name
    group: Count | None = None
    search: SearchKind
    verdict: Literal["found", "open", "best mean"]
    found: str
    value: Any
    race: RaceRule | None = None
    impossible: dict[Label, str] = Field(default_factory=dict)
    redrawn: Count = 0
    folder: str
    choices: list[ChoiceSummary]
    runs: list[DrawnRun]
    effects: list[EffectSummary] = Field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of training and measuring, of all runs."""
        return sum(run.seconds or 0.0 for run in self.runs)


class DesignSummary(Document):
    """``summary.json`` of a search of designs.

    Args:
        model: The backbone.
        task: Its title.
        metric: The score of the runs.
        lr: The learning rate of all runs.
        stages: In their order, as far as they have ended.
        found: The design, as options of ``grouped``; None before the last stage.
        effects: Of each strategy in each group, from all draws in which they vary.
        proxies: How well numbers that are known before training order the scores of all designs.
        paper_runs: How many runs independent designs for each choice would have taken.
        confirmation: The folder of the comparison with other methods, below that of the search;
            None before it has ended.
    """

    format_name: ClassVar[str] = "decisions"
    is_sealed: ClassVar[bool] = True

    model: Name
    task: Name
    metric: Name | None = None
    lr: float | None = None
    stages: list[StageSummary] = Field(default_factory=list)
    found: dict[str, Any] | None = None
    effects: list[EffectSummary] = Field(default_factory=list)
    proxies: list[ProxySummary] = Field(default_factory=list)
    paper_runs: Count = 0
    confirmation: str | None = None

    @property
    def runs(self) -> int:
        """Of all stages."""
        return sum(len(stage.runs) for stage in self.stages)

    @property
    def timed_runs(self) -> int:
        """Of all stages, those that did not fail."""
        return sum(run.seconds is not None for stage in self.stages for run in stage.runs)

    @property
    def seconds(self) -> float:
        """Of training and measuring, of all stages; the time of failed runs is not known."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def paper_seconds(self) -> float | None:
        """What ``paper_runs`` would have taken, at the mean of the timed runs so far."""
        return self.paper_runs * self.seconds / self.timed_runs if self.timed_runs else None
