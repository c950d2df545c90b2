"""The gradient that a start follows, and what takes its information away: the controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from iwlora.methods.low_rank.starts.layers import mean_gradients

Gradient: TypeAlias = Literal["measured", "shuffled-labels", "noise"]
"""What a start follows.

- ``measured``: the mean gradient G of the first batches.
- ``shuffled-labels``: the same, with the labels of each batch permuted among its rows: the inputs,
  the model and the frequencies of the labels stay, and what relates inputs to labels is gone.
- ``noise``: U S Vᵀ with the singular values S of G, and U and V random orthonormal: the size of G
  in every component, and none of its directions.
"""
_SEPARATE = 1_000_003  # keeps these random numbers apart from those of A, which has the run's seed


def start_gradients(
    gradient: Gradient,
    peft_model: Any,
    seed: int,
    batches: Iterable[Mapping[str, Tensor]],
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    max_batches: int,
) -> dict[str, Tensor]:
    """{site name: the gradient (d_out, d_in) that a start follows}.

    Args:
        gradient: which one.
        peft_model: the model with LoRA that does not change it yet.
        seed: of the shuffling and of the random directions.
        batches: of training rows.
        loss: ``loss(model, batch)``, the mean loss of a batch.
        max_batches: the largest number of batches.

    Raises:
        Diverged: a gradient is NaN or infinite.
        IwloraError: there are no batches.
    """
    random = torch.Generator().manual_seed(seed + _SEPARATE)
    if gradient == "shuffled-labels":
        batches = shuffled_labels(batches, random)
    found = mean_gradients(peft_model, batches, loss, max_batches)
    if gradient == "noise":
        return {name: same_spectrum(G, random) for name, G in found.items()}
    return found


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
