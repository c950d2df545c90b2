"""Frozen weights in bfloat16: what trains is float32, and the results are nearly the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import iwlora
from iwlora.errors import IwloraError
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.measure_recipe import measure_recipe
from iwlora.training.prediction.new_rows import predict
from iwlora.training.prepare import prepare
from iwlora.training.recipe import Recipe, build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import logits, recipe, weights

REFUSED = {
    "full": r"trains \d+ weights of the pretrained model, such as bert\.",
    "bitfit": r"trains \d+ weights of the pretrained model, such as .*bias",
    "houlsby": r"trains \d+ weights of the pretrained model, such as .*LayerNorm",
    "pissa": "removes a part of the pretrained weights",
}
"""Found by what a method declares: its names of trained parameters, and what it derives."""


def half(model: Path, task: dict[str, str], method: str = "lora", **settings: Any) -> Recipe:
    settings = {"epochs": 1, "precision": "auto", "frozen_dtype": "bfloat16", **settings}
    return recipe(model, task, method, **settings)


@pytest.mark.parametrize(
    "method", [*REFUSED, "head", "lora", "dora", "eva", "adalora", "prefix", "parallel"]
)
def test_a_method_trains_in_float32_or_is_refused(
    method: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    asked = half(tiny_bert, reviews, method)
    if method in REFUSED:
        with pytest.raises(IwloraError, match=REFUSED[method]):
            prepare(asked, RunDir.open(tmp_path / "run", asked), progress=False)
        return
    prepared = prepare(asked, RunDir.open(tmp_path / "run", asked), progress=False)
    model, trainable = prepared.attached.model, set(prepared.attached.trainable)
    frozen = {p.dtype for name, p in model.named_parameters() if name not in trainable}
    # PEFT keeps a frozen copy of the head, which is float32 as the trained one.
    assert torch.bfloat16 in frozen
    assert {model.get_parameter(name).dtype for name in trainable} == {torch.float32}
    before = {name: model.get_parameter(name).detach().clone() for name in trainable}
    prepared.trainer.args.max_steps = 2
    prepared.trainer.fit(None)
    after = {name: model.get_parameter(name).detach() for name in trainable}
    assert any(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.quick
def test_a_run_is_scored_saved_loaded_and_predicts_as_it_was_scored(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    result = train(half(tiny_bert, reviews, epochs=8), tmp_path / "run")
    assert result["precision"] == "bf16"
    assert result["metrics"]["accuracy"] == 1.0
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}
    model, tokenizer = iwlora.load_trained(tmp_path / "run")
    kept = model.get_base_model().bert.encoder.layer[0].attention.output.LayerNorm.weight
    assert kept.dtype == torch.bfloat16
    inputs = tokenizer(["it is a good film", "it is a bad film"], return_tensors="pt")
    assert model(**inputs).logits.dtype == torch.float32  # also outside of autocast
    merged, _ = iwlora.load_trained(tmp_path / "run", merge=True)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    torch.testing.assert_close(
        merged(**inputs).logits, model(**inputs).logits, rtol=0.05, atol=0.05
    )
    predict(tmp_path / "run", reviews["validation"], tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    answers = np.array([[float(cell) for cell in line.split(",")[-2:]] for line in lines])
    scored = torch.tensor(logits(tmp_path / "run")).softmax(-1).numpy()
    assert np.abs(answers - scored).max() < 1e-5


@pytest.mark.quick
def test_the_dry_run_sees_half_of_the_frozen_weights(
    tiny_bert: Path, reviews: dict[str, str]
) -> None:
    asked = half(tiny_bert, reviews)
    small = estimate_run_cost(asked).memory
    whole = estimate_run_cost(asked.with_train(frozen_dtype="float32")).memory
    trained = small.gradients
    assert small.weights - trained < 0.51 * (whole.weights - trained)


def test_sensitivities_agree_with_those_of_float32() -> None:
    settings = {
        "model": "builtin/minilm",
        "task": {"name": "builtin/entailment", "max_train": 16, "max_validation": 16},
        "method": {"name": "iw-lora", "tolerance": 0.0, "max_batches": 2},
    }
    measured = []
    for train_settings in ({"precision": "fp32"}, {"frozen_dtype": "bfloat16"}):
        length = {"max_length": 32, "batch_size": 4, **train_settings}
        sensitivity = measure_recipe(build({**settings, "train": length}))
        measured.append([*sensitivity.values.values()])
    assert spearmanr(*measured).statistic >= 0.99


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"precision": "fp32"}}, "products of bfloat16 weights are bf16"),
        ({"train": {"shard": True}}, "needs weights of one type"),
        ({"quantize": "4bit"}, "both set the type of the frozen weights"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    base = {"model": "m", "task": "glue/rte", "method": "lora", **changes}
    with pytest.raises(IwloraError, match=message):
        build({**base, "train": {"frozen_dtype": "bfloat16", **changes.get("train", {})}})
