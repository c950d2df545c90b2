"""Methods of other packages: the example of docs/own-method.md, old ones, and wrong ones."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from commands import call, run_settings, write_recipe
from counted import read, result
from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached, Method
from iwlora.methods.deprecated import current_class, current_method
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.registry import Registry
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites as find_sites
from iwlora.testing import CHECKS, Case, cases

PAGE = Path(__file__).parents[2] / "docs" / "own-method.md"
OLD_PAGE = Path(__file__).parents[1] / "fixtures" / "own-method-0.1.0.md"
SOURCE = Path(__file__).parents[2] / "src"


def block(start: str, language: str = "python", page: Path = PAGE) -> str:
    """The code block of the page that starts with this."""
    blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [code for code in blocks if code.startswith(start)]
    return str(code)


def install(folder: Path, entry: str, package: str = "iwlora-norms", code: str = "") -> Path:
    """What pip leaves of a package with this entry point: its module and its metadata."""
    metadata = folder / f"{package.replace('-', '_')}-0.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(f"[iwlora.methods]\n{entry}\n")
    module = entry.partition("= ")[2].partition(":")[0]
    (folder / f"{module}.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip puts the page's package; its files lie in one folder, the test beside the class."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "site-packages"))
    (source / "norm_tuning.py").write_text(block('"""Norm tuning'))
    (source / "test_norms.py").write_text(block("import pytest"))
    (source / "pyproject.toml").write_text(block("[project]", "toml"))
    offline = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (folder / "test_norms.py").exists()
    return folder


SCRIPT = """
import sys
import pytest
from iwlora.cli import main
recipe, out = sys.argv[1:]
assert main(["methods"]) == 0
print("=== compare", flush=True)
assert main(["compare", recipe, "--out", out]) == 0
print("=== pytest", flush=True)
pytest.main(["-q", "-p", "no:cacheprovider", "test_norms.py", "-k", "llama and (count or loading)"])
"""


@pytest.fixture(scope="module")
def outputs(
    installed: Path,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[str]]:
    """A comparison, and what three commands print in one process that has the package."""
    folder = tmp_path_factory.mktemp("commands")
    settings: dict[str, Any] = run_settings(
        tiny_bert, reviews, methods=["lora", {"name": "norms", "biases": False}], seeds=[0]
    )
    del settings["method"]
    recipe = write_recipe(folder / "plan.yaml", settings)
    (installed / "test_norms.py").write_text(block("import pytest"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(recipe), str(folder / "out")],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{installed}"},
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", re.split("=== compare|=== pytest", done.stdout)


@pytest.mark.slow
def test_the_method_is_listed(outputs: tuple[Path, list[str]]) -> None:
    listed = outputs[1][0]
    assert "the normalization layers are trained (Qi et al. 2022" in listed
    assert "biases=true" in listed


@pytest.mark.slow
def test_the_method_is_compared_with_others(outputs: tuple[Path, list[str]]) -> None:
    folder, printed = outputs
    assert re.search(r"^norms +1 ", printed[1], re.MULTILINE)
    norms = result(folder, "norms", 0)
    assert norms["adapter_parameters"] == (1 + 2 * 2) * 16  # weights after embeddings and blocks
    record = read(folder / "norms" / "seed-0" / "adapter" / "iwlora_adapter.json")
    assert record["method"] == {"name": "norms", "biases": False}


@pytest.mark.slow
def test_the_example_of_a_test_runs(outputs: tuple[Path, list[str]]) -> None:
    assert re.search(r"^2 passed", outputs[1][2], re.MULTILINE)


def test_the_method_passes_the_conformance_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "norm_tuning.py").write_text(block('"""Norm tuning'))
    method = module_of(tmp_path / "norm_tuning.py").NormTuning()
    monkeypatch.setitem(METHODS, "norms", type(method))
    case = Case(method, "llama", tmp_path)
    for _, check in [pair for pair in cases(method) if pair[0] == "llama"]:
        check(case)


