"""IW-LoRA's routes: the default one, and that two of them give the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.testing import assert_close

from iwlora import IWLoraCallback
from iwlora.methods import METHODS
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.sensitivity.options import DEFAULTS
from iwlora.testing import Case


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
