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

from iwlora.errors import IwloraError
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import evaluations, predictions, recipe, status, weights, with_options
from test_penalty_processes import together

# 96 = 4 × 20 + 16: the last step is short, and its pieces are 4, 4, 4, 4 or 8, 8.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "full": ("full", {}, 1),
    "lora": ("lora", {}, 1),
    "lora, in pieces": ("lora", {}, 2),
    "adalora": ("adalora", {"delta_t": 2}, 1),
    "eva": ("eva", {}, 1),
    "iw-lora": ("iw-lora", {"alpha": 0.3, "tolerance": 0.0, "max_batches": 4}, 1),
}


def wanted(case: str, model: Path, task: dict[str, str], **train: Any) -> Recipe:
    method, options, accumulate = CASES[case]
    settings = {"batch_size": 20, "accumulate": accumulate, "save_steps": 5, **train}
    return with_options(recipe(model, task, method, **settings), **options)


def in_two(rank: int, folder: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")
    data = folder / "data"
    task = {split: str(data / f"{split}.csv") for split in ("train", "validation")}
    for case in CASES:
        made = wanted(case, folder / "model", {**task, "text": "text", "label": "mood"})
        train(made, folder / f"two {case}")


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
    assert scores[0] == pytest.approx(scores[1])


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


def test_torchrun_carries_out_a_recipe(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(wanted("lora", tiny_bert, reviews).to_yaml())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = ["-m", "iwlora", "train", str(tmp_path / "recipe.yaml"), "--out"]
    done = subprocess.run(
        [*launcher, *command, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 1
    assert status(tmp_path / "run") == {"state": "done"}


def test_what_does_not_divide_or_is_not_ddp_is_refused(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iwlora.training import run as run_module

    settings = wanted("lora", tiny_bert, reviews).train
    with monkeypatch.context() as three:
        three.setattr(run_module.processes, "count", lambda: 3)
        with pytest.raises(
            IwloraError, match=r"batch_size=20 does not divide .* 3 processes × tra"
        ):
            run_module._rows_at_once(settings)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(IwloraError, match=r"FSDP was asked for .*; a run trains .* with DDP"):
        train(wanted("lora", tiny_bert, reviews), tmp_path / "sharded")
