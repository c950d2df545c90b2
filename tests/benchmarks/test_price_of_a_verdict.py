"""The price of a verdict: what is recorded and planted, and the promises on recorded scores."""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

import iwlora
from iwlora.compare.statistics import sequential
from iwlora.methods import METHODS
from iwlora.results.comparison.record import StoppingRule
from tiny_study import WORDS

RULE = StoppingRule(difference=1.0)
LR = 1e-3
GRID = (1e-4, LR, 1e-2)


@pytest.fixture
def parts(script: Any) -> SimpleNamespace:
    """The modules of the benchmark."""
    names = "bank planted precision recording replay search_regret searched simulation study tables"
    modules = {name: script(f"verdict_price.{name}") for name in names.split()}
    return SimpleNamespace(command=script("price_of_a_verdict"), **modules)


def synthetic_bank(parts: Any, draws: int = 12, diverged: tuple[float, ...] = ()) -> Any:
    """Runs whose noise is that of rows alone; the best learning rate is the middle of ``GRID``."""
    rng, bank = np.random.default_rng(0), parts.bank.Bank("glue/sst2", machines=["a CPU"])
    rows = {parts.bank.OFFICIAL: 400, parts.bank.STUDY: 1600, parts.bank.STUDY_OF_MEAN: 400}
    bank.labels = {name: np.arange(count, dtype=np.int8) % 2 for name, count in rows.items()}
    seconds = {"setup": 2.0, "training": 40.0, **{name: n / 200 for name, n in rows.items()}}
    for seed in range(draws):
        cells = [(parts.bank.LORA, lr) for lr in GRID]
        for arm, lr in [*cells, (parts.bank.OTHER_START, LR), (parts.bank.FEWER_ROWS, LR)]:
            lost = 2.0 * (lr != LR)
            run = parts.bank.RecordedRun(arm, lr, seed, 100, seconds, lr in diverged)
            scores = {name: rng.normal(2 - lost, 2, count) for name, count in rows.items()}
            if run.diverged:
                scores = {name: np.full(count, np.nan) for name, count in rows.items()}
            bank.add(run, scores)
    return bank


@pytest.mark.parametrize("points", [1.0, -1.0, 0.0])
def test_a_planted_difference_is_exact(parts: Any, points: float) -> None:
    """Of 2,000 rows 20 change in every draw; of 872 rows, 8 or 9 of which the mean is right."""
    rng = np.random.default_rng(0)
    for rows, changed in ((2000, {20}), (872, {8, 9})):
        scores = rng.normal(1.0, 1.0, (400, rows))
        planted = parts.planted.with_planted(scores, points, rng)
        shift = (planted > 0).sum(1) - (scores > 0).sum(1)
        assert {*np.abs(shift).tolist()} == (changed if points else {0})
        assert 100 * shift.mean() / rows == pytest.approx(points, abs=0.01)
    with pytest.raises(ValueError, match="cannot be planted"):
        parts.planted.with_planted(np.ones((1, 100)), 2.0, rng)


def test_without_a_difference_swapped_pairs_have_none(parts: Any) -> None:
    bank = synthetic_bank(parts)
    for pairs_of in parts.planted.NULLS.values():
        pairs = pairs_of(bank, parts.bank.STUDY, LR)
        pool = parts.planted.planted_differences(pairs, 0.0, np.random.default_rng(0))
        assert pool.mean() == pytest.approx(0.0, abs=1e-12)
        drawn = parts.planted.resampled(pool, 2000, 10, np.random.default_rng(0))
        assert drawn.std() == pytest.approx(parts.replay.sd_of_null(pairs)[0], rel=0.05)


