"""Quantized weights: which methods can train on them, and the errors of the others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.methods import METHODS
from iwlora.training.recipe import build
from iwlora.training.run import train
from runs import recipe

ON_QUANTIZED = {
    *("lora", "dora", "rslora", "lora+", "lora-fa", "eva", "svd-lora", "adalora", "prefix"),
    *("iw-lora", "iw-lora-as-written", "lora-uniform-penalty", "iw-lora-permuted"),
    *("iw-lora-inverted", "lora-importance-ranks", "lora-random-ranks"),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_quantized_weights_or_says_why_not(method: str) -> None:
    settings = {"model": "m", "task": "glue/rte", "method": method, "quantize": "4bit"}
    if method in ON_QUANTIZED:
        assert build(settings).quantize == "4bit"
    else:
        with pytest.raises(IwloraError, match=rf"^quantize=4bit was .* {method} cannot train"):
            build(settings)
    assert build({**settings, "quantize": None}).quantize is None


def test_quantized_weights_are_not_sharded() -> None:
    settings: dict[str, Any] = {"model": "m", "task": "glue/rte", "method": "lora"}
    with pytest.raises(IwloraError, match=r"quantize=4bit .* with train\.shard=true"):
        build({**settings, "quantize": "4bit", "train": {"shard": True}})


def test_a_missing_bitsandbytes_is_reported_before_training(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    run_recipe = build({**recipe(tiny_bert, reviews).settings(), "quantize": "4bit"})
    with pytest.raises(IwloraError, match=r"pip install 'iwlora\[quantised\]'"):
        train(run_recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
