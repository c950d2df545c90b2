"""A sequential comparison end to end, with real runs: killed, continued, and given more seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Outcome, call, execute_in_process, run_settings, write_recipe
from counted import read, result
from interruptions import Killed, kill_at
from iwlora.compare.statistics.sequential import verdicts
from iwlora.results.comparison.record import StoppingRule


@pytest.mark.slow
def test_killed_and_continued_and_with_more_seeds_each_draw_runs_once(
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The verdict at the end is that of all scores, from before and after the kill."""
    started, out = execute_in_process(monkeypatch), tmp_path / "out"
    degrees = ["awful", "bad", "good", "great"]
    for split, count in (("train", 48), ("validation", 16)):
        rows = [f"it is a {degrees[n % 4]} film,{n % 4}" for n in range(count)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows, ""]))
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation")}
    task = {**files, "text": "text", "label": "label", "kind": {"name": "regression"}}
    methods = [{"name": "lora", "rank": 4}, "head"]
    settings = run_settings(tiny_bert, task, methods=methods)
    del settings["method"]

    def compare(most: int) -> Outcome:
        settings["stop"] = {"difference": 1.0, "max_seeds": most}
        recipe = write_recipe(tmp_path / "plan.yaml", settings)
        return call(capsys, "compare", recipe, "--out", out, "--executor", "local")

    def finished() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.glob("*/seed-*/result.json")}

    with monkeypatch.context() as patch:
        kill_at(2, patch, when=lambda: len(started) == 4)
        with pytest.raises(Killed):
            compare(5)
    killed = finished()
    assert len(killed) == 3
    few = compare(5)
    assert "no verdict yet" in few.out
    assert "All 5 draws are used up; raise stop.max_seeds to go on." in " ".join(few.out.split())
    before = finished()
    assert len(before) == 10
    assert killed.items() <= before.items()
    assert len(started) == 11, "the killed run began twice"
    assert compare(7).code == 0
    after = finished()
    assert before.items() <= after.items()
    assert len(started) == 11 + len(after) - len(before) > 11
    scores = {
        arm: [result(out, arm, seed)["metrics"]["pearson"] for seed in range(len(after) // 2)]
        for arm in ("lora", "head")
    }
    differences = [100 * (a - b) for a, b in zip(scores["head"], scores["lora"], strict=True)]
    rule = StoppingRule(difference=1.0, max_seeds=7)
    expected = verdicts({"head": differences}, rule)["head"]
    (row,) = read(out / "summary.json")["differences"]
    assert row["sequential"]["outcome"] == expected.outcome
    assert row["sequential"]["draws"] == expected.draws == len(differences)
    assert row["sequential"]["p_difference"] == pytest.approx(expected.p_difference)
