"""Trains the sources of a cell by the library's own path, with searched learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool
from iwlora.results import layout
from iwlora.results.run.result import RunResult
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from pool_price.cells import LEARNING_RATES, Cell
from pool_price.divisions import frozen_embeddings, groups
from pool_price.rows import SEARCH, Row, Rows, divided

_BATCH, _SEARCH_SEED = 32, 10**6


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
    _rates: dict[tuple[str, str], float] = field(default_factory=dict)
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
            return frozen_embeddings(self._recipe(cell, "head", f"{seed}-all", drawn, 1e-3, seed))

        numbers = groups(cell.division, drawn, cell.sources, seed, features)
        parts = divided(drawn, numbers, cell.sources)
        self._divided[start] = [(f"{start}-{number}", part) for number, part in enumerate(parts)]
        return self._divided[start]

    def pool(self, cell: Cell, method: str, seed: int) -> Pool:
        """The sources of a method as a pool, with prototypes where domains differ."""
        weights: Any = "mean" if cell.division == "random" else "prototypes"
        runs = [
            self._run(cell, method, name, part, self.rate(cell, method), seed)
            for name, part in self.sources(cell, seed)
        ]
        folder = runs[0].with_name(f"{runs[0].name}-pool")
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
        return [self._recipe(cell, method, name, part, lr, seed, scored) for name, part in sources]

    @property
    def scored(self) -> Path:
        """The table of the rows that score all arms."""
        return self.rows.table("scored", self.rows.scored)

    def by_mean(self, pool: Pool) -> Path:
        """The same pool without weights by prototypes."""
        folder = pool.folder.with_name(f"{pool.folder.name}-mean")
        return folder if folder.is_dir() else compose([pool.folder], folder, weights="mean")

    def rate(self, cell: Cell, method: str) -> float:
        """The best learning rate of a source of the draw that only trials train on."""
        key = cell.name, method
        if key not in self._rates:
            name, part = self.sources(cell, SEARCH)[0]
            losses = {}
            for lr in LEARNING_RATES[method]:
                folder = self._run(cell, method, name, part, lr, SEARCH)
                losses[lr] = RunResult.load(folder / layout.RESULT).metrics["loss"]
            self._rates[key] = min(losses, key=lambda lr: _finite(losses[lr]))
        return self._rates[key]

    def _run(
        self,
        cell: Cell,
        method: str,
        name: str,
        part: Sequence[Row],
        lr: float,
        seed: int | str,
    ) -> Path:
        schedule = cell.schedule if cell.sources > 1 else "union"
        folder = self.rows.folder / "runs" / f"{method}-{schedule}-{lr:g}-{name}"
        if not (folder / layout.RESULT).is_file():
            train(self._recipe(cell, method, name, part, lr, seed), folder)
        return folder

    def _recipe(
        self,
        cell: Cell,
        method: str,
        name: str,
        part: Sequence[Row],
        lr: float,
        seed: int | str,
        scored: Path | None = None,
    ) -> Recipe:
        if scored is None and seed == SEARCH:  # a source alone cannot know other classes
            known = {row.label for row in part}
            of_classes = [row for row in self.rows.search if row.label in known]
            scored = self.rows.table(f"{name}-trials", of_classes)
        scored = scored or self.scored
        settings: dict[str, Any] = {
            "epochs": self.epochs,
            "lr": lr,
            "batch_size": _BATCH,
            "max_length": self.max_length,
            "seed": _SEARCH_SEED if seed == SEARCH else seed,
            "cache_frozen": method != "lora",
        }
        if cell.schedule == "steps":
            settings["max_steps"] = self.epochs * math.ceil(self.count / _BATCH)
        return build(
            {
                "model": self.model,
                "task": self.rows.task(self.rows.table(name, part), scored),
                "method": {"name": method},
                "train": settings,
            }
        )


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
