"""Comparing two measurements, and showing them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import spearmanr

from iwlora.cli import main
from iwlora.errors import IwloraError
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.sensitivity.agreement import compare
from iwlora.sensitivity.text_tables import agreement_table, ranking

pytestmark = pytest.mark.quick


def measurement(
    values: dict[tuple[str, int], float], prefix: str = "m", **more: object
) -> Sensitivity:
    places = tuple(
        SiteSensitivity(f"{prefix}.{depth}.{kind}", kind, depth, 4, 4, value, 0.1)
        for (kind, depth), value in values.items()
    )
    return Sensitivity(places, "exact", 8, 0.011, True, 1.5, share_bound=0.034, **more)  # type: ignore[arg-type]


ONE = {("q", 0): 1.0, ("k", 0): 4.0, ("q", 1): 2.0, ("k", 1): 3.0}
TWO = {("q", 0): 1.0, ("k", 0): 2.0, ("q", 1): 3.0, ("k", 1): 4.0}


def test_by_name() -> None:
    agreement = compare(measurement(ONE), measurement({**TWO, ("v", 1): 90.0}))
    expected = spearmanr(list(ONE.values()), list(TWO.values())).statistic
    assert agreement.rank_correlation == pytest.approx(expected)
    assert agreement.shares["m.0.k"] == (0.4, 0.2)
    assert agreement.moved == pytest.approx(0.2)
    assert compare(measurement(ONE), measurement(ONE)).rank_correlation == pytest.approx(1.0)
    assert compare(measurement(ONE), measurement(ONE)).moved == 0.0


def test_models_of_another_depth_meet_at_the_same_height() -> None:
    deep = {(kind, depth): 10.0 * depth + (kind == "q") for kind in "qk" for depth in range(7)}
    flat = {(kind, depth): 1.0 + depth + 0.1 * (kind == "q") for kind in "qk" for depth in range(3)}
    agreement = compare(measurement(flat, "flat"), measurement(deep, "deep"))
    assert set(agreement.shares) == {f"flat.{d}.{k}" for d in range(3) for k in "qk"}
    total = sum(deep[k, d] for k in "qk" for d in (0, 3, 6))
    assert agreement.shares["flat.1.q"][1] == pytest.approx(deep["q", 3] / total)
    assert agreement.rank_correlation == pytest.approx(1.0)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(IwloraError, match="0 matrices in common"):
        compare(measurement(ONE), measurement({("other", 0): 1.0}, "else"))
    same = dict.fromkeys(ONE, 1.0)
    with pytest.raises(IwloraError, match="of the measurements are equal"):
        compare(measurement(ONE), measurement(same))
    with pytest.raises(IwloraError, match="sensitivity 0"):
        compare(measurement(ONE), measurement(dict.fromkeys(ONE, 0.0)))


def test_tables() -> None:
    lines = ranking(measurement(ONE, statistic="rms")).splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["m.0.k", "m.1.k", "m.1.q", "m.0.q"]
    assert lines[5] == "the top 1 of 4 matrices hold 40.0%"
    assert lines[6] == "s_k = E‖G‖/√(d_in d_out), exact, 8 batches in 1.5 s"
    assert lines[7] == (
        "importance on the wrong matrices: 1.1% expected, at most 3.4% with 95% confidence"
    )
    table = agreement_table(
        compare(measurement(ONE), measurement(TWO)), "a.json", "b.json"
    ).splitlines()
    assert table[0].startswith("rank correlation 0.400 over 4 matrices; 20.0%")
    assert table[5].split() == ["40.00%", "20.00%", "-20.00%", "m.0.k"]


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    measurement(ONE).save(files[0])
    measurement(TWO).save(files[1])
    assert main(["measure", "--compare", *files]) == 0
    assert "rank correlation 0.400" in capsys.readouterr().out
    assert main(["measure", "--compare", files[0], str(tmp_path / "c.json")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["measure"]) == 2
    assert "--model and --out: missing" in capsys.readouterr().err
