"""Bottleneck adapters: Houlsby's, Pfeiffer's and the parallel one, presets of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu, silu

from iwlora.errors import IwloraError
from iwlora.methods.adapter_files import save_declared
from iwlora.methods.contract import Attached, Method, split_head, train_only
from iwlora.sites import end_of_block
from iwlora.sites import sites as find_sites

if TYPE_CHECKING:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sites import Site

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "gelu": gelu, "swish": silu}

# What puts an adapter at one place of the model, and the width of the adapter's input there.
Place = tuple[Callable[["Bottleneck"], None], int]


class Bottleneck(nn.Module):
    """A(x) = scaling · (f(x Dᵀ + b) Uᵀ + c), with D of shape (size, width) and U (width, size).

    U and c are 0 at first, and so is A; D is drawn as ``torch.nn.Linear`` draws its weight, and
    b is 0 (He et al. 2022, arXiv:2110.04366).

    >>> adapter = Bottleneck(width=8, size=2, activation="relu", scaling=1.0)
    >>> adapter(torch.ones(3, 8)).abs().max().item()
    0.0
    """

    def __init__(self, width: int, size: int, activation: str, scaling: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(size, width))
        self.down_bias = nn.Parameter(torch.zeros(size))
        self.up = nn.Parameter(torch.zeros(width, size))
        self.up_bias = nn.Parameter(torch.zeros(width))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.activation = activation
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) -> (…, width), in the type of ``x``."""
        inner = linear(x.to(self.down.dtype), self.down, self.down_bias)
        inner = _ACTIVATIONS[self.activation](inner)  # (…, size)
        return (self.scaling * linear(inner, self.up, self.up_bias)).to(x.dtype)


