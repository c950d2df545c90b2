"""Few sites: which ones each choice takes, and that all choices have the same parameters."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iwlora.errors import IwloraError
from iwlora.methods.tiny_models import tiny_model
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.testing import CHECKS, Case
from iwlora_study.few_sites import FewSites, fill

KINDS = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


def encoder(blocks: int = 6, width: int = 384) -> list[Site]:
    """The sites of an encoder with the shapes of MiniLM."""
    sizes = {"ffn_up": (width, 4 * width), "ffn_down": (4 * width, width)}
    return [
        Site(f"{n}.{kind}", None, kind, *sizes.get(kind, (width, width)), n, str(n))  # type: ignore[arg-type]
        for n in range(blocks)
        for kind in KINDS
    ]


def measured(sites: list[Site], excluded: tuple[str, ...] = ()) -> Sensitivity:
    """Sites of one shape are the more important, the later they are."""
    values = tuple(
        SiteSensitivity(s.name, s.kind, s.depth, s.d_in, s.d_out, 1.0 + place, None)
        for place, s in enumerate(sites)
    )
    return Sensitivity(values, "exact", 4, None, True, 1.0, excluded=excluded)


@pytest.mark.parametrize("share", ["1/8", "1/24", "1/72", "0.05"])
def test_every_choice_has_the_parameters_of_the_share(share: str) -> None:
    sites = encoder()
    uniform = 8 * sum(site.d_in + site.d_out for site in sites)
    budget = {"1/8": uniform // 8, "1/24": uniform // 24, "1/72": uniform // 72}.get(
        share,
        16512,  # 43 units of 384, the largest sum of 2s and 5s up to 331,776 / 20 = 43.2 units
    )
    for choose in ("top", "bottom", "random", "last"):
        method = FewSites(share=share, choose=choose)
        chosen = method.chosen(sites, seed=1, sensitivity=measured(sites))
        assert sum(site.d_in + site.d_out for site in chosen) == budget
        assert method.parameters(None, sites) == budget  # type: ignore[arg-type]
        method.check(sites)


def names(choose: Any, share: str, seed: int = 0, **options: Any) -> list[str]:
    sites = encoder()
    method = FewSites(choose=choose, share=share, **options)
    return [site.name for site in method.chosen(sites, seed, measured(sites))]


def test_the_order_is_what_the_choice_says() -> None:
    # s² / (d_in + d_out) with s = 1, 2, ..., 36: the last attention matrices, in that order; the
    # feed-forward matrices cost 2.5 times as much.
    assert names("top", "1/72") == [
        *("5.attention_output", "5.value", "5.key", "5.query"),
        *("4.attention_output", "4.value"),
    ]
    assert names("bottom", "1/72")[:4] == ["0.query", "0.key", "0.value", "0.attention_output"]
    assert names("last", "1/24")[:6] == [f"5.{kind}" for kind in reversed(KINDS)]
    assert names("query-value", "1/72") == [
        f"{n}.{k}" for n in (5, 3, 1) for k in ("query", "value")
    ]
    assert names("query-value", "1/144")[:2] == ["5.query", "5.value"]
    assert len(names("query-value", "1/24")) == 12
    assert len(names("query-value", "1/8", rank=4)) == 12
    draws = {tuple(names("random", "1/24", seed)) for seed in range(20)}
    assert len(draws) == 20
    assert names("random", "1/24", 3) == names("random", "1/24", 3)


def test_sites_without_effect_are_taken_last() -> None:
    sites = encoder()
    without = tuple(site.name for site in sites if site.depth == 5)
    for choose in ("top", "bottom"):
        chosen = FewSites(choose=choose, share="1/24").chosen(sites, 0, measured(sites, without))
        assert not {site.name for site in chosen} & set(without)


def test_a_file_of_another_task_chooses(tmp_path: Path) -> None:
    sites, file = encoder(), tmp_path / "importance.json"
    measured(sites[::-1]).save(file)  # the first matrices are the most important ones
    method = FewSites(choose="top", share="1/72", importance=str(file))
    assert method.calibration() is None
    assert FewSites(choose="top").calibration() is not None
    assert [site.name for site in method.chosen(sites, 0)][:2] == ["0.query", "0.key"]
    measured(sites[1:]).save(file)
    with pytest.raises(IwloraError, match=r"has not 1 of the 36 sites: 0\.query"):
        method.check(sites)
    file.write_text("{}", "utf-8")
    with pytest.raises(IwloraError, match="is not a sensitivity file"):
        method.check(sites)


def test_what_is_not_accepted() -> None:
    for share in ("0", "2", "a", "1/0", "-1/8", "nan"):
        with pytest.raises(ValidationError, match="a fraction above 0 and at most 1"):
            FewSites(share=share)
    with pytest.raises(ValidationError, match="take choose=top or choose=bottom"):
        FewSites(choose="last", importance="importance.json")
    with pytest.raises(IwloraError, match="share=1/1000 is 331 parameters, and rank 1 needs at"):
        FewSites(share="1/1000").check(encoder())
    ffn = [site for site in encoder() if "ffn" in site.kind]
    with pytest.raises(IwloraError, match="none of the 12 sites is a query or a value"):
        FewSites(choose="query-value").check(ffn)
    with pytest.raises(IwloraError, match="needs the measured sensitivity"):
        FewSites().chosen(encoder(), 0)


def test_filling_against_all_subsets() -> None:
    for costs in ((3, 4, 6, 2, 7), (6, 10, 15, 9), (2, 2, 5, 5, 2), (4, 6, 8)):
        cost = {str(n): value for n, value in enumerate(costs)}
        subsets = [s for k in range(len(cost) + 1) for s in combinations(cost, k)]
        for budget in range(sum(costs) + 2):
            sums = {subset: sum(cost[name] for name in subset) for subset in subsets}
            largest = max(value for value in sums.values() if value <= budget)
            # Of the subsets with this sum, the one that has the first names.
            best = max(
                (s for s in subsets if sums[s] == largest),
                key=lambda subset: [name in subset for name in cost],
            )
            assert fill(cost, budget) == list(best)


@pytest.mark.parametrize("choose", ["top", "random", "query-value"])
def test_it_starts_as_the_frozen_model_and_reports_its_ranks(choose: Any, tmp_path: Path) -> None:
    case = Case(
        FewSites(choose=choose, share="1/32"), "gpt2" if choose == "top" else "bert", tmp_path
    )
    attached, sites = case.attach(), find_sites(tiny_model(case.architecture))
    assert attached.ranks is not None
    ranks = attached.ranks()
    assert list(ranks) == [site.name for site in sites]
    assert {pair.name for pair in attached.pairs} == {name for name, rank in ranks.items() if rank}
    assert attached.count() == case.method.parameters(tiny_model(case.architecture), sites)


def test_conformance(tmp_path: Path) -> None:
    case = Case(FewSites(choose="top", share="1/16", rank=2, max_batches=2), "bert", tmp_path)
    for check in CHECKS:
        check(case)
