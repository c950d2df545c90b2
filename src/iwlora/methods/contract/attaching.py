"""What methods do to a model when they attach: find its head, freeze it, seed, leave a mark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iwlora.errors import IwloraError
from iwlora.head import head_modules, in_modules
from iwlora.sites import unwrap

if TYPE_CHECKING:
    from torch import nn

# The attribute of a model that says which method is attached to it; copies of the model keep it.
_ATTACHED = "_iwlora_attached_method"


def split_head(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the backbone's parameters, names of the head's parameters)."""
    heads = head_modules(model)
    names = [name for name, _ in model.named_parameters()]
    head = tuple(name for name in names if in_modules(name, heads))
    return tuple(name for name in names if name not in set(head)), head


def check_unattached(model: nn.Module) -> None:
    """Raise ``IwloraError`` if a method, or an adapter of PEFT, is attached to the model already.

    A second one would freeze what the first trains, or take pretrained modules for the new head.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    first = vars(unwrap(model)).get(_ATTACHED)
    layers = PeftModel | BaseTunerLayer
    if first is None and any(isinstance(module, layers) for module in model.modules()):
        first = "an adapter of PEFT"
    if first is not None:
        raise IwloraError(
            f"{first} is attached to this {type(unwrap(model)).__name__} already, and a second "
            "method would freeze what it trains; load the model anew"
        )


def not_measured(name: str) -> IwloraError:
    """The error of a method that is attached without the sensitivity that it needs."""
    return IwloraError(
        f"{name} needs the measured sensitivity of its sites; give attach what "
        "iwlora.measure(model, batches) returned before anything was attached to the model"
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
