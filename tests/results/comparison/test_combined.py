"""One's own question: folders of results, several comparisons, scores of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from commands import call
from iwlora.compare.report.content import build_content
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.runs_csv import runs_csv
from iwlora.compare.report.verdict import verdict
from iwlora.compare.report.write import write_report
from iwlora.compare.statistics.analysis import analyze
from iwlora.compare.statistics.paired_tests import seeds_needed, summarize
from iwlora.errors import IwloraError
from iwlora.results.comparison.combined import load_parts, save_sources
from report_pages import page_without_images


def scores(path: Path, tasks: int = 2, seeds: int = 8, gain: float = 0.05) -> Path:
    rng = np.random.default_rng(0)
    lines = ["method,task,seed,score,metric,train_seconds"]
    for task in range(tasks):
        for seed in range(seeds):
            luck = rng.normal(0, 0.02)
            for method, more in (("lora", 0.0), ("better", gain), ("same", 0.0)):
                score = 0.7 + luck + more + rng.normal(0, 0.005)
                lines.append(f"{method},task-{task},{seed},{score},accuracy,{seed + 1}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_of_scores_gets_the_same_statistics_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scores(tmp_path / "scores.csv")
    outcome = call(capsys, "compare", source, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    overall = {one["arm"]: one for one in summary["overall"]}
    assert overall["better"]["outcome"] == "higher"
    assert overall["same"]["outcome"] == "no difference found"
    assert overall["better"]["improvement"]["value"] > 0.9
    assert "better: higher (+4.9" in summary["verdict"]
    assert "better is higher on task-0" in summary["verdict"]
    assert [part["task"] for part in summary["parts"]] == ["task-0", "task-1"]
    assert not any(part["verified"] for part in summary["parts"])
    assert "same scored rows" not in (tmp_path / "out" / "report.html").read_text()
    pair = summary["parts"][0]["differences"][0]
    assert pair["family"] == 4, "two arms on two tasks"
    assert pair["p_adjusted"] >= pair["p_value"]
    for name in ("summary.md", "summary.csv", "summary.tex", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    again = call(capsys, "report", tmp_path / "out")
    assert again.code == 0
    assert again.out.split("report:")[0] == outcome.out.split("report:")[0]


def test_what_is_written_as_csv_reads_back_the_same(tmp_path: Path) -> None:
    source = scores(tmp_path / "scores.csv")
    first = analyze(load_parts([source]))
    (tmp_path / "summary.csv").write_text(runs_csv(build_content(first)))
    second = analyze(load_parts([tmp_path / "summary.csv"]))
    assert [task.differences for task in first.tasks] == [task.differences for task in second.tasks]
    assert first.overall == second.overall


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method,task,seed\na,b,0\n", "no column score"),
        ("method,task,seed,score\n", "has no rows"),
        ("method,task,seed,score\na,b,x,0.5\n", "line 2: seed: Input should be a valid integer"),
        (
            "method,task,seed,score\na,b,0,high\n",
            "line 2: metrics.score: Input should be a valid number",
        ),
        ("method,task,seed,score\na,b,0,0.5\na,b,0,0.6\n", "line 3: a, seed 0 comes twice"),
        ("method,task,seed,score\na/b,c,0,0.5\n", "line 2: label"),
        ("method,task,seed,score\n,c,0,0.5\n", "line 2: method"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_line(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(IwloraError, match=words):
        load_parts([tmp_path / "s.csv"])


def test_a_score_that_is_no_number_is_missing(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("method,task,seed,score\na,b,0,nan\na,b,1,0.5\n")
    (part,) = load_parts([tmp_path / "s.csv"])
    assert part.missing == (("a", 0, "no finite score"),)
    assert len(part.runs) == 1


def test_comparisons_on_several_tasks_make_one_family(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    for task in ("glue/rte", "glue/mrpc"):
        comparison_in(tmp_path / task.replace("/", "-"), seeds=6, task=task)
    found = analyze(load_parts([tmp_path / "glue-rte", tmp_path / "glue-mrpc"]))
    assert [part.task for part in found.comparisons] == ["glue/rte", "glue/mrpc"]
    assert {row.family for task in found.tasks for row in task.differences} == {6}
    assert {one.arm: (one.tasks, one.pairs) for one in found.overall}["iw-lora"] == (2, 12)
    page = page_without_images(build_content(found))
    assert len(page.all("section")) == 2
    assert "All tasks" in page.text
    assert len(page.all("img")) == 2 * 5


def test_an_unfinished_task_is_told_and_not_counted(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    folders = [
        comparison_in(tmp_path / task, seeds=6, task=f"glue/{task}") for task in ("mrpc", "rte")
    ]
    for path in folders[0].rglob("result.json"):
        path.unlink()
    content = build_content(analyze(load_parts(folders)))
    text = markdown(content)
    assert content.verdict.startswith("Incomplete: 24 of 48 runs have no score. No verdict yet. ")
    assert "Over 1 of 2 tasks, compared with lora: " in content.verdict
    assert "There is no verdict yet on any single task (by Holm for 3 comparisons)." in text
    assert "- iw-lora, seeds 0, 1, 2, 3, 4, 5 (no result.json; state: done)" in text


def test_the_pooled_answer_says_how_many_more_seeds_it_needs(tmp_path: Path) -> None:
    """As many as its means over the tasks of each seed need."""
    source = scores(tmp_path / "scores.csv", gain=0.001)
    found = analyze(load_parts([source]))
    one = {one.arm: one for one in found.overall}["better"]
    by_seed = np.mean(
        [
            [
                part.values("better", "accuracy")[s] - part.values("lora", "accuracy")[s]
                for s in range(8)
            ]
            for part in found.comparisons
        ],
        0,
    )
    expected = seeds_needed(summarize([*by_seed]), 2)
    assert expected is not None
    assert one.seeds_needed == expected > 8
    text = verdict(found)
    assert "More seeds needed on every task for 80% power to detect a difference as large" in text
    assert f"about {expected - 8:,} for better" in text


def test_two_folders_of_runs_are_two_arms(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    """Runs of the same label in two folders are told apart by the folders."""
    for name in ("old", "new"):
        comparison_in(tmp_path / name, arms=["lora"], seeds=6)
        (tmp_path / name / "comparison.yaml").unlink()
    (part,) = load_parts([tmp_path / "old", tmp_path / "new"])
    assert part.arms == ("lora (old)", "lora (new)")
    assert part.seeds == tuple(range(6))
    assert all(part.values(arm, "accuracy") for arm in part.arms)
    save_sources(tmp_path / "out", [tmp_path / "old", tmp_path / "new"])
    assert "lora (new)" in write_report(tmp_path / "out").read_text()


def test_sources_scored_differently_do_not_compare(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    comparison_in(tmp_path / "a", seeds=2)
    comparison_in(tmp_path / "b", seeds=2, evaluated_on="test")
    with pytest.raises(IwloraError, match=r"its evaluated_on is 'test', that of .* 'validation'"):
        load_parts([tmp_path / "a", tmp_path / "b"])


def test_runs_that_did_not_start_alike_are_reported(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    comparison_in(tmp_path / "a", arms=["lora"], seeds=1, head_digest="x", data_digest="d")
    comparison_in(tmp_path / "b", arms=["dora"], seeds=1, head_digest="y", data_digest="d")
    (part,) = load_parts([tmp_path / "a", tmp_path / "b"])
    assert part.remarks == (
        "dora and lora did not start alike at seed 0: not the same initial head",
    )


@pytest.mark.parametrize("command", ["compare", "tasks average"])
def test_a_source_with_a_link_that_leads_out_is_not_read(
    tmp_path: Path,
    comparison_in: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    source = tmp_path / "runs"
    comparison_in(source, arms=["lora"], seeds=2)
    (source / "lora").rename(tmp_path / "elsewhere")
    (source / "lora").symlink_to(tmp_path / "elsewhere")
    out = ["--out", tmp_path / "out"] if command == "compare" else []
    outcome = call(capsys, *command.split(), source, *out)
    assert outcome.code == 2
    assert f"{source / 'lora'} is a symbolic link that leads out of {source}" in outcome.err


def test_recipes_and_results_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = scores(tmp_path / "scores.csv")
    (tmp_path / "a.yaml").write_text("model: x\n")
    refused = call(capsys, "compare", source, tmp_path / "a.yaml", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "not both" in refused.err
    refused = call(capsys, "compare", source, "seeds=[0]", "--out", tmp_path / "out")
    assert "existing results have no recipe fields to set" in refused.err
    assert not (tmp_path / "out").exists()