def test_the_draws_are_those_of_the_plan_in_the_library(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed seeds have the power that was asked for; adding draws, that which ``power`` says."""
    monkeypatch.setattr(parts.replay, "MOST_DRAWS", 200)
    bank, way = synthetic_bank(parts), parts.replay.Way
    pairs = parts.planted.independent_pairs(bank, parts.bank.OFFICIAL, LR)
    fixed, added = (
        parts.replay.price(bank, way("", parts.bank.OFFICIAL, is_added), pairs, LR, RULE)
        for is_added in (False, True)
    )
    assert fixed.power == pytest.approx(0.8, abs=0.05)
    seconds = 2.0 + 40.0 + 400 / 200
    assert fixed.minutes == pytest.approx(2 * fixed.draws * seconds / 60)
    limit, _ = parts.replay.most_draws(
        parts.planted.planted_differences(pairs, 1.0, np.random.default_rng(0)),
        RULE,
        np.random.default_rng(0),
    )
    rule = RULE.model_copy(update={"max_seeds": limit})
    power, draws = sequential.power(rule, 1.0, fixed.sd)
    assert (added.power, added.draws) == (
        pytest.approx(power, abs=0.05),
        pytest.approx(draws, rel=0.1),
    )
    for split, rows in ((parts.bank.OFFICIAL, 400), (parts.bank.STUDY, 1600)):
        found, low, high = parts.replay.sd_of_null(
            parts.planted.NULLS["independent"](bank, split, LR)
        )
        expected = 100 * np.sqrt(2 * norm.cdf(1) * norm.sf(1) / rows)
        assert found == pytest.approx(expected, rel=0.4)
        assert low < expected < high


def test_promises_hold_on_recorded_scores_and_fail_without_correction(parts: Any) -> None:
    bank = parts.bank.Bank.load(parts.command.RECORDED, "glue/sst2")
    for pairs_of in parts.planted.NULLS.values():
        pairs = pairs_of(bank, parts.bank.OFFICIAL, LR)
        assert pairs.freedom >= parts.tables.FEWEST_PAIRS
        found = parts.simulation.simulate(pairs, RULE, comparisons=4000)
        assert found.kept(RULE)
        assert found.uncorrected_difference > 2 * RULE.error
        assert found.uncorrected_within > 2 * RULE.error


def test_the_t_test_of_each_look_is_scipys(parts: Any) -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, (5, 9))
    expected = ttest_1samp(values[:, :7], 0.0, axis=1).pvalue
    assert parts.simulation.t_test(values)[:, 6] == pytest.approx(expected)


def test_the_regret_of_the_best_learning_rate_is_0(parts: Any) -> None:
    """Both rules find a clear optimum; a rule that takes the smallest loses what it is worse by."""
    bank = synthetic_bank(parts, draws=5, diverged=(1e-2,))
    trials = parts.search_regret.Trials.of(bank, GRID)
    for rule in ("best-score", "loss-curve"):
        search = parts.search_regret.Search(rule, draws=1, grids=1)
        found = parts.search_regret.simulate_searches(trials, search, held_out=200, searches=5)
        assert (found.median, found.trials) == (0.0, 3.0)
    truth = trials.truth([0, 1], np.arange(1600))
    assert parts.search_regret.accuracy_at(LR, GRID, truth) == truth.max()
    lost = truth.max() - parts.search_regret.accuracy_at(1e-4, GRID, truth)
    assert lost == pytest.approx(34, abs=3)  # normal(2, 2) and normal(0, 2) above 0
    assert truth[-1] == 50.0


def test_a_race_ends_each_arm_with_the_verdict_of_the_library(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added one at a time, the differences of arms without a verdict, as a comparison does."""
    monkeypatch.setattr(parts.study, "STUDIES", 6)
    pairs = parts.planted.independent_pairs(synthetic_bank(parts), parts.bank.STUDY, LR)
    differences = parts.study.simulated_differences(
        pairs, "independent", 30, np.random.default_rng(0)
    )
    found = parts.study.race(differences, RULE)
    for study, of_arms in enumerate(differences):
        seen: dict[str, list[float]] = {str(arm): [] for arm in range(len(of_arms))}
        verdicts = sequential.verdicts(seen, RULE)
        for draw in range(30):
            for arm, values in enumerate(of_arms):
                if str(arm) not in verdicts or verdicts[str(arm)].is_open:
                    seen[str(arm)].append(float(values[draw]))
            verdicts = sequential.verdicts(seen, RULE)
        outcomes = [verdict.outcome for verdict in verdicts.values()]
        assert found.better[study].tolist() == [name == "better" for name in outcomes]
        assert found.differs[study].tolist() == [name in ("better", "worse") for name in outcomes]
        assert found.within[study].tolist() == [name == "within" for name in outcomes]
        draws = [max(6, verdict.draws) for verdict in verdicts.values()]
        assert found.draws[study].tolist() == draws


@pytest.mark.parametrize("kind", ["other start", "independent"])
def test_arms_of_a_study_vary_as_recorded_and_a_race_costs_less(
    parts: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts.study, "STUDIES", 300)
    monkeypatch.setattr(parts.study, "MOST_DRAWS", 150)
    bank, way = synthetic_bank(parts), parts.replay
    pairs = parts.planted.NULLS[kind](bank, parts.bank.OFFICIAL, LR)
    deviations = parts.study.deviations(pairs, kind, np.random.default_rng(0), (2, 20_000))
    sd = parts.replay.sd_of_null(pairs)[0]
    assert (deviations[0] - deviations[1]).std() == pytest.approx(sd, rel=0.05)
    earlier, together = (
        parts.study.study_price(bank, of, kind, LR, RULE) for of in (way.EARLIER, way.TOGETHER)
    )
    assert min(earlier.power, together.power) >= RULE.power - 0.03
    assert max(earlier.false_difference, together.false_difference) <= RULE.error + 0.02
    assert together.minutes < earlier.minutes
    assert 6 <= together.draws[-1] < together.draws[2], "the clearest arm ends first"


def test_the_precision_by_loss_and_by_rows_is_that_of_known_scores(parts: Any) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((2, 40, 500)) < 0.8
    pairs = parts.planted.Pairs(*np.where(right, 1.0, -1.0), 40)
    sd = parts.replay.sd_of_null(pairs)[0]
    assert parts.precision.sd_of_loss(pairs) == pytest.approx(sd), "a loss that counts errors"
    assert parts.precision.sd_with_rows(pairs, 500) == pytest.approx(sd, rel=0.1)
    assert parts.precision.sd_with_rows(pairs, 2000) == pytest.approx(sd / 2, rel=0.3)
    better = np.arange(500) < 100  # a fifth of the rows, which the arm always has right
    arm = np.where(better, 1.0, pairs.baseline)
    gain = 0.2 * better  # by its probability, 0.2 of these rows were wrong
    found = parts.precision.sd_of_rows(parts.planted.Pairs(arm, pairs.baseline, 40))
    assert found == pytest.approx(100 * gain.std() / np.sqrt(500), rel=0.1)


def test_arms_that_search_well_are_not_called_different(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All searches find the clear optimum; one that takes any learning rate breaks the promise."""
    monkeypatch.setattr(parts.searched, "COMPARISONS", 60)
    trials = parts.search_regret.Trials.of(synthetic_bank(parts, draws=6), GRID)
    way = parts.replay.Way("", parts.bank.STUDY)
    search = parts.search_regret.Search("loss-curve", draws=1, grids=1)
    found = parts.searched.searched_verdicts(trials, search, way, 40, RULE, 200)
    assert found.called_different < 0.15
    assert found.right > 0.9
    assert found.spread < 0.2
    lost = parts.search_regret.Search("best-score", draws=1, grids=1)
    few_rows = parts.searched.searched_verdicts(trials, lost, way, 40, RULE, 2)
    assert few_rows.called_different > 0.2


def test_a_median_of_zero_cannot_be_halved(parts: Any) -> None:
    regret = parts.search_regret.Regret
    before, after = regret(0.0, 0.7, 6.2, 5.0), regret(0.0, 0.04, 0.4, 5.0)
    said = parts.tables.regret_sentence([before, after], 5)
    assert said.startswith("undecided (the median was 0 already) with 1 trial")
    worse = parts.tables.regret_sentence([regret(0.2, 1, 2, 5.0), regret(0.11, 1, 2, 5.0)], 5)
    assert worse.startswith("missed with 1 trial")


def test_runs_are_recorded_once_by_the_path_of_a_comparison(
    parts: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are those of ``iwlora.train``, and a mean of one step is the last weights."""
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    for split, count in (("train", 60), ("dev", 20)):
        rows = [
            f"it is a {'great' if row % 2 else 'bad'} film {WORDS[row % 20]}\t{row % 2}"
            for row in range(count)
        ]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]), "utf-8")
    recording, bank_parts = parts.recording, parts.bank
    monkeypatch.setitem(METHODS, recording.OtherStart.name, recording.OtherStart)
    small = recording.RecordedTask(
        study_rows=20, epochs=4, max_length=16, average_last=1, precision="fp32"
    )
    monkeypatch.setattr(recording, "TASKS", {"glue/sst2": small})
    monkeypatch.setattr(recording, "ROWS", 32)
    monkeypatch.setattr(recording, "LR", 0.1)
    cells = [("glue/sst2", arm, 0.1, 0) for arm in (bank_parts.LORA, bank_parts.OTHER_START)]
    monkeypatch.setattr(recording, "cells", lambda: iter(cells))
    glue, model = str(folder.parent), str(tiny_bert)
    for _ in range(2):
        recording.record(tmp_path, glue, model, minutes=1.0, machine="a CPU")
    bank = bank_parts.Bank.load(tmp_path, "glue/sst2")
    assert (bank.model, bank.machines) == (model, ["a CPU"])
    assert [run.key for run in bank.runs] == [cell[1:] for cell in cells]
    lora, other = bank.scores[bank_parts.STUDY]
    assert bank.scores[bank_parts.STUDY_OF_MEAN][0] == pytest.approx(lora)
    assert np.abs(lora - other).max() > 1e-3
    plain = recording.recipe(cells[0], glue, model).with_train(average_last=None)
    metrics = iwlora.train(plain, tmp_path / "run", floors="constant")["metrics"]
    for name, suffix in ((bank_parts.STUDY, ""), (bank_parts.OFFICIAL, "_validation")):
        scores = bank.scores[name][0]
        assert np.logaddexp(0, -scores).mean() == pytest.approx(metrics[f"loss{suffix}"], abs=1e-3)
        assert (scores > 0).mean() == pytest.approx(metrics[f"accuracy{suffix}"])


