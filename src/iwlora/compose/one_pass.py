"""Sources that need one pass of the backbone together, so that they cost little more than one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from iwlora.head import head_buffers
from iwlora.methods import Method
from iwlora.training.prediction.new_rows import scored_precision
from iwlora.training.state.run_folder import RunDir


class SharedModel:
    """The model of the first source, which becomes that of each other one in turn.

    It keeps of the others what they have trained. Their method ``shares_pass``.

    Args:
        method: Their method.
        model: The model of the first source.
    """

    def __init__(self, method: Method, model: Any) -> None:
        self.method, self.model = method, model
        self._trained: dict[str, dict[str, Tensor]] = {}

    def add(self, name: str, model: Any) -> None:
        """Keep what a source has trained, whose model this is."""
        self._trained[name] = {key: value.data for key, value in _trained(model).items()}

    def versions(self, names: Iterable[str]) -> Iterator[str]:
        """The names, with the model of that source at each: the first computes the backbone."""
        with self.method.one_pass(self.model):
            for name in names:
                for key, value in _trained(self.model).items():
                    value.data = self._trained[name][key].to(value.device)
                yield name


def passes(sources: Mapping[str, RunDir]) -> list[dict[str, RunDir]]:
    """Sources in groups, each of which needs one pass of the backbone.

    Sources that share a pass have a method that allows it, train the same modules beside it, and
    were scored with the same numerics.

    Args:
        sources: {name: the run that it was}.
    """
    groups: dict[Hashable, dict[str, RunDir]] = {}
    for name, run in sources.items():
        groups.setdefault(_pass(name, run), {})[name] = run
    return list(groups.values())


def _pass(name: str, run: RunDir) -> Hashable:
    """Equal for sources that share a pass."""
    recipe = run.recipe()
    if not recipe.method.shares_pass:
        return name
    settings, modules = recipe.train, tuple(sorted(recipe.modules_to_save))
    numerics = scored_precision(run), settings.fast_kernels, settings.frozen_dtype
    return recipe.method.name, modules, *numerics


def _trained(model: Any) -> dict[str, Tensor]:
    """{name: what a source trains}; parameters and the buffers of the head."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {**parameters, **head_buffers(model)}
