"""The module paths of version 0.1.0."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from iwlora.deprecated_paths import MOVED, RENAMED

pytestmark = pytest.mark.quick

# What the documentation of version 0.1.0 imported, and what starts a comparison.
USED = {
    "iwlora.methods.base": ("Method", "Attached", "check_rank", "split_head", "train_only"),
    "iwlora.methods.saved": ("save_declared", "load_adapter", "merged"),
    "iwlora.methods.lora": ("Lora",),
    "iwlora.penalty.effect": ("Effect", "effects", "verdict"),
    "iwlora.sensitivity.record": ("Sensitivity", "SiteSensitivity"),
    "iwlora.training.artifacts": ("export", "load_trained"),
    "iwlora.training.backbone": ("load_backbone", "load_tokenizer", "locate", "skeleton"),
    "iwlora.bench.plan": ("Plan", "load_plan"),
    "iwlora.bench.grid": ("compare",),
    "iwlora.bench.records": ("Comparison", "Run", "load", "load_run", "load_comparison"),
    "iwlora.bench.report": ("write_report",),
    "iwlora.bench.result": ("Result",),
    "iwlora.bench.sources": ("load_parts", "read_scores"),
    "iwlora.bench.stats": ("sign_flip_p", "holm", "power", "paired_difference"),
}


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_warns_and_names_the_new_one(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name in MOVED]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(DeprecationWarning, match="has moved to") as warned:
        import_module(old)
    assert str(warned[-1].message).startswith(f"{old} has moved to {MOVED[old]};")
    import_module(MOVED[old])


@pytest.mark.filterwarnings("ignore:iwlora.* has moved:DeprecationWarning")
@pytest.mark.parametrize("old", sorted(USED))
def test_old_names_are_the_new_objects(old: str) -> None:
    module = import_module(old)
    for name in USED[old]:
        new_module, new_name = RENAMED.get(f"{old}.{name}", (MOVED[old], name))
        assert getattr(module, name) is getattr(import_module(new_module), new_name)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_every_renamed_name_is_tested() -> None:
    assert set(RENAMED) <= {f"{old}.{name}" for old, names in USED.items() for name in names}


def test_new_paths_do_not_warn_and_unknown_old_ones_fail() -> None:
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import iwlora.compare.report.write\n"
        "warnings.simplefilter('ignore')\n"
        "from iwlora.bench import report\n"  # iwlora.compare.report is another module
        "assert report.write_report is iwlora.compare.report.write.write_report\n"
        "try:\n    import iwlora.bench.execute\n"
        "except ModuleNotFoundError:\n    print('unknown')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "unknown\n", done.stderr
