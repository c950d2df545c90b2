"""The rules: what they answer without rows, and with rows that decide."""

from __future__ import annotations

from typing import Any

import pytest

from iwlora.advice.decision import Decision, decide
from iwlora.advice.evidence import Evidence, Table, read_evidence
from iwlora.advice.layouts import (
    by_importance,
    everywhere,
    least_important,
    spread_thin,
    upper,
)
from iwlora.advice.measured import Measured
from iwlora.advice.rules import Rules
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity

pytestmark = pytest.mark.quick

SETTINGS = {
    "model": "builtin/minilm",
    "task": {"name": "builtin/sentiment"},
    "method": {"name": "lora", "rank": 8, "lora_alpha": 16},
    "train": {"lr": 0.001},
}
KINDS = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")


def measurement(blocks: int = 6) -> Sensitivity:
    """The matrices of MiniLM: 331,776 parameters at rank 8. Later blocks matter more."""
    sites = tuple(
        SiteSensitivity(
            f"encoder.layer.{depth}.{kind}",
            kind,
            depth,
            d_in=1536 if kind == "ffn_down" else 384,
            d_out=1536 if kind == "ffn_up" else 384,
            value=1.0 + depth + KINDS.index(kind) / 10,
            stderr=0.1,
        )
        for depth in range(blocks)
        for kind in KINDS
    )
    return Sensitivity(sites, "exact", 8, 0.01, True, 1.0)


def row(choice: str, baseline: str, verdict: str, **changes: Any) -> Evidence:
    interval = {"better": (1.0, 0.5, 1.5), "within": (0.0, -0.5, 0.5), "open": (1.0, -3.0, 5.0)}
    difference, low, high = interval[verdict]
    fields: dict[str, Any] = {
        "choice": choice,
        "baseline": baseline,
        "task": "t",
        "kind": "classification",
        "model": "m",
        "training_rows": 1000,
        "flipped_labels": 0.0,
        "steps": 100,
        "adapter_parameters": 1,
        "share_of_rank_8": 1.0,
        "difference": difference,
        "low": low,
        "high": high,
        "draws": 10,
        "verdict": verdict,
        "source": "a test",
    }
    return Evidence.model_validate(fields | changes)


def facts(kind: str = "classification", training_rows: int = 2000) -> Measured:
    return Measured(measurement(), kind, training_rows, backbone=22_713_216)


def rules_of(table: Table, measured: Measured | None = None) -> Rules:
    known = measured or facts()
    return Rules(table, known, "builtin/minilm", everywhere(known.sensitivity, "all"))


def decision(
    rows: Table | list[Evidence],
    params: str | None = None,
    kind: str = "classification",
    given: tuple[str, ...] = (),
    training_rows: int = 2000,
    **settings: Any,
) -> Decision:
    table = rows if isinstance(rows, Table) else Table(rows)
    measured = facts(kind, training_rows)
    return decide(SETTINGS | settings, given, rules_of(table, measured), params, measured)


def text(found: Decision) -> str:
    return "\n".join(line for reason in found.reasons for line in reason.lines())


def test_the_layouts_of_minilm() -> None:
    whole = everywhere(measurement(), "all")
    parameters = {layout.name: layout.parameters(1) for layout in spread_thin(whole)}
    assert parameters == {
        "everywhere": 41_472, "query-value": 9_216, "value": 4_608, "one-matrix": 768,
    }  # fmt: skip
    third, block = upper(whole), upper(whole, last_block=True)
    assert third is not None
    assert block is not None
    assert {site.depth for site in third.sites} == {4, 5}
    assert third.targets == r"encoder\.layer\.4\..*|encoder\.layer\.5\..*"
    assert (len(block.sites), block.label(8)) == (6, "last-block")
    assert upper(everywhere(measurement(1), "all"), last_block=True) is None
    two_blocks = everywhere(measurement(2), "all")
    assert upper(two_blocks) is None
    assert (last := upper(two_blocks, last_block=True)) is not None
    assert last.name == "last-block"
    worst = [site.name for site in least_important(whole.sites)]
    assert worst[-1] == "encoder.layer.0.ffn_up"  # large, and of little importance
    assert len(worst) == 6


def test_without_a_row_everything_stays_and_nothing_is_claimed() -> None:
    found = decision([])
    assert (found.sized.label, found.sized.parameters) == ("rank-8-everywhere", 331_776)
    assert found.settings["method"] == {"name": "lora", "rank": 8, "lora_alpha": 16}
    assert found.settings["train"] == {"lr": 0.001}
    assert text(found).count("not measured for this kind (classification)") == 6
    other = decision(read_evidence(), kind="regression")
    assert "not measured for this kind (regression)" in text(other)
    assert "points" not in text(other)


def test_the_shipped_table_does_not_choose_by_importance() -> None:
    found = decision(read_evidence())
    assert "chooses neither matrices nor ranks: no row shows" in text(found)
    assert "-0.25 points [-2.12, +1.63], open (32 draws" in text(found)
    left_out = "without-unimportant-sites against without-random-sites: -0.10 points"
    assert left_out in "\n".join(rules_of(read_evidence()).leaving_out().lines())


def test_the_shipped_table_lowers_the_rank_where_it_was_measured() -> None:
    found = decision(read_evidence())
    assert found.sized.label == "rank-1-everywhere"
    assert found.settings["train"]["lr"] == 0.003
    assert "rank 1 at all matrices is as good with so many training rows" in text(found)
    quoted = "rank-1-everywhere against rank-8-everywhere: +0.09 points [-0.21, +0.39], within"
    assert quoted in text(found)
    more_rows = decision(read_evidence(), training_rows=4001)
    assert more_rows.sized.label == "rank-8-everywhere"
    assert quoted in text(more_rows)


