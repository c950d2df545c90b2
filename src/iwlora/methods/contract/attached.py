"""The record of a method attached to a model: what trains, how, and how it is saved."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from iwlora.errors import IwloraError
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results.run import SiteRank

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import TrainerCallback

Batch: TypeAlias = "Mapping[str, Tensor]"
Loss: TypeAlias = "Callable[[nn.Module, Batch], Tensor]"
Initialize: TypeAlias = "Callable[[Iterable[Batch]], None]"


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters with a learning rate or a weight decay of their own.

    Args:
        names: names of parameters of ``Attached.trainable``.
        lr_factor: factor of the recipe's learning rate, all along its schedule.
        weight_decay: in place of the recipe's; None: the recipe's, of which biases and
            normalizations have none.
    """

    names: tuple[str, ...]
    lr_factor: float = 1.0
    weight_decay: float | None = None


class BlockReads(Protocol):
    """What new modules read of the tokens inside of frozen blocks, so that a run can keep it."""

    def unread(self) -> AbstractContextManager[None]:
        """Inside the block, the model computes the tokens alone, each block once."""

    def of_tokens(self, block: nn.Module) -> bool:
        """Whether the block is called on the tokens at the moment."""

    def taken(self) -> Tensor:
        """(rows, tokens, numbers): what the last pass has left to be read, which is forgotten."""

    def give(self, block: nn.Module, taken: Tensor, arguments: Mapping[str, Any]) -> None:
        """Leave in a block, which is not computed, what :meth:`taken` has returned.

        Args:
            block: the block.
            taken: (rows, tokens, numbers), of all blocks; 0 for padding.
            arguments: with which the block is called, by their names.
        """


@dataclass(frozen=True)
class Attached:
    """A method attached to a model: which parameters train, and how to save them.

    Args:
        model: the model to train.
        adapter: names of the adapter's parameters, as in ``model.named_parameters()``.
        head: names of the parameters of the head (:mod:`iwlora.head`), which every method trains.
            No other parameter may change.
        save: ``save(folder)`` writes the trained parameters to ``folder/adapter`` or, for a
            whole model, to ``folder/model``.
        count: ``count()`` is the number of adapter parameters that ``save`` writes, without
            the ``derived`` ones. It is below the size of ``adapter`` where the method prunes.
        pairs: the low-rank updates, if the method trains such updates.
        regularizer: ``regularizer()`` is a scalar that is added to the loss once per optimizer
            step.
        callbacks: callbacks of the Trainer.
        notes: ``notes()`` are remarks on the training that the user should read.
        panels: ``panels()`` are numbers for experiment trackers, sent at each logging step.
        gradient_norm: ``gradient_norm(norm)`` gets the norm that the gradient of all trained
            parameters had before it was clipped, in each optimizer step before the callbacks'
            ``on_pre_optimizer_step``.
        parameter_groups: parameters that train with another learning rate or weight decay than
            the recipe's; each parameter is in at most one group.
        groups_after_initialize: ``groups_after_initialize()`` are further such groups, of a method
            that computes them in ``initialize``. It is called when the optimizer is made.
        optimizer: ``optimizer(groups)`` makes the method's own optimizer, in place of the recipe's,
            from groups of parameters as PyTorch takes them, each with its ``params``, ``lr`` and
            ``weight_decay``.
        learning_rates: deprecated, see ``parameter_groups``: {parameter name: factor of the
            learning rate}.
        initialize: ``initialize(batches)`` sets initial values from training batches, once,
            before training. All processes get the same batches.
        initialize_with_loss: ``initialize_with_loss(batches, loss)``, in place of it, where
            ``loss(model, batch)`` is the task's mean loss.
        ranks: ``ranks()`` are the effective ranks by site, where sites have different ranks.
        parts: the parts of a mixture's layers and their sizes, as the run's result lists them.
        settled: ``settled()`` says whether the method has reached its final size; epochs before
            that cannot become the best epoch.
        derived: the number of saved parameters that do not train: they follow from the pretrained
            weights, the seed or the first batches.
        changes_weights: whether it changes pretrained weights that then stay frozen.
        reads: what new modules read inside of blocks that are all frozen; None where they read
            nothing there, or it cannot be kept.
    """

    model: nn.Module
    adapter: tuple[str, ...]
    head: tuple[str, ...]
    save: Callable[[Path], None]
    count: Callable[[], int]
    pairs: tuple[LowRankPair, ...] = ()
    regularizer: Callable[[], Tensor] | None = None
    callbacks: tuple[TrainerCallback, ...] = ()
    notes: Callable[[], tuple[str, ...]] = tuple
    panels: Callable[[], Mapping[str, float]] = dict
    gradient_norm: Callable[[float], None] | None = None
    parameter_groups: tuple[ParameterGroup, ...] = ()
    groups_after_initialize: Callable[[], tuple[ParameterGroup, ...]] = tuple
    optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    initialize: Initialize | None = None
    initialize_with_loss: Callable[[Iterable[Batch], Loss], None] | None = None
    ranks: Callable[[], Mapping[str, int]] | None = None
    parts: tuple[SiteRank, ...] = ()
    settled: Callable[[], bool] = lambda: True
    derived: int = 0
    changes_weights: bool = False
    reads: BlockReads | None = None

    def __post_init__(self) -> None:
        if self.learning_rates:  # remove after version 0.2
            warnings.warn(
                "Attached(learning_rates={name: factor}) is deprecated; write "
                "parameter_groups=(ParameterGroup(names, lr_factor=factor),)",
                DeprecationWarning,
                stacklevel=3,
            )
            groups = tuple(
                ParameterGroup(
                    tuple(n for n, f in self.learning_rates.items() if f == factor), factor
                )
                for factor in {*self.learning_rates.values()} - {1.0}
            )
            object.__setattr__(self, "parameter_groups", self.parameter_groups + groups)
            object.__setattr__(self, "learning_rates", {})
        _check_groups(self.parameter_groups, self.trainable)

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of all parameters that train: the adapter's, then the head's."""
        return self.adapter + self.head

    def groups(self) -> tuple[ParameterGroup, ...]:
        """All groups of parameters, once ``initialize`` was called if there is one.

        Raises:
            IwloraError: they are impossible.
        """
        later = self.groups_after_initialize()
        _check_groups(self.parameter_groups + later, self.trainable)
        return self.parameter_groups + later

    def initializer(self, loss: Loss) -> Initialize | None:
        """``initialize``, or ``initialize_with_loss`` with this loss; None if it has neither."""
        if (with_loss := self.initialize_with_loss) is not None:
            return lambda batches: with_loss(batches, loss)
        return self.initialize


def _check_groups(groups: Sequence[ParameterGroup], trainable: Collection[str]) -> None:
    """Raise ``IwloraError`` for groups of unknown or shared names, or with impossible numbers."""
    trained = set(trainable)
    uses = Counter(name for group in groups for name in group.names)
    problems = [f"{name}, which does not train" for name in uses if name not in trained]
    problems += [f"{name} in more than one group" for name, times in uses.items() if times > 1]
    problems += [
        f"lr_factor={group.lr_factor}; accepted are finite numbers above 0"
        for group in groups
        if not 0 < group.lr_factor < math.inf
    ]
    problems += [
        f"weight_decay={group.weight_decay}; accepted are finite numbers from 0"
        for group in groups
        if group.weight_decay is not None and not 0 <= group.weight_decay < math.inf
    ]
    if problems:
        raise IwloraError(
            f"the method's parameter_groups have {problems[0]}"
            + (f", and {len(problems) - 1} other faults" if problems[1:] else "")
        )
