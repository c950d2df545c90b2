"""Modules that have moved: version 0.1.0's paths work for one more version, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_BENCH = "iwlora.bench"

# old path -> new path
MOVED = {
    _BENCH: "iwlora.compare",
    "iwlora.bench.grid": "iwlora.compare.execute.comparison",
    "iwlora.bench.plan": "iwlora.compare.plan.recipe",
    "iwlora.bench.records": "iwlora.results.comparison",
    "iwlora.bench.report": "iwlora.compare.report.write",
    "iwlora.bench.result": "iwlora.results.run",
    "iwlora.bench.sources": "iwlora.results.comparison.combined",
    "iwlora.bench.stats": "iwlora.compare.statistics.paired_tests",
    "iwlora.methods.adalora": "iwlora.methods.low_rank.adalora",
    "iwlora.methods.base": "iwlora.methods.contract",
    "iwlora.methods.iw_lora": "iwlora.methods.low_rank.iw_lora",
    "iwlora.methods.lora": "iwlora.methods.low_rank.lora",
    "iwlora.methods.saved": "iwlora.methods.saving",
    "iwlora.penalty.effect": "iwlora.penalty.diagnostics",
    "iwlora.sensitivity.record": "iwlora.results.sensitivity",
    "iwlora.training.artifacts": "iwlora.training.state.artifacts",
    "iwlora.training.backbone": "iwlora.training.model.backbone",
}

# What has another name now, or went to another module than the rest of its old one.
RENAMED = {
    "iwlora.bench.grid.compare": ("iwlora.compare.execute.comparison", "run_comparison"),
    "iwlora.bench.plan.Plan": ("iwlora.compare.plan.planned_runs", "Plan"),
    "iwlora.bench.records.Run": ("iwlora.results.run", "Run"),
    "iwlora.bench.records.load_run": ("iwlora.results.run", "load_run"),
    "iwlora.bench.result.Result": ("iwlora.results.run", "RunResult"),
    "iwlora.methods.base.check_rank": ("iwlora.methods.low_rank.lora", "check_rank"),
    "iwlora.methods.saved.load_adapter": ("iwlora.methods.loading", "load_adapter"),
    "iwlora.methods.saved.merged": ("iwlora.methods.loading", "merge_adapter"),
    "iwlora.training.artifacts.export": ("iwlora.training.sharing.export", "export"),
    "iwlora.training.backbone.locate": ("iwlora.training.model.backbone", "resolve_model_path"),
    "iwlora.training.backbone.skeleton": ("iwlora.training.model.backbone", "meta_backbone"),
}


class _MovedModules(MetaPathFinder, Loader):
    """Makes a module at an old path, whose names come from the new ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=fullname == _BENCH)

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        message = f"{old} has moved to {MOVED[old]}; the old path works until the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        if old != _BENCH:  # a package without names of its own
            module.__getattr__ = partial(_attribute, old)  # type: ignore[method-assign]


def _attribute(old: str, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    module, new_name = RENAMED.get(f"{old}.{name}", (MOVED[old], name))
    return getattr(import_module(module), new_name)


def install() -> None:
    """Let the old paths be imported; they must come before the search in folders."""
    sys.meta_path.insert(0, _MovedModules())
