"""The parts that layers can have: what each costs in a layer, and how it is inserted there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from iwlora.errors import IwloraError
from iwlora.head import head_modules, in_modules
from iwlora.methods.additive.bottleneck_adapters import Houlsby, Parallel, Pfeiffer
from iwlora.methods.additive.prefix_attention import insert_prefixes, prefix_places
from iwlora.methods.contract import Method
from iwlora.methods.grouped.division import Cost
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.lora_variants import Dora, RsLora
from iwlora.methods.selective.bitfit import BitFit
from iwlora.sites import Site, unwrap

if TYPE_CHECKING:
    from torch import nn

BIASES, PREFIX = BitFit.name, "prefix"
LOW_RANK: Mapping[str, type[Lora]] = {method.name: method for method in (Lora, RsLora, Dora)}
BOTTLENECKS: Mapping[str, type[Any]] = {m.name: m for m in (Houlsby, Pfeiffer, Parallel)}
STRATEGIES = (BIASES, PREFIX, *LOW_RANK, *BOTTLENECKS)
"""All parts, in the order in which they are inserted: the biases are the pretrained ones, and a
bottleneck adapter reads what the low-rank update of its layer adds."""
LINEAR = (*LOW_RANK, BIASES)
"""The parts that can be merged into the pretrained weights."""
_SIZED_BY_GROUPED = ("rank", "bottleneck")
_NORMS = "layer_norms"
_MOST_TOKENS = 2**16  # more than any text has


@dataclass(frozen=True)
class Layer:
    """A repeated block of a model.

    Args:
        block: its path.
        sites: all its sites.
        targets: those that low-rank parts adapt.
        stack: the path of the blocks of its stack: encoder and decoder have different ones.
    """

    block: str
    sites: tuple[Site, ...]
    targets: tuple[Site, ...]
    stack: str

    @property
    def is_decoder(self) -> bool:
        """Whether it is one of an encoder-decoder's decoder, which counts its blocks anew."""
        return self.sites[0].kind.startswith("decoder_")


def layers_of(every_site: Sequence[Site], targets: Sequence[Site]) -> list[Layer]:
    """The layers that have a target, in the order of the model.

    Args:
        every_site: all sites of the model.
        targets: the sites to adapt.
    """
    adapted = {site.name for site in targets}
    blocks = dict.fromkeys(site.block for site in every_site if site.name in adapted)
    layers = []
    for block in blocks:
        inside = tuple(site for site in every_site if site.block == block)
        chosen = tuple(site for site in inside if site.name in adapted)
        layers.append(Layer(block, inside, chosen, block.rpartition(".")[0]))
    return layers


def combination_problems(strategies: Sequence[str]) -> Iterator[str]:
    """Why these parts cannot share a layer, one message for each reason."""
    for name in dict.fromkeys(strategies):
        if name not in STRATEGIES:
            yield f"{name!r} is no part of a layer; accepted are {', '.join(STRATEGIES)}"
        elif strategies.count(name) > 1:
            yield f"{name} is given twice"
    for kind, what in ((LOW_RANK, "low-rank updates"), (BOTTLENECKS, "bottleneck adapters")):
        alike = [name for name in dict.fromkeys(strategies) if name in kind]
        if len(alike) > 1:
            yield f"{' and '.join(alike)} are both {what}, and a layer has one of them"
    if not strategies:
        yield "a group has no strategy; leave its layers out by 'tuned' instead"


def option_problems(options: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What is wrong with the options of parts, one message for each fault."""
    for name, given in options.items():
        if name not in (*LOW_RANK, *BOTTLENECKS):
            accepted = ", ".join((*LOW_RANK, *BOTTLENECKS))
            yield f"options: {name!r} was given; accepted are {accepted}"
            continue
        for key in _SIZED_BY_GROUPED:
            if key in given:
                yield f"options.{name}.{key}: the budget, or else part_size, sets it; remove it"
        if given.get(_NORMS):
            yield (
                f"options.{name}.{_NORMS}: a part trains nothing outside its layer; remove it, and "
                f"take {BIASES} for the biases"
            )
        try:
            _class_of(name)(**given)
        except ValidationError as error:
            for fault in error.errors():
                yield f"options.{name}.{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


@dataclass(frozen=True)
class Part:
    """A strategy with its options, for layers of any size.

    Args:
        name: one of ``STRATEGIES``.
        options: those of its method.
        part_size: the denominator of the scaling of LoRA and DoRA, ``lora_alpha / part_size``,
            whatever the rank.
    """

    name: str
    options: Mapping[str, Any]
    part_size: int

    def method(self, size: int) -> Method:
        """The method of this part, at a size."""
        if self.name in BOTTLENECKS:
            made: Method = BOTTLENECKS[self.name](
                **{_NORMS: False, **self.options, "bottleneck": size}
            )
            return made
        method = LOW_RANK[self.name](**{**self.options, "rank": size})
        if self.name == RsLora.name:
            return method
        alpha = method.lora_alpha * size / self.part_size
        return method.model_copy(update={"lora_alpha": alpha})

    def cost(self, model: Any, layer: Layer) -> Cost:
        """The number of parameters in a layer.

        Raises:
            IwloraError: the layer cannot have this part.
        """
        if self.name == BIASES:
            return Cost(sum(bias.numel() for bias in biases(model, layer)), 0)
        if self.name == PREFIX:
            unit = sum(2 * width for _, width in prefix_places(model, layer.sites))
            return Cost(0, unit, _MOST_TOKENS)
        one, two = (self.method(size) for size in (1, 2))
        sites = layer.targets if self.name in LOW_RANK else layer.sites
        one.check_model(model, sites)
        unit = two.parameters(model, sites) - one.parameters(model, sites)
        width = min(site.largest_rank for site in sites)
        if self.name in BOTTLENECKS:
            width = next(s.d_out for s in sites if s.kind.removeprefix("decoder_") == "ffn_down")
        return Cost(one.parameters(model, sites) - unit, unit, width)

    def insert(self, model: Any, layer: Layer, size: int) -> list[nn.Parameter]:
        """Put the part into a layer; returns its parameters."""
        if self.name == BIASES:
            return list(biases(model, layer))
        if self.name == PREFIX:
            return insert_prefixes(model, layer.sites, size)
        if self.name in LOW_RANK:
            return self.method(size).insert(model, layer.targets)
        return self.method(size).insert(model, layer.sites)


def biases(model: Any, layer: Layer) -> Iterator[nn.Parameter]:
    """The bias terms of a layer that were there before anything was inserted.

    Raises:
        IwloraError: it has none.
    """
    block, head = unwrap(model).get_submodule(layer.block), head_modules(unwrap(model))
    names = [
        name
        for name, _ in block.named_parameters()
        if BitFit.is_bias(name) and not in_modules(f"{layer.block}.{name}", head)
    ]
    if not names:
        raise IwloraError(
            f"{BIASES} trains bias terms, and {layer.block} of {type(unwrap(model)).__name__} has "
            "none; leave it out"
        )
    for name in names:
        yield block.get_parameter(name)


def _class_of(name: str) -> type[Method]:
    return LOW_RANK.get(name) or BOTTLENECKS[name]
