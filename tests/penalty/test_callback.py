"""``IWLoraCallback`` in a transformers Trainer: what it adds, once a step, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

import iwlora
from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.penalty import callback as callback_module
from iwlora.penalty.calibration import adapted_sites, obstacle_before
from iwlora.results.sensitivity import Sensitivity
from trainer_models import distance, fit, make_model, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:the penalty (had|dominates|never)")

ALPHA = 0.01  # near the task's own strength: far above it, Adam divides the penalty by itself


@pytest.fixture(scope="module")
def measured() -> Sensitivity:
    batches = [
        {
            "input_ids": torch.stack([row["input_ids"] for row in make_rows()[k : k + 8]]),
            "labels": torch.stack([row["labels"] for row in make_rows()[k : k + 8]]),
        }
        for k in range(0, 48, 8)
    ]
    model = make_model()
    return iwlora.measure(model, batches, sites=adapted_sites(model))


class Spoiler(TrainerCallback):
    """What measuring must not do: begin the Trainer's own loader and break off."""

    def on_train_begin(self, *args: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        next(iter(train_dataloader))


@pytest.mark.parametrize(
    ("measure", "estimator"), [("before", "exact"), ("in-flight", "exact"), ("in-flight", "lora")]
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_measuring_leaves_training_as_it_is_bit_for_bit(
    measure: Any, estimator: str, accumulate: int, tmp_path: Path
) -> None:
    options = {"gradient_accumulation_steps": accumulate, "per_device_train_batch_size": 4}
    without = fit(tmp_path, [], make_model(dropout=0.1), **options)
    idle = iwlora.IWLoraCallback(0.0, measure=measure, estimator=estimator, max_batches=4)
    measuring = fit(tmp_path, [idle], make_model(dropout=0.1), **options)
    assert idle.sensitivity is not None
    assert distance(without, measuring) == 0
    assert distance(without, fit(tmp_path, [Spoiler()], make_model(dropout=0.1), **options)) > 0


@pytest.mark.parametrize("route", ["loss", "gradient", "decoupled"])
def test_it_counts_once_whatever_the_accumulation(
    route: str, measured: Sensitivity, tmp_path: Path
) -> None:
    outcome = {}
    for accumulate in (1, 2, 4, 8):
        callback = iwlora.IWLoraCallback(ALPHA, route=route, sensitivity=measured)
        outcome[accumulate] = fit(
            tmp_path,
            [callback],
            gradient_accumulation_steps=accumulate,
            per_device_train_batch_size=8 // accumulate,
        )
    for accumulate in (2, 4, 8):
        assert distance(outcome[1], outcome[accumulate]) < 1e-5
    assert distance(outcome[1], fit(tmp_path, [])) > 2e-4


class Counted(Trainer):
    """What goes wrong: a term in ``compute_loss`` comes whole with every micro-batch."""

    penalty: iwlora.Penalty

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return super().compute_loss(*args, **kwargs) + self.penalty()


def with_term(measured: Sensitivity, model: Any, alpha: float) -> type[Trainer]:
    coefficients = iwlora.Importance(measured).coefficients()
    return type("WithTerm", (Counted,), {"penalty": iwlora.Penalty(model, coefficients, alpha)})


def test_the_comparison_sees_a_term_counted_once_per_micro_batch(
    measured: Sensitivity, tmp_path: Path
) -> None:
    outcome = []
    for accumulate in (1, 4):
        model = make_model()
        options = {
            "gradient_accumulation_steps": accumulate,
            "per_device_train_batch_size": 8 // accumulate,
        }
        trainer_class = with_term(measured, model, ALPHA)
        outcome.append(fit(tmp_path, [], model, trainer_class=trainer_class, **options))
    assert distance(*outcome) > 1e-3


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05])
def test_the_loss_route_is_a_term_of_the_loss_clipped_with_it(
    max_grad_norm: float, measured: Sensitivity, tmp_path: Path
) -> None:
    model = make_model()
    trainer_class = with_term(measured, model, alpha=0.3)
    options = {"max_grad_norm": max_grad_norm}
    expected = fit(tmp_path, [], model, trainer_class=trainer_class, **options)
    callbacks = {
        route: iwlora.IWLoraCallback(alpha=0.3, route=route, sensitivity=measured)
        for route in ("loss", "gradient")
    }
    outcome = {r: fit(tmp_path / r, [callback], **options) for r, callback in callbacks.items()}
    assert distance(outcome["loss"], expected) < 1e-5
    assert (distance(outcome["gradient"], expected) < 1e-5) == (max_grad_norm == 0)


