"""The arms of a cell: pools, single sources, and what else can be made of many sources."""

from __future__ import annotations

from collections.abc import Iterator

from iwlora.compose.report import report
from pool_price.cells import EWC_STRENGTHS, Cell
from pool_price.merging import WAYS, accuracy_of_merged
from pool_price.rows import SEARCH
from pool_price.sequence import accuracy_in_sequence
from pool_price.training import Trained


def accuracies(trained: Trained, cell: Cell, seed: int) -> Iterator[tuple[str, float]]:
    """(arm, accuracy in percent) of one draw of the rows.

    The best single source is chosen on the scored rows, which favors it.

    Args:
        trained: The sources.
        cell: Which sources there are.
        seed: Of the draw.
    """
    for method in cell.methods:
        pool = trained.pool(cell, method, seed)
        names, averages = pool.names, method == "lora" and cell.sources > 1
        # Weights by prototypes are computed from the images, which runs do not store.
        rows = None if trained.rows.is_text else trained.scored
        alone = [[name] for name in names]
        found = report(pool.folder, alone, rows, weight_averages=averages)
        scores = {subset: metrics["accuracy"] for subset, metrics in found.metrics.items()}
        weighted = pool.record.weights == "prototypes"
        yield f"{method}: pool{', by prototypes' if weighted else ''}", 100 * scores[names]
        if cell.sources == 1:
            continue
        if weighted:
            plain = report(trained.by_mean(pool), [names])
            yield f"{method}: pool", 100 * plain.metrics[names]["accuracy"]
        yield f"{method}: best single source", 100 * max(scores[name,] for name in names)
        for way, metrics in found.weight_averages.items():
            yield f"{method}: weights averaged, {way}", 100 * metrics["accuracy"]
        if method == "apt":
            recipe = pool.source(names[0]).recipe()
            for way in WAYS:
                yield f"apt: prompts {way}", 100 * accuracy_of_merged(pool, recipe, way)
        if method == "lora" and cell.has_sequence:
            recipes = trained.recipes(cell, method, seed, trained.learning_rate(cell, method))
            yield "lora: one after another", 100 * accuracy_in_sequence(recipes)
            strength = ewc_strength(trained, cell)
            yield "lora: one after another, EWC", 100 * accuracy_in_sequence(recipes, strength)


def ewc_strength(trained: Trained, cell: Cell) -> float:
    """The best λ on the draw that only trials train on, all of whose sources it needs."""
    if (known := trained.strengths.get(cell.name)) is None:
        recipes = trained.recipes(cell, "lora", SEARCH, trained.learning_rate(cell, "lora"))
        scores = {value: accuracy_in_sequence(recipes, value) for value in EWC_STRENGTHS}
        known = trained.strengths[cell.name] = max(scores, key=lambda value: scores[value])
    return known
