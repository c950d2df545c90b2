"""The report of a pool, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from iwlora.compare.number_format import counted, format_interval, format_score
from iwlora.compose.pool import Pool
from iwlora.compose.predict import Subset
from iwlora.results.metric_direction import with_direction
from iwlora.results.run import RunResult


@dataclass(frozen=True)
class Source:
    """A source alone, as its run was scored."""

    name: str
    result: RunResult
    rows: int


@dataclass(frozen=True)
class Addition:
    """By how much all sources are better in the primary metric than all without one."""

    name: str
    margin: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PoolReport:
    """The scores of a pool; ``str()`` is the report in Markdown.

    Args:
        pool: The pool.
        sources: Each source, by the rows of its own run.
        rows: What the subsets are scored on, as words; or why there are none.
        metrics: {subset: its metrics on these rows}; empty where there are none.
        additions: What each source adds on these rows, where there are several.
        primary: The metric that sources are compared by.
        weight_averages: {way of averaging the weights of all sources: its metrics}, if asked for.
    """

    pool: Pool
    sources: Sequence[Source]
    rows: str
    metrics: Mapping[Subset, Mapping[str, float]]
    additions: Sequence[Addition]
    primary: str
    weight_averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        record, first = self.pool.record, self.sources[0].result
        averaged = record.average or "numbers"
        weighed = "" if record.weights == "mean" else ", weighted by prototypes"
        kind = (first.kind or {}).get("name")
        lines = [
            f"# {self.pool.folder}",
            "",
            f"{counted(len(self.sources), 'source')} on {first.model} ({kind}); the mean of their "
            f"{averaged}{weighed}.",
            "",
            "## Each source, on the rows that its own run was scored on",
            "",
            *_table(
                ["source", "method", "training rows", "scored rows", with_direction(self.primary)],
                map(self._own_score, self.sources),
            ),
            "## Subsets of the sources",
            "",
            self.rows,
            "",
        ]
        if not self.metrics:
            return "\n".join(lines)
        names = list(next(iter(self.metrics.values())))
        lines += _table(
            ["sources", *map(with_direction, names)],
            (
                [", ".join(subset), *(format_score(name, scores[name]) for name in names)]
                for subset, scores in self.metrics.items()
            ),
        )
        if self.additions:
            lines += [
                "## What each source adds",
                "",
                f"By how much all sources together are better in {self.primary} than all without "
                "this one, on the same rows, with the 95% interval over rows.",
                "",
                *_table(["source", "adds"], map(self._addition, self.additions)),
            ]
        if self.weight_averages:
            together = self.metrics[self.pool.names]
            ways = {"the pool: mean of predictions": together, **self.weight_averages}
            lines += [
                "## Averages of the weights, for comparison",
                "",
                "One adapter and one head from all sources, on the same rows: one pass of the "
                "model in place of one for each source.",
                "",
                *_table(
                    ["average", *map(with_direction, names)],
                    (
                        [way, *(format_score(name, scores[name]) for name in names)]
                        for way, scores in ways.items()
                    ),
                ),
            ]
        return "\n".join(lines)

    def _own_score(self, source: Source) -> list[str]:
        result = source.result
        known = result.metrics.get(self.primary)
        trained = "" if result.train_examples is None else f"{result.train_examples:,} "
        return [
            source.name,
            result.method,
            f"{trained}({result.task})",
            f"{source.rows:,} ({result.evaluated_on})",
            "unknown" if known is None else format_score(self.primary, known),
        ]

    def _addition(self, found: Addition) -> list[str]:
        return [found.name, format_interval(self.primary, found.margin, found.low, found.high)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown, with an empty line after it."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return [padded[0], rule, *padded[1:], ""]