def test_it_writes_what_the_penalty_does_beside_the_task(
    measured: Sensitivity, tmp_path: Path
) -> None:
    outcome = {}
    for route in ("loss", "gradient"):
        callback = iwlora.IWLoraCallback(alpha=0.3, route=route, sensitivity=measured)
        fit(tmp_path / route, [callback], max_grad_norm=0.05)
        lines = (tmp_path / route / "penalty.jsonl").read_text(encoding="utf-8").splitlines()
        outcome[route] = [json.loads(line) for line in lines]
        assert [record["step"] for record in outcome[route]] == [2, 4, 6]
        assert [set(record["sites"]) for record in outcome[route]] == [set(measured.values)] * 3
        assert all(site["norm"] >= 0 for site in outcome[route][-1]["sites"].values())
        assert any(site["ratio"] > 0 for site in outcome[route][-1]["sites"].values())


def test_the_ratio_on_the_loss_route_is_that_before_clipping(
    measured: Sensitivity, tmp_path: Path
) -> None:
    """At α close to 0 both trainings are one, so clipped or not the ratios are."""
    ratios = []
    for norm in (0.0, 1e9, 0.05):
        callback = iwlora.IWLoraCallback(alpha=1e-6, route="loss", sensitivity=measured)
        fit(tmp_path, [callback], max_steps=2, max_grad_norm=norm, optim="sgd", learning_rate=1e-6)
        ratios.append(callback.history[0])
    one, other, clipped = ratios
    assert other == pytest.approx(one, rel=1e-3)
    assert clipped == pytest.approx(one, rel=1e-2)


def test_it_says_when_the_penalty_did_nothing_or_dominated(
    measured: Sensitivity, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="the penalty had no effect: at each of 3 recorded steps"):
        fit(tmp_path, [iwlora.IWLoraCallback(alpha=1e-12, sensitivity=measured)])
    strong = iwlora.IWLoraCallback(alpha=1e6, route="gradient", sensitivity=measured)
    with pytest.warns(UserWarning, match=r"the penalty dominates: .* lower alpha about"):
        fit(tmp_path, [strong])


def test_a_resumed_training_takes_the_measurement_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"save_strategy": "steps", "save_steps": 3}
    callback = iwlora.IWLoraCallback(alpha=0.3, schedule="cosine", measure="before")
    whole = fit(tmp_path, [callback], make_model(dropout=0.1), **options)
    checkpoint = tmp_path / "checkpoint-3"
    assert Sensitivity.load(checkpoint / "sensitivity.json") == callback.sensitivity

    def measured_again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(callback_module, "measure_before", measured_again)
    again = iwlora.IWLoraCallback(alpha=0.3, schedule="cosine", measure="before")
    pieces = fit(tmp_path, [again], make_model(dropout=0.1), resume=str(checkpoint), **options)
    assert again.sensitivity == callback.sensitivity
    assert distance(whole, pieces) == 0
    (checkpoint / "sensitivity.json").unlink()
    with pytest.raises(IwloraError, match=r"resumes at step 3 without .*sensitivity"):
        fit(tmp_path, [iwlora.IWLoraCallback(measure="before")], resume=str(checkpoint), **options)


def test_in_flight_finds_what_measuring_before_finds(tmp_path: Path) -> None:
    """At a learning rate of 0 the model stays the frozen one, and the batches are all."""
    before = iwlora.IWLoraCallback(alpha=0.0, measure="before", tolerance=0.0)
    fit(tmp_path, [before])
    flight = iwlora.IWLoraCallback(alpha=0.0, estimator="exact", max_batches=6, tolerance=0.0)
    fit(tmp_path, [flight], learning_rate=0.0, max_steps=8)
    assert before.sensitivity is not None
    assert flight.sensitivity is not None
    assert before.sensitivity.batches == flight.sensitivity.batches == 6
    one = iwlora.Importance(before.sensitivity).weights
    assert iwlora.Importance(flight.sensitivity).weights == pytest.approx(one, rel=0.1)
    free = iwlora.IWLoraCallback(alpha=0.0, measure="in-flight", estimator="lora", max_batches=6)
    fit(tmp_path, [free], learning_rate=0.0, max_steps=8)
    assert free.sensitivity is not None
    assert free.sensitivity.estimator == "lora"


