"""The contract of a fine-tuning method: its options, what it supports, and how it attaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.methods.contract.attached import Attached
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import Site, abbreviate_names

if TYPE_CHECKING:
    from torch import nn


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
