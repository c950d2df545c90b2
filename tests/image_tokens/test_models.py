from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from image_drawings import CODES, save_model, small_codebook
from iwlora.errors import IwloraError
from iwlora.image_tokens.image_codes import ImageCodes, mask_id
from iwlora.image_tokens.models import MODELS
from iwlora.image_tokens.new_model import Order, save_new_model
from numpy_transformers import bert, gpt2, layer_norm

ORACLES = {"masked": bert, "next-code": gpt2}


def random_model(folder: Path, order: Order) -> Any:
    """Two blocks in float64, all of whose weights are random."""
    options = {"width": 8, "blocks": 2, "heads": 2, "dropout": 0.0}
    save_new_model(small_codebook(), folder, order=order, **options)  # type: ignore[arg-type]
    model = MODELS["bert" if order == "masked" else "gpt2"].from_pretrained(folder, num_labels=3)
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def arrays(model: Any) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.quick
@pytest.mark.parametrize("order", ["masked", "next-code"])
def test_logits_are_those_of_the_formulas(order: Order, tmp_path: Path) -> None:
    model = random_model(tmp_path, order)
    weights = arrays(model)
    eps = 1e-12 if order == "masked" else 1e-5
    random = np.random.default_rng(0)
    last = mask_id(model.config) or CODES - 1
    rows = [[label, *random.integers(0, last + 1, 9).tolist()] for label in (2, 0)]
    with torch.inference_mode():
        logits = model(torch.tensor(rows)).logits.numpy()
    assert logits.shape == (2, 9, CODES)
    for (label, *codes), of_model in zip(rows, logits, strict=True):
        named = {name: weights[f"class_prompts.{name}"] for name in ("norm.weight", "norm.bias")}
        prompt = layer_norm(
            weights["class_prompts.classes.weight"][label : label + 1], *named.values(), eps
        )
        np.testing.assert_allclose(
            of_model, ORACLES[order](weights, prompt, codes, 2, CODES), rtol=1e-9, atol=1e-9
        )


def test_the_configuration_must_say_what_the_codes_are(tmp_path: Path) -> None:
    model = MODELS["bert"].from_pretrained(save_model(tmp_path))
    config = model.config
    codes = ImageCodes.of(config)
    assert codes == ImageCodes.of_codebook(small_codebook())
    for changes, problem in (
        ({"image_codes": None}, "does not read the codes of images"),
        ({"image_codes": {**config.image_codes, "count": True}}, "which cannot be"),
        ({"image_codes": {**config.image_codes, "count": 13}}, "at least 14 are needed"),
        ({"max_position_embeddings": 9}, "a class and 9 codes need 10"),
    ):
        changed = type(config)(**{**config.to_dict(), **changes})
        with pytest.raises(IwloraError, match=problem):
            ImageCodes.of(changed)
    with pytest.raises(IwloraError, match="the codes are of another codebook"):
        ImageCodes(12, 9, "0" * 16).check(small_codebook())


def test_impossible_models_are_refused(tmp_path: Path) -> None:
    for options, problem in (
        ({"width": 10, "heads": 4}, "width=10 is no multiple of heads=4"),
        ({"blocks": 0}, "blocks=0; accepted: 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0; accepted"),
    ):
        with pytest.raises(IwloraError, match=problem):
            save_new_model(small_codebook(), tmp_path, **options)
