"""IW-LoRA's routes: the default one, and that two of them give the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.testing import assert_close
from transformers import default_data_collator as collate

from iwlora import IWLoraCallback
from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached
from iwlora.methods.low_rank.iw_lora import IWLora, IWLoraAsWritten
from iwlora.methods.tiny_models import tiny_model
from iwlora.sensitivity.measure import measure
from iwlora.sensitivity.options import DEFAULTS
from iwlora.sites import sites as find_sites
from iwlora.testing import Case
from iwlora.testing.case import BATCH
from iwlora.training.recipe import build


@pytest.mark.quick
def test_the_method_and_the_callback_have_the_same_defaults() -> None:
    method, callback = IWLora(), IWLoraCallback()
    assert method.route == callback.route == "gradient"
    assert method.measure == "in-flight"
    shared = ("alpha", "beta", "normalize", "relative", "schedule", "measure", "estimator")
    assert all(getattr(method, name) == getattr(callback, name) for name in shared)
    assert callback.options == DEFAULTS
    assert method.calibration() is None
    before = IWLora(measure="before")
    assert before.calibration() == DEFAULTS.measure_arguments()
    assert before.max_batches == method.max_batches


def test_every_variant_of_iw_lora_keeps_the_former_route_and_measurement() -> None:
    variants = [method for method in METHODS.values() if issubclass(method, IWLora)]
    variants.remove(IWLoraAsWritten)  # whose options are pinned
    assert len(variants) == 4
    for variant in variants:
        assert variant.former_defaults[1] == {"route": "loss"}
        assert variant.former_defaults[3] == {"measure": "before", "estimator": "exact"}
        assert variant().route == "gradient"
        assert variant().measure == "in-flight"


def trained_logits(folder: Path, **options: Any) -> Tensor:
    """After a training without gradient clipping."""
    case = Case(IWLora(measure="before", **options), "bert", folder)
    attached = case.attach()
    case.fit(attached, folder, max_grad_norm=0.0)
    return case.logits(attached.model)


def test_without_clipping_the_routes_gradient_and_loss_give_the_same_training(
    tmp_path: Path,
) -> None:
    gradient, loss, decoupled = (
        trained_logits(tmp_path / route, route=route, alpha=1.0)
        for route in ("gradient", "loss", "decoupled")
    )
    unpenalised = trained_logits(tmp_path / "none", alpha=0.0)
    assert_close(gradient, loss, rtol=0, atol=1e-5)
    assert (gradient - unpenalised).abs().max() > 1e-3
    assert (gradient - decoupled).abs().max() > 1e-3


# The form as first written


def as_written_by_hand(case: Case, model: Any, alpha: float) -> Tensor:
    """Five steps of AdamW on L + alpha Σ_k (1 − s_k / Σ_j s_j) ‖Δ_k‖_F², by autograd."""
    frozen, batch = tiny_model("bert").double(), collate(case.rows[:BATCH])
    loss = frozen(**batch).loss
    gradients = torch.autograd.grad(loss, [s.layer.weight for s in find_sites(frozen)])
    s = {site.name: float(g.norm()) for site, g in zip(find_sites(frozen), gradients, strict=True)}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=3e-3, eps=1e-6, weight_decay=0.0
    )
    for _ in range(5):
        updates = {
            name: layer.scaling["default"]
            * layer.lora_B["default"].weight
            @ layer.lora_A["default"].weight
            for name, layer in model.get_base_model().named_modules()
            if isinstance(layer, LoraLayer)
        }
        norms = {name: update.square().sum() for name, update in updates.items()}
        penalty = sum((1 - s[name] / sum(s.values())) * norm for name, norm in norms.items())
        optimizer.zero_grad()
        (model(**batch).loss + alpha * penalty).backward()
        optimizer.step()
    return case.logits(model)


def test_the_form_as_first_written_is_its_formula_in_float64(tmp_path: Path) -> None:
    case = Case(IWLoraAsWritten(), "bert", tmp_path)
    (once,) = [collate(case.rows[:BATCH])]

    def attached() -> Attached:
        model: Any = tiny_model("bert").double()
        measured = measure(model, [once] * 2, **(case.method.calibration() or {}))
        return case.method.attach(model, find_sites(model), 5, measured)

    options = {"max_steps": 5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    trained = attached()
    case.trainer(trained, tmp_path, case.rows[:BATCH], **options).train()
    found = case.logits(trained.model)
    assert_close(found, as_written_by_hand(case, attached().model, 1e-4), rtol=0, atol=1e-9)
    without = as_written_by_hand(case, attached().model, 0.0)
    assert (found - without).abs().max() > 1e-7


def test_the_options_of_the_form_as_first_written_are_pinned() -> None:
    options = {"alpha": 0.01, "route": "gradient", "measure": "in-flight", "rank": 4}
    settings = {"model": "builtin/minilm", "task": {"name": "builtin/entailment"}}
    with pytest.raises(IwloraError) as refused:
        build({**settings, "method": {"name": "iw-lora-as-written", **options}})
    said = str(refused.value)
    for option, value in (("alpha", "0.0001"), ("route", "loss"), ("measure", "before")):
        line = f"method.{option}={options[option]!r}: iw-lora-as-written always has {value}; for "
        assert line + "other values take iw-lora" in said
    assert "rank" not in said
    same = {name: field.default for name, field in IWLoraAsWritten.model_fields.items()}
    method = build({**settings, "method": {"name": "iw-lora-as-written", **same}}).method
    assert dict(method) == dict(IWLora(**same)) == dict(IWLoraAsWritten())
