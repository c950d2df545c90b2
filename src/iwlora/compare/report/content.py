"""The content of a report, built once from the analysis; the formats only write it down."""

from __future__ import annotations

from dataclasses import dataclass, field

from iwlora.compare.report.answers.answer import Answer
from iwlora.compare.report.answers.findings import findings
from iwlora.compare.report.answers.is_it_real import is_it_real
from iwlora.compare.report.answers.learning import unlearned
from iwlora.compare.report.answers.what_it_costs import what_it_costs
from iwlora.compare.report.answers.what_to_train import what_to_train
from iwlora.compare.report.caveats import caveats, describe_missing
from iwlora.compare.report.figures.report_figures import ReportFigure, report_figures
from iwlora.compare.report.images.generated import (
    image_score_table,
    sample_sheets,
    unscored_images,
)
from iwlora.compare.report.images.thumbnails import Thumbnail, error_thumbnails
from iwlora.compare.report.tables.classes import class_tables
from iwlora.compare.report.tables.differences import difference_table, overall_table
from iwlora.compare.report.tables.learning_rates import learning_rate_table
from iwlora.compare.report.tables.runs import run_table
from iwlora.compare.report.tables.scores import score_table
from iwlora.compare.report.tables.sizes import size_table
from iwlora.compare.report.tables.table import Table
from iwlora.compare.report.update_norms import Update, arm_updates
from iwlora.compare.report.verdict import verdict
from iwlora.compare.statistics.analysis import Analysis, TaskAnalysis
from iwlora.inputs.places import check_folder
from iwlora.inputs.yaml_json import read_utf8
from iwlora.results import layout
from iwlora.results.comparison import Comparison


@dataclass(frozen=True)
class TaskSection:
    """What a report says about one task. Without a finished run it has no tables and figures."""

    title: str
    analysis: TaskAnalysis
    missing: list[str]
    scores: Table | None = None
    caveats: list[str] = field(default_factory=list)
    differences: Table | None = None
    learning_rates: Table | None = None
    runs: Table | None = None
    details: dict[str, Table] = field(default_factory=dict)
    """{stem of its file: table}: the sizes of mixtures, and of a classification task those of
    :func:`class_tables`."""
    thumbnails: list[Thumbnail] = field(default_factory=list)
    """The images of confident errors, of a task on images."""
    samples: list[Thumbnail] = field(default_factory=list)
    """Generated images of the first run of each arm, of a task on codes of images."""
    image_scores: Table | None = None
    """How good generated images are."""
    figures: list[ReportFigure] = field(default_factory=list)
    updates: dict[str, dict[str, Update]] = field(default_factory=dict)
    """{label: {site name: update}}."""
    environment: dict[str, list[str]] = field(default_factory=dict)
    """{name: its distinct values over all runs}."""
    recipes: list[tuple[str, str]] = field(default_factory=list)
    """(name, YAML text)."""

    @property
    def mixed_environments(self) -> bool:
        """Whether the runs come from different machines or versions."""
        return any(len(values) > 1 for values in self.environment.values())

    @property
    def tables(self) -> list[Table]:
        """The scores, the differences, the learning rates and the scores of generated images, as
        far as there are any."""
        tables = (self.scores, *self.statistics, self.image_scores)
        return [table for table in tables if table]

    @property
    def files(self) -> dict[str, Table]:
        """{stem: table} of all tables, each of which is a CSV file too."""
        named = {
            "results": self.scores,
            "differences": self.differences,
            "learning-rates": self.learning_rates,
            "runs": self.runs,
            "generated-images": self.image_scores,
            **self.details,
        }
        return {stem: table for stem, table in named.items() if table}

    @property
    def statistics(self) -> list[Table]:
        """The differences and the learning rates, as far as there are any."""
        return [table for table in (self.differences, self.learning_rates) if table]


@dataclass(frozen=True)
class ReportContent:
    """What a report says: every format writes down these sentences and tables."""

    title: str
    analysis: Analysis
    answers: list[Answer]
    verdict: str
    overall: Table | None
    sections: list[TaskSection]

    @property
    def importance_map(self) -> tuple[int, int] | None:
        """(section, figure) of the first map of importance."""
        figures = (
            (task, number)
            for task, section in enumerate(self.sections)
            for number, figure in enumerate(section.figures)
            if figure.is_importance
        )
        return next(figures, None)

    @property
    def several_tasks(self) -> bool:
        """Whether the report covers more than one task."""
        return len(self.sections) > 1


def build_content(analysis: Analysis) -> ReportContent:
    """Build the sections, tables, sentences and figures of a report.

    Raises:
        IwloraError: A file of a run is damaged, or the folder has a symbolic link out of it.
    """
    check_folder(analysis.folder)  # before anything is read through a link
    sections = [_section(task) for task in analysis.tasks]
    compared = any(task.differences for task in analysis.tasks)
    return ReportContent(
        title=sections[0].title if len(sections) == 1 else f"{len(sections)} tasks",
        analysis=analysis,
        answers=_answers(analysis) if analysis.finished else [],
        verdict=verdict(analysis) if analysis.finished else "",
        overall=overall_table(analysis) if compared else None,
        sections=sections,
    )


def _answers(analysis: Analysis) -> list[Answer]:
    found = findings(analysis)
    without = [unlearned(comparison) for comparison in analysis.comparisons]
    return [
        is_it_real(analysis, found, without),
        what_it_costs(analysis),
        what_to_train(analysis, found, without),
    ]


def _section(task: TaskAnalysis) -> TaskSection:
    comparison = task.comparison
    missing = describe_missing(comparison.missing)
    learning_rates = learning_rate_table(comparison) if comparison.search else None
    if not comparison.runs:
        return TaskSection(comparison.title, task, missing, learning_rates=learning_rates)
    updates = {label: arm_updates(comparison, label) for label in comparison.arms}
    sizes = size_table(comparison)
    return TaskSection(
        title=comparison.title,
        analysis=task,
        missing=missing,
        scores=score_table(comparison),
        caveats=[*caveats(comparison), *unscored_images(comparison)],
        differences=difference_table(task) if task.differences else None,
        learning_rates=learning_rates,
        runs=run_table(comparison),
        details=({"sizes": sizes} if sizes else {}) | class_tables(comparison),
        thumbnails=error_thumbnails(comparison),
        samples=sample_sheets(comparison),
        image_scores=image_score_table(comparison),
        figures=report_figures(task, updates),
        updates=updates,
        environment=_environment(comparison),
        recipes=_recipes(comparison),
    )


def _environment(comparison: Comparison) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in (item for run in comparison.runs for item in run.environment().items()):
        if value is not None and str(value) not in values.setdefault(name, []):
            values[name].append(str(value))
    return values


def _recipes(comparison: Comparison) -> list[tuple[str, str]]:
    plan = comparison.folder / layout.COMPARISON
    recipes = [("The comparison", read_utf8(plan, "YAML"))] if plan.is_file() else []
    for run in comparison.runs:
        if text := run.recipe():
            recipes.append((f"{run.result.label}, seed {run.result.seed}", text))
    return recipes
