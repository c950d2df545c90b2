"""What is measured in each layer of the frozen model, once for all designs of a search."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from accelerate.utils import send_to_device

from iwlora.design.recipe import DesignRecipe
from iwlora.methods.grouped.start_gradient import start_gradient_squares
from iwlora.results.comparison.designs import LayerMeasurements
from iwlora.sensitivity.options import DEFAULTS
from iwlora.tasks.loading import reading_once
from iwlora.training.device import run_device
from iwlora.training.kernels import training_numerics
from iwlora.training.load import load
from iwlora.training.measure_recipe import measure_loaded
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows

BATCHES = 8
"""Of training rows; those of the sensitivity are as many as its own rule asks for."""
PART_SIZE = 8
"""The size at which a part is measured in all layers."""


@reading_once()
def measure_layers(design: DesignRecipe, bad_rows: Path | None = None) -> LayerMeasurements:
    """Measure every layer of the model, and every part that designs may have there.

    The squared norm of the gradient of a part grows in proportion to its size: that of ∂L/∂B of a
    low-rank update, whose A is random, is Σ_j ‖∂L/∂W a_j‖² over the rows a_j of A. So one
    measurement at one size gives it for all designs. Each part is measured alone; it is exact for
    what changes nothing at the start, and an approximation for prefixes.

    Args:
        design: The search.
        bad_rows: The file that gets the list of rows that cannot be used, if these are refused.

    Returns:
        The sensitivity of each layer's frozen weights, √Σ s_k², and for each of its parts
        ‖∂L/∂θ‖² / size; of biases ‖∂L/∂θ‖².

    Raises:
        IwloraError: The model or the data cannot be loaded, or a loss is not finite.
    """
    sensitivity: dict[str, float] = {}
    start: dict[str, dict[str, float]] = {layer.block: {} for layer in design.designs.layers}
    for part in design.parts:
        recipe = _alone(design, part)
        with listing_bad_rows(bad_rows):
            loaded = load(recipe)
        if not sensitivity:
            measured = measure_loaded(loaded, **DEFAULTS.measure_arguments())
            sensitivity = {block: measured.of_block(block) for block in start}
        settings, model, loss = recipe.train, loaded.model, loaded.task.kind.batch_loss
        attached = recipe.method.attach(model, loaded.sites, settings.seed)
        batches = (
            send_to_device(batch, run_device())
            for batch in islice(loaded.training_batches(), BATCHES)
        )
        with training_numerics(
            attached.model, settings.fast_kernels, settings.requested_precision, run_device()
        ):
            squares = start_gradient_squares(attached, batches, loss)
        for record in attached.parts:
            block = f".{record.name}."
            of_part = sum(value for name, value in squares.items() if block in f".{name}")
            start[record.name][part] = of_part / (record.rank or 1)
    return LayerMeasurements(batches=BATCHES, sensitivity=sensitivity, start=start)


def _alone(design: DesignRecipe, part: str) -> Recipe:
    """The recipe in which all layers have one part, on the rows that designs train on."""
    point = {"groups": "uniform", "strategies": ((part,),)}
    recipe = design.designs.recipe(point, seed=design.settings.seed, lr=1e-3)
    task = recipe.task.model_copy(update={"holdout": design.settings.holdout})
    method = recipe.method.model_copy(update={"part_size": PART_SIZE})
    return recipe.model_copy(update={"task": task, "method": method, "budget": None})
