"""LoRA-GA and CorDA against PEFT's own pipelines and against singular vectors in float64."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import default_data_collator as collate

from iwlora.errors import Diverged, IwloraError
from iwlora.methods import Attached
from iwlora.methods.low_rank.starts.corda import Corda
from iwlora.methods.low_rank.starts.layers import mean_gradients
from iwlora.methods.low_rank.starts.lora_ga import LoraGa
from iwlora.methods.tiny_models import tiny_model
from iwlora.results import layout
from iwlora.sites import sites as find_sites
from iwlora.testing import Case

R, SCALING = 4, 4.0


def rich_model(name: str) -> Any:
    """A tiny model with larger weights, whose gradients have many large singular values."""
    model: Any = tiny_model(name)
    with torch.no_grad():
        for site in find_sites(model):
            site.layer.weight.mul_(20)  # type: ignore[operator]
    return model


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def batches(case: Case, padded: bool = False) -> list[dict[str, Tensor]]:
    made = [collate(case.rows[k : k + 8]) for k in (0, 8, 16)]
    if padded:
        for batch in made:
            batch["attention_mask"][1::2, 5:] = 0
    return made


def started(method: LoraGa | Corda, given: Iterable[dict[str, Tensor]], name: str) -> Attached:
    model = rich_model(name)
    attached = method.attach(model, find_sites(model), seed=7)
    assert attached.initialize_with_loss is not None
    attached.initialize_with_loss(given, model_loss)
    return attached


def pefts(name: str, prepare: Callable[[Any, LoraConfig], None], **options: Any) -> Any:
    model = rich_model(name)
    names = [site.name for site in find_sites(model)]
    head = {"modules_to_save": ["score" if name == "gpt2" else "classifier"]}
    config = LoraConfig(
        r=R,
        lora_alpha=16,
        target_modules=names,
        fan_in_fan_out=name == "gpt2",
        **head,  # type: ignore[arg-type]
        **options,
    )
    prepare(model, config)
    return get_peft_model(model, config)


def layers(model: Any) -> dict[str, Any]:
    modules = model.get_base_model().named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, LoraLayer)}


def factors(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()


needs_lora_ga = pytest.mark.skipif(not hasattr(peft, "LoraGAConfig"), reason="PEFT before 0.20")


@needs_lora_ga
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_lora_ga_starts_where_pefts_own_does(tmp_path: Path) -> None:
    from peft.tuners.lora import LoraGAConfig, preprocess_loraga

    case = Case(LoraGa(), "bert", tmp_path)
    ours = layers(started(LoraGa(rank=R, max_batches=3), batches(case), "bert").model)

    def prepare(model: Any, config: LoraConfig) -> None:
        def step() -> None:
            model.eval()  # PEFT would have dropout on
            for batch in batches(case):
                model_loss(model, batch).backward()

        preprocess_loraga(model, config, step)

    theirs = layers(
        pefts("bert", prepare, init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())
    )
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        for one, other in zip(factors(layer), factors(theirs[name]), strict=True):
            assert one.abs().max() > 0
            # The sign of singular vectors is free, and decided by random projections.
            assert_close(one.abs(), other.abs(), rtol=1e-3, atol=1e-5)


@needs_lora_ga
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_lora_gas_start_is_its_formula_in_float64(name: str, tmp_path: Path) -> None:
    case, model = Case(LoraGa(), name, tmp_path), rich_model(name).double()
    sites = find_sites(model)
    weights = [site.layer.weight for site in sites]
    gradients = [
        torch.autograd.grad(model_loss(model, batch), weights) for batch in batches(case)[:2]
    ]
    method = LoraGa(rank=R, max_batches=2, gamma=9)
    computed = layers(started(method, iter(batches(case)), name).model)
    for site, *both in zip(sites, *gradients, strict=True):
        mean = sum(both) / 2
        U, S, Vh = torch.linalg.svd(mean.mT if name == "gpt2" else mean, full_matrices=False)
        layer = computed[site.name]
        A, B = (factor.double() for factor in factors(layer))
        stored_rows = site.layer.weight.shape[0]  # PEFT's d_out, which is d_in for GPT-2
        scale = stored_rows**0.25 / 3
        for i in range(R):
            assert_close((A[i] @ Vh[i]).abs(), torch.tensor(1.0).double(), rtol=1e-3, atol=0)
            assert_close((B[:, i] @ U[:, R + i]).abs(), scale * S[R + i], rtol=1e-2, atol=1e-6)
        moved = SCALING * B @ A
        left = layer.get_base_layer().weight.double()
        moved = moved.mT if name == "gpt2" else moved
        assert_close(left + moved, site.layer.weight.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "mode"), [("bert", "ipm"), ("gpt2", "kpm")])
def test_corda_starts_where_pefts_own_does(name: str, mode: Any, tmp_path: Path) -> None:
    case = Case(Corda(), name, tmp_path)
    given = batches(case, padded=True)
    ours = layers(started(Corda(rank=R, samples=20, mode=mode), given, name).model)
    rows = [
        {k: v[i : i + 1, :5] if i % 2 and v.dim() > 1 else v[i : i + 1] for k, v in batch.items()}
        for batch in given
        for i in range(8)
    ]

    def prepare(model: Any, config: LoraConfig) -> None:
        preprocess_corda(model, config, lambda: [model(**row) for row in rows[:20]] and None)

    options = {"init_lora_weights": "corda", "corda_config": CordaConfig(corda_method=mode)}
    theirs = layers(pefts(name, prepare, **options))
    for site, layer in ours.items():
        for one, other in zip(factors(layer), factors(theirs[site]), strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-5)
        kept = theirs[site].get_base_layer().weight
        assert_close(layer.get_base_layer().weight, kept, rtol=1e-4, atol=1e-5)


@needs_lora_ga
@pytest.mark.parametrize("method", [LoraGa(rank=R), Corda(rank=R, samples=12)])
def test_it_is_saved_as_plain_lora_for_the_original_backbone(
    method: LoraGa | Corda, tmp_path: Path
) -> None:
    case = Case(method, "bert", tmp_path)
    attached = started(method, batches(case), "bert")
    before = case.logits(attached.model)
    assert_close(before, case.logits(rich_model("bert")), rtol=0, atol=1e-5)
    case.fit(attached, tmp_path / "fit")
    live = case.logits(attached.model)
    assert (live - before).abs().max() > 1e-3
    attached.save(tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 32, True)
    loaded = PeftModel.from_pretrained(rich_model("bert"), str(tmp_path / "adapter"))
    assert_close(case.logits(loaded), live, rtol=1e-4, atol=1e-5)
    by_hand = sum(R * (s.d_in + s.d_out) for s in find_sites(rich_model("bert")))
    assert attached.count() == attached.derived == by_hand
    with torch.no_grad():  # the check fails where the start is not subtracted
        for layer in layers(loaded).values():
            layer.lora_B["default"].weight[:, R:] = 0
    assert (case.logits(loaded) - live).abs().max() > 1e-3


def test_a_resumed_run_goes_on_from_the_stored_start(tmp_path: Path) -> None:
    """Where the start is computed again with another result, as on other hardware."""
    name, method = "gpt2", Corda(rank=R, samples=12)
    case = Case(method, name, tmp_path)
    attached = started(method, batches(case), name)
    case.fit(attached, tmp_path, save_strategy="steps", save_steps=3)
    expected = case.logits(attached.model)
    checkpoint = layout.checkpoint_folder(tmp_path, 3)
    stored = load_file(checkpoint / layout.START)
    assert len(stored) == 2 * len(find_sites(rich_model(name)))

    other = started(method, batches(case)[1:], name)
    different = case.logits(other.model)
    case.fit(other, tmp_path, resume=str(checkpoint))
    assert_close(case.logits(other.model), expected, rtol=1e-4, atol=1e-5)
    assert (different - expected).abs().max() > 1e-3
    for folder, run in (("one", attached), ("two", other)):
        run.save(tmp_path / folder)
    files = [tmp_path / f / "adapter" / "adapter_model.safetensors" for f in ("one", "two")]
    one, two = map(load_file, files)
    for key in one:
        assert_close(one[key], two[key], rtol=1e-4, atol=1e-5)

    save_file({k: v[:1] for k, v in stored.items()}, checkpoint / layout.START)
    with pytest.raises(IwloraError, match=r"start.safetensors is damaged, or is of another model"):
        case.fit(started(method, batches(case), name), tmp_path, resume=str(checkpoint))


def test_activations_that_overflow_are_named(tmp_path: Path) -> None:
    case, model = Case(Corda(), "bert", tmp_path), tiny_model("bert")
    attached = Corda(rank=R).attach(model, find_sites(model), seed=7)
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.fill_(torch.inf)
    assert attached.initialize_with_loss is not None
    with pytest.raises(Diverged, match="the inputs of the matrices have no covariance"):
        attached.initialize_with_loss(batches(case), model_loss)


@needs_lora_ga
def test_what_cannot_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = rich_model("bert")
    sites = find_sites(model)
    LoraGa(rank=8).check(sites)
    with pytest.raises(IwloraError, match=r"lora-ga with method.rank=9: twice it=18 was given"):
        LoraGa(rank=9).check(sites)
    attached = LoraGa(rank=R).attach(model, sites, 0)
    with pytest.raises(IwloraError, match="no training rows"):
        mean_gradients(attached.model, [], model_loss, 3)
    batch = {"input_ids": torch.full((2, 4), 7), "labels": torch.tensor([0, 1])}
    with pytest.raises(Diverged, match=r"gradients of 12 matrices .* NaN or infinite, the first"):
        mean_gradients(attached.model, [batch], lambda m, b: model_loss(m, b) * torch.nan, 3)
    monkeypatch.delattr(peft, "LoraGAConfig")
    with pytest.raises(IwloraError, match=r"lora-ga needs PEFT 0\.20 or later, and .* installed"):
        LoraGa().check_model(model, sites)
