"""One recipe in two processes gives the result of one process, at the same effective batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interruptions import Killed, kill_at
from iwlora.errors import IwloraError
from iwlora.testing.processes import run_in_two_processes
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import evaluations, predictions, recipe, status, weights, with_options

METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"delta_t": 2},
    "iw-lora": {"alpha": 0.3, "measure": "before", "tolerance": 0.0, "max_batches": 4},
    "eva": {"max_batches": 4},
    # It inserts new modules, trains pretrained parameters, and adds keys and values.
    "grouped": {
        "strategies": [["prefix", "bitfit", "pfeiffer"], ["prefix", "bitfit", "lora"]],
        "part_size": 4,
        "lr_factors": {"prefix": 2.0},
    },
}
# Of 96 rows the last step of each epoch is short: 16 = 8 + 8, or in micro-batches 4 + 4 + 4 + 4.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"epochs": 1}),
    "lora, accumulated, best epoch": ("lora", {"accumulate": 2, "selection": 0.25}),
    "eva": ("eva", {"epochs": 1}),
    "adalora": ("adalora", {}),
    "iw-lora": ("iw-lora", {}),
    "full, sharded": ("full", {"shard": True, "accumulate": 2, "selection": 0.25}),
    # It trains sharded and whole parameters.
    "houlsby, sharded": ("houlsby", {"shard": True, "save_steps": 5}),
    "pissa, sharded": ("pissa", {"shard": True, "epochs": 1}),
    "adalora, sharded": ("adalora", {"shard": True}),
    "iw-lora, sharded": ("iw-lora", {"shard": True}),
    "grouped, sharded": ("grouped", {"shard": True, "epochs": 1}),
}


# 81 = 4 × 20 + 1: two processes leave the last row of an epoch out, and one process would not.
UNEVEN = {"max_train": 81}


def case_recipe(case: str, model: Path, task: dict[str, Any], **train: Any) -> Recipe:
    method, options = CASES[case]
    settings = {"batch_size": 20, **options, **train}
    selection = settings.pop("selection", None)
    made = recipe(model, {**task, "selection": selection}, method, **settings)
    return with_options(made, **METHOD_OPTIONS.get(method, {}))


def task_in(folder: Path) -> dict[str, Any]:
    files = {split: str(folder / "data" / f"{split}.csv") for split in ("train", "validation")}
    return {**files, "text": "text", "label": "mood"}


def short(model: Path, task: dict[str, Any]) -> Recipe:
    return recipe(model, task, "lora", batch_size=20, save_steps=2)


def begin(asked: Recipe, folder: Path) -> None:
    """Train until after the first checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(Killed):
            train(asked, folder)


