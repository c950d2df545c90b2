"""Measuring the sensitivity that a recipe's method asks for; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from iwlora import distributed
from iwlora.errors import Diverged, IwloraError
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.measure import measure
from iwlora.sensitivity.options import MeasureOptions
from iwlora.sites import sites as find_sites
from iwlora.training.device import run_device
from iwlora.training.external_settings import check_external_settings
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.loop.divergence import list_rows
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows, save_left_out
from iwlora.training.state.fingerprint import fingerprint_of


def measure_recipe(recipe: Recipe, bad_rows: Path | None = None, **options: Any) -> Sensitivity:
    """Measure all matrices that a recipe chooses, on the frozen model.

    These are also the ones that a run does not adapt because their layers are not called.

    Args:
        recipe: a recipe whose method uses a measured sensitivity, before or in its first steps.
        bad_rows: the file that gets the list of rows that cannot be used, if there are such rows.
        **options: arguments of :func:`iwlora.measure` that replace those of the method.

    Returns:
        The sensitivity of every site.

    Raises:
        IwloraError: the method measures nothing; a variable of the environment would change the
            numbers; or as :func:`iwlora.measure`.
    """
    if not isinstance(recipe.method, MeasureOptions):
        raise IwloraError(f"{recipe.method.name} measures nothing; take method.name=iw-lora")
    check_external_settings()
    with listing_bad_rows(bad_rows):
        loaded = load(recipe)
    if bad_rows is not None:
        save_left_out(bad_rows, loaded.task.bad_rows)
    loaded.task.kind.check_model(loaded.model, loaded.encoded["train"], loaded.collate)
    chosen = find_sites(loaded.model, recipe.targets, recipe.exclude)
    arguments = recipe.method.measure_arguments()
    measured = measure_loaded(loaded, **{"sites": chosen, **arguments, **options})
    return replace(measured, fingerprint=fingerprint_of(recipe, loaded.task)[0])


def measure_loaded(loaded: LoadedRecipe, **options: Any) -> Sensitivity:
    """Measure on the frozen model of a recipe that is loaded, with its precision and kernels."""
    method, loss = loaded.recipe.method, loaded.task.kind.batch_loss
    options = {"sites": loaded.sites, "loss": loss, **(method.calibration() or {}), **options}
    model, settings = loaded.model, loaded.recipe.train
    batches = distributed.split_between_processes(loaded.training_batches())
    try:
        with training_numerics(
            model, settings.fast_kernels, settings.requested_precision, run_device()
        ):
            return measure(model, batches, **options)
    except Diverged as error:
        if error.batch is None:
            raise
        order = loaded.epoch_sampler()
        rows = list(order)[error.batch * order.batch_size :][: order.batch_size]
        raise Diverged(f"{error}; its rows {list_rows(rows)}", error.batch) from None
