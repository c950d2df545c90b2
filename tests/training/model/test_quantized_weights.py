"""Weights of 4 and 8 bits from bitsandbytes and torchao; ``make quantised`` runs these tests."""

from __future__ import annotations

import copy
import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import iwlora
from conftest import save_tiny, tiny_config
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sites import dense_weight, sites
from iwlora.training.prediction.new_rows import predict
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_trained
from runs import logits, predictions, recipe
from sensitivity_models import batches, classifier

pytestmark = pytest.mark.filterwarnings("ignore")  # of the quantisers themselves


def quantized_with_bitsandbytes(bits: int) -> Callable[[nn.Linear], nn.Linear]:
    bnb = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")

    def convert(linear: nn.Linear) -> nn.Linear:
        shape = (linear.in_features, linear.out_features)
        quantized: nn.Linear = (
            bnb.nn.Linear4bit(*shape, compute_dtype=torch.float32, quant_type="nf4")
            if bits == 4
            else bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
        )
        quantized.load_state_dict(linear.state_dict())
        return quantized.to("cpu")

    return convert


def quantized_with_torchao(config: str) -> Callable[[nn.Linear], nn.Linear]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization = pytest.importorskip("torchao.quantization", reason="pip install torchao")

    def convert(linear: nn.Linear) -> nn.Linear:
        box = nn.Sequential(copy.deepcopy(linear))
        quantization.quantize_(box, getattr(quantization, config)())
        quantized: nn.Linear = box[0]
        return quantized

    return convert


def replaced(model: nn.Module, convert: Callable[[nn.Linear], nn.Linear]) -> nn.Module:
    model = copy.deepcopy(model)
    for site in sites(model):
        parent, _, name = site.name.rpartition(".")
        setattr(model.get_submodule(parent), name, convert(model.get_submodule(site.name)))
    return model


@torch.no_grad()
def dequantized(model: nn.Module, quantized: nn.Module) -> nn.Module:
    """The model with the weights that the quantized ones stand for."""
    twin = copy.deepcopy(model)
    for site in sites(quantized):
        twin.get_submodule(site.name).weight.copy_(dense_weight(site))  # type: ignore[operator, union-attr]
    return twin


@pytest.mark.parametrize(
    ("make", "how", "precision"),
    [
        (quantized_with_bitsandbytes, 4, 1e-4),
        (quantized_with_bitsandbytes, 8, 0.05),  # its inputs are rounded to 8 bits as well
        (quantized_with_torchao, "Int8WeightOnlyConfig", 1e-4),
        (quantized_with_torchao, "IntxWeightOnlyConfig", 1e-4),
    ],
)
def test_a_quantized_linear_equals_its_dequantized_twin(
    make: Callable[[Any], Callable[[nn.Linear], nn.Linear]], how: Any, precision: float
) -> None:
    torch.manual_seed(0)
    convert = make(how)
    model = classifier("bert", hidden_size=64, intermediate_size=128).float()
    data = batches(2)
    quantized = replaced(model, convert)

    twin = dequantized(model, quantized)
    for statistic in ("norm", "relative", "saliency"):
        expected = iwlora.measure(twin, data, statistic=statistic).values
        measured = iwlora.measure(quantized, data, statistic=statistic).values
        assert measured == pytest.approx(expected, rel=precision)
    plain = iwlora.measure(model, data).values
    assert iwlora.measure(quantized, data).values != pytest.approx(plain, rel=1e-4)
    for site, before in zip(sites(quantized), sites(model), strict=True):
        assert (site.d_in, site.d_out) == (before.d_in, before.d_out)


@pytest.mark.parametrize("evaluated", [False, True])
def test_qlora_is_measured_before_and_in_flight(evaluated: bool) -> None:
    """Evaluation may convert the weights to a form for inference, which has no backward."""
    precision = 1e-2 if evaluated else 1e-4  # that conversion rounds the scales of the blocks
    convert = quantized_with_bitsandbytes(4)
    model = classifier("bert", hidden_size=64, intermediate_size=128).float()
    quantized, data = replaced(model, convert), batches(2)
    expected = iwlora.measure(dequantized(model, quantized), data).values
    targets = [site.name for site in sites(quantized)]
    adapted: Any = get_peft_model(quantized, LoraConfig(r=4, target_modules=targets))  # type: ignore[arg-type]
    if evaluated:
        with torch.no_grad():
            adapted.eval()(**data[0])
    assert iwlora.measure(adapted, data).values == pytest.approx(expected, rel=precision)
    adapted.train()
    flight = InFlight(sites(adapted), lora_pairs(adapted), "exact", tolerance=0)
    for batch in data:
        adapted(**batch).loss.backward()
        flight.step()
    assert flight.result().values == pytest.approx(expected, rel=precision)


@pytest.fixture(scope="module")
def wide_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT of a width that bitsandbytes quantizes on a CPU."""
    from transformers import AutoModel

    folder = save_tiny(tmp_path_factory.mktemp("models") / "wide", "bert")
    config = tiny_config("bert")
    config.hidden_size, config.intermediate_size, config.initializer_range = 64, 128, 0.2
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["lora", "iw-lora", "adalora"])
def test_a_recipe_trains_on_quantized_weights(
    method: str, wide_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    bnb = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    settings = {**recipe(wide_bert, reviews, method, epochs=4).settings(), "budget": "10%"}
    quantized, dense = (
        train(build({**settings, "quantize": how}), tmp_path / str(how)) for how in ("4bit", None)
    )
    assert quantized["rank"] == dense["rank"]  # 10% of the same weights
    assert quantized["metrics"]["accuracy"] > 0.7
    model, _ = load_trained(tmp_path / "4bit")
    assert all(isinstance(site.layer, bnb.nn.Linear4bit) for site in sites(model))
    assert not isinstance(
        model.get_submodule("base_model.model.bert.pooler.dense"), bnb.nn.Linear4bit
    )
    output = predict(tmp_path / "4bit", reviews["validation"], tmp_path / "answers.csv")
    with output.open(encoding="utf-8") as stream:
        answers = [row["prediction"] for row in csv.DictReader(stream)]
    assert answers == [row["prediction"] for row in predictions(tmp_path / "4bit")]
    apart = zip(logits(tmp_path / "4bit"), logits(tmp_path / "None"), strict=True)
    assert max(abs(one - two) for rows in apart for one, two in zip(*rows, strict=True)) > 1e-3
