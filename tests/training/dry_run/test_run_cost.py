"""The estimated time and memory of a run are those that it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from commands import call, run_settings, snapshot, write_recipe
from iwlora.training import prepare as prepare_module
from iwlora.training.dry_run import run_cost
from iwlora.training.dry_run.run_cost import MemoryCost, estimate_run_cost
from iwlora.training.dry_run.step_profiler import MemoryTracker
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.recipe import build
from iwlora.training.run import train
from kinds import save_model
from runs import recipe, with_options
from tiny_tasks import write_task
from warm_processes import run_command


@pytest.mark.quick
def test_tensors_are_counted_until_they_are_freed() -> None:
    outside = torch.zeros(1000)
    with MemoryTracker() as live:
        kept = outside[:500] * 2  # 2,000 bytes; the view is no memory of its own
        outside.add_(1)
        view = kept.view(50, 10).t()
        assert live.now == 2000
        passing = torch.zeros(250)
        del passing
        assert (live.now, live.peak) == (2000, 3000)
        first, second = torch.zeros(100).split(50)
        del first
        assert live.now == 2400
    live.peak = live.now
    del second, kept
    assert live.now == 2000
    del view
    assert (live.now, live.peak) == (0, 2400)


@pytest.mark.quick
def test_backward_and_adam_are_counted() -> None:
    layer = torch.nn.Linear(100, 50, bias=False)
    x = torch.randn(8, 100)
    with MemoryTracker() as live:
        loss = (layer(x) ** 2).sum()
        loss.backward()
        del loss
        assert live.now == layer.weight.nbytes
        torch.optim.AdamW(layer.parameters(), foreach=False).step()
    del layer.weight.grad
    assert live.now <= 4  # its moments died with it, but for the number of steps


@pytest.mark.quick
def test_the_peak_is_the_larger_of_activations_and_gradients() -> None:
    parts = {"before": 100, "weights": 50, "state": 20, "gradients": 10, "workspace": 5}
    assert MemoryCost(**parts, activations=30, reached=0).peak == 155
    assert MemoryCost(**parts, activations=7, reached=0).peak == 135
    assert MemoryCost(**parts, activations=30, reached=0, accumulated=True).peak == 165
    assert MemoryCost(**parts, activations=30, reached=300).peak == 300


class WholeRun(TrainerCallback):
    """Measures the most that the steps of a whole run reach above what it had before the first."""

    def __init__(self) -> None:
        self.tracker, self.steps = MemoryTracker(), 0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.tracker.__enter__()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.tracker.__exit__(None, None, None)
        self.steps += 1


def measured_run(run_recipe: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> WholeRun:
    whole_run = WholeRun()
    make = prepare_module.make_trainer

    def watched(*args: Any) -> Any:
        trainer = make(*args)
        trainer.callback_handler.callbacks.insert(0, whole_run)
        return trainer

    monkeypatch.setattr(prepare_module, "make_trainer", watched)
    train(run_recipe, folder)
    monkeypatch.undo()
    return whole_run


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {}),
        ("full", {}),
        ("iw-lora", {"accumulate": 2, "epochs": 1.5}),
        ("adalora", {"batch_size": 40, "group_by_length": False}),
    ],
)
def test_steps_and_memory_are_those_of_the_run(
    method: str,
    settings: dict[str, Any],
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_recipe = recipe(tiny_bert, reviews, method, **settings)
    cost = estimate_run_cost(run_recipe)
    whole_run = measured_run(run_recipe, tmp_path / "run", monkeypatch)
    assert cost.steps == whole_run.steps
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert cost.trainable_parameters == result["trainable_parameters"]
    memory = cost.memory
    assert memory.tensors - memory.before == pytest.approx(whole_run.tracker.peak, rel=0.2)
    assert memory.gradients == 4 * cost.trainable_parameters
    moments = 4 if method == "adalora" else 2  # AdaLoRA averages the importance and its spread
    assert memory.state == pytest.approx(moments * memory.gradients, rel=0.3)


def test_the_time_of_a_step_follows_its_tokens(
    tiny_bert: Path, reviews: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that take 1 ms for each padded token: a step takes the mean of the epoch."""
    seen: dict[str, Any] = {}
    train_steps = run_cost._train_steps

    def timed(trainer: Any, profiler: Any, steps: Sequence[Any], total: int) -> float:
        lengths = trainer.train_dataset["length"][:]
        order = trainer.epoch_sampler.epoch_rows(0)
        batches = [order[start : start + 16] for start in range(0, len(order), 16)]
        tokens = [len(b) * max(lengths[row] for row in b) for b in batches]
        seen["mean"] = np.mean(tokens) / 1000
        seconds = train_steps(trainer, profiler, steps, total)
        assert len(profiler.seconds) == len(steps) - 2
        profiler.seconds = [len(b) * max(lengths[row] for row in b) / 1000 for (b,) in steps[2:]]
        return seconds

    monkeypatch.setattr(run_cost, "_train_steps", timed)
    cost = estimate_run_cost(recipe(tiny_bert, reviews, epochs=3))
    assert cost.step_seconds == pytest.approx(seen["mean"], rel=0.05)
    assert cost.seconds == pytest.approx(18 * cost.step_seconds + cost.rest)


