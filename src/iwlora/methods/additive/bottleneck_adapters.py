"""Bottleneck adapters: Houlsby's, Pfeiffer's and the parallel one, presets of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, Number
from iwlora.methods.contract import split_head
from iwlora.methods.named_parameters import NamedParameters
from iwlora.sites import Site, end_of_block, unwrap
from iwlora.sites import sites as find_sites

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iwlora.methods.additive.bottleneck_module import Bottleneck

Insertion: TypeAlias = "tuple[Callable[[Bottleneck], None], int]"
"""(a function that inserts an adapter into the model, the width of the adapter's input)"""


class _Adapters(NamedParameters):
    """Base of the presets. With ``layer_norms`` the backbone's normalizations are trained too."""

    size_knob: ClassVar[str | None] = "bottleneck"
    positions: ClassVar[tuple[str, ...]] = ("ffn_down",)
    """Kinds of the matrices that the adapters follow."""
    unmergeable: ClassVar[str | None] = (
        "its modules are not linear, so they cannot be part of a weight"
    )

    not_for_parameters: ClassVar[str | None] = None  # check_model refuses mixtures of experts

    bottleneck: Count = 64
    """Width of an adapter's inner layer."""
    activation: Literal["relu", "gelu", "swish"] = "relu"
    """The function between the two layers of an adapter."""
    scaling: Number = 1.0
    """Factor of what an adapter adds."""
    layer_norms: bool = False
    """Whether the backbone's normalizations are trained too."""

    def insertions(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Insertion]:
        """The adapters to insert. Raises ``IwloraError`` for blocks of an unknown architecture."""
        raise NotImplementedError

    def parameters(self, model: Any, sites: Sequence[Site]) -> int:
        """Σ (2 width · size + size + width) over the adapters, plus the normalizations."""
        m = self.bottleneck
        adapters = sum(2 * width * m + m + width for _, width in self.insertions(model, sites))
        norms: int = sum(model.get_parameter(name).numel() for name in self._norms(model))
        return adapters + norms

    def check(self, sites: Sequence[Site]) -> None:
        """The bottleneck must not be wider than the hidden states at any of its positions."""
        width = min((site.d_out for site in _of_kind(sites, *self.positions)), default=0)
        if not 1 <= self.bottleneck <= width:
            raise IwloraError(
                f"method.bottleneck={self.bottleneck} was given; accepted are 1 to {width}, the "
                "width of the hidden states"
            )

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """Each block with sites must have a known structure and an adapter at each position."""
        positions, name = " and ".join(self.positions), type(model).__name__
        if not list(self.insertions(model, sites)):
            raise IwloraError(
                f"{self.name} adds adapters after {positions}, and no target in {name} is one of "
                "these; take targets=all, or lora"
            )
        if {_kind(site) for site in sites} <= set(self.positions):
            return  # the user chose the positions
        by_block: dict[str, set[str]] = {site.block: set() for site in sites}
        for site in sites:
            by_block[site.block].add(_kind(site))
        without = {b: [p for p in self.positions if p not in by_block[b]] for b in by_block}
        incomplete = {block: missing for block, missing in without.items() if missing}
        if incomplete:
            block, missing = next(iter(incomplete.items()))
            raise IwloraError(
                f"{self.name} adds adapters after {positions} in each block, and "
                f"{len(incomplete)} of {len(by_block)} blocks of {name} have no {missing[0]} that "
                f"it knows, such as {block}; take lora, or choose positions that exist with "
                f"targets={sorted(set(self.positions) - set(missing)) or ['...']}"
            )

    def insert(self, model: Any, sites: Sequence[Site]) -> list[nn.Parameter]:
        """Insert the adapters with forward hooks, each as the child ``adapter`` of a module.

        Returns:
            The adapters' parameters in the order of the model, and those of the normalizations if
            they are trained.
        """
        import torch

        from iwlora.methods.additive.bottleneck_module import Bottleneck

        first = next(p for p in model.parameters() if p.is_floating_point())
        dtype = torch.promote_types(first.dtype, torch.float32)  # half precision trains badly
        added: set[int] = set()
        for insert, width in list(self.insertions(model, sites)):
            new = Bottleneck(width, self.bottleneck, self.activation, self.scaling)
            insert(new.to(first.device, dtype))
            added.update(map(id, new.parameters()))
        adapters = [parameter for parameter in model.parameters() if id(parameter) in added]
        return adapters + super().insert(model, sites)

    def trained_names(self, model: nn.Module) -> tuple[str, ...]:
        """The parameters of the normalizations, if they are trained."""
        return self._norms(model)

    def _norms(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the parameters of the backbone's normalizations, if they are trained."""
        if not self.layer_norms:
            return ()
        backbone = set(split_head(model)[0])
        norms = (f"{n}.{p}" for n, m in model.named_modules() if _is_norm(m) for p in m._parameters)
        return tuple(name for name in norms if name in backbone)


class Houlsby(_Adapters):
    """An adapter after attention and one after the feed-forward network: h ↦ h + A(h).

    h is the output of the sublayer, before it is added to the sublayer's input. The backbone's
    normalizations are trained too, as in the paper (section 2.1).
    """

    name: ClassVar[str] = "houlsby"
    summary: ClassVar[str] = "adapters after attention and after the feed-forward network"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"

    positions: ClassVar[tuple[str, ...]] = ("attention_output", "ffn_down")

    bottleneck: Count = 32
    activation: Literal["relu", "gelu", "swish"] = "gelu"
    layer_norms: bool = True

    def insertions(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Insertion]:
        """After the last matrix of attention and of the feed-forward network, in each block."""
        for site in _of_kind(sites, *self.positions):
            yield partial(_insert, _called(model, site), _add_to_output), site.d_out


class Pfeiffer(_Adapters):
    """One adapter per block, after the feed-forward network and its normalization.

    Let u = f + x be the sum of the network's output and input, and LN the pretrained
    normalization. The block's output is LN(u + A(LN(u))) (Pfeiffer et al. 2020, arXiv:2005.00052,
    equation 1). In blocks that normalize before the network, it is u + A(u).
    """

    name: ClassVar[str] = "pfeiffer"
    summary: ClassVar[str] = "one adapter per block, after the feed-forward network's normalization"
    paper: ClassVar[str] = "Pfeiffer et al. 2021, arXiv:2005.00247"

    def insertions(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Insertion]:
        """The end of each block."""
        for site in _of_kind(sites, "ffn_down"):
            end, normalizes = end_of_block(model, site)
            yield (
                partial(_insert, end, _add_before_norm if normalizes else _add_to_output),
                site.d_out,
            )


class Parallel(_Adapters):
    """One adapter per block, parallel to the feed-forward network: FFN(x) + A(x), with A scaled.

    x is the input of the network's first matrix (He et al. 2022, table 1, "scaled PA").
    """

    name: ClassVar[str] = "parallel"
    summary: ClassVar[str] = "a scaled adapter parallel to each feed-forward network"
    paper: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"

    scaling: Number = 4.0

    def insertions(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Insertion]:
        """From the input of each network's first matrix to the output of its last matrix."""
        first = {site.block: site for site in _of_kind(find_sites(model), "ffn_up", "ffn_gate_up")}
        for down in _of_kind(sites, "ffn_down"):
            if down.block not in first:
                raise IwloraError(
                    f"{self.name} reads the input of a feed-forward network, and {down.block} of "
                    f"{type(model).__name__} has no first matrix that it knows; take pfeiffer or "
                    "lora"
                )
            up = first[down.block]
            yield partial(_insert_parallel, _called(model, up), _called(model, down)), up.d_in


def _of_kind(sites: Sequence[Site], *kinds: str) -> list[Site]:
    return [site for site in sites if _kind(site) in kinds]


def _kind(site: Site) -> str:
    return site.kind.removeprefix("decoder_")


def _called(model: nn.Module, site: Site) -> nn.Module:
    """The module that the block calls for a site: around its layer, PEFT's if it has an update."""
    return unwrap(model).get_submodule(site.name)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")


def _insert(module: Any, hook: Callable[..., Any], adapter: Bottleneck) -> None:
    module.adapter = adapter
    module.register_forward_hook(hook)


def _insert_parallel(up: Any, down: Any, adapter: Bottleneck) -> None:
    down.adapter = adapter
    inputs: list[Tensor] = []  # the adapter's input, from the call of ``up`` to that of ``down``
    up.register_forward_pre_hook(partial(_keep_input, inputs))
    down.register_forward_hook(partial(_add_parallel, inputs))


def _add_to_output(module: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
    if isinstance(output, tuple):  # a block that also returns other values
        return (output[0] + module.adapter(output[0]), *output[1:])
    return output + module.adapter(output)


def _add_before_norm(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
    return norm.forward(inputs[0] + norm.adapter(output))


def _keep_input(inputs: list[Tensor], module: nn.Module, args: tuple[Tensor, ...]) -> None:
    inputs[:] = args[:1]


def _add_parallel(inputs: list[Tensor], module: Any, args: Any, output: Tensor) -> Tensor:
    update: Tensor = module.adapter(inputs.pop())
    return output + update
