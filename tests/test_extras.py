"""Libraries of extras that are not installed: who is told what to install."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from commands import call, run_settings, write_recipe
from iwlora import IwloraError
from iwlora.extras import EXTRAS, MissingExtra, locate_package, name_missing_extra

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def packages(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[>=<]", text)[0] for text in requirements}
    return names - {"iwlora"}


@pytest.mark.quick
def test_the_table_agrees_with_pyproject() -> None:
    declared = {
        (package, extra)
        for extra, requirements in PROJECT["optional-dependencies"].items()
        if extra not in ("dev", "docs")
        for package in packages(requirements)
    }
    assert declared == set(EXTRAS.values())


def test_base_dependencies_are_few() -> None:
    assert packages(PROJECT["dependencies"]) == {
        *("torch", "transformers", "peft", "accelerate", "safetensors"),
        *("numpy", "scipy", "pydantic", "pyyaml", "filelock"),
    }


@pytest.mark.parametrize("name", ["sklearn", "google.protobuf", "google"])
def test_a_failed_import_names_the_extra(name: str) -> None:
    package = {"sklearn": "scikit-learn"}.get(name, "protobuf")
    with pytest.raises(IwloraError) as raised, name_missing_extra():
        raise ModuleNotFoundError(name=name)
    assert str(raised.value) == f"this needs {package}; pip install 'iwlora[train]'"
    assert isinstance(raised.value, ImportError)


def test_other_failed_imports_stay_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError), name_missing_extra():
        raise ModuleNotFoundError(name="ours")


@pytest.mark.quick
def test_locate_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (locate_package("sklearn", "this metric") / "metrics").is_dir()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"^--executor ray needs ray; pip install 'iwlora\[ray"):
        locate_package("ray", "--executor ray")


# torch, transformers and PEFT bring these.
OPTIONAL = sorted(set(EXTRAS) - {"jinja2", "psutil", "rich", "google.protobuf"})


@pytest.mark.slow
def test_measuring_penalising_and_the_callback_need_no_extra() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL}))\n"  # None: the import of it fails
        f"runpy.run_path({str(Path(__file__).with_name('base_install.py'))!r})\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("trained\n"), done.stderr


@pytest.mark.quick
@pytest.mark.parametrize("out", ["importance.json", "run"])
def test_a_command_names_the_extra_that_it_needs(
    out: str,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in OPTIONAL:
        monkeypatch.setitem(sys.modules, module, None)
    if out == "run":
        recipe = write_recipe(tmp_path / "recipe.yaml", run_settings(tiny_bert, reviews))
        outcome = call(capsys, "train", recipe, "--out", tmp_path / out)
    else:
        task = [f"task.{key}={value}" for key, value in reviews.items()]
        outcome = call(capsys, "measure", "--model", tiny_bert, "--out", tmp_path / out, *task)
    assert outcome.code == 2
    assert outcome.err == "error: this needs pyarrow; pip install 'iwlora[train]'\n"