def test_frozen_blocks_are_filled_once(
    tiny_bert: Path, reviews: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed reads what is stored; filling it, here 20 s a call, is a part of its own."""
    compute, score = FrozenLayers._compute, run_cost._score_seconds
    calls: list[int] = []
    before_steps: list[int] = []

    class Profiler(run_cost.StepProfiler):
        def __init__(self, memory_steps: int) -> None:
            before_steps.append(len(calls))  # its clock starts
            super().__init__(memory_steps)

    def slow(self: FrozenLayers, inputs: Any, rows: Any) -> torch.Tensor:
        result, self.computed_seconds = compute(self, inputs, rows), self.computed_seconds + 20
        calls.append(len(inputs["input_ids"]))
        return result

    def score_seconds(*arguments: Any) -> float:
        before = len(calls)
        seconds = score(*arguments)
        assert len(calls) == before
        return seconds

    monkeypatch.setattr(run_cost, "StepProfiler", Profiler)
    monkeypatch.setattr(FrozenLayers, "_compute", slow)
    monkeypatch.setattr(run_cost, "_score_seconds", score_seconds)
    upper = recipe(tiny_bert, reviews).model_copy(update={"targets": ["layer.1.output.dense"]})
    alone, shared = (estimate_run_cost(upper, in_comparison) for in_comparison in (False, True))
    assert alone.fill_seconds == 0
    assert before_steps[0] == 0 < before_steps[1], "the scored rows are stored before the steps"
    assert shared.fill_seconds > 100  # 6 steps and the scored rows
    assert shared.rest == pytest.approx(
        shared.fill_seconds
        + shared.prepare_seconds
        + shared.measure_seconds
        + shared.start_seconds
        + shared.score_seconds
    )


@pytest.mark.quick
def test_schedules_see_the_whole_run(tiny_bert: Path, reviews: dict[str, str]) -> None:
    """AdaLoRA refuses a start of pruning beyond the end, which is 120 steps away here."""
    run_recipe = recipe(tiny_bert, reviews, "adalora", epochs=20)
    assert estimate_run_cost(with_options(run_recipe, t_init=60, t_final=10)).steps == 120


def test_a_dry_run_prints_the_cost_and_writes_nothing(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_recipe(tmp_path / "recipe.yaml", run_settings(tiny_bert, reviews))
    before = snapshot(tmp_path)
    outcome = call(capsys, "train", file, "--dry-run", "--out", tmp_path / "run", "train.epochs=5")
    assert outcome.code == 0, outcome.err
    assert "1,664 adapter parameters, 1,698 train" in outcome.out
    assert "30 steps of" in outcome.out
    for part in ("measuring:", "scoring:", "whole run:", "peak memory:", "activations (16 × "):
        assert part in outcome.out
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("question-answering", "bert"), ("seq2seq", "t5"), ("packed", "gpt2")],
)
def test_every_kind_of_task_is_estimated(kind: str, architecture: str, tmp_path: Path) -> None:
    """Rows that become windows, texts that are written, rows that are packed."""
    task, _ = write_task(tmp_path / "task", kind)
    settings = run_settings(save_model(tmp_path / "model", architecture), task)
    settings["train"] = {"epochs": 2, "batch_size": 6, "accumulate": 2, "max_length": 32}
    cost = estimate_run_cost(build(settings))
    assert cost.steps == (2 if kind == "packed" else 4)  # twelve short rows are packed into few
    assert cost.memory.accumulated
    assert cost.memory.activations > 0
    assert cost.score_seconds > 0


def user_files(folder: Path, rows: dict[str, int]) -> dict[str, Any]:
    """A task of pairs of sentences of about 60 tokens."""
    sentence = " ".join(["every cat sees a small dog"] * 5)
    task: dict[str, Any] = {"text": ["premise", "hypothesis"], "label": "label"}
    for split, count in rows.items():
        lines = [
            f"{sentence},{sentence} {row},{'yes' if row % 2 else 'no'}" for row in range(count)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["premise,hypothesis,label", *lines]) + "\n")
        task[split] = str(folder / f"{split}.csv")
    return task


@pytest.mark.slow
@pytest.mark.usefixtures("needs_minilm")
def test_the_predicted_memory_is_what_a_process_takes(tmp_path: Path) -> None:
    """MiniLM, in processes of their own: within 20%, although the allocator has its own ways.

    Both are forked from one process, whose modules are part of what each of them has.
    """
    task = user_files(tmp_path, {"train": 48, "validation": 8})
    settings = run_settings(Path("builtin/minilm"), task)
    settings["train"] = {"epochs": 1, "batch_size": 24, "max_length": 64}
    file = write_recipe(tmp_path / "recipe.yaml", settings)
    log, run = tmp_path / "log", tmp_path / "run"
    assert run_command(log, "train", file, "--dry-run") == 0
    printed = log.read_text()
    size = re.search(r"peak memory: about ([\d,]+) MiB", printed)
    assert size is not None, printed
    predicted = int(size[1].replace(",", "")) * 2**20
    assert run_command(log, "train", file, "--out", run) == 0, log.read_text()
    measured = json.loads((run / "result.json").read_text())["peak_memory_bytes"]
    assert predicted == pytest.approx(measured, rel=0.2)
