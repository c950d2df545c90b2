"""A comparison on a Ray cluster, here a local one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwlora.compare.execute import executor as executor_module
from iwlora.compare.execute import ray as ray_module
from iwlora.compare.execute.executor import train_command
from iwlora.compare.execute.ray import RayExecutor
from iwlora.errors import IwloraError


@pytest.mark.quick
def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwlora.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(IwloraError, match=r"pip install 'iwlora\[ray\]'"):
        RayExecutor()


@pytest.mark.parametrize("given", ["two", "0", "-1", "nan", "inf", ""])
def test_cores_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("RAY_CPUS_PER_RUN", given)
    with pytest.raises(IwloraError, match=f"RAY_CPUS_PER_RUN={given} .* a number above 0"):
        RayExecutor()


@pytest.mark.quick
def test_a_machine_executes_the_run_of_a_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_command(tmp_path)[0] == sys.executable
    (tmp_path / "recipe.yaml").touch()
    for code in (0, 3):
        command = ["sh", "-c", f"echo code {code}; exit {code}"]
        monkeypatch.setattr(executor_module, "train_command", lambda _, command=command: command)
        log = tmp_path / "log.txt"
        assert ray_module._execute(str(tmp_path), str(log), str(tmp_path)) == code
    assert log.read_text() == "code 0\ncode 3\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestCluster:
    @pytest.fixture(scope="class")
    def cluster(self) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="pip install 'iwlora[ray]'")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()

    @pytest.mark.usefixtures("cluster")
    def test_the_exit_code_of_a_run_is_returned(self, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text("model: [\n")  # refused before torch is imported
        log = tmp_path / "run.txt"
        executor = RayExecutor(jobs=2)
        executor.start(tmp_path, log)
        assert executor.wait(120.0) == [(tmp_path, 2)]
        assert "error:" in log.read_text()
        executor.stop()

    @pytest.mark.usefixtures("cluster")
    def test_a_folder_that_the_machines_do_not_share_is_reported(self, tmp_path: Path) -> None:
        executor = RayExecutor(jobs=2)
        for name in ("a", "b"):
            assert executor.has_capacity(0)
            executor.start(tmp_path / name, tmp_path / "logs" / f"{name}.txt")
        assert not executor.has_capacity(0), "two at once"
        for _ in range(2):
            with pytest.raises(IwloraError, match="a folder that all machines share"):
                executor.wait(120.0)
        executor.stop()
