"""The gradient that a start follows, and what takes its information away: the controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.starts.layers import lora_layers, mean_gradients
from iwlora.sites import abbreviate_names

Gradient: TypeAlias = Literal["measured", "shuffled-labels", "noise", "another-task"]
"""What a start follows.

- ``measured``: the mean gradient G of the first batches.
- ``shuffled-labels``: the same, with the labels of each batch permuted among its rows: the inputs,
  the model and the frequencies of the labels stay, and what relates inputs to labels is gone.
- ``noise``: U S Vᵀ with the singular values S of G, and U and V random orthonormal: the size of G
  in every component, and none of its directions.
- ``another-task``: the mean gradient of the same model on the task of another recipe: a gradient of
  real texts and labels, with nothing of this task in it.
"""
_SEPARATE = 1_000_003  # keeps these random numbers apart from those of A, which has the run's seed


def check_other_recipe(gradient: Gradient, other_recipe: str | None) -> None:
    """Raise ``ValueError`` unless a recipe is given for ``another-task``, and for no other."""
    if gradient == "another-task" and other_recipe is None:
        raise ValueError("gradient=another-task needs other_recipe, a recipe with another task")
    if gradient != "another-task" and other_recipe is not None:
        raise ValueError(
            f"other_recipe={other_recipe} was given, and gradient={gradient} does not use it; take "
            "gradient=another-task, or remove it"
        )


def start_gradients(
    gradient: Gradient,
    peft_model: Any,
    seed: int,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
    other_recipe: str | None = None,
) -> dict[str, Tensor]:
    """{site name: the gradient (d_out, d_in) that a start follows}.

    Args:
        gradient: which one.
        peft_model: the model with LoRA that does not change it yet.
        seed: of the shuffling and of the random directions.
        batches: of training rows.
        loss: ``loss(model, batch)``, the mean loss of a batch.
        max_batches: the largest number of batches.
        other_recipe: for ``another-task``, the file of the recipe with that task.

    Raises:
        Diverged: a gradient is NaN or infinite.
        IwloraError: there are no batches, or the recipe of the other task cannot be loaded or is
            of another model.
    """
    if gradient == "another-task":
        assert other_recipe is not None, "the options of the methods are checked"
        return _of_another_task(other_recipe, peft_model, seed, max_batches)
    random = torch.Generator().manual_seed(seed + _SEPARATE)
    if gradient == "shuffled-labels":
        batches = shuffled_labels(batches, random)
    found = mean_gradients(peft_model, batches, loss, max_batches)
    if gradient == "noise":
        return {name: same_spectrum(G, random) for name, G in found.items()}
    return found


def _of_another_task(path: str, peft_model: Any, seed: int, max_batches: int) -> dict[str, Tensor]:
    """The mean gradient of the task of a recipe, at the sites that a model has."""
    from iwlora.training.load import load  # these know all methods, this one too
    from iwlora.training.recipe import load as read_recipe

    loaded = load(read_recipe(path, [f"train.seed={seed}"]))
    lora = Lora(rank=1).attach(loaded.model, loaded.sites, seed).model
    batches, loss = loaded.training_batches(), loaded.task.kind.batch_loss
    found = mean_gradients(lora, batches, loss, max_batches)
    layers = lora_layers(peft_model)
    wanted = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    if wrong := [n for n, shape in wanted.items() if n not in found or found[n].shape != shape]:
        raise IwloraError(
            f"other_recipe={path} is of {loaded.recipe.model}, which has not {len(wrong)} of the "
            f"{len(wanted)} matrices of this model: {abbreviate_names(wrong)}; give a recipe with "
            "this model and these targets"
        )
    return {name: found[name] for name in wanted}


def shuffled_labels(
    batches: Iterable[Mapping[str, Tensor]], random: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """The batches, with the labels of each permuted among its rows.

    Example:
        >>> batch = {"input_ids": torch.tensor([[1], [2]]), "labels": torch.tensor([3, 4])}
        >>> sorted(next(shuffled_labels([batch], torch.Generator()))["labels"].tolist())
        [3, 4]
    """
    for batch in batches:
        labels = batch["labels"]
        yield {**batch, "labels": labels[torch.randperm(len(labels), generator=random)]}


def same_spectrum(G: Tensor, random: torch.Generator) -> Tensor:
    """A matrix with the singular values of G, and with random singular vectors.

    The vectors are the Q of a Gaussian matrix, which spans a uniformly distributed subspace.

    Args:
        G: (d_out, d_in).
        random: draws the vectors.
    """
    values = torch.linalg.svdvals(G.cpu())
    shapes = ((side, len(values)) for side in G.shape)
    U, V = (
        torch.linalg.qr(torch.randn(shape, generator=random, dtype=values.dtype))[0]
        for shape in shapes
    )
    drawn: Tensor = (U * values) @ V.mT
    return drawn.to(G)
