"""Runs whose numbers go out of bounds: stopped with a reason, and recorded as what they are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from iwlora.compare.plan.planned_runs import Plan
from iwlora.compare.plan.recipe import load_plan
from iwlora.compare.report.html import write
from iwlora.compare.statistics.analysis import analyse
from iwlora.errors import Diverged, IwloraError
from iwlora.results.loading import load_comparison
from iwlora.results.search import load_search
from iwlora.training.loop.divergence import check_outputs
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import recipe, status, with_options
from simulated_runs import SimulatedExecutor, best_at_1e_3, simulate


def spoiled(model: Path, folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model with other weights."""
    copy = Path(shutil.copytree(model, folder / "spoiled"))
    tensors = load_file(copy / "model.safetensors")
    spoil(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def overflowing(tensors: dict[str, torch.Tensor]) -> None:
    """Finite weights whose products are infinite."""
    for name in tensors:
        if name.endswith("dense.weight"):
            tensors[name] *= 1e25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, value: float
) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["embeddings.word_embeddings.weight"][-1, 3] = value

    model = spoiled(tiny_bert, tmp_path, spoil)
    with pytest.raises(IwloraError, match=r"1 of \d+ values of its .*word_embeddings.weight"):
        train(recipe(model, reviews), tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((name, {}) for name in ("full", "lora", "adalora", "prefix")),
        ("houlsby", {"bottleneck": 4}),
        *(("iw-lora", {"measure": "in-flight", "estimator": e}) for e in ("exact", "lora")),
    ],
)
def test_overflow_ends_a_run_with_step_rows_and_advice(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    model = spoiled(tiny_bert, tmp_path, overflowing)
    wanted = recipe(model, reviews, "lora")
    settings = {**wanted.settings(), "method": {"name": method, **options}}
    with pytest.raises(Diverged, match=r"is nan in step 1: .*lower train.lr.* counted from 0: \d"):
        train(build(settings), tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "diverged"
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_measurement_that_overflows_names_its_rows(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    wanted = recipe(spoiled(tiny_bert, tmp_path, overflowing), reviews, "iw-lora")
    with pytest.raises(Diverged, match=r"calibration batch 0: .* its rows in the training") as told:
        train(wanted, tmp_path / "run")
    rows = re.findall(r"\d+", str(told.value).rsplit("counted from 0: ", 1)[1])
    assert len(rows) == 12
    assert all(int(row) < 96 for row in rows)
    assert status(tmp_path / "run")["state"] == "diverged"


def test_eva_on_inputs_that_overflow(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    wanted = recipe(spoiled(tiny_bert, tmp_path, overflowing), reviews, "eva")
    with pytest.raises(Diverged, match="no principal directions"):
        train(wanted, tmp_path / "run")


@pytest.mark.parametrize("method", ["lora", "adalora", "iw-lora"])
def test_a_learning_rate_that_is_absurd(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, method: str
) -> None:
    wanted = recipe(tiny_bert, reviews, method, lr=1e30)
    if method == "iw-lora":
        wanted = with_options(wanted, measure="in-flight")
    with pytest.raises(Diverged):
        train(wanted, tmp_path / "run")
    assert status(tmp_path / "run")["state"] == "diverged"


def test_answers_that_are_no_numbers_are_not_scored(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_outputs("test", {"logits": torch.ones(3).numpy(), "ids": torch.arange(3).numpy()})
    with pytest.raises(Diverged, match="the model's logits for the test split contain NaN"):
        check_outputs("test", {"logits": torch.tensor([1.0, float("nan")]).numpy()})

    def broken(self: Any, rows: Any) -> dict[str, Any]:
        return {"logits": torch.full((len(rows), 2), float("nan")).numpy()}

    monkeypatch.setattr("iwlora.training.loop.trainer.FineTuningTrainer.final_outputs", broken)
    with pytest.raises(Diverged, match="validation split"):
        train(recipe(tiny_bert, reviews, epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


class Diverging(SimulatedExecutor):
    """Runs of one arm, or at one learning rate, end as a run does whose loss is no number."""

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        place = self.running[0]
        found = super().wait(timeout)
        if found[0][1] == 2:
            RunDir(place).set_status("diverged", error="Diverged: the loss is nan in step 3")
        return found


@pytest.fixture
def plan_of(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Callable[..., Plan]:
    def load(**changes: Any) -> Plan:
        settings = {
            "model": str(tiny_bert),
            "task": reviews,
            "methods": [{"name": "lora", "rank": 4}, {"name": "dora", "rank": 4}],
            "seeds": [0, 1],
            "unequal_budgets": True,
            "train": {"epochs": 1, "max_length": 32},
        }
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return load_plan(str(path))

    return load


def test_a_diverging_arm_is_recorded_and_neither_tried_again_nor_counted(
    plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    def behave(recipe: Any, attempt: int) -> float | int:
        return 2 if recipe.method.name == "dora" else best_at_1e_3(recipe)

    out = tmp_path / "out"
    executor = Diverging(behave)
    failed, told = simulate(plan_of(), out, executor)
    assert [str(run) for run in failed] == ["dora, seed 0", "dora, seed 1"]
    assert len(executor.started) == 4
    assert any("dora, seed 0 diverged" in line for line in told)
    assert not (out / "failures.jsonl").exists()

    again = Diverging(behave)
    failed, _ = simulate(plan_of(), out, again)
    assert again.started == []
    assert len(failed) == 2

    comparison = load_comparison(out)
    assert {run.result.label for run in comparison.runs} == {"lora"}
    assert [(arm, seed) for arm, seed, _ in comparison.missing] == [("dora", 0), ("dora", 1)]
    assert all("diverged" in why and "nan in step 3" in why for _, _, why in comparison.missing)
    page = write(analyse([comparison])).read_text(encoding="utf-8")
    assert "state: diverged: Diverged: the loss is nan in step 3" in page
    summary = json.loads((out / "summary.json").read_text())
    arms = {arm["label"]: arm for arm in summary["arms"]}
    assert arms["dora"]["metrics"] == {} or not any(arms["dora"]["metrics"].values())


def test_a_run_that_failed_in_another_way_is_still_tried_again(
    plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    executor = SimulatedExecutor(
        lambda recipe, attempt: 2 if attempt == 1 else best_at_1e_3(recipe)
    )
    failed, _ = simulate(plan_of(), tmp_path / "out", executor)
    assert failed == []
    assert len(executor.started) == 8


def test_a_learning_rate_that_diverges_is_out_of_the_search(
    plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    def behave(recipe: Any, attempt: int) -> float | int:
        return 2 if recipe.train.lr == 1e-3 else best_at_1e_3(recipe)  # where it would be best

    executor = Diverging(behave)
    plan = plan_of(search={"lr": [1e-5, 1e-4, 1e-3]})
    failed, _ = simulate(plan, tmp_path / "out", executor)
    assert failed == []
    arms = load_search(tmp_path / "out" / "search.json")
    for arm in ("lora", "dora"):
        states = {trial.lr: trial.state for trial in arms[arm].trials}
        assert states == {1e-5: "done", 1e-4: "done", 1e-3: "diverged"}
        assert arms[arm].lr == 1e-4
