"""Runs that must follow the same trajectory: resumed, accumulated, and across methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from interruptions import Killed, kill_at
from iwlora.inputs.places import files_below
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from runs import RUN, evaluations, logged, logits, recipe, weights, with_options

# Strong enough to change the trajectory when a regularizer is counted more than once.
# In flight, each micro-batch is measured: so other micro-batches are another measurement.
STRONG: dict[str, dict[str, Any]] = {
    "iw-lora": {"alpha": 0.3, "measure": "before"},
    "adalora": {"delta_t": 2},
}


def strong(model: Path, task: Mapping[str, Any], method: str, **settings: Any) -> Recipe:
    """A recipe of 3 × 6 steps, unless ``settings`` say otherwise."""
    run_recipe = recipe(model, task, method, **{"epochs": 3, **settings})
    return with_options(run_recipe, **STRONG.get(method, {}))


def saved_files(run: Path) -> dict[str, bytes]:
    """The texts beside the weights: files of one run lie at the same places in each folder."""
    files = [file for name in ("adapter", "model") for file in files_below(run / name)]
    return {file.name: file.read_bytes() for file in files if file.suffix != ".safetensors"}


@pytest.mark.parametrize("method", RUN)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    method: str,
    with_dropout: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = {**reviews, "test": reviews["validation"]}
    run_recipe = strong(with_dropout, task, method, save_steps=3)
    whole = train(run_recipe, tmp_path / "whole")
    # Of 3 × 6 steps: from the middle of the first epoch and of a later one, from the end of an
    # epoch, and after AdaLoRA's last pruning.
    for step in (5, 8, 11, 14) if method == "adalora" else (5, 11, 14):
        kill_at(step, monkeypatch)
        with pytest.raises(Killed):
            train(run_recipe, tmp_path / "resumed")
        monkeypatch.undo()
        assert not (tmp_path / "resumed" / "result.json").exists()
    left = tmp_path / "resumed" / "adapter"  # by a start that could not write all of it
    left.mkdir(exist_ok=True)
    (left / "README.md").write_text("---\n", encoding="utf-8")
    (left / ".mode.12.iwlora-part").touch()
    result = train(run_recipe, tmp_path / "resumed")
    assert result["resumed_at_step"] == 12
    assert result["metrics"] == whole["metrics"]
    assert result["examples_per_second"] is None
    expected, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert saved_files(tmp_path / "resumed") == saved_files(tmp_path / "whole")
    assert len(evaluations(tmp_path / "whole")) == 3
    assert evaluations(tmp_path / "resumed") == evaluations(tmp_path / "whole")


class Recording(FineTuningTrainer):
    """Keeps the batches that it trains on, and the task head that it starts with."""

    runs: ClassVar[list[tuple[list[Tensor], dict[str, Tensor]]]] = []

    def train(self, *args: Any, **kwargs: Any) -> Any:
        head = {
            name.split("classifier.")[1].removeprefix("modules_to_save.default."): p.clone()
            for name, p in self._module.named_parameters()
            if "classifier." in name and p.requires_grad
        }
        Recording.runs.append(([], head))
        return super().train(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        Recording.runs[-1][0].append(inputs["input_ids"].clone())
        return super().training_step(model, inputs, *args, **kwargs)


def record(
    recipes: Sequence[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[list[Tensor], dict[str, Tensor]]]:
    monkeypatch.setattr(prepare_module, "FineTuningTrainer", Recording)
    monkeypatch.setattr(Recording, "runs", [])
    for number, run_recipe in enumerate(recipes):
        train(run_recipe, tmp_path / str(number))
    return Recording.runs


def same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def test_methods_of_equal_seed_get_equal_batches_and_heads(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [recipe(with_dropout, reviews, method, epochs=2) for method in RUN]
    (batches, head), *others = record(recipes, tmp_path, monkeypatch)
    assert len(batches) == 12
    assert head.keys() == {"weight", "bias"}
    assert head["weight"].any()
    assert not same(batches[:6], batches[6:])  # each epoch has an order of its own
    for other_batches, other_head in others:
        assert same(batches, other_batches)
        assert same([head[name] for name in head], [other_head[name] for name in head])


def test_another_seed_gives_other_batches_and_another_head(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [recipe(tiny_bert, reviews, "lora", epochs=1, seed=seed) for seed in (0, 1)]
    (batches, head), (other_batches, other_head) = record(recipes, tmp_path, monkeypatch)
    assert not same(batches, other_batches)
    assert not torch.equal(head["weight"], other_head["weight"])


def trajectory(run: Path) -> list[float]:
    """Loss and gradient norm during training, and every logit at the end."""
    steps = [record for record in logged(run) if "grad_norm" in record]
    assert steps
    along = [float(record[key]) for record in steps for key in ("loss", "grad_norm")]
    return [*along, *(value for row in logits(run) for value in row)]


def deviation(
    model: Path,
    task: Mapping[str, Any],
    method: str,
    tmp_path: Path,
    numbers: Sequence[int],
    **settings: Any,
) -> float:
    """The largest difference between the trajectories of runs with 1 and more micro-batches."""
    trajectories = []
    for accumulate in (1, *numbers):
        run_recipe = strong(model, task, method, accumulate=accumulate, epochs=2, **settings)
        train(run_recipe, tmp_path / str(accumulate))
        trajectories.append(trajectory(tmp_path / str(accumulate)))
    return float(np.ptp(trajectories, axis=0).max())


@pytest.mark.parametrize(
    ("method", "group_by_length", "numbers"),
    [
        ("full", True, [4]),
        ("lora", False, [2, 4]),
        ("adalora", True, [4]),
        ("iw-lora", False, [4]),
    ],
)
def test_micro_batches_follow_the_trajectory_of_the_batch(
    method: str,
    group_by_length: bool,
    numbers: list[int],
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
) -> None:
    # 96 = 4 × 20 + 16: the last batch is short, its micro-batches have 8 + 8 or 4 + 4 + 4 + 4 rows.
    settings = {"batch_size": 20, "group_by_length": group_by_length}
    assert deviation(tiny_bert, reviews, method, tmp_path, numbers, **settings) < 1e-4


def counted_in_every_micro_batch(
    regularizer: Callable[[], Tensor] | None, kind: object
) -> Callable[..., Tensor]:
    """A mistake: the whole regularizer is added to every micro-batch."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        total = cross_entropy(outputs.logits, labels, reduction="sum")
        total = total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)
        return total + regularizer() if regularizer and torch.is_grad_enabled() else total

    return loss


def test_a_regularizer_counted_in_every_micro_batch_would_be_noticed(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("iwlora.training.loop.trainer.task_loss", counted_in_every_micro_batch)
    assert deviation(tiny_bert, reviews, "adalora", tmp_path, [4], batch_size=20) > 1e-3
