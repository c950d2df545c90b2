"""A ``peft.LoraConfig`` as Python and JSON, each name of which matches exactly one weight."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pprint import pformat
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from iwlora.advice.layouts import Layout
from iwlora.errors import IwloraError, list_problems
from iwlora.methods.peft_models import target_arguments, target_name
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.load import load
from iwlora.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

_FIELDS = (
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules"),
    *("target_parameters", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("trainable_token_indices", "task_type", "fan_in_fan_out"),
)
_WIDTH = 96


def lora_arguments(config: Any) -> dict[str, Any]:
    """The arguments that make a ``peft.LoraConfig`` again, without those that say nothing."""
    values = {name: getattr(config, name, None) for name in _FIELDS}
    plain = {
        name: sorted(value) if isinstance(value, (set, frozenset)) else value
        for name, value in values.items()
    }
    task = plain["task_type"]
    plain["task_type"] = getattr(task, "value", task)
    # Without names PEFT would choose modules itself.
    return {name: value for name, value in plain.items() if value or name == "target_modules"}


def as_python(arguments: Mapping[str, Any]) -> str:
    """The call that makes the configuration."""
    lines = ["from peft import LoraConfig", "", "config = LoraConfig("]
    for name, value in arguments.items():
        text = pformat(value, width=_WIDTH - len(name) - 5, compact=True, sort_dicts=False)
        first, *others = text.splitlines()
        lines.append(f"    {name}={first}")
        lines += [indent(line, " " * (len(name) + 5)) for line in others]
        lines[-1] += ","
    return "\n".join([*lines, ")"])


def as_json(arguments: Mapping[str, Any]) -> str:
    """The same arguments as JSON."""
    return json.dumps({"peft_type": "LORA", **arguments})


def peft_arguments(recipe: Recipe, layout: Layout, sensitivity: Sensitivity) -> dict[str, Any]:
    """The arguments of the ``peft.LoraConfig`` that a run of a recipe makes, checked.

    The recipe is loaded as the run would load it, and its method attached.

    Raises:
        IwloraError: as :func:`check_names`.
    """
    loaded = load(recipe)
    weights, targets = weight_names(loaded.model), target_arguments(loaded.model, loaded.sites)
    attached = recipe.method.attach(loaded.model, loaded.sites, recipe.train.seed, sensitivity)
    model: Any = attached.model
    config = copy.copy(model.peft_config["default"])
    for field, value in targets.items():  # PEFT shortens long lists of names, and adds others
        setattr(config, field, value)
    arguments = lora_arguments(config)
    names = {site.name: target_name(site) for site in loaded.sites}
    check_names(weights, arguments, [names.get(s.name, s.name) for s in layout.sites])
    return arguments


class WeightNames(NamedTuple):
    """The paths of the modules and of the parameters of a model without an adapter."""

    modules: Sequence[str]
    parameters: Sequence[str]


def weight_names(model: nn.Module) -> WeightNames:
    """Those of a model."""
    modules = [name for name, _ in model.named_modules() if name]
    return WeightNames(modules, [name for name, _ in model.named_parameters()])


def check_names(weights: WeightNames, arguments: Mapping[str, Any], sites: Collection[str]) -> None:
    """Check that PEFT adapts exactly these matrices, each by exactly one name, at one scaling.

    PEFT takes a name for every module whose path ends with it, and does not say where a name of a
    pattern of ranks matches nothing. A rank of a pattern changes the scaling alpha / r, unless a
    pattern of alphas keeps it.

    Args:
        weights: the names in the model.
        arguments: those of a ``peft.LoraConfig``.
        sites: the names of the matrices: paths of modules, or of parameters.

    Raises:
        IwloraError: it lists every name that matches no weight, or several, and every matrix that
            is missing, additional or scaled otherwise.
    """
    matched = _matched(weights, arguments)
    problems = [
        f"{field} {name!r} matches {len(found)} weights of the model"
        + (f": {', '.join(sorted(found)[:3])}" if found else "")
        for field, names in matched.items()
        for name, found in names.items()
        if len(found) != 1
    ]
    targets = (matched["target_modules"], matched["target_parameters"])
    adapted = {site for names in targets for found in names.values() for site in found}
    wanted = set(sites)
    problems += [f"{name} is adapted, and should not be" for name in sorted(adapted - wanted)]
    problems += [f"{name} is not adapted, and should be" for name in sorted(wanted - adapted)]
    problems += _other_scalings(arguments)
    if problems:
        raise IwloraError("peft.LoraConfig: " + list_problems(problems))


def _matched(weights: WeightNames, arguments: Mapping[str, Any]) -> dict[str, dict[str, set[str]]]:
    """{field: {name: the weights that PEFT finds by it}}."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    config = LoraConfig(**arguments)
    targets = arguments.get("target_modules") or []
    # A pattern in place of names has one alternative for each module.
    names = targets.split("|") if isinstance(targets, str) else targets
    found: dict[str, dict[str, set[str]]] = {"target_modules": {}}
    for name in names:
        one: Any = copy.copy(config)
        one.target_modules = name if isinstance(targets, str) else {name}
        found["target_modules"][name] = {
            module for module in weights.modules if check_target_module_exists(one, module)
        }
    found["target_parameters"] = {
        name: {p for p in weights.parameters if p == name or p.endswith(f".{name}")}
        for name in arguments.get("target_parameters") or []
    }
    adapted = [w for names in found.values() for same in names.values() for w in same]
    for field in ("rank_pattern", "alpha_pattern"):
        keys = list(arguments.get(field) or {})
        used = {weight: get_pattern_key(keys, weight) for weight in adapted}
        found[field] = {key: {w for w, match in used.items() if match == key} for key in keys}
    return found


def _other_scalings(arguments: Mapping[str, Any]) -> Iterable[str]:
    ranks, alphas = arguments.get("rank_pattern") or {}, arguments.get("alpha_pattern") or {}
    rank, alpha = arguments["r"], arguments["lora_alpha"]
    power = 0.5 if arguments.get("use_rslora") else 1.0
    for name in {**ranks, **alphas}:
        scaling = alphas.get(name, alpha) / ranks.get(name, rank) ** power
        if abs(scaling - alpha / rank**power) > 1e-9 * scaling:
            yield f"{name} has the scaling {scaling:g}, and the others {alpha / rank**power:g}"
