"""A comparison over a Ray cluster, here a local one."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwlora.compare.execute.executor import train_command
from iwlora.compare.execute.ray import RayExecutor
from iwlora.errors import IwloraError


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwlora.compare.execute.ray.importlib.util.find_spec", lambda name: None)
    with pytest.raises(IwloraError, match=r"pip install 'iwlora\[ray\]'"):
        RayExecutor()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="pip install 'iwlora[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_runs_are_carried_out_and_their_ends_told(tmp_path: Path) -> None:
    executor = RayExecutor(jobs=2)
    places = [tmp_path / name for name in ("good", "bad")]
    for place in places:
        place.mkdir()
        (place / "recipe.yaml").write_text("model: no/such/model\n")
    # What is at hand without training: a recipe that is refused, and a run that is done.
    (places[0] / "result.json").write_text(json.dumps({}))
    assert executor.has_capacity(0)
    for place in places:
        executor.start(place, tmp_path / "logs" / f"{place.name}.txt")
    assert not executor.has_capacity(0), "two at once"
    ended: dict[Path, int] = {}
    for _ in range(120):
        ended.update(executor.wait(1.0))
        if len(ended) == 2:
            break
    assert set(ended) == set(places)
    assert ended[places[1]] == 2, "the exit code of a refused recipe"
    assert "error:" in (tmp_path / "logs" / "bad.txt").read_text()
    assert executor.has_capacity(0)
    assert train_command(places[0])[0] == sys.executable
    executor.stop()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_the_machines_do_not_share_is_told(tmp_path: Path) -> None:
    executor = RayExecutor(jobs=1)
    executor.start(tmp_path / "elsewhere", tmp_path / "log.txt")
    with pytest.raises(IwloraError, match="a folder that all machines share"):
        executor.wait(60.0)
    executor.stop()