@pytest.mark.parametrize(
    ("params", "label", "rank", "lr"),
    [
        ("0.5%", "rank-2-everywhere", 2, 0.003),
        ("45K", "rank-1-everywhere", 1, 0.003),
        ("41471", "query-value", 4, 0.003),
        ("5000", "value", 1, 0.001),
        ("768", "one-matrix", 1, 0.001),
        ("10", "one-matrix", 1, 0.001),
        ("5%", "rank-8-everywhere", 8, 0.001),
    ],
)
def test_a_limit_of_parameters_spreads_thin(params: str, label: str, rank: int, lr: float) -> None:
    found = decision(read_evidence(), params=params, training_rows=10_000)
    assert (found.sized.label, found.sized.rank) == (label, rank)
    assert found.settings["method"]["lora_alpha"] == 2 * rank
    assert found.settings["train"]["lr"] == lr
    assert bool(found.remarks) == (params in ("10", "5%"))
    if params == "10":
        assert "the smallest adapter here has 768 parameters, rank 1 at the matrix" in str(
            found.remarks
        )


def test_rows_with_a_verdict_decide() -> None:
    enough = row("rank-1-everywhere", "rank-8-everywhere", "within", model="builtin/minilm")
    assert decision([enough]).sized.rank == 1
    assert decision([enough], training_rows=2001).sized.rank == 8
    of_another_model = row("rank-1-everywhere", "rank-8-everywhere", "within")
    assert decision([of_another_model]).sized.rank == 8
    given = decision([enough], given=("method.rank",), method={"name": "lora", "rank": 4})
    assert (given.sized.rank, given.settings["method"]["lora_alpha"]) == (4, 8)
    assert given.reasons[0].text == "the rank as given"
    unsure = row("rank-1-everywhere", "rank-8-everywhere", "open", model="builtin/minilm")
    assert decision([unsure]).sized.rank == 8
    few = row("query-value", "rank-1-everywhere", "better", share_of_rank_8=0.125)
    assert decision([few], params="45K").sized.label == "query-value"
    assert decision([few], params="1%").sized.label == "rank-5-everywhere"  # another size


@pytest.mark.parametrize(
    ("regime", "words", "few_rows_follow"),
    [
        ({"flipped_labels": 0.4}, "40% flipped labels", False),
        ({"training_rows": 250}, "250 training rows", True),
        ({"training_rows": 250, "flipped_labels": 0.2}, "20% flipped labels, 250 training", False),
        ({"steps": 50}, "50 steps", False),
    ],
)
def test_other_regimes_are_shown_and_not_followed(
    regime: dict[str, Any], words: str, few_rows_follow: bool
) -> None:
    this = {"model": "builtin/minilm"}
    small = row("rank-1-everywhere", "rank-8-everywhere", "within", **this, **regime)
    method = row("dora", "lora", "better", **regime)
    found = decision([small, method])
    assert (found.sized.rank, found.settings["method"]["name"]) == (8, "lora")
    assert f"measured with {words}" in text(found)
    few = decision([small, method], training_rows=300)
    assert (few.sized.rank == 1) == few_rows_follow
    alone = decision([method], training_rows=300)
    assert (alone.settings["method"]["name"] == "dora") == few_rows_follow
    plain = row("rank-1-everywhere", "rank-8-everywhere", "open", draws=2)
    both = Table([small, plain])
    assert decision(both).sized.rank == 8
    assert (decision(both, training_rows=300).sized.rank == 1) == few_rows_follow


def test_importance_must_be_better_than_its_control() -> None:
    ranks = row("lora-importance-ranks", "lora", "better")
    control = row("lora-importance-ranks", "lora-random-ranks", "better")
    tied = row("lora-importance-ranks", "lora-random-ranks", "open")
    assert decision([ranks]).settings["method"]["name"] == "lora"
    assert decision([ranks, tied]).settings["method"]["name"] == "lora"
    found = decision([ranks, control])
    assert found.settings["method"]["name"] == "lora-importance-ranks"
    assert "better than its control: lora-importance-ranks" in text(found)
    assert decision([ranks, control], given=("method.name",)).settings["method"]["name"] == "lora"

    share = {"share_of_rank_8": 0.125}
    top = row("important-sites", "rank-1-everywhere", "better", **share)
    by_chance = row("important-sites", "random-sites", "better", **share)
    assert decision([top], params="45K").sized.label == "rank-1-everywhere"
    chosen = decision([top, by_chance], params="45K").sized
    assert chosen.label == "important-sites"
    assert chosen.parameters <= 45_000
    ordered = by_importance(measurement().sites)
    assert {*chosen.layout.sites} == {*ordered[: len(chosen.layout.sites)]}


def test_plain_methods_need_no_control() -> None:
    found = decision([row("dora", "lora", "better"), row("lora+", "lora", "open")])
    assert found.settings["method"]["name"] == "dora"
    assert decision([row("full", "lora", "better")]).settings["method"]["name"] == "lora"


def test_a_method_that_is_better_at_another_size_is_not_followed() -> None:
    table = [row("dora", "lora", "better", share_of_rank_8=0.125)]
    found = decision(table)
    assert found.settings["method"]["name"] == "lora"
    assert "other methods: measured in other regimes or sizes only" in text(found)
    assert decision(table, params="45K").settings["method"]["name"] == "dora"
