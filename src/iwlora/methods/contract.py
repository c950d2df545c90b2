"""The contract of a fine-tuning method, and the record of a method attached to a model."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.head import head_modules, in_modules
from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.results.run import SiteRank
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site, abbreviate_names, unwrap

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import TrainerCallback

Batch: TypeAlias = "Mapping[str, Tensor]"
Loss: TypeAlias = "Callable[[nn.Module, Batch], Tensor]"
Initialize: TypeAlias = "Callable[[Iterable[Batch]], None]"

# The attribute of a model that says which method is attached to it; copies of the model keep it.
_ATTACHED = "_iwlora_attached_method"


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


class Method(BaseModel):
    """Base class of all fine-tuning methods. An instance holds the method's validated options.

    A method is one subclass in one file and one row in ``METHODS``. Its fields are the options
    in a recipe; pydantic validates them. A subclass defines ``name``, ``summary``, ``paper``,
    :meth:`parameters` and :meth:`attach`; ``docs/own-method.md`` has a complete example.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    size_knob: ClassVar[str | None] = None
    """The field that sets the method's size, such as ``rank``; None if there is none."""
    divides_budgets: ClassVar[bool] = False
    """Whether :meth:`with_budget` divides a number of parameters, in the place of a size knob."""
    resolved_fields: ClassVar[Collection[str]] = ()
    """Fields that a saved adapter has whatever the recipe says, because the model decides them."""
    adapts_sites: ClassVar[bool] = True
    """Whether the method adapts the sites that it gets, so that ``targets`` have an effect."""
    identity_at_init: ClassVar[bool] = True
    """Whether the attached model computes exactly what the frozen model does, before training."""
    unmergeable: ClassVar[str | None] = None
    """Why the trained method cannot be merged into the pretrained weights; None if it can."""
    not_quantizable: ClassVar[str | None] = (
        "transformers trains quantized models with PEFT adapters only, and this is none"
    )
    """Why the method cannot train a model with 4-bit weights; None if it can."""
    not_checkpointable: ClassVar[str | None] = None
    """Why the method cannot train with gradient checkpointing; None if it can."""
    not_packable: ClassVar[str | None] = "it changes more than linear layers and biases"
    """Why runs of the method are not trained together with others over one frozen model; None if
    they are."""
    shares_pass: ClassVar[bool] = False
    """Whether many trained runs of the method need one pass of the frozen model together, because
    its blocks compute the same for all of them; see :meth:`one_pass`."""
    not_for_parameters: ClassVar[str | None] = "it adapts linear layers only"
    """Why the method leaves out the weights of experts and routers, which are adapted as parameters
    of their modules; None if it adapts them."""
    not_for_convolutions: ClassVar[str | None] = "the method adapts linear layers only"
    """Why the method does not adapt convolutions; None if it does."""
    no_token_training: ClassVar[str | None] = (
        "it cannot save single rows of the table of token embeddings"
    )
    """Why the method cannot train the embeddings of single tokens; None if it can."""
    control_of: ClassVar[str | None] = None
    """The method that this one is a control arm of; ``controls: true`` adds it to a comparison."""
    peft_fields: ClassVar[Mapping[str, Collection[str]]] = {}
    """{type of PEFT: fields of its configuration} that ``save_peft_adapter`` writes for the method,
    if the type is neither LORA nor PREFIX_TUNING; no others are accepted from an adapter's file."""
    former_defaults: ClassVar[Mapping[int, Mapping[str, Any]]] = {}
    """{version of the recipe's format: {field: its default up to that version}}; version 0.1.0
    wrote format 1."""

    @property
    def size(self) -> int | None:
        """The value of the size knob; None for a method without one."""
        return getattr(self, self.size_knob) if self.size_knob else None

    @property
    def takes_budget(self) -> bool:
        """Whether a number of parameters can be given instead of a size."""
        return self.size_knob is not None or self.divides_budgets

    def with_budget(self, parameters: int) -> Self:
        """The same method with a number of parameters to divide; see ``divides_budgets``."""
        raise NotImplementedError

    def sized(self, size: int) -> Self:
        """The same method with another size; :meth:`check` says whether it fits a model.

        Raises:
            IwloraError: the method has no size knob.

        Example:
            >>> from iwlora.methods import METHODS
            >>> METHODS["lora"](rank=8).sized(2).rank
            2
        """
        if self.size_knob is None:
            raise IwloraError(f"{self.name} has no size, and size {size} was given")
        return self.model_copy(update={self.size_knob: size})

    def adaptable(self, sites: Sequence[Site], targets: str | Sequence[str]) -> list[Site]:
        """The sites that the method adapts: without the weights of experts if it cannot.

        Args:
            sites: the sites that ``targets`` chooses.
            targets: the targets of the recipe.

        Raises:
            IwloraError: none remain, or the targets name one that the method does not adapt.
        """
        self.check_convolutions(sites)
        parameters = [site.name for site in sites if site.parameter is not None]
        if not self.adapts_sites or self.not_for_parameters is None or not parameters:
            return list(sites)
        if targets not in ("all", "all-linear") or len(parameters) == len(sites):
            raise IwloraError(
                f"targets={targets} has experts and routers, which {self.name} does not adapt: "
                f"{self.not_for_parameters} ({abbreviate_names(parameters)}); take lora or "
                "iw-lora, or other targets"
            )
        return [site for site in sites if site.parameter is None]

    def check_convolutions(self, sites: Sequence[Site]) -> None:
        """Raise ``IwloraError`` for convolutions if the method does not adapt them."""
        found = any(site.is_convolution for site in sites)
        if self.adapts_sites and self.not_for_convolutions and found:
            raise IwloraError(
                f"the targets have convolutions, and {self.not_for_convolutions}; take lora or "
                "iw-lora, or other targets"
            )

    def calibration(self) -> dict[str, Any] | None:
        """The arguments of ``iwlora.measure`` if :meth:`attach` needs a sensitivity, else None."""
        return None

    def adapter_settings(self) -> Mapping[str, Any]:
        """{field: value} of the saved ``adapter_config.json`` that the options determine.

        An adapter of a run with other values is refused.
        """
        return {}

    def parameters(self, model: nn.Module, sites: Sequence[Site]) -> int:
        """The number of adapter parameters after training, without the task head.

        It is computed before training. The model may be on the ``meta`` device, without weights.
        """
        raise NotImplementedError

    def trained_modules(self, model: nn.Module, sites: Sequence[Site]) -> Sequence[str] | None:
        """Paths of the modules, or names of the parameters, in which the method trains something.

        New modules are in these. All blocks before the first of them compute the same in every run
        (:mod:`iwlora.training.frozen_layers`).

        Args:
            model: the model before the method is attached; weights are not needed.
            sites: the matrices to adapt.

        Returns:
            None where that is not known.
        """
        return [site.name for site in sites] if self.adapts_sites else None

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """Raise ``IwloraError`` if the method does not support the model or the sites.

        The message says why, and which method to use instead. It is called before anything is
        loaded or trained; the model may be without weights.
        """

    def check(self, sites: Sequence[Site]) -> None:
        """Raise ``IwloraError`` if the method's size does not fit the sites."""

    def insert(self, model: nn.Module, sites: Sequence[Site]) -> list[nn.Parameter]:
        """Put into the model what the method trains there, and nothing else.

        The rest of the model is not frozen, the model is not wrapped, and no head is chosen: that
        is :meth:`attach`. So the layers of a model can have parts of several methods. Initial
        values are drawn from torch's generator, which the caller has seeded.

        Args:
            model: the model, with its task head.
            sites: the matrices to adapt.

        Returns:
            The parameters to train, new ones or the model's own.

        Raises:
            IwloraError: the method can only be attached as a whole.
        """
        raise IwloraError(f"{self.name} can only be attached as a whole, not beside other methods")

    def attach(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Attach the method to a freshly loaded model, in place.

        It inserts what trains, freezes everything else, and knows how to save. The result depends
        on the arguments only; global random state is not changed.

        Args:
            model: the model, with its task head.
            sites: the matrices to adapt.
            seed: the seed of all initial values.
            sensitivity: the measurement that :meth:`calibration` asked for.
        """
        raise NotImplementedError

    def one_pass(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside the block, the frozen part of the model computes a batch at the first call alone.

        Later calls, with what other runs have trained, begin from what the first call computed.
        A method that ``shares_pass`` has it.

        Args:
            model: the model with the method attached.
        """
        raise NotImplementedError


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


def split_head(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the backbone's parameters, names of the head's parameters)."""
    heads = head_modules(model)
    names = [name for name, _ in model.named_parameters()]
    head = tuple(name for name in names if in_modules(name, heads))
    return tuple(name for name in names if name not in set(head)), head


def check_unattached(model: nn.Module) -> None:
    """Raise ``IwloraError`` if a method is attached to the model already.

    A second one would freeze what the first trains, or take pretrained modules for the new head.
    """
    first = vars(unwrap(model)).get(_ATTACHED)
    if first is not None:
        raise IwloraError(
            f"{first} is attached to this {type(unwrap(model)).__name__} already, and a second "
            "method would freeze what it trains; load the model anew"
        )


def mark_attached(model: nn.Module, name: str) -> None:
    """Note in the model, for :func:`check_unattached`, which method is attached to it."""
    vars(unwrap(model))[_ATTACHED] = name


def train_only(model: nn.Module, names: Iterable[str]) -> None:
    """Freeze every parameter except the named ones."""
    model.requires_grad_(False)
    for name in names:
        model.get_parameter(name).requires_grad_(True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block, torch draws from this seed; afterwards as if nothing had been drawn."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
