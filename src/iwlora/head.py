"""The head of a model: all that every method trains and saves beside its adapter.

That is the new task head, modules that the pretrained file has no weights for, and the modules and
the embeddings of tokens that the recipe names. The model keeps what is declared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# The attributes of a model with what was declared; copies of the model keep them.
_NEW, _PRETRAINED = "_iwlora_new_modules", "_iwlora_modules_to_save"
_TOKENS = "_iwlora_trained_tokens"
# Heads of models without a separate backbone module (T5).
_HEADS_WITHOUT_BACKBONE = ("qa_outputs",)


def head_modules(model: nn.Module) -> list[str]:
    """The paths of the modules of the head, in the order of the model; none lies inside another.

    They are the children with parameters outside the pretrained backbone, which are new for each
    task, and the modules that :func:`add_to_head` declared. A backbone alone has no new children.
    A language model has none either: its output embeddings are pretrained.
    """
    paths = {*_task_head(model), *new_modules(model), *vars(model).get(_PRETRAINED, ())}
    ordered = [path for path, _ in model.named_modules() if path in paths]
    return [path for path in ordered if not in_modules(path.rpartition(".")[0], ordered)]


def add_to_head(model: nn.Module, modules: Iterable[str], pretrained: bool = False) -> None:
    """Declare modules, by their paths in the model, that every method must train and save.

    Args:
        model: the model, before a method is attached to it.
        modules: their paths.
        pretrained: whether the pretrained file has weights for them.
    """
    key = _PRETRAINED if pretrained else _NEW
    vars(model)[key] = tuple(dict.fromkeys((*vars(model).get(key, ()), *modules)))


def new_modules(model: nn.Module) -> tuple[str, ...]:
    """The paths of the declared modules that the pretrained file has no weights for."""
    declared: tuple[str, ...] = vars(model).get(_NEW, ())
    return declared


def declared_modules(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The paths of all declared modules, by the value of ``pretrained``: "new" or "pretrained"."""
    return {"new": new_modules(model), "pretrained": vars(model).get(_PRETRAINED, ())}


def train_tokens(model: nn.Module, rows: Mapping[str, Sequence[int]]) -> None:
    """Declare the rows of tables of embeddings, {path of a table: ids of tokens}, that train."""
    vars(model)[_TOKENS] = {path: sorted(set(ids)) for path, ids in rows.items()}


def trained_tokens(model: nn.Module) -> dict[str, list[int]]:
    """{path of an embedding table: ids} of the rows that :func:`train_tokens` declared."""
    declared: dict[str, list[int]] = vars(model).get(_TOKENS, {})
    return declared


def backbone_names(model: nn.Module) -> list[str]:
    """The names of the pretrained parameters, without those of the task head and new modules."""
    new = {*_task_head(model), *new_modules(model)}
    return [name for name, _ in model.named_parameters() if not in_modules(name, new)]


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