# Methods written for version 0.1.0


def module_of(path: Path) -> ModuleType:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def old_method(tmp_path: Path) -> type[Method]:
    """The example of the page in version 0.1.0, whose imports warn."""
    for module in ("base", "saved"):
        sys.modules.pop(f"iwlora.methods.{module}", None)  # a module warns at its first import
    path = tmp_path / "old_norm_tuning.py"
    path.write_text(block('"""Norm tuning', page=OLD_PAGE))
    with pytest.warns(DeprecationWarning, match=r"iwlora\.methods\.(base|saved) has moved"):
        old: type[Method] = module_of(path).NormTuning
    return old


def test_a_method_of_version_0_1_0_passes_the_conformance_suite(
    old_method: type[Method], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(
        DeprecationWarning,
        match=r"write attach\(self, model, sites, seed, .*; parameters\(self, mod",
    ):
        monkeypatch.setitem(METHODS, "norms", old_method)
    with pytest.warns(DeprecationWarning, match=r"with self\.size in place of size"):
        case = Case(old_method(), "bert", tmp_path)
    with pytest.warns(DeprecationWarning, match=r"write save_parameters\(method, model, names, s"):
        assert case.trained
    for check in CHECKS:
        check(case)


def test_a_recipe_uses_a_method_of_version_0_1_0(old_method: type[Method]) -> None:
    registry = Registry({})
    with pytest.warns(DeprecationWarning, match="the contract of iwlora 0.1.0"):
        registry["norms"] = old_method
    model = tiny_model("bert")
    method = registry["norms"](biases=False)
    attached = method.attach(model, find_sites(model), 0, None)
    assert attached.count() == method.parameters(model, find_sites(model)) == (1 + 2 * 2) * 16


class OldLora(Lora):
    """LoRA in the contract of version 0.1.0: it calls itself and its base class with a size."""

    name: ClassVar[str] = "old-lora"
    unpackable: ClassVar[str | None] = "it is old"
    asked: ClassVar[list[int]] = []

    def parameters(self, model: Any, sites: Any, size: int | None) -> int:  # type: ignore[override]
        return super().parameters(model, sites, size) + 1  # type: ignore[call-arg]

    def check(self, sites: Any, size: int | None) -> None:  # type: ignore[override]
        self.asked.append(size or self.rank)
        super().check(sites, size)  # type: ignore[call-arg]

    def attach(  # type: ignore[override]
        self, model: Any, sites: Any, size: int | None, seed: int, sensitivity: Any = None
    ) -> Attached:
        self.check(sites, size)
        attached = super().attach(model, sites, size, seed, sensitivity)  # type: ignore[call-arg]
        count = self.parameters(model, sites, size)
        return replace(attached, count=lambda: count)


def test_a_subclass_of_a_built_in_method_can_call_it_with_a_size() -> None:
    with pytest.warns(DeprecationWarning, match="not_quantizable in place of unpackable"):
        current = current_class(OldLora)
    model, expected = tiny_model("bert"), tiny_model("bert")
    method = current(rank=8).sized(3)
    attached = method.attach(model, find_sites(model), 7)
    assert OldLora.asked == [3, 3]  # by the method itself, and by what LoRA calls
    assert attached.pairs[0].A.shape[0] == 3
    assert attached.count() == Lora(rank=3).parameters(expected, find_sites(expected)) + 1
    assert method.not_quantizable == "it is old"
    theirs = Lora(rank=3).attach(expected, find_sites(expected), 7).pairs
    assert all(torch.equal(a.A, b.A) for a, b in zip(attached.pairs, theirs, strict=True))


class HalfUpdatedLora(Lora):
    """LoRA with one signature of version 0.1.0 and one of today."""

    name: ClassVar[str] = "half-updated-lora"

    def parameters(self, model: Any, sites: Any, size: int | None) -> int:  # type: ignore[override]
        return super().parameters(model, sites, size)  # type: ignore[call-arg]

    def attach(self, model: Any, sites: Any, seed: int, sensitivity: Any = None) -> Attached:
        return super().attach(model, sites, seed, sensitivity)


def test_a_method_may_be_updated_one_signature_at_a_time() -> None:
    with pytest.warns(DeprecationWarning, match=r"write parameters\(self, model, sites\)"):
        method = current_class(HalfUpdatedLora)(rank=2)
    model = tiny_model("bert")
    sites = find_sites(model)
    attached = method.attach(model, sites, 0)
    assert (
        attached.count() == method.parameters(model, sites) == Lora(rank=2).parameters(model, sites)
    )


def test_a_current_method_is_not_changed() -> None:
    assert current_class(Lora) is Lora
    method = Lora()
    assert current_method(method) is method


# Packages that are wrong

GOOD = """
from iwlora.methods import Method
class Good(Method):
    name, summary, paper = "good", "s", "p"
    def parameters(self, model, sites): return 1
    def attach(self, model, sites, seed, sensitivity=None): raise NotImplementedError
"""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """One of our own rows, and what is installed in ``tmp_path``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    computed = Registry({"lora": Lora})
    monkeypatch.setattr("iwlora.methods.METHODS", computed)
    return computed


def test_methods_are_found_when_they_are_asked_for(registry: Registry, tmp_path: Path) -> None:
    install(tmp_path, "good = good_method:Good", code=GOOD)
    assert list(registry) == ["lora", "good"]
    assert "good_method" not in sys.modules
    assert len(registry) == 2
    assert "good" in registry
    assert "bad" not in registry
    assert registry["good"].name == "good"
    assert sys.modules.pop("good_method")
    with pytest.raises(KeyError):
        registry["bad"]


def test_a_row_can_be_added_by_hand(registry: Registry) -> None:
    registry["mine"] = Lora
    assert list(registry) == ["lora", "mine"]
    del registry["mine"]
    assert list(registry) == ["lora"]


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        ("bad = bad_method:Bad", "import nowhere_to_be_found", "ModuleNotFoundError: No module"),
        ("bad = bad_method:Bad", "", "bad_method:Bad cannot be imported (AttributeError"),
        ("bad = bad_method:Bad", "1 / 0", "ZeroDivisionError: division by zero); repair or"),
        ("bad = bad_method:Bad", "Bad = 5", "bad_method:Bad is not a subclass of iwlora.methods."),
        ("bad = bad_method:Good", GOOD, "bad_method:Good has the name 'good'; both must be the"),
        (
            "bad = bad_method:Bad",
            "from iwlora.methods import Method\nclass Bad(Method): name = 'bad'",
            "bad_method:Bad does not define summary, paper, parameters, attach",
        ),
    ],
)
def test_a_broken_package_is_named(
    registry: Registry,
    tmp_path: Path,
    entry: str,
    code: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path, entry, package="some-package", code=code)
    try:
        listed = call(capsys, "methods")
    finally:
        sys.modules.pop("bad_method", None)
    assert listed.code == 2
    assert "error: the method 'bad' of the package some-package: " in listed.err
    assert message in listed.err
    assert "Traceback" not in listed.err
    assert registry["lora"] is Lora  # what does not need it goes on


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lora = good_method:Good", "iwlora has a method of this name; rename it"),
        ("a/b = good_method:Good", "a name can contain only letters, digits and _ . + = -"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    registry: Registry, tmp_path: Path, entry: str, message: str
) -> None:
    install(tmp_path, entry, code=GOOD)
    with pytest.raises(IwloraError, match=re.escape(message)):
        list(registry)


def test_two_packages_with_one_name_are_refused(registry: Registry, tmp_path: Path) -> None:
    for package in ("one", "two"):
        install(tmp_path, "good = good_method:Good", package=package, code=GOOD)
    with pytest.raises(IwloraError, match="has a method of this name; uninstall one of the two"):
        assert "good" in registry