class _Adapters(Method):
    """What the presets share. ``layer_norms``: the backbone's normalisations are trained too."""

    size_knob: ClassVar[str | None] = "bottleneck"
    unmergeable: ClassVar[str | None] = "its modules are not linear, so no weight can absorb them"

    bottleneck: Annotated[int, Field(ge=1, strict=True)] = 64
    activation: Literal["relu", "gelu", "swish"] = "relu"
    scaling: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    layer_norms: bool = False

    def places(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Place]:
        """Where the adapters go. Raises ``IwloraError`` where the blocks are of an unknown kind."""
        raise NotImplementedError

    def parameters(self, model: Any, sites: Sequence[Site], size: int | None) -> int:
        """Σ (2 width · size + size + width) over the adapters, and the normalisations'."""
        m = size or self.bottleneck
        adapters = sum(2 * width * m + m + width for _, width in self.places(model, sites))
        norms: int = sum(model.get_parameter(name).numel() for name in self._norms(model))
        return adapters + norms

    def check(self, sites: Sequence[Site], size: int | None) -> None:
        """The bottleneck must not be wider than what it narrows."""
        size, width = size or self.bottleneck, min(site.d_out for site in sites)
        if not 1 <= size <= width:
            raise IwloraError(
                f"method.bottleneck={size} was given; accepted are 1 to {width}, the width of the "
                "hidden states"
            )

    def check_model(self, model: nn.Module, sites: Sequence[Site]) -> None:
        """The places must be known, and among the sites."""
        if not list(self.places(model, sites)):
            raise IwloraError(
                f"{self.name} goes behind attention_output and ffn_down, and none of the targets "
                f"in {type(model).__name__} is of its kinds; take targets=all, or lora"
            )

    def attach(
        self,
        model: Any,
        sites: Sequence[Site],
        size: int | None,
        seed: int,
        sensitivity: Sensitivity | None = None,
    ) -> Attached:
        """Hook an adapter in at every place; it is the child ``adapter`` of the module there."""
        self.check_model(model, sites)
        self.check(sites, size)
        like = next(p for p in model.parameters() if p.is_floating_point())
        kind = torch.promote_types(like.dtype, torch.float32)  # half precision trains badly
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for put, width in list(self.places(model, sites)):
                new = Bottleneck(width, size or self.bottleneck, self.activation, self.scaling)
                put(new.to(like.device, kind))
        own = {id(p) for m in model.modules() if isinstance(m, Bottleneck) for p in m.parameters()}
        adapters = tuple(name for name, p in model.named_parameters() if id(p) in own)
        adapter, (_, head) = adapters + self._norms(model), split_head(model)
        train_only(model, adapter + head)
        return Attached(
            model=model,
            adapter=adapter,
            head=head,
            save=partial(save_declared, self, model, adapter + head, sites, size),
            count=lambda: sum(model.get_parameter(name).numel() for name in adapter),
        )

    def _norms(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the parameters of the backbone's normalisations, where they are trained."""
        if not self.layer_norms:
            return ()
        backbone = set(split_head(model)[0])
        norms = (f"{n}.{p}" for n, m in model.named_modules() if _is_norm(m) for p in m._parameters)
        return tuple(name for name in norms if name in backbone)


class Houlsby(_Adapters):
    """An adapter behind attention and one behind the feed-forward: h ↦ h + A(h).

    h is the sublayer's output, projected back and not yet added to its input. The backbone's
    normalisations are trained too, as in the paper (section 2.1).
    """

    name: ClassVar[str] = "houlsby"
    summary: ClassVar[str] = "adapters behind attention and behind the feed-forward"
    paper: ClassVar[str] = "Houlsby et al. 2019, arXiv:1902.00751"

    bottleneck: Annotated[int, Field(ge=1, strict=True)] = 32
    activation: Literal["relu", "gelu", "swish"] = "gelu"
    layer_norms: bool = True

    def places(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Place]:
        """Both projections back to the hidden width, in each block."""
        for site in _of_kind(sites, "attention_output", "ffn_down"):
            yield partial(_put, site.layer, _add_to_output), site.d_out


class Pfeiffer(_Adapters):
    """One adapter a block, behind the feed-forward and its normalisation.

    With u = f + x, the feed-forward's output and input: LN(u + A(LN(u))), where LN is the
    pretrained normalisation (Pfeiffer et al. 2020, arXiv:2005.00052, equation 1). In blocks that
    normalise first, u + A(u).
    """

    name: ClassVar[str] = "pfeiffer"
    summary: ClassVar[str] = "one adapter a block, behind the feed-forward's normalisation"
    paper: ClassVar[str] = "Pfeiffer et al. 2021, arXiv:2005.00247"

    def places(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Place]:
        """The end of each block."""
        for site in _of_kind(sites, "ffn_down"):
            end, normalises = end_of_block(model, site)
            yield partial(_put, end, _add_before_norm if normalises else _add_to_output), site.d_out


class Parallel(_Adapters):
    """One adapter a block, beside the feed-forward: FFN(x) + A(x), with A scaled.

    x is what the feed-forward's first matrix sees (He et al. 2022, table 1, "scaled PA").
    """

    name: ClassVar[str] = "parallel"
    summary: ClassVar[str] = "a scaled adapter beside each feed-forward"
    paper: ClassVar[str] = "He et al. 2022, arXiv:2110.04366"

    scaling: Annotated[float, Field(allow_inf_nan=False)] = 4.0

    def places(self, model: nn.Module, sites: Sequence[Site]) -> Iterator[Place]:
        """From the input of each feed-forward's first matrix to the output of its last."""
        first = {
            (site.depth, site.kind.replace("ffn_up", "ffn_down")): site
            for site in _of_kind(find_sites(model), "ffn_up")
        }
        for last in _of_kind(sites, "ffn_down"):
            site = first[last.depth, last.kind]
            yield partial(_put_beside, site.layer, last.layer), site.d_in


def _of_kind(sites: Sequence[Site], *kinds: str) -> list[Site]:
    return [site for site in sites if site.kind.removeprefix("decoder_") in kinds]


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")


def _put(module: Any, hook: Callable[..., Any], adapter: Bottleneck) -> None:
    module.adapter = adapter
    module.register_forward_hook(hook)


def _put_beside(first: Any, last: Any, adapter: Bottleneck) -> None:
    last.adapter = adapter
    inputs: list[Tensor] = []  # of the adapter, between the first matrix and the last
    first.register_forward_pre_hook(partial(_keep_input, inputs))
    last.register_forward_hook(partial(_add_beside, inputs))


def _add_to_output(module: Any, inputs: tuple[Tensor, ...], output: Any) -> Any:
    if isinstance(output, tuple):  # a block that returns more than its hidden states
        return (output[0] + module.adapter(output[0]), *output[1:])
    return output + module.adapter(output)


def _add_before_norm(norm: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Any:
    return norm.forward(inputs[0] + norm.adapter(output))


def _keep_input(inputs: list[Tensor], module: nn.Module, given: tuple[Tensor, ...]) -> None:
    inputs[:] = given[:1]


def _add_beside(inputs: list[Tensor], module: Any, given: Any, output: Tensor) -> Tensor:
    beside: Tensor = module.adapter(inputs.pop())
    return output + beside
