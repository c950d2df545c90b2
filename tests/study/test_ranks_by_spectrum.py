"""Ranks by the whitened spectrum against the definition in float64: slow loops and autograd."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import default_data_collator as collate

from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.low_rank.starts.layers import lora_layers
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.testing import CHECKS, Case, packed_equals_alone
from iwlora.testing.checks import two_processes_equal_one
from iwlora.training.run import train
from iwlora_study.ranks_by_spectrum import RanksBySpectrum, measure_effective_ranks
from iwlora_study.spectrum import effective_rank, whitened_singular_values
from runs import recipe

RIDGE = 1e-3


class RankOne(RanksBySpectrum):
    """Mean rank 1, where some matrices have rank 0; the suite does not set its size."""

    size_knob: ClassVar[str | None] = None
    rank: int = 1
    lora_alpha: float = 4.0
    max_batches: int = 2
    allocation: Any = "diminishing"


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def padded_batches(case: Case) -> list[dict[str, Tensor]]:
    """Two batches, of which some rows are shorter than others."""
    batches = [collate(case.rows[k : k + 6]) for k in (0, 6)]
    for batch in batches:
        for row, length in enumerate((8, 5, 8, 3, 7, 8)):
            batch["attention_mask"][row, length:] = 0
            batch["input_ids"][row, length:] = 0
    return batches


def gradients_and_inputs(
    name: str, batches: list[dict[str, Tensor]]
) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """{site: (G, the inputs x of its tokens)} by autograd on a plain model, one row at a time.

    A row is cut to its tokens, so there is no padding to leave out.
    """
    model = tiny_model(name).double()
    sites, inputs = find_sites(model), defaultdict[str, list[Tensor]](list)
    weights = [site.layer.weight for site in sites]
    total = [torch.zeros_like(weight) for weight in weights]
    for site in sites:
        site.layer.register_forward_hook(
            lambda _layer, args, _output, name=site.name: inputs[name].extend(
                x.detach() for x in args[0].flatten(0, -2)
            )
        )
    for batch in batches:
        for row in range(len(batch["labels"])):
            length = int(batch["attention_mask"][row].sum())
            one = {
                key: batch[key][row : row + 1, :length] for key in ("input_ids", "attention_mask")
            }
            loss = model_loss(model, one | {"labels": batch["labels"][row : row + 1]})
            for so_far, gradient in zip(total, torch.autograd.grad(loss, weights), strict=True):
                so_far += gradient / (len(batch["labels"]) * len(batches))
    of_site = zip(sites, total, strict=True)
    return {s.name: (G.mT if name == "gpt2" else G, inputs[s.name]) for s, G in of_site}


def by_definition(G: Tensor, tokens: list[Tensor], power: float = 0.5) -> float:
    """exp(−Σ p log p) of G (C + λI)^(−power), with C by a loop and its power by its axes."""
    d_in = G.shape[1]
    C = torch.zeros(d_in, d_in, dtype=torch.float64)
    for x in tokens:
        C += torch.outer(x, x) / len(tokens)
    values, axes = torch.linalg.eigh(C + RIDGE * C.trace() / d_in * torch.eye(d_in))
    M = G @ sum(torch.outer(v, v) / e**power for e, v in zip(values, axes.mT, strict=True))
    energy = torch.linalg.eigvalsh(M @ M.mT).clamp_min(0).tolist()
    p = [value / sum(energy) for value in energy]
    return math.exp(-sum(share * math.log(share) for share in p if share > 0))


def attached(name: str, method: RanksBySpectrum, case: Case, seed: int = 7) -> Attached:
    model = tiny_model(name)
    result = method.attach(model, find_sites(model), seed)
    assert result.initialize_with_loss is not None
    result.initialize_with_loss(iter(padded_batches(case)), model_loss)
    return result


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_effective_ranks_are_their_definition(name: str, tmp_path: Path) -> None:
    case, model = Case(Lora(), name, tmp_path), tiny_model(name).double()
    # BERT's last block reads the first token only, so its gradients come from fewer tokens.
    sites = [site for site in find_sites(model) if site.depth == 0]
    peft_model = Lora(rank=2).attach(model, sites, seed=0).model
    batches = padded_batches(case)
    measured = measure_effective_ranks(peft_model, batches, model_loss, 2, RIDGE, "whitened")
    unwhitened = measure_effective_ranks(peft_model, batches, model_loss, 2, RIDGE, "gradient")
    of_inputs = measure_effective_ranks(peft_model, batches, model_loss, 2, RIDGE, "inputs")
    definition = gradients_and_inputs(name, batches)
    whitened = {site.name: by_definition(*definition[site.name]) for site in sites}
    assert measured == pytest.approx(whitened, rel=1e-6)
    plain = {site: by_definition(*definition[site], power=0.0) for site in whitened}
    assert unwhitened == pytest.approx(plain, rel=1e-6)
    for site, effective in of_inputs.items():
        X = torch.stack(definition[site][1])
        assert effective == pytest.approx(effective_rank(torch.linalg.svdvals(X)), rel=1e-6)
    # Another whitening gives other numbers, so the first assertion can fail.
    for power in (0.0, 1.0):
        wrong = {site: by_definition(*definition[site], power=power) for site in whitened}
        assert all(wrong[site] != pytest.approx(whitened[site], rel=1e-4) for site in whitened)


def test_only_tokens_that_the_loss_depends_on_count(tmp_path: Path) -> None:
    case, model = Case(Lora(), "bert", tmp_path), tiny_model("bert").double()
    (site,) = (s for s in find_sites(model) if s.depth == 1 and s.kind == "ffn_up")
    batches = padded_batches(case)
    G, tokens = gradients_and_inputs("bert", batches)[site.name]
    lengths = [int(length) for batch in batches for length in batch["attention_mask"].sum(1)]
    first = [tokens[sum(lengths[:row])] for row in range(len(lengths))]  # all that the head reads
    peft_model = Lora(rank=2).attach(model, [site], seed=0).model
    measured = measure_effective_ranks(peft_model, batches, model_loss, 2, RIDGE, "whitened")
    assert measured[site.name] == pytest.approx(by_definition(G, first), rel=1e-6)
    assert measured[site.name] != pytest.approx(by_definition(G, tokens), rel=1e-2)


def test_whitened_spectrum_of_known_singular_values() -> None:
    torch.manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    wanted = torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64)
    spread = torch.tensor([100.0, 1.0, 0.01, 4.0], dtype=torch.float64)
    lam = RIDGE * spread.mean()
    root = V @ torch.diag((spread + lam).sqrt()) @ V.mT
    G = U @ torch.diag(wanted) @ V[:, :3].mT @ root
    C = V @ torch.diag(spread) @ V.mT
    found = whitened_singular_values(G, C, RIDGE)
    torch.testing.assert_close(found[:3], wanted, rtol=1e-9, atol=0)
    assert found[3] < 1e-9
    p = [9 / 13.25, 4 / 13.25, 0.25 / 13.25]
    assert effective_rank(found) == pytest.approx(math.prod(x**-x for x in p))
    assert effective_rank(torch.linalg.svdvals(G)) < 1.5  # the inputs hide two directions
    assert effective_rank(torch.zeros(3)) == 0.0
    assert effective_rank(torch.full((6,), 1e-30)) == pytest.approx(6)


def some_sites() -> list[Site]:
    layer = torch.nn.Linear(1, 1)
    shapes = [(48, 48)] * 4 + [(48, 192), (192, 48)] * 2
    return [Site(f"{n}", layer, "w", d_in, d_out, n) for n, (d_in, d_out) in enumerate(shapes)]


E_RANKS = {str(n): value for n, value in enumerate([9.0, 4.0, 2.0, 1.0, 12.0, 6.0, 3.0, 5.0])}


def parameters(ranks: dict[str, int]) -> int:
    return sum(site.parameters_per_rank * ranks[site.name] for site in some_sites())


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("assignment", ["measured", "permuted", "inverted"])
@pytest.mark.parametrize("allocation", ["proportional", "diminishing"])
def test_parameters_are_exactly_those_of_the_uniform_rank(
    rank: int, assignment: Any, allocation: Any
) -> None:
    method = RanksBySpectrum(rank=rank, assignment=assignment, allocation=allocation)
    ranks = method.rank_pattern(some_sites(), E_RANKS, seed=3)
    assert parameters(ranks) == parameters(dict.fromkeys(E_RANKS, rank))
    assert min(ranks.values()) >= (rank > 1)
    assert max(ranks.values()) <= 4 * rank
    assert len(set(ranks.values())) > 1


def test_permutation_stays_within_shapes_and_inversion_reverses_the_order() -> None:
    sites = some_sites()
    measured = RanksBySpectrum(rank=8).rank_pattern(sites, E_RANKS, seed=0)
    assert measured["0"] > measured["1"] > measured["2"] > measured["3"]
    permuted = [
        RanksBySpectrum(rank=8, assignment="permuted").rank_pattern(sites, E_RANKS, seed=seed)
        for seed in range(20)
    ]
    for start, stop, step in ((0, 4, 1), (4, 8, 2), (5, 8, 2)):
        same = [str(n) for n in range(start, stop, step)]
        before = sorted(measured[name] for name in same)
        assert all(sorted(ranks[name] for name in same) == before for ranks in permuted)
    assert {ranks["0"] for ranks in permuted} == {measured[str(n)] for n in range(4)}
    assert len({tuple(ranks.items()) for ranks in permuted}) > 10
    inverted = RanksBySpectrum(rank=8, assignment="inverted").rank_pattern(sites, E_RANKS, seed=0)
    by_value = sorted(E_RANKS, key=E_RANKS.__getitem__)
    order = [inverted[name] for name in by_value]
    assert order == sorted(order, reverse=True)
    with pytest.raises(IwloraError, match="every gradient is 0"):
        RanksBySpectrum().rank_pattern(sites, dict.fromkeys(E_RANKS, 0.0), seed=0)


def test_it_starts_as_plain_lora_of_these_ranks_and_the_same_scaling(tmp_path: Path) -> None:
    case = Case(Lora(), "bert", tmp_path)
    plain = case.logits(tiny_model("bert"))
    for method in (RanksBySpectrum(rank=2, lora_alpha=6), RankOne()):
        result = attached("bert", method, case)
        assert result.ranks is not None
        ranks = result.ranks()
        assert torch.equal(case.logits(result.model), plain)
        assert {pair.scaling for pair in result.pairs} == {method.lora_alpha / method.rank}
        assert result.count() == method.parameters(result.model, find_sites(tiny_model("bert")))
        assert (0 in ranks.values()) == (method.rank == 1)
        assert len(set(ranks.values())) > 1
        assert attached("bert", method, case).ranks() == ranks  # type: ignore[misc]


def test_a_run_reports_the_ranks_of_all_matrices(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, RankOne.name, RankOne)
    measured = "iwlora_study.ranks_by_spectrum.measure_effective_ranks"
    monkeypatch.setattr(
        measured, lambda model, *_: {name: n + 1.0 for n, name in enumerate(lora_layers(model))}
    )
    result = train(recipe(tiny_bert, reviews, RankOne.name, epochs=1), tmp_path)
    sites = find_sites(tiny_model("bert"))
    ranks = {site["name"]: site["rank"] for site in result["ranks"]}
    assert list(ranks) == [site.name for site in sites]
    assert 0 in ranks.values()
    assert result["adapter_parameters"] == RankOne().parameters(torch.nn.Identity(), sites)
    # Matrices of rank 0 have no adapter that training could have left without a gradient.
    assert not [note for note in result["notes"] if "gradient" in note]


def test_conformance(tmp_path: Path) -> None:
    case = Case(RanksBySpectrum(max_batches=2), "bert", tmp_path)
    for check in CHECKS:
        check(case)


@pytest.mark.slow
def test_conformance_with_matrices_that_are_not_adapted(tmp_path: Path) -> None:
    case = Case(RankOne(), "bert", tmp_path)
    for check in (*CHECKS, two_processes_equal_one):
        check(case)


@pytest.mark.slow
def test_in_a_pack_it_ends_as_alone(tmp_path: Path) -> None:
    packed_equals_alone(Case(RankOne(), "bert", tmp_path))
