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
from iwlora.image_tokens.image_codes import put_training_images
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
    PromptGenerator(tokens=3, instances=True),
    PromptGenerator(tokens=3, hidden=5, instances=True),
    PromptGenerator(tokens=3, factors=4, instances=True),
)
IMAGES = (2, 3, 1)
"""Training images of each of three classes."""


def exact_gelu(x: Any) -> Any:
    return x / 2 * (1 + erf(x / np.sqrt(2)))


def model_of_images(folder: Path, order: Order = "masked") -> Any:
    """A model that knows how many training images each class has, as one of a run does."""
    model = random_model(folder, order)
    put_training_images(model.config, IMAGES)
    return model


def prompts_of(
    weights: dict[str, Any], label: int, eps: float, is_factorized: bool, image: int | None = None
) -> Any:
    """(S, d) prompts of a class by the formulas of the page on generating images.

    With ``image``, those of a training image of the class, else of their mean if they have vectors.
    """

    def w(name: str) -> Any:
        return weights[f"class_prompts.{name}"]

    def norm(x: Any) -> Any:
        return layer_norm(x, w("norm.weight"), w("norm.bias"), eps)

    code, vectors = w("classes")[label], weights.get("class_prompts.instances")
    if vectors is not None:
        first = sum(IMAGES[:label])
        of_class = vectors[first : first + IMAGES[label]]
        code = code + (of_class.mean(0) if image is None else of_class[image])
    rows = []
    for place in w("places"):
        if is_factorized:
            of_class = w("class_factors.weight") @ exact_gelu(code)
            of_place = w("place_factors.weight") @ exact_gelu(place)
            product = (of_class + w("class_factors.bias")) * (of_place + w("place_factors.bias"))
            rows.append(norm(w("output.weight") @ product + w("output.bias")))
            continue
        row = norm(code + place)
        if "class_prompts.output.weight" in weights:
            row = w("output.weight") @ row + w("output.bias")
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("order", ["masked", "next-code"])
def test_the_prompted_model_is_that_of_the_formulas(order: Order, tmp_path: Path) -> None:
    oracle, eps = (bert, 1e-12) if order == "masked" else (gpt2, 1e-5)
    codes = np.random.default_rng(0).integers(0, CODES, 9).tolist()
    for method in GENERATORS:
        model = model_of_images(tmp_path, order)
        predicted = method.parameters(model, [])
        attached = method.attach(model, [], seed=1)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {*attached.adapter}
        assert attached.count() == predicted
        for name in attached.adapter:
            model.get_parameter(name).data.normal_()
        arrays = {name: value.numpy() for name, value in model.state_dict().items()}
        asked = [(1, None), (1, 2), (2, 0)] if method.instances else [(1, None)]
        for label, image in asked:
            instances = None if image is None else torch.tensor([image])
            with torch.inference_mode():
                logits = model(torch.tensor([[label, *codes]]), instances=instances).logits[0]
            prompts = prompts_of(arrays, label, eps, method.factors is not None, image)
            assert prompts.shape == (3, 8)
            expected = oracle(arrays, prompts, codes, 2, CODES)
            np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-8, atol=1e-8)


def test_images_of_a_batch_alone_get_a_gradient_and_begin_as_their_class(tmp_path: Path) -> None:
    read = torch.arange(27).reshape(3, 9) % CODES
    ids = torch.cat([torch.tensor([[1], [1], [0]]), read], dim=1)
    for order in ("masked", "next-code"):
        plain, model = (model_of_images(tmp_path, order) for _ in range(2))
        PromptGenerator().attach(plain, [], seed=1)
        PromptGenerator(instances=True).attach(model, [], seed=1)
        of_class = plain(ids).logits
        for numbers in (None, torch.tensor([2, 0, 1])):
            torch.testing.assert_close(model(ids, instances=numbers).logits, of_class)
        model(ids, instances=torch.tensor([2, 0, 1])).logits.square().sum().backward()
        gradient = model.class_prompts.instances.grad
        rows = {int(row) for row in gradient.abs().sum(1).nonzero()}
        assert rows == {1, 2, 4}, "images 2 and 0 of class 1, and 1 of class 0"
        torch.testing.assert_close(gradient[2] + gradient[4], model.class_prompts.classes.grad[1])


@pytest.mark.quick
def test_parameters_are_those_of_the_study_and_budgets_are_met(tmp_path: Path) -> None:
    assert generator_parameters(10, 1, 96) == 1248
    assert generator_parameters(10, 8, 96) == 1920
    model = random_model(tmp_path, "masked")  # three classes, width 8
    assert fit_to_budget(PromptGenerator(), model, [], 100).size == 7  # (3 + 7 + 2) · 8 = 96
    with pytest.raises(IwloraError, match="does not know how many there are"):
        PromptGenerator(instances=True).check_model(model, [])
    put_training_images(model.config, IMAGES)
    of_images = PromptGenerator(instances=True)
    assert fit_to_budget(of_images, model, [], 100).size == 1  # (3 + 1 + 6 + 2) · 8 = 96
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
