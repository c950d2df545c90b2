from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf

from image_drawings import CODES, save_images, save_model
from image_tokens.test_models import random_model
from iwlora import load_trained, train
from iwlora.errors import IwloraError
from iwlora.image_tokens.new_model import Order
from iwlora.image_tokens.prompts import generator_parameters
from iwlora.methods.additive.prompt_generator import PromptGenerator
from iwlora.methods.budget import fit_to_budget
from iwlora.methods.tiny_models import tiny_model
from numpy_transformers import bert, gpt2, layer_norm
from runs import recipe, weights

GENERATORS = (
    PromptGenerator(tokens=3),
    PromptGenerator(tokens=3, hidden=5),
    PromptGenerator(tokens=3, factors=4),
    PromptGenerator(tokens=3, factors=4, hidden=6),
)


def exact_gelu(x: Any) -> Any:
    return x / 2 * (1 + erf(x / np.sqrt(2)))


def prompts_of(weights: dict[str, Any], label: int, eps: float, is_factorized: bool) -> Any:
    """(S, d) prompts of a class by the formulas of the page on generating images."""

    def w(name: str) -> Any:
        return weights[f"class_prompts.{name}"]

    def norm(x: Any) -> Any:
        return layer_norm(x, w("norm.weight"), w("norm.bias"), eps)

    rows = []
    for place in w("places"):
        if is_factorized:
            of_class = w("class_factors.weight") @ exact_gelu(w("classes")[label])
            of_place = w("place_factors.weight") @ exact_gelu(place)
            product = (of_class + w("class_factors.bias")) * (of_place + w("place_factors.bias"))
            rows.append(norm(w("output.weight") @ product + w("output.bias")))
            continue
        row = norm(w("classes")[label] + place)
        if "class_prompts.output.weight" in weights:
            row = w("output.weight") @ row + w("output.bias")
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("order", ["masked", "next-code"])
def test_the_prompted_model_is_that_of_the_formulas(order: Order, tmp_path: Path) -> None:
    oracle, eps = (bert, 1e-12) if order == "masked" else (gpt2, 1e-5)
    codes = np.random.default_rng(0).integers(0, CODES, 9).tolist()
    for method in GENERATORS:
        model = random_model(tmp_path, order)
        predicted = method.parameters(model, [])
        attached = method.attach(model, [], seed=1)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {*attached.adapter}
        assert attached.count() == predicted
        for name in attached.adapter:
            model.get_parameter(name).data.normal_()
        arrays = {name: value.numpy() for name, value in model.state_dict().items()}
        with torch.inference_mode():
            logits = model(torch.tensor([[1, *codes]])).logits[0].numpy()
        prompts = prompts_of(arrays, 1, eps, method.factors is not None)
        assert prompts.shape == (3, 8)
        expected = oracle(arrays, prompts, codes, 2, CODES)
        np.testing.assert_allclose(logits, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.quick
def test_parameters_are_those_of_the_study_and_budgets_are_met(tmp_path: Path) -> None:
    assert generator_parameters(10, 1, 96) == 1248
    assert generator_parameters(10, 8, 96) == 1920
    model = random_model(tmp_path, "masked")  # three classes, width 8
    assert fit_to_budget(PromptGenerator(), model, [], 100).size == 7  # (3 + 7 + 2) · 8 = 96
    with pytest.raises(IwloraError, match="needs at least 48"):
        fit_to_budget(PromptGenerator(), model, [], 20)
    with pytest.raises(IwloraError, match="this model generates no images; take prefix"):
        PromptGenerator().check_model(tiny_model("bert"), [])


def test_a_run_is_reloaded_and_the_seed_decides(tmp_path: Path) -> None:
    task = {"train": str(save_images(tmp_path / "images")), "kind": {"name": "image-tokens"}}
    model = save_model(tmp_path / "model")
    asked = recipe(model, task, "prompt-generator", epochs=2, lr=1e-2, batch_size=8)
    result = train(asked, tmp_path / "run")
    assert result["adapter_parameters"] == (2 + 4 + 2) * 16 == result["trainable_parameters"]
    saved, loaded = weights(tmp_path / "run"), load_trained(tmp_path / "run")[0].state_dict()
    assert len(saved) == 4
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())
    same, other = (random_model(tmp_path / "sizes", "masked") for _ in range(2))
    first = PromptGenerator().attach(same, [], seed=0).model.state_dict()
    second = PromptGenerator().attach(other, [], seed=1).model.state_dict()
    assert not torch.equal(first["class_prompts.places"], second["class_prompts.places"])
