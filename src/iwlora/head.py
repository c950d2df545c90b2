"""The head of a model: all that every method trains and saves beside its adapter.

That is the new task head, and modules that were declared with :func:`add_to_head`, such as those
that the pretrained file has no weights for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# The attribute of a model with the declared modules; copies of the model keep it.
_DECLARED = "_iwlora_head_modules"
# Heads of models without a separate backbone module (T5).
_HEADS_WITHOUT_BACKBONE = ("qa_outputs",)


def head_modules(model: nn.Module) -> list[str]:
    """The paths of the modules of the head, in the order of the model; none lies inside another.

    They are the children with parameters outside the pretrained backbone, which are new for each
    task, and the declared modules. A backbone alone has no new children. A language model has none
    either: its output embeddings are pretrained.
    """
    paths = {*_task_head(model), *declared_modules(model)}
    ordered = [path for path, _ in model.named_modules() if path in paths]
    return [path for path in ordered if not in_modules(path.rpartition(".")[0], ordered)]


def add_to_head(model: nn.Module, modules: Iterable[str]) -> None:
    """Declare modules, by their paths in the model, that every method must train and save."""
    vars(model)[_DECLARED] = tuple(dict.fromkeys((*declared_modules(model), *modules)))


def declared_modules(model: nn.Module) -> tuple[str, ...]:
    """The paths that :func:`add_to_head` declared."""
    declared: tuple[str, ...] = vars(model).get(_DECLARED, ())
    return declared


def head_buffers(model: nn.Module) -> dict[str, Tensor]:
    """{name: buffer} of the head, without the buffers that no file stores."""
    from torch import nn

    return {
        f"{path}.{name}": value
        for path in head_modules(model)
        for name, value in model.get_submodule(path).state_dict(keep_vars=True).items()
        if not isinstance(value, nn.Parameter)
    }


def in_modules(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter or a module is one of these modules, or lies inside one.

    >>> in_modules("bert.pooler.dense.weight", ["bert.pooler"])
    True
    >>> in_modules("pre_classifier.weight", ["classifier"])
    False
    """
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _task_head(model: nn.Module) -> list[str]:
    backbone = getattr(model, "base_model_prefix", "")
    if not backbone or not hasattr(model, backbone):
        return [name for name in _HEADS_WITHOUT_BACKBONE if hasattr(model, name)]
    output_embeddings = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, child in model.named_children()
        if name != backbone
        and not any(module is output_embeddings for module in child.modules())
        and any(True for _ in child.parameters())
    ]
