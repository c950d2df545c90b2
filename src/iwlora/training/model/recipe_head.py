"""What a recipe trains beside the adapter: modules of the model, and embeddings of tokens."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from iwlora.errors import IwloraError, unknown
from iwlora.head import add_to_head, train_tokens
from iwlora.training.model.vocabulary import token_embeddings, token_rows
from iwlora.training.recipe import Recipe


def declare_modules(model: PreTrainedModel, recipe: Recipe) -> tuple[str, ...]:
    """Add the recipe's ``modules_to_save`` to the head of a model, which may be without weights.

    Returns:
        A sentence that says how many parameters they are, if there are any.

    Raises:
        IwloraError: a name matches no module, or a module shares its weights with another.
    """
    paths = [path for name in recipe.modules_to_save for path in _matching(model, name)]
    if not paths:
        return ()
    for path in paths:
        _check_not_shared(model, path)
    add_to_head(model, paths, pretrained=True)
    count = sum(p.numel() for path in set(paths) for p in model.get_submodule(path).parameters())
    return (f"{', '.join(paths)} train as a whole (modules_to_save): {count:,} parameters",)


def add_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | Any, recipe: Recipe
) -> tuple[str, ...]:
    """Add the recipe's ``add_tokens`` to the tokenizer, and embeddings for them to the model.

    New embeddings are drawn around the mean of the old ones, from torch's global random state.
    The rows of new tokens and of ``trainable_token_indices`` are declared as trained; those of new
    tokens also in the output embeddings of a language model.

    Returns:
        A sentence that says how many parameters they are, if there are any.

    Raises:
        IwloraError: a token is there already, an id has no embedding, or PEFT cannot train rows of
            the output embeddings.
    """
    if not hasattr(tokenizer, "get_vocab"):
        if recipe.add_tokens or recipe.trainable_token_indices:
            raise IwloraError(
                "add_tokens and trainable_token_indices: the task has images, and its model no "
                "tokens; remove both"
            )
        return ()
    rows = token_rows(model)
    ids = tokenizer.get_vocab()
    if known := [token for token in recipe.add_tokens if ids.get(token, rows) < rows]:
        raise IwloraError(
            f"add_tokens: the tokenizer has {', '.join(map(repr, known))} already; remove it, or "
            "list its id in trainable_token_indices"
        )
    if recipe.add_tokens:
        tokenizer.add_tokens(list(recipe.add_tokens))
        if len(tokenizer) > rows:
            model.resize_token_embeddings(len(tokenizer))
    unusable = [token for token in recipe.trainable_token_indices if token >= token_rows(model)]
    if unusable:
        raise IwloraError(
            f"trainable_token_indices: {unusable[0]} was given; the model has embeddings for 0 to "
            f"{token_rows(model) - 1:,}; list new tokens in add_tokens"
        )
    ids = tokenizer.get_vocab()
    new = {ids[token] for token in recipe.add_tokens}
    new |= set(range(rows, token_rows(model)))  # also those that the tokenizer had without a row
    return _declare_rows(model, sorted(new), recipe)


def _declare_rows(model: PreTrainedModel, new: list[int], recipe: Recipe) -> tuple[str, ...]:
    if not (new or recipe.trainable_token_indices):
        return ()
    inputs: Any = token_embeddings(model)
    if inputs is None:
        raise IwloraError(
            f"add_tokens and trainable_token_indices: {type(model).__name__} has no table of token "
            "embeddings; remove both"
        )
    outputs: Any = model.get_output_embeddings()
    trained = {_path(model, inputs): sorted({*new, *recipe.trainable_token_indices})}
    tied = outputs is not None and outputs.weight is inputs.weight
    if outputs is not None and not tied and new:
        trained[_path(model, outputs)] = new
    if getattr(outputs, "bias", None) is not None and (tied or new):
        raise IwloraError(
            f"add_tokens and trainable_token_indices: PEFT leaves out the bias of "
            f"{_path(model, outputs)} when it trains rows of it; take modules_to_save"
        )
    train_tokens(model, trained)
    tokens = len({id for ids in trained.values() for id in ids})
    count = sum(len(ids) * inputs.weight.shape[1] for ids in trained.values())
    return (f"the embeddings of {tokens} tokens train too: {count:,} parameters",)


def _matching(model: torch.nn.Module, name: str) -> list[str]:
    """The paths of the modules with this path, or with a path that ends in it."""
    paths = [path for path, _ in model.named_modules() if path == name or path.endswith(f".{name}")]
    if not paths:
        ends = dict.fromkeys(path.rpartition(".")[2] for path, _ in model.named_modules() if path)
        raise unknown("module", name, ends)
    return paths


def _check_not_shared(model: PreTrainedModel, path: str) -> None:
    inside = {id(p) for p in model.get_submodule(path).parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in inside and not name.startswith(f"{path}."):
            raise IwloraError(
                f"modules_to_save: {path} shares its weights with {name.rpartition('.')[0]}, and a "
                "trained copy would no longer be shared; for tokens take trainable_token_indices "
                "or add_tokens, which keep both equal"
            )


def _path(model: torch.nn.Module, module: torch.nn.Module) -> str:
    paths: dict[torch.nn.Module, str] = {child: path for path, child in model.named_modules()}
    return paths[module]
