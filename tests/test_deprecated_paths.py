"""The module paths of version 0.1.0."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from iwlora.deprecated_paths import MOVED

pytestmark = pytest.mark.quick

# What the documentation of version 0.1.0 imported.
DOCUMENTED = {
    "iwlora.methods.base": ("Method", "Attached", "split_head", "train_only"),
    "iwlora.methods.saved": ("save_declared", "load_adapter"),
    "iwlora.methods.lora": ("Lora",),
    "iwlora.penalty.effect": ("verdict",),
    "iwlora.sensitivity.record": ("Sensitivity", "SiteSensitivity"),
    "iwlora.training.backbone": ("load_backbone", "load_tokenizer", "locate"),
    "iwlora.tasks.spec": ("TaskSpec",),
    "iwlora.bench.plan": ("load_plan",),
    "iwlora.bench.grid": ("compare",),
    "iwlora.bench.records": ("load", "load_run", "load_comparison"),
}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_warns_and_is_the_new_module(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name in MOVED]:
        monkeypatch.delitem(sys.modules, name)
    new = MOVED[old]
    with pytest.warns(DeprecationWarning, match="has moved to") as warned:
        module = import_module(old)
    assert str(warned[-1].message).startswith(f"{old} has moved to {new};")
    if old != "iwlora.bench":
        assert module is import_module(new)
        assert module.__name__ == new


@pytest.mark.filterwarnings("ignore:iwlora.* has moved:DeprecationWarning")
@pytest.mark.parametrize("old", sorted(DOCUMENTED))
def test_documented_names_are_there(old: str) -> None:
    module = import_module(old)
    for name in DOCUMENTED[old]:
        assert hasattr(module, name), name


def test_new_paths_are_left_alone_and_unknown_ones_are_unknown() -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import iwlora.results.comparison\n"
        "warnings.simplefilter('ignore')\n"
        "import iwlora.compare.report.html\n"
        "from iwlora.bench import report\n"  # compare/report is another thing
        "assert report is iwlora.compare.report.html\n"
        "try:\n    import iwlora.bench.execute\n"
        "except ModuleNotFoundError:\n    print('unknown')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "unknown\n"