def test_every_table_is_printed(
    parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        parts.tables, "simulate_searches", lambda *_: parts.search_regret.Regret(1, 2, 3, 4)
    )
    monkeypatch.setattr(parts.replay, "COMPARISONS", 200)
    monkeypatch.setattr(parts.replay, "MOST_DRAWS", 100)
    monkeypatch.setattr(parts.study, "STUDIES", 50)
    monkeypatch.setattr(parts.study, "MOST_DRAWS", 100)
    monkeypatch.setattr(parts.searched, "COMPARISONS", 10)
    few = partial(parts.simulation.simulate, comparisons=200)
    monkeypatch.setattr(parts.tables, "simulate", few)
    monkeypatch.setattr(parts.command, "GRID", GRID)
    synthetic_bank(parts).save(tmp_path)
    parts.command.main(["--recorded", str(tmp_path), "--csv", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Recorded on a CPU" in printed
    for name, title, ways in (
        ("price-of-a-verdict.csv", "Price of a verdict", 6),
        ("price-of-a-study.csv", "A study of six arms", 4),
    ):
        with (tmp_path / name).open(encoding="utf-8") as stream:
            written = [row for row in csv.DictReader(stream) if row["arms"] == "independent"]
        assert [row["task"] for row in written] == ["glue/sst2"] * ways
        parts_of_price = {row["way"]: row["of_earlier_price"] for row in written}
        assert parts_of_price["earlier way: official split, seeds fixed"] == "1.00"
        section = printed.partition(f"{title}\n\n")[2]
        (line,) = re.findall(r"\| glue/sst2 \| independent \| \d.*", section.partition("\n\n")[0])
        assert f" | {parts_of_price['all together']} | " in line
    assert "- glue/mrpc, independent: open, not recorded yet" in printed
    assert "| glue/sst2 | loss-curve | 1 × 3 | 4.0 | 1.00 | 2.00 | 3.00 |" in printed
    goal = "missed with 1 trial a learning rate, 1.00 to 1.00 (mean 2.00 to 2.00)"
    assert f"- glue/sst2: {goal}; missed with 2 trials " in printed
    regrets = [parts.search_regret.Regret(median, 1, 1, 5) for median in (1.0, 0.5)]
    assert parts.tables.regret_sentence(regrets, 12).startswith("met with 1 trial ")
    prices = {way: SimpleNamespace(minutes=1.0) for way in parts.replay.WAYS}
    assert parts.tables.goal_sentence(prices) == "missed, 1.00"
    prices[parts.replay.TOGETHER].minutes = 0.1
    assert parts.tables.goal_sentence(prices) == "met, 0.10"