def train_all(rank: int, folder: Path) -> None:
    """What each of the two processes does."""
    import warnings

    warnings.simplefilter("ignore")
    model, task = folder / "model", task_in(folder)
    for case in CASES:
        train(case_recipe(case, model, task), folder / f"two {case}")
    interrupted = case_recipe("houlsby, sharded", model, task)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(7, patch)
        with pytest.raises(Killed):
            train(interrupted, folder / "resumed")
    train(interrupted, folder / "resumed")
    with pytest.raises(IwloraError) as refused:
        train(short(model, task), folder / "begun by one")
    (folder / f"refused-{rank}.txt").write_text(str(refused.value), encoding="utf-8")
    begin(short(model, task), folder / "begun by two")
    uneven = recipe(model, task | UNEVEN, "lora", batch_size=20, accumulate=2, save_steps=2)
    train(uneven, folder / "uneven")
    cost = asdict(estimate_run_cost(uneven))
    (folder / f"cost-{rank}.json").write_text(json.dumps(cost), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with what two processes make of each case."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "model").symlink_to(tiny_bert)
    (folder / "data").symlink_to(Path(reviews["train"]).parent)
    begin(short(folder / "model", task_in(folder)), folder / "begun by one")
    run_in_two_processes(train_all, folder)
    return folder


@pytest.mark.slow
def test_another_number_of_processes_does_not_resume(trained: Path) -> None:
    """Neither two what one began, in both processes, nor one what two began."""
    for rank in (0, 1):
        message = (trained / f"refused-{rank}.txt").read_text(encoding="utf-8")
        assert "begun by one cannot be resumed" in message
        assert "the number of processes is 2, and it was 1" in message
    with pytest.raises(IwloraError, match="the number of processes is 1, and it was 2"):
        train(short(trained / "model", task_in(trained)), trained / "begun by two")
    assert status(trained / "begun by one")["state"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_result_of_one(
    case: str, trained: Path, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    one, two = tmp_path / "one", trained / f"two {case}"
    train(case_recipe(case, tiny_bert, reviews, save_steps=None), one)
    largest, mean = differences(weights(one), weights(two))
    assert largest < 2e-4
    assert mean < 1e-5
    assert status(two) == {"state": "done"}
    classes = [[row["prediction"] for row in predictions(run)] for run in (one, two)]
    assert classes[0] == classes[1]
    scores = [[record["accuracy"] for record in evaluations(run)] for run in (one, two)]
    assert len(scores[0]) == (2 if "selection" in CASES[case][1] else 0)
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.slow
def test_a_sharded_run_resumes_where_it_was_killed(trained: Path) -> None:
    whole, resumed = weights(trained / "two houlsby, sharded"), weights(trained / "resumed")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    result = json.loads((trained / "resumed" / "result.json").read_text(encoding="utf-8"))
    assert result["resumed_at_step"] == 5
    assert result["examples_per_second"] is None


@pytest.mark.slow
def test_a_dry_run_estimates_each_process(trained: Path) -> None:
    """Its steps are those of the run, and its micro-batches those of one process."""
    steps = {
        int(folder.name.removeprefix("checkpoint-"))
        for folder in (trained / "uneven" / "checkpoints").glob("checkpoint-*")
    }
    for rank in (0, 1):
        cost = json.loads((trained / f"cost-{rank}.json").read_text(encoding="utf-8"))
        assert cost["steps"] == max(steps) == 8
        assert cost["rows"] == 20 // (2 * 2)


@pytest.mark.slow
def test_a_run_with_another_seed_would_be_noticed(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(recipe(tiny_bert, reviews, epochs=1, seed=seed), tmp_path / str(seed))
    assert differences(weights(tmp_path / "0"), weights(tmp_path / "1"))[1] > 1e-3


def differences(some: dict[str, Tensor], others: dict[str, Tensor]) -> tuple[float, float]:
    """(largest, mean) absolute difference of two sets of weights."""
    assert some.keys() == others.keys()
    apart = torch.cat([(some[name] - others[name]).abs().flatten() for name in some])
    return float(apart.max()), float(apart.mean())


@pytest.mark.slow
def test_a_launcher_trains_a_recipe(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """accelerate launch starts its processes by torchrun."""
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    settings = case_recipe("full, sharded", tiny_bert, reviews, epochs=1, save_steps=3)
    (tmp_path / "recipe.yaml").write_text(settings.to_yaml())
    command = ["-m", "iwlora", "train", str(tmp_path / "recipe.yaml"), "--out"]
    process = subprocess.run(
        [sys.executable, "-m", *launcher, *command, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("(validation)") == 1, process.stdout
    assert process.stdout.count("training: ") == 1, process.stdout
    assert status(tmp_path / "run") == {"state": "done"}
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-3" / "rng_state_1.pth").is_file()


@pytest.mark.quick
def test_a_batch_that_does_not_divide_over_the_processes_is_refused(
    tiny_bert: Path, reviews: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from iwlora.training import prepare as prepare_module

    settings = case_recipe("full", tiny_bert, reviews).train
    with monkeypatch.context() as three:
        three.setattr(prepare_module.distributed, "world_size", lambda: 3)
        with pytest.raises(
            IwloraError, match=r"batch_size=20 does not divide .* 3 processes × tra"
        ):
            prepare_module._micro_batch_size(settings)
