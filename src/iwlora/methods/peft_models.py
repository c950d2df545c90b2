"""What all methods that PEFT implements share: its configuration, its model, its parameters."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.head import head_modules, trained_tokens
from iwlora.methods.contract import Attached, check_unattached, mark_attached, seeded
from iwlora.results import layout
from iwlora.sites import Site, is_linear

if TYPE_CHECKING:
    from torch import Tensor, nn

# The end of a model's class name -> PEFT's name of its task.
_TASK_TYPES = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    # Any model whose input PEFT passes on as it is: a prefix is put before it.
    "ForImageTokens": "FEATURE_EXTRACTION",
}


def task_type(model: Any) -> str | None:
    """PEFT's name of the model's task; None where PEFT has no name for it."""
    name = type(model).__name__
    return next((task for end, task in _TASK_TYPES.items() if name.endswith(end)), None)


def target_name(site: Site) -> str:
    """The name of a site in PEFT's configurations: a module's, or a parameter's."""
    if site.parameter is None or not is_linear(site.layer):
        return site.name
    return f"{site.name}.{site.parameter}"


def target_arguments(model: Any, sites: Sequence[Site]) -> dict[str, Any]:
    """The arguments of a PEFT configuration for these sites, the head and the task."""
    from transformers.pytorch_utils import Conv1D

    task = task_type(model)
    parameters = [target_name(site) for site in sites if site.parameter is not None]
    return {
        "target_modules": _target_modules(model, [s.name for s in sites if not s.parameter]),
        **({"target_parameters": parameters} if parameters else {}),
        "modules_to_save": head_modules(model) or None,
        "trainable_token_indices": trained_tokens(model) or None,
        # PEFT's model for question answering does not pass token_type_ids on.
        "task_type": None if task == "QUESTION_ANS" else task,
        "fan_in_fan_out": any(isinstance(site.layer, Conv1D) for site in sites),
    }


def _target_modules(model: Any, names: list[str]) -> list[str] | str:
    """The names; or, where PEFT would also adapt modules whose names end in one, a pattern."""
    chosen = set(names)
    for name, _ in model.named_modules():
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(1, len(parts)))
        if name not in chosen and any(end in chosen for end in ends):
            return "|".join(map(re.escape, names))
    return names


@contextmanager
def patterns_of_parameters() -> Iterator[None]:
    """Inside the block, PEFT does not warn of patterns of ranks that name parameters.

    It uses them, but looks for their names among the modules only.
    """
    with warnings.catch_warnings():
        unmatched = r"The following (rank|alpha)_pattern keys"
        warnings.filterwarnings("ignore", unmatched, RuntimeWarning)
        yield


def attach_peft(model: Any, config: Any, seed: int) -> Attached:
    """Wrap a model by ``peft.get_peft_model``, with initial values that depend on the seed only."""
    from peft import get_peft_model

    check_unattached(model)
    parameters = getattr(config, "target_parameters", None)
    expected, tables = set(head_modules(model)), _tables_of_tokens(model)
    with seeded(seed), patterns_of_parameters():
        try:
            peft_model = get_peft_model(model, config)
        except ValueError as error:
            raise IwloraError(f"PEFT cannot adapt these layers: {error}") from error
    mark_attached(peft_model, f"PEFT's {config.peft_type.value}")
    copied = {name for name, module in _copied_modules(peft_model)}
    if others := sorted(copied - expected):
        raise IwloraError(
            f"PEFT knows a module of the head by the end of its path, and in "
            f"{type(model).__name__} another module ends like it: {', '.join(others)}; take a "
            "method that is not PEFT's, such as full"
        )
    if parameters is not None:
        config.target_parameters = parameters  # PEFT may have made it a set, without an order
    if missed := sorted(tables - {name for name, _ in _token_tables(peft_model)}):
        raise IwloraError(
            f"PEFT cannot train single token embeddings of {type(model).__name__}: it does not "
            f"reach {', '.join(missed)}, which shares them; take modules_to_save, or another model"
        )
    adapter, head = trainable_names(peft_model)
    return Attached(
        model=peft_model,
        adapter=adapter,
        head=head,
        save=partial(save_peft_adapter, peft_model),
        count=lambda: sum(peft_model.get_parameter(name).numel() for name in adapter),
    )


def inject_peft(model: Any, config: Any) -> list[nn.Parameter]:
    """Put PEFT's layers into a model in place, without PEFT's wrapper and its copies of the head.

    Args:
        model: the model; its layers may have parts of other methods already.
        config: PEFT's configuration, without ``modules_to_save``.

    Returns:
        The new parameters, in the order of the model.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    before = {id(parameter) for parameter, _ in trained}
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise IwloraError(f"PEFT cannot adapt these layers: {error}") from error
    for parameter, requires_grad in trained:  # PEFT freezes all that is not its own
        parameter.requires_grad_(requires_grad)
    del model.peft_config  # it would describe the last injection only
    cast_adapter_dtype(model, "default")  # as in PEFT's models: half precision trains badly
    return [parameter for parameter in model.parameters() if id(parameter) not in before]


def save_peft_adapter(peft_model: Any, folder: Path) -> None:
    """Write ``folder/adapter`` as PEFT writes any adapter."""
    peft_model.save_pretrained(folder / layout.ADAPTER, save_embedding_layers=False)


def head_state(peft_model: Any) -> dict[str, Tensor]:
    """{name in an adapter's file: value} of the head: whole modules, and embeddings of tokens."""
    state: dict[str, Tensor] = {}
    for path, module in (*_copied_modules(peft_model), *_token_tables(peft_model)):
        values = module.adapter_state_dict("default", module.state_dict())
        state |= {f"base_model.model.{path}.{name}": value for name, value in values.items()}
    return state


def _tables_of_tokens(model: Any) -> set[str]:
    """The paths of all modules that have the weights of a table whose rows are trained."""
    weights = [model.get_submodule(path).weight for path in trained_tokens(model)]
    return {
        path
        for path, module in model.named_modules()
        if any(getattr(module, "weight", None) is weight for weight in weights)
    }


def _copied_modules(peft_model: Any) -> Iterator[tuple[str, Any]]:
    """(path in the model, PEFT's wrapper) of each module that PEFT trains as a whole, a copy."""
    from peft.utils import ModulesToSaveWrapper

    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield name, module


def _token_tables(peft_model: Any) -> Iterator[tuple[str, Any]]:
    """(path in the model, PEFT's wrapper) of each table of which PEFT trains single rows."""
    from peft.utils.other import TrainableTokensWrapper

    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, TrainableTokensWrapper):
            yield name, module


def trainable_names(peft_model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(adapter, head): names of the trainable parameters, as PEFT's layers declare them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapter: set[int] = set()
    trained = [module.modules_to_save for _, module in _copied_modules(peft_model)]
    tables = [module.token_adapter for _, module in _token_tables(peft_model)]
    trained += [table.trainable_tokens_delta for table in tables]
    head = {id(p) for module in trained for p in module.parameters()}
    for encoder in getattr(peft_model, "prompt_encoder", {}).values():
        adapter.update(id(p) for p in encoder.parameters())
    for module in peft_model.modules():
        if isinstance(module, BaseTunerLayer) and module not in tables:
            for attribute in module.adapter_layer_names:
                adapter.update(id(p) for p in getattr(module, attribute).parameters())
    parameters = [(name, id(parameter)) for name, parameter in peft_model.named_parameters()]
    return (
        tuple(name for name, identity in parameters if identity in adapter),
        tuple(name for name, identity in parameters if identity in head),
    )
