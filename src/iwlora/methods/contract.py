"""The contract that every fine-tuning method meets, and the record of one attached to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from iwlora.errors import IwloraError
from iwlora.sites import head_modules

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from iwlora.penalty.gram import LowRankPair
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site


@dataclass(frozen=True)
class Attached:
    """A method attached to a model: what trains, what is added to the loss, how to save it.

    ``adapter`` and ``head`` name every parameter that may move, in ``model.named_parameters()``;
    the head is the new task head, which all methods train alike. ``pairs`` are the method's
    low-rank updates, if that is what it trains. ``regularizer()`` is a scalar that belongs to
    the loss once per optimizer step. ``save(folder)`` writes the result where
    ``iwlora.training.state.artifacts`` finds it, and ``count()`` is the number of adapter
    parameters in it (below ``adapter``'s where the method prunes), but for the ``derived`` ones,
    which the pretrained weights alone determine.

    ``learning_rates`` are factors of the learning rate, by parameter; without one it is 1.
    ``initialize(batches)`` sets initial values from training batches, once, before training; all
    processes are given the same.
    ``ranks()`` are the sites' effective ranks, for a method that gives them different ones.
    ``settled()`` tells whether the method has come down to its final size: an earlier epoch is
    not chosen as the best.
    ``notes()`` are what the user should know about how training went.
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
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    initialize: Callable[[Iterable[Mapping[str, Tensor]]], None] | None = None
    ranks: Callable[[], Mapping[str, int]] | None = None
    settled: Callable[[], bool] = lambda: True
    derived: int = 0

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of every parameter that may move: the adapter's, then the head's."""
        return self.adapter + self.head


class Method(BaseModel):
    """Base of all methods: an instance holds the options of one, checked when it is made.

    A method is one subclass in one file and one row in ``METHODS``. Fields are its options
    as a recipe names them; ``size_knob`` names the field that sets its size, None if it has none.
    ``unmergeable`` says why no plain model computes what the trained one does, None if one does;
    ``unpackable`` why the method cannot train a model whose weights are packed in 4 bits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    size_knob: ClassVar[str | None] = None
    identity_at_init: ClassVar[bool] = True
    unmergeable: ClassVar[str | None] = None
    unpackable: ClassVar[str | None] = (
        "transformers trains packed weights under PEFT's adapters alone, and it is none of them"
    )
    control_of: ClassVar[str | None] = None
    """The name of the method whose gain this one explains away: what ``controls: true`` adds."""

    former_defaults: ClassVar[Mapping[str, Any]] = {}
    """{field: its default in version 0.1.0} of the fields whose default has changed since."""

    @property
    def size(self) -> int | None:
        """The value of the size knob."""
        return getattr(self, self.size_knob) if self.size_knob else None

    def calibration(self) -> dict[str, Any] | None:
        """Arguments of ``iwlora.measure`` if the method needs the sensitivity, else None."""
        return None

    def parameters(self, model: nn.Module, sites: Sequence[Site], size: int | None) -> int:
        """Adapter parameters that the method ends with at this size, the task head apart."""
        raise NotImplementedError

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """Raise ``IwloraError`` where the method cannot go, saying why and what to take instead.

        The model may be without weights: this is asked before anything is loaded or trained.
        """

    def check(self, sites: Sequence[Site], size: int | None) -> None:
        """Raise ``IwloraError`` when the size does not fit the sites."""

    def attach(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Attach to a freshly loaded model, in place. Global random state is not touched."""
        raise NotImplementedError


def split_head(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the backbone's parameters, names of the task head's)."""
    heads = head_modules(model)
    names = [name for name, _ in model.named_parameters()]
    head = tuple(name for name in names if name.split(".")[0] in heads)
    return tuple(name for name in names if name not in set(head)), head


def train_only(model: nn.Module, names: Iterable[str]) -> None:
    """Freeze every parameter but those named."""
    model.requires_grad_(False)
    for name in names:
        model.get_parameter(name).requires_grad_(True)


def check_rank(rank: int, sites: Sequence[Site], what: str = "rank") -> None:
    """Raise ``IwloraError`` for a rank that the smallest of the matrices does not have."""
    smallest = min(sites, key=lambda site: min(site.d_in, site.d_out))
    limit = min(smallest.d_in, smallest.d_out)
    if not 1 <= rank <= limit:
        raise IwloraError(
            f"{what}={rank} was given; accepted are 1 to {limit}, the smaller side of "
            f"{smallest.name} ({smallest.d_out} × {smallest.d_in})"
        )
