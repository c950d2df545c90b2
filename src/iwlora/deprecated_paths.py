"""Modules that have moved: version 0.1.0's paths work for one more version, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_BENCH = "iwlora.bench"

# old path -> new path
MOVED = {
    _BENCH: "iwlora.compare",
    "iwlora.bench.averages": "iwlora.compare.report.glue_average",
    "iwlora.bench.estimate": "iwlora.compare.plan.cost_estimate",
    "iwlora.bench.grid": "iwlora.compare.execute.scheduler",
    "iwlora.bench.plan": "iwlora.compare.plan.recipe",
    "iwlora.bench.plots": "iwlora.compare.report.figures.plots",
    "iwlora.bench.records": "iwlora.results.loading",
    "iwlora.bench.report": "iwlora.compare.report.write",
    "iwlora.bench.result": "iwlora.results.run",
    "iwlora.bench.sources": "iwlora.results.combined",
    "iwlora.bench.stats": "iwlora.compare.statistics.paired_tests",
    "iwlora.bench.tables": "iwlora.compare.report.tables",
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


class _MovedModules(MetaPathFinder, Loader):
    """Imports the module at the new path when an old one is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=fullname == _BENCH)

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = MOVED[old]
        message = f"{old} has moved to {new}; the old path works until the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        if old != _BENCH:  # an empty package: its modules went to several folders
            sys.modules[old] = import_module(new)


def install() -> None:
    """Let the old paths be imported; they must come before the search in folders."""
    sys.meta_path.insert(0, _MovedModules())
