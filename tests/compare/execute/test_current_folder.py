"""No module and no setting is taken from the folder in which a command is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import spawn
from iwlora.compare.execute.executor import python_command, start_process
from iwlora.compare.execute.fork_server import ForkServer
from iwlora.compare.execute.ray import RayExecutor

MODULES = ("yaml", "numpy", "torch", "triton", "pydantic", "json", "rich", "matplotlib", "iwlora")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file for each of many modules that leaves a mark."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    return folder


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_modules_there_would_be_imported(here: Path) -> None:
    run([sys.executable, "-c", "import yaml"])
    assert (here.parent / "mark").exists()


def test_a_process_of_a_comparison(here: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("model: [\n")  # refused before torch is imported
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        assert start_process(tmp_path / "run", output).wait(60) == 2
    assert "error: " in log.read_text()
    assert "is not valid YAML" in log.read_text()
    assert not (tmp_path / "mark").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")
def test_the_server_that_forks_runs(here: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: [\n")
    server = ForkServer(modules=["iwlora.cli", "yaml"])
    with (tmp_path / "log.txt").open("wb") as output:
        command = ["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
        forked = server.fork(command, output)
    assert forked is not None
    assert forked.wait(60) == 2
    server.close()
    assert not (tmp_path / "mark").exists()


def test_python_m_iwlora(here: Path, tmp_path: Path) -> None:
    (here / "iwlora.py").unlink()  # Python itself imports the package that -m names
    assert "no such" in spawn("report", "nowhere").err
    assert not (tmp_path / "mark").exists()


def test_what_pythonpath_names_stays(here: Path) -> None:
    (here / "mine.py").write_text("print('imported')")
    command = python_command("import mine")
    assert "No module named 'mine'" in run(command, PYTHONPATH="").stderr
    assert run(command, PYTHONPATH=str(here)).stdout == "imported\n"
    safe = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(here)}
    assert run(command, **safe).stdout == "imported\n"


def test_the_settings_of_matplotlib_there_are_not_read(here: Path) -> None:
    (here / "matplotlib.py").unlink()
    (here / "numpy.py").unlink()
    (here / "matplotlibrc").write_text("figure.dpi: 33\n")
    figure = (
        "from iwlora.compare.report.figures.style import new_figure; print(new_figure(1, 1).dpi)"
    )
    assert run(python_command(figure)).stdout.strip() == "100.0"
    theirs = "from matplotlib.figure import Figure; print(Figure().dpi)"
    assert run(python_command(theirs)).stdout.strip() == "33.0"


def test_a_cluster_does_not_get_it_as_a_place_of_modules(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray: Any = pytest.importorskip("ray", reason="pip install 'iwlora[ray]'")
    folders: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: folders.append(os.getcwd()))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    RayExecutor()
    assert folders == [str(Path(os.__file__).parent)]
    assert Path.cwd() == here
