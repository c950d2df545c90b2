"""Trains the sources of a cell by the library's own path, with searched learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool
from iwlora.errors import Diverged
from iwlora.results import layout
from iwlora.results.run.result import RunResult
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from pool_price.cells import LEARNING_RATES, Cell
from pool_price.divisions import frozen_embeddings, groups
from pool_price.rows import SEARCH, Row, Rows, divided
from pool_price.search import best

_BATCH, _SEARCH_SEED = 32, 10**6
_STARTS = 10**3  # more than there are draws


@dataclass(frozen=True)
class Source:
    """A source, and what is trained on it.

    Args:
        cell: Of which it is a source.
        method: Of the run.
        name: Of its training rows.
        rows: Those that it is trained on.
        lr: The learning rate.
        seed: Of the draw of the rows; ``SEARCH`` for a trial of a learning rate.
        start: Sources of a draw with the same one begin with the same numbers.
    """

    cell: Cell
    method: str
    name: str
    rows: Sequence[Row]
    lr: float
    seed: int | str
    start: int = 0

    @property
    def training_seed(self) -> int:
        """Of the recipe."""
        return (_SEARCH_SEED if self.seed == SEARCH else int(self.seed)) + _STARTS * self.start


@dataclass
class Trained:
    """Sources of cells that are trained when they are asked for, and kept in a folder.

    Args:
        rows: The rows of the data set.
        model: The backbone.
        count: The training rows of all sources together.
        epochs: Of the union.
        max_length: The longest text, in tokens.
    """

    rows: Rows
    model: str
    count: int
    epochs: int
    max_length: int
    strengths: dict[str, float] = field(default_factory=dict)
    _learning_rates: dict[tuple[str, str], float] = field(default_factory=dict)
    _divided: dict[str, list[tuple[str, list[Row]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The runs of a comparison share what they compute with frozen blocks; so do these.
        (self.rows.folder / layout.COMPARISON).touch()

    def sources(self, cell: Cell, seed: int | str) -> list[tuple[str, list[Row]]]:
        """(name, training rows) of each source."""
        start = f"{seed}-{cell.division}-{cell.sources}"
        if start in self._divided:
            return self._divided[start]
        drawn = self.rows.drawn(seed, self.count)

        def features() -> Any:
            union = Source(cell, "head", f"{seed}-all", drawn, 1e-3, seed)
            return frozen_embeddings(self._recipe(union))

        numbers = groups(cell.division, drawn, cell.sources, seed, features)
        parts = divided(drawn, numbers, cell.sources)
        self._divided[start] = [(f"{start}-{number}", part) for number, part in enumerate(parts)]
        return self._divided[start]

    def pool(self, cell: Cell, method: str, seed: int) -> Pool:
        """The sources of a method as a pool, with prototypes where domains differ."""
        weights: Any = "mean" if cell.division == "random" else "prototypes"
        lr = self.learning_rate(cell, method)
        runs = [
            self._run(Source(cell, method, name, part, lr, seed, number * cell.own_starts))
            for number, (name, part) in enumerate(self.sources(cell, seed))
        ]
        folder = runs[-1].with_name(f"{runs[-1].name}-pool")
        if not folder.is_dir():
            named = [f"s{number}={run}" for number, run in enumerate(runs)]
            compose(named, folder, weights=weights)
        return Pool.load(folder)

    def recipes(self, cell: Cell, method: str, seed: int | str, lr: float) -> list[Recipe]:
        """Of each source, scored on rows of all classes: those of trials for ``SEARCH``."""
        sources = self.sources(cell, seed)
        if seed == SEARCH:
            scored = self.rows.table("scored-trials", self.rows.search)
        else:
            scored = self.scored
        return [
            self._recipe(Source(cell, method, name, part, lr, seed), scored)
            for name, part in sources
        ]

    @property
    def scored(self) -> Path:
        """The table of the rows that score all arms."""
        return self.rows.table("scored", self.rows.scored)

    def by_mean(self, pool: Pool) -> Path:
        """The same pool without weights by prototypes."""
        folder = pool.folder.with_name(f"{pool.folder.name}-mean")
        return folder if folder.is_dir() else compose([pool.folder], folder, weights="mean")

    def learning_rate(self, cell: Cell, method: str) -> float:
        """The best learning rate of the first source of a draw that is only for trials."""
        key = cell.name, method
        if key not in self._learning_rates:
            name, part = self.sources(cell, SEARCH)[0]

            def loss(lr: float) -> float:
                try:
                    folder = self._run(Source(cell, method, name, part, lr, SEARCH))
                except Diverged:
                    return math.inf
                found = RunResult.load(folder / layout.RESULT).metrics["loss"]
                return found if math.isfinite(found) else math.inf

            self._learning_rates[key] = best(LEARNING_RATES[method], loss)
        return self._learning_rates[key]

    def _run(self, source: Source) -> Path:
        schedule = source.cell.schedule if source.cell.sources > 1 else "union"
        name = f"{source.method}-{schedule}-{source.lr:g}-{source.name}"
        name += f"-start-{source.start}" if source.start else ""
        folder, recipe = self.rows.folder / "runs" / name, self._recipe(source)
        if not (folder / layout.RESULT).is_file():
            train(recipe, folder)
        elif changed := RunDir.finished(folder).recipe().differences(recipe):
            raise SystemExit(
                f"{folder} was trained with other settings, and now {', '.join(changed)} was "
                "given; give another folder with --out"
            )
        return folder

    def _recipe(self, source: Source, scored: Path | None = None) -> Recipe:
        """The recipe of a source; ``scored`` are its rows, or None: those of all runs or trials."""
        if scored is None and source.seed == SEARCH:  # a source alone cannot know other classes
            known = {row.label for row in source.rows}
            of_classes = [row for row in self.rows.search if row.label in known]
            scored = self.rows.table(f"{source.name}-trials", of_classes)
        scored = scored or self.scored
        settings: dict[str, Any] = {
            "epochs": self.epochs,
            "lr": source.lr,
            "batch_size": _BATCH,
            "max_length": self.max_length,
            "seed": source.training_seed,
            "cache_frozen": source.method != "lora",
        }
        if source.cell.schedule == "steps":
            of_all = min(self.count, len(self.rows.train))
            settings["max_steps"] = self.epochs * math.ceil(of_all / _BATCH)
        return build(
            {
                "model": self.model,
                "task": self.rows.task(self.rows.table(source.name, source.rows), scored),
                "method": {"name": source.method},
                "train": settings,
            }
        )
