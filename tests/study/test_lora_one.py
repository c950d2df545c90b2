"""LoRA-One's start against NumPy's SVD in float64, and its controls against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification
from transformers import default_data_collator as collate

from iwlora.errors import IwloraError
from iwlora.methods import Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.starts.lora_ga import LoraGa
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites as find_sites
from iwlora.testing import Case
from iwlora.training.load import load
from iwlora.training.recipe import load as load_recipe
from iwlora_study.lora_one import LoraGaControl, LoraOne
from iwlora_study.start_gradients import same_spectrum, shuffled_labels, start_gradients

R, SCALING, GAMMA, SEED = 4, 4.0, 20.0, 3


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def batches(tmp_path: Path) -> list[dict[str, Tensor]]:
    rows = Case(Lora(), "bert", tmp_path).rows
    return [collate(rows[k : k + 8]) for k in (0, 8, 16)]


def started(method: Any, name: str, given: list[dict[str, Tensor]]) -> Attached:
    model = tiny_model(name)
    attached = method.attach(model, find_sites(model), SEED)
    initialize = attached.initializer(model_loss)
    assert initialize is not None
    initialize(iter(given))
    return attached  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_start_is_the_best_step_of_rank_r_against_the_gradient(
    name: str, tmp_path: Path
) -> None:
    given, model = batches(tmp_path), tiny_model(name).double()
    sites = find_sites(model)
    weights = [site.layer.weight for site in sites]
    each = [torch.autograd.grad(model_loss(model, batch), weights) for batch in given[:2]]
    attached = started(LoraOne(rank=R, gamma=GAMMA, max_batches=2), name, given)
    pairs = {pair.name: pair for pair in attached.pairs}
    for site, *both in zip(sites, *each, strict=True):
        mean = sum(both) / 2
        G = (mean.mT if name == "gpt2" else mean).numpy()
        U, S, Vt = np.linalg.svd(G)
        best = (U[:, :R] * S[:R]) @ Vt[:R]
        pair = pairs[site.name]
        A, B = (factor.detach().double() for factor in (pair.A, pair.B))
        expected = torch.from_numpy(-(SCALING / GAMMA) * best / S[0])
        assert_close(pair.scaling * B @ A, expected, rtol=1e-3, atol=1e-5)
        sizes = torch.diag(torch.from_numpy(S[:R] / (GAMMA * S[0])))
        assert_close(A @ A.mT, sizes, rtol=1e-3, atol=1e-6)
        assert_close(B.mT @ B, sizes, rtol=1e-3, atol=1e-6)
    for site, before in zip(find_sites(attached.model.unload()), sites, strict=True):
        assert_close(site.layer.weight.double(), before.layer.weight)  # nothing is removed


def test_a_small_start_lowers_the_loss_and_the_opposite_sign_raises_it(tmp_path: Path) -> None:
    given = batches(tmp_path)
    attached = started(LoraOne(rank=R, gamma=2000.0), "bert", given)

    def loss() -> float:
        attached.model.eval()
        with torch.no_grad():
            return sum(float(model_loss(attached.model, batch)) for batch in given) / len(given)

    start = loss()
    with torch.no_grad():
        for pair in attached.pairs:
            pair.B.neg_()
    opposite = loss()
    with torch.no_grad():
        for pair in attached.pairs:
            pair.B.zero_()
    assert start < loss() < opposite


def test_a_matrix_without_a_gradient_starts_as_in_lora(tmp_path: Path) -> None:
    model, method = tiny_model("bert"), LoraOne(rank=R)
    sites = find_sites(model)
    attached = method.attach(model, sites, SEED)
    plain = Lora(rank=R).attach(tiny_model("bert"), sites, SEED)
    initialize = attached.initializer(lambda m, b: model_loss(m, b) * 0.0)
    assert initialize is not None
    initialize(batches(tmp_path))
    for pair, lora in zip(attached.pairs, plain.pairs, strict=True):
        assert torch.equal(pair.A, lora.A)
        assert not pair.B.any()


def test_noise_has_the_singular_values_and_other_directions() -> None:
    random = torch.Generator().manual_seed(0)
    G = torch.randn(48, 32, generator=random) @ torch.diag(torch.arange(32.0))
    noise = same_spectrum(G.double(), random)
    expected = np.linalg.svd(G.double().numpy(), compute_uv=False)
    found = np.linalg.svd(noise.numpy(), compute_uv=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    cosine = float((noise * G).sum() / G.norm() ** 2)
    assert abs(cosine) < 5 / (48 * 32) ** 0.5  # of random directions: ~ N(0, 1 / (d_out d_in))


def test_shuffled_labels_keep_everything_but_the_pairing(tmp_path: Path) -> None:
    given, random = batches(tmp_path), torch.Generator().manual_seed(0)
    shuffled = list(shuffled_labels(given, random))
    for before, after in zip(given, shuffled, strict=True):
        assert torch.equal(before["input_ids"], after["input_ids"])
        assert torch.equal(before["labels"].sort().values, after["labels"].sort().values)
    assert any(
        not torch.equal(b["labels"], a["labels"]) for b, a in zip(given, shuffled, strict=True)
    )


def test_the_controls_follow_another_gradient_than_the_task(tmp_path: Path) -> None:
    given, model = batches(tmp_path), tiny_model("bert")
    lora = Lora(rank=R).attach(model, find_sites(model), SEED).model
    G = start_gradients("measured", lora, SEED, given, model_loss, 16)
    other = start_gradients("shuffled-labels", lora, SEED, given, model_loss, 16)
    assert all(not torch.allclose(G[name], other[name]) for name in G if G[name].any())
    for method in (LoraOne, LoraGaControl):
        starts = {
            kind: started(method(rank=R, gradient=kind), "bert", given)
            for kind in ("measured", "shuffled-labels", "noise")
        }
        A = {kind: _first_A(attached) for kind, attached in starts.items()}
        assert not torch.allclose(A["measured"], A["shuffled-labels"])
        assert not torch.allclose(A["measured"], A["noise"])
        assert not torch.allclose(A["shuffled-labels"], A["noise"])
    assert torch.equal(A["measured"], _first_A(started(LoraGa(rank=R), "bert", given)))


def other_recipe(model: Path, tmp_path: Path) -> str:
    path = tmp_path / "other.yaml"
    path.write_text(
        f"{{model: {model}, task: {{name: builtin/entailment, max_train: 24}}, method: lora, "
        "train: {batch_size: 8, max_length: 16, precision: fp32}}"
    )
    return str(path)


def test_the_gradient_of_another_task_is_that_of_its_recipe(
    tiny_bert: Path, tmp_path: Path
) -> None:
    recipe = other_recipe(tiny_bert, tmp_path)
    other = load(load_recipe(recipe, [f"train.seed={SEED}"]))
    other.model.eval()
    weights = [site.layer.weight for site in other.sites]
    first = list(other.training_batches())[:2]
    each = [torch.autograd.grad(model_loss(other.model, batch), weights) for batch in first]
    expected = {site.name: sum(both) / 2 for site, *both in zip(other.sites, *each, strict=True)}

    def attached(method: Lora) -> Attached:
        model = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
        return method.attach(model, find_sites(model), SEED)

    given = batches(tmp_path)
    found = start_gradients(
        "another-task", attached(Lora(rank=R)).model, SEED, given, model_loss, 2, recipe
    )
    assert found.keys() == expected.keys()
    for name, G in expected.items():
        assert_close(found[name], G, rtol=1e-4, atol=1e-7)
    method = LoraOne(
        rank=R, gamma=GAMMA, max_batches=2, gradient="another-task", other_recipe=recipe
    )
    started = attached(method)
    initialize = started.initializer(model_loss)
    assert initialize is not None
    initialize(given)
    for pair in started.pairs:
        U, S, Vt = np.linalg.svd(found[pair.name].double().numpy())
        best = -(SCALING / GAMMA) * (U[:, :R] * S[:R]) @ Vt[:R] / S[0]
        assert_close(
            (pair.scaling * pair.B @ pair.A).detach().double(),
            torch.from_numpy(best),
            rtol=1e-3,
            atol=1e-5,
        )


def test_a_recipe_of_another_model_is_refused(tiny_deberta: Path, tmp_path: Path) -> None:
    model = tiny_model("bert")
    lora = Lora(rank=R).attach(model, find_sites(model), SEED).model
    recipe = other_recipe(tiny_deberta, tmp_path)
    with pytest.raises(IwloraError, match=r"has not \d+ of the \d+ matrices of this model"):
        start_gradients("another-task", lora, SEED, [], model_loss, 2, recipe)


@pytest.mark.parametrize("method", [LoraOne, LoraGaControl])
def test_another_task_and_its_recipe_are_given_together(method: Any) -> None:
    with pytest.raises(ValueError, match="gradient=another-task needs other_recipe"):
        method(gradient="another-task")
    with pytest.raises(ValueError, match="gradient=noise does not use it"):
        method(gradient="noise", other_recipe="r.yaml")


def _first_A(attached: Attached) -> Tensor:
    name = next(name for name in attached.adapter if "lora_A" in name)
    return attached.model.get_parameter(name).detach()
