"""A method from another package: the example of docs/own-method.md, and packages that are wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import call, run_settings, write_recipe
from counted import read, result
from iwlora.errors import IwloraError
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.registry import Registry

DOCS = Path(__file__).parents[2] / "docs" / "own-method.md"
SOURCE = Path(__file__).parents[2] / "src"


def block(start: str, language: str = "python") -> str:
    """The code block of the page that starts with this."""
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    (found,) = [code for code in blocks if code.startswith(start)]
    return str(found)


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


def outside(installed: Path, *command: object) -> str:
    """What a command prints in a process that has the package."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=environment(installed),
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(installed: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{installed}"}


def test_it_is_compared_with_the_others(
    installed: Path, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    settings: dict[str, Any] = run_settings(
        tiny_bert, reviews, methods=["lora", {"name": "norms", "biases": False}], seeds=[0]
    )
    del settings["method"]
    recipe = write_recipe(tmp_path / "plan.yaml", settings)
    out = outside(installed, "iwlora", "compare", recipe, "--out", tmp_path / "out")
    assert re.search(r"^norms +1 ", out, re.MULTILINE)
    found = result(tmp_path / "out", "norms", 0)
    assert found["adapter_parameters"] == (1 + 2 * 2) * 16  # weights after embeddings and blocks
    record = read(tmp_path / "out" / "norms" / "seed-0" / "adapter" / "iwlora_adapter.json")
    assert record["method"] == {"name": "norms", "biases": False}


def test_it_is_listed(installed: Path) -> None:
    listed = outside(installed, "iwlora", "methods")
    assert "the normalisation layers are trained (Qi et al. 2022" in listed
    assert "biases=True" in listed


def test_it_passes_the_conformance_suite(installed: Path) -> None:
    (installed / "test_norms.py").write_text(block("import pytest"))
    told = outside(
        installed, "pytest", "-q", "-p", "no:cacheprovider", "test_norms.py", "-k", "llama"
    )
    assert re.search(r"^[1-9]\d* passed", told, re.MULTILINE)


# Packages that are wrong

GOOD = """
from iwlora.methods import Method
class Good(Method):
    name, summary, paper = "good", "s", "p"
    def parameters(self, model, sites, size): return 1
    def attach(self, model, sites, size, seed, sensitivity=None): raise NotImplementedError
"""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """One of our own rows, and what is installed in ``tmp_path``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Registry({"lora": Lora})
    monkeypatch.setattr("iwlora.methods.METHODS", found)
    return found


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
    ("entry", "code", "told"),
    [
        ("bad = bad_method:Bad", "import nowhere_to_be_found", "ModuleNotFoundError: No module"),
        ("bad = bad_method:Bad", "", "bad_method:Bad cannot be imported (AttributeError"),
        ("bad = bad_method:Bad", "1 / 0", "ZeroDivisionError: division by zero); repair or"),
        ("bad = bad_method:Bad", "Bad = 5", "bad_method:Bad is no subclass of iwlora.methods.Me"),
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
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(tmp_path, entry, package="some-package", code=code)
    try:
        listed = call(capsys, "methods")
    finally:
        sys.modules.pop("bad_method", None)
    assert listed.code == 2
    assert "error: the method 'bad' of the package some-package: " in listed.err
    assert told in listed.err
    assert "Traceback" not in listed.err
    assert registry["lora"] is Lora  # what does not need it goes on


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("lora = good_method:Good", "iwlora has a method of this name; rename it"),
        ("a/b = good_method:Good", "a name has letters, digits and _ . + = - alone"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    registry: Registry, tmp_path: Path, entry: str, told: str
) -> None:
    install(tmp_path, entry, code=GOOD)
    with pytest.raises(IwloraError, match=re.escape(told)):
        list(registry)


def test_two_packages_with_one_name_are_refused(registry: Registry, tmp_path: Path) -> None:
    for package in ("one", "two"):
        install(tmp_path, "good = good_method:Good", package=package, code=GOOD)
    with pytest.raises(IwloraError, match="has one of this name; uninstall one of the two"):
        assert "good" in registry
