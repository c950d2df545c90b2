"""What the advice measures once: the importance of each matrix, and what task and model are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from iwlora.errors import IwloraError
from iwlora.methods.budget import backbone_parameters
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import abbreviate_names
from iwlora.training.load import LoadedRecipe, load
from iwlora.training.measure_recipe import measure_loaded
from iwlora.training.recipe import Recipe
from iwlora.training.state.bad_rows import listing_bad_rows


@dataclass(frozen=True)
class Measured:
    """A measurement, and facts of the task and the model.

    Args:
        sensitivity: of the matrices that the recipe adapts.
        kind: the name of the kind of task.
        training_rows: that are trained on.
        backbone: the number of parameters of the model, without the head.
    """

    sensitivity: Sensitivity
    kind: str
    training_rows: int
    backbone: int


def measured_on(recipe: Recipe, samples: int, stored: Sensitivity | None) -> Measured:
    """Load what a recipe names and measure on it, or take a stored measurement.

    The model is let go: what is timed afterwards loads its own.

    Args:
        recipe: the checked recipe.
        samples: the most training rows to measure on.
        stored: a measurement in place of measuring.

    Raises:
        IwloraError: for what ``iwlora train`` and ``iwlora.measure`` refuse, and for a stored
            measurement without one of the matrices.
    """
    with listing_bad_rows(None):
        loaded = load(recipe)
    if stored is None:
        loaded.task.kind.check_model(loaded.model, loaded.encoded["train"], loaded.collate)
        batches = max(1, samples // recipe.train.batch_size)
        sensitivity = measure_loaded(loaded, max_batches=batches)
    else:
        sensitivity = _of_sites(stored, loaded)
    rows = len(loaded.task.splits["train"])
    return Measured(sensitivity, loaded.task.kind.name, rows, backbone_parameters(loaded.model))


def _of_sites(stored: Sensitivity, loaded: LoadedRecipe) -> Sensitivity:
    """The part of a measurement that is about the matrices of a recipe."""
    names = [site.name for site in loaded.sites]
    known = {site.name: site for site in stored.included}
    if missing := [name for name in names if name not in known]:
        raise IwloraError(
            f"the measurement lacks {len(missing)} of the {len(names)} matrices of "
            f"{loaded.recipe.model} ({abbreviate_names(missing)}); measure this model with "
            "'iwlora measure', or leave --importance out"
        )
    return replace(stored, sites=tuple(known[name] for name in names), excluded=())