def test_no_hook_is_left(measured: Sensitivity, tmp_path: Path) -> None:
    for callback in (
        iwlora.IWLoraCallback(sensitivity=measured, alpha=0.1),
        iwlora.IWLoraCallback(measure="in-flight", alpha=0.1, max_batches=50, tolerance=0.0),
    ):
        model = make_model()
        fit(tmp_path, [callback], model)
        assert not any(module._forward_hooks for module in model.modules())


def test_bfloat16_autocast(measured: Sensitivity, tmp_path: Path) -> None:
    callback = iwlora.IWLoraCallback(ALPHA, measure="before", tolerance=0.1)
    half = fit(tmp_path, [callback], bf16=True)
    whole = fit(tmp_path, [iwlora.IWLoraCallback(ALPHA, sensitivity=measured)])
    assert callback.sensitivity is not None
    shares = [iwlora.Importance(s).weights for s in (callback.sensitivity, measured)]
    assert shares[0] == pytest.approx(shares[1], abs=0.05)
    assert all(torch.isfinite(weight).all() for weight in half.values())
    assert distance(half, whole) < 0.1


def test_the_loss_route_lies_under_scaled_gradients(measured: Sensitivity) -> None:
    """What accelerate's optimizer shows of a float16 loss scaler is its scale."""
    outcome = []
    for scale in (1.0, 8.0):
        model = make_model()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        optimizer.scaler = type("Scaler", (), {"get_scale": lambda self, scale=scale: scale})()  # type: ignore[attr-defined]
        callback = iwlora.IWLoraCallback(1.0, route="loss", sensitivity=measured)
        args = TrainingArguments(report_to="none", use_cpu=True)
        state = TrainerState(max_steps=10, logging_steps=500)
        control = TrainerControl()
        callback.on_train_begin(args, state, control, model=model, optimizer=optimizer)
        callback.on_step_begin(args, state, control, model=model, optimizer=optimizer)
        outcome.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert outcome[0].keys() == outcome[1].keys()
    assert all(torch.equal(8 * outcome[0][name], outcome[1][name]) for name in outcome[0])


def test_a_stream_of_data_is_measured_in_flight() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("taken ahead")

    loader = DataLoader(Stream())
    assert "stream" in str(obstacle_before(make_model(), loader, None))
    rows = DataLoader(make_rows(), collate_fn=default_data_collator)  # type: ignore[arg-type]
    assert obstacle_before(make_model(), rows, None) is None
    unlabeled = [{"input_ids": row["input_ids"]} for row in make_rows()]
    loader = DataLoader(unlabeled, collate_fn=default_data_collator)  # type: ignore[arg-type]
    assert "(input_ids) have no labels" in str(obstacle_before(make_model(), loader, None))
    assert obstacle_before(make_model(), loader, lambda model, batch: batch["input_ids"]) is None


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(IwloraError, match="unknown route 'los'; did you mean 'loss'"):
        iwlora.IWLoraCallback(route="los")
    with pytest.raises(IwloraError, match="unknown measure 'after'"):
        iwlora.IWLoraCallback(measure="after")  # type: ignore[arg-type]
    with pytest.raises(IwloraError, match="unknown schedule 'cosin'; did you mean 'cosine'"):
        iwlora.IWLoraCallback(schedule="cosin")
    with pytest.raises(IwloraError, match="warmup=3 was given"):
        iwlora.IWLoraCallback(schedule="cosine", warmup=3)
    with pytest.raises(IwloraError, match="unknown estimator 'lora'"):
        iwlora.IWLoraCallback(estimator="lora", measure="before")
    with pytest.raises(IwloraError, match="unknown normalization"):
        iwlora.IWLoraCallback(normalize="total")
    with pytest.raises(IwloraError, match="alpha=-1"):
        iwlora.IWLoraCallback(alpha=-1)
    with pytest.raises(IwloraError, match="beta=-1"):
        iwlora.IWLoraCallback(beta=-1)
    with pytest.raises(IwloraError, match="max_batches=0"):
        iwlora.IWLoraCallback(max_batches=0)
    plain = make_model().get_base_model().bert
    with pytest.raises(IwloraError, match="DeepSpeed"):
        iwlora.IWLoraCallback().on_train_begin(
            type("Args", (), {"deepspeed": "zero.json"})(),
            None,
            None,
            model=plain,  # type: ignore[arg-type]
        )


def test_a_model_without_lora_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    with pytest.raises(IwloraError, match="has no active LoRA layer"):
        fit(tmp_path, [iwlora.IWLoraCallback()], plain)
