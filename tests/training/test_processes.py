"""One recipe in two processes takes the path of one, at the same effective batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interruptions import Killed, kill_at
from iwlora.errors import IwloraError
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from process_pairs import together
from runs import evaluations, predictions, recipe, status, weights, with_options

OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"delta_t": 2},
    "iw-lora": {"alpha": 0.3, "tolerance": 0.0, "max_batches": 4},
    "eva": {"max_batches": 4},
}
# 96 = 4 × 20 + 16: the last step is short, and its pieces are 4, 4, 4, 4 or 8, 8.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "lora": ("lora", {}),
    "lora, in pieces": ("lora", {"accumulate": 2}),
    "lora, best epoch": ("lora", {"selection": 0.25}),
    "eva": ("eva", {}),
    "adalora": ("adalora", {}),
    "iw-lora": ("iw-lora", {}),
    "full, spread": ("full", {"shard": True, "accumulate": 2, "selection": 0.25}),
    "houlsby, spread": ("houlsby", {"shard": True}),  # of what trains some is spread, some whole
    "pissa, spread": ("pissa", {"shard": True}),
    "adalora, spread": ("adalora", {"shard": True}),
    "iw-lora, spread": ("iw-lora", {"shard": True}),
}


def wanted(case: str, model: Path, task: dict[str, str], **train: Any) -> Recipe:
    method, how = CASES[case]
    settings = {"batch_size": 20, "save_steps": 5, **how, **train}
    selection = settings.pop("selection", None)
    made = recipe(model, {**task, "selection": selection}, method, **settings)
    return with_options(made, **OPTIONS.get(method, {}))


def in_two(rank: int, folder: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")
    data = folder / "data"
    task = {split: str(data / f"{split}.csv") for split in ("train", "validation")}
    task |= {"text": "text", "label": "mood"}
    for case in CASES:
        train(wanted(case, folder / "model", task), folder / f"two {case}")
    again = wanted("houlsby, spread", folder / "model", task)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(7, patch)
        with pytest.raises(Killed):
            train(again, folder / "resumed")
    train(again, folder / "resumed")


@pytest.fixture(scope="module")
def trained(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a run in two processes of each case."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "model").symlink_to(tiny_bert)
    (folder / "data").symlink_to(Path(reviews["train"]).parent)
    together(in_two, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_path_of_one(
    case: str, trained: Path, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    train(wanted(case, tiny_bert, reviews), tmp_path / "one")
    two = trained / f"two {case}"
    largest, mean = drift(weights(tmp_path / "one"), weights(two))
    assert largest < 2e-4
    assert mean < 1e-5
    assert status(two) == {"state": "done"}
    told = [[row["prediction"] for row in predictions(run)] for run in (tmp_path / "one", two)]
    assert told[0] == told[1]
    scores = [[e["accuracy"] for e in evaluations(run)] for run in (tmp_path / "one", two)]
    assert len(scores[0]) == (2 if "selection" in CASES[case][1] else 0)
    assert scores[0] == pytest.approx(scores[1])


def test_a_spread_run_goes_on_where_it_was_killed(trained: Path) -> None:
    whole, resumed = weights(trained / "two houlsby, spread"), weights(trained / "resumed")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert RunDir.finished(trained / "resumed").result()["resumed_at_step"] == 5


def test_another_path_would_be_seen(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    for seed in (0, 1):
        train(wanted("lora", tiny_bert, reviews, seed=seed), tmp_path / str(seed))
    assert drift(weights(tmp_path / "0"), weights(tmp_path / "1"))[1] > 1e-3


def drift(some: dict[str, Tensor], others: dict[str, Tensor]) -> tuple[float, float]:
    """(largest, mean) difference of two sets of weights."""
    assert some.keys() == others.keys()
    apart = torch.cat([(some[name] - others[name]).abs().flatten() for name in some])
    return float(apart.max()), float(apart.mean())


@pytest.mark.parametrize(
    ("launcher", "case"),
    [
        (["torch.distributed.run", "--nproc-per-node", "2"], "lora"),
        (["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"], "full, spread"),
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_a_launcher_carries_out_a_recipe(
    launcher: list[str], case: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(wanted(case, tiny_bert, reviews).to_yaml())
    command = ["-m", "iwlora", "train", str(tmp_path / "recipe.yaml"), "--out"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *command, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 1
    assert status(tmp_path / "run") == {"state": "done"}
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-5" / "rng_state_1.pth").is_file()


def test_what_does_not_divide_is_refused(
    tiny_bert: Path, reviews: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from iwlora.training import prepare as prepare_module

    settings = wanted("lora", tiny_bert, reviews).train
    with monkeypatch.context() as three:
        three.setattr(prepare_module.distributed, "world_size", lambda: 3)
        with pytest.raises(
            IwloraError, match=r"batch_size=20 does not divide .* 3 processes × tra"
        ):
            prepare_module._micro_batch_size(settings)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("ACCELERATE_USE_FSDP", r"asks for FSDP, .* with train\.shard=true"),
        (
            "ACCELERATE_USE_DEEPSPEED",
            r"DeepSpeed .* its optimizers hold copies .* train\.shard=true",
        ),
    ],
)
def test_what_a_launcher_may_not_ask_for_is_told_at_the_start(
    variable: str,
    told: str,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(IwloraError, match=told):
        train(wanted("lora", tiny_bert, reviews), tmp_path / "run")
    assert not (tmp_path / "run").exists()
