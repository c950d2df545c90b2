"""``iwlora design`` as a user meets it: a whole search with real runs, its dry run, bad recipes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import call, check_plain, execute_in_process, write_recipe
from iwlora.results.comparison.designs import DesignSummary

Settings = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_search_ends_in_a_recipe_that_trains(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("iwlora.compare.report.content.report_figures", lambda *_: [])
    started = execute_in_process(monkeypatch)
    given = settings(
        order=["grouping"], draws=[3], error=0.4, choices={"grouping": ["spindle", "bottleneck"]}
    )
    given["confirm"] = {"methods": [{"name": "lora"}], "seeds": [0]}
    recipe, out = write_recipe(tmp_path / "design.yaml", given), tmp_path / "out"
    command = ("design", recipe, "--out", out, "--executor", "local")
    done = call(capsys, *command)
    assert done.code == 0, done.err
    summary = DesignSummary.load(out / "summary.json")
    assert summary.confirmation is not None
    assert (out / summary.confirmation / "report.html").is_file()
    assert len(started) == summary.runs + 2
    assert {run.draw for run in summary.stages[0].runs} == {0, 1, 2}
    found = out / "found.yaml"
    page = (out / "report.html").read_text(encoding="utf-8")
    caption = "share of its designs"
    for text in ("spindle", "bottleneck", caption, "Independent designs", "found.yaml"):
        assert text in page
    assert "grouping" in done.out
    assert f"with other methods: {out / summary.confirmation / 'report.html'}" in done.out
    before = (out / "summary.json").read_bytes()
    assert call(capsys, *command).code == 0
    assert (out / "summary.json").read_bytes() == before
    assert len(started) == summary.runs + 2, "nothing is repeated"
    assert call(capsys, "verify", out).code == 0
    trained = call(capsys, "train", found, "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    again = call(capsys, "report", out)
    assert again.code == 0, again.err
    assert str(out / "report.html") in again.out
    stage = out / summary.stages[0].folder
    refused = call(capsys, "report", stage)
    assert refused.code == 2
    check_plain(refused)
    assert "a stage of a search of designs" in refused.err


@pytest.mark.slow
def test_the_dry_run_prices_each_stage_and_keeps_nothing(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "design.yaml", settings())
    done = call(capsys, "design", recipe, "--out", tmp_path / "out", "--dry-run")
    assert done.code == 0, done.err
    assert re.search(r"^grouping +5 +40 to 80 +\d", done.out, re.MULTILINE)
    assert re.search(r"^allocation +3 +24 to 48 +\d", done.out, re.MULTILINE)
    assert re.search(r"^all +64 to 128 +\d", done.out, re.MULTILINE)
    assert (
        "independent designs for each choice, as in the paper, there would be 800 runs" in done.out
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("design", "more", "messages"),
    [
        (
            {"draws": [8, 4], "error": 2, "choices": {"tuned": ["all"]}, "strategies": ["loraa"]},
            {"budget": None, "method": "lora", "seeds": [1], "train": {"lr": 1}},
            (
                *("draws must rise", "design.error", "at least two choices", "'loraa' is no part"),
                *("budget: missing", "method='lora'", "seeds: a search", "train.lr: design.lr"),
            ),
        ),
        (
            {
                "order": ["grouping", "allocation", "tuned"],
                "choices": {
                    "grouping": ["spindle", [2, 4, 4, 2], [1, 2, 3]],
                    "allocation": ["uniform", [1.0, 2.0]],
                    "tuned": ["all", [5]],
                },
            },
            {},
            (
                "spindle and 2-4-4-2 give the same counts, [2, 4, 4, 2]",
                "[1, 2, 3] was given; accepted are 4 counts that add up to 12",
                "[1.0, 2.0] was given; accepted are 4 weights",
                "[5] was given; accepted are 'all', and different numbers from 1 to 4",
            ),
        ),
        (
            {
                "order": ["assignment"],
                "strategies": ["loraa", "lora", "lora"],
                "choices": {"grouping": ["spindle", "spindel"], "tuned": ["all", 5]},
            },
            {"method": None},
            (
                "'loraa' is no part, and lora is given twice",
                "'spindel' is no choice; accepted are increasing,",
                "5 is no choice; accepted are all, or the numbers of groups",
            ),
        ),
        (
            {
                "order": ["assignment"],
                "choices": {"assignment": [["lora", "dora"], ["xx"], ["lora", "lora"], ["lora"]]},
            },
            {"method": None},
            (
                "lora+dora: lora and dora are both low-rank updates",
                "xx: 'xx' is no part of a layer",
                "lora+lora: lora is given twice",
            ),
        ),
        (
            {"order": ["assignment"], "strategies": ["lora"]},
            {"method": None},
            ("design.strategies=['lora'] allows lora; give others",),
        ),
        (  # what is wrong with the recipe, with its choices on this model, and with the others
            {
                "draws": [16, 8],
                "strategies": ["loraa", "lora", "lora"],
                "order": ["grouping", "allocation", "tuned", "assignment"],
                "choices": {
                    "grouping": ["spindle", "spindel"],
                    "allocation": [[1, 1, 1, 1], "uniform", [1, 2]],
                    "tuned": ["all", [4, 3, 2, 1], [1, 1]],
                    "assignment": [["lora", "bitfit"], ["bitfit", "lora"]],
                },
            },
            {
                "method": {"allocation": None, "options": {"lora": {"alpha": 1}}},
                "train": {"batch_size": -1},
                "confirm": {"methods": ["loraa"]},
            },
            (
                *("draws must rise", "'loraa' is no part", "'spindel' is no choice"),
                "design.choices.allocation: 1-1-1-1 and uniform are the same choice",
                "[1.0, 2.0] was given; accepted are 4 weights",
                "design.choices.tuned: all and 4-3-2-1 are the same choice",
                "[1, 1] was given; accepted are 'all', and different numbers from 1 to 4",
                "lora+bitfit and bitfit+lora are the same choice",
                *("options.lora.alpha", "train.batch_size=-1", "confirm: method.name: unknown"),
            ),
        ),
        ({"groups": 8, "order": ["tuned"]}, {}, ("one set for each of the 8 groups",)),
        (
            {"groups": 2, "order": ["allocation"]},
            {"method": {"preset": "s4"}},
            ("one set for each of the 2 groups",),
        ),
        (
            {"groups": 2, "order": ["assignment"]},
            {"method": {"groups": [1, 2], "tuned": [3]}},
            ("tuned=[3] was given", "accepted are 'all', and different numbers from 1 to 2"),
        ),
        (
            {"groups": 2, "order": ["assignment"], "draws": [3]},
            {"method": {"groups": [5, 5]}, "budget": 40},
            ("method.groups: [5, 5] was given; accepted are 2 counts that add up to 12",),
        ),
        ({"choices": {"grouping": [[0, 4, 4, 4], "spindle"]}}, {}, ("[0, 4, 4, 4] is no choice",)),
        ({"choices": [1]}, {}, ("design.choices=[1]: accepted: a mapping",)),
        ({"draws": [3]}, {}, ("no choice can be dropped before",)),
        ({}, {"confirm": {"metods": []}}, ("confirm.metods: unknown field",)),
        ({}, {"confirm": {"methods": ["loraa"]}}, ("confirm: method",)),
        (  # seeds that stages use too
            {},
            {"confirm": {"methods": ["lora"], "seeds": [0, 2000]}},
            ("confirm: the largest seed of its runs and trials is 2000; accepted are 0 to 1999",),
        ),
        (  # what would stop the search after its last stage
            {},
            {"confirm": {"methods": ["lora", "pfeiffer", {"name": "houlsby"}]}},
            ("confirm: budget=10000 is 10,000 parameters; pfeiffer has at most",),
        ),
        (
            {},
            {"budget": 3600, "confirm": {"methods": ["lora", "pfeiffer"]}},
            ("confirm: the methods do not have the same budget of adapter parameters: lora",),
        ),
        (
            {"draws": [16, 8]},
            {"budget": 40},
            (
                "draws must rise",
                "a budget of 40 parameters was given, and the biases alone have",
                "no other choice has a possible design either",
            ),
        ),
        ({}, {"design": [1]}, ("design=[1]: accepted: a mapping",)),
    ],
)
def test_bad_recipes_are_refused_with_all_their_problems(
    design: dict[str, Any],
    more: dict[str, Any],
    messages: tuple[str, ...],
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = write_recipe(tmp_path / "design.yaml", {**settings(**design), **more})
    refused = call(capsys, "design", recipe, "--out", tmp_path / "out")
    assert refused.code == 2
    check_plain(refused)
    for message in messages:
        assert message in refused.err, refused.err
    assert not (tmp_path / "out").exists()


def test_a_model_without_prefixes_is_named(
    settings: Settings, tiny_deberta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(order=["assignment"], groups=3, strategies=["prefix", "lora", "lora"])
    del given["method"]
    recipe = write_recipe(tmp_path / "design.yaml", {**given, "model": str(tiny_deberta)})
    refused = call(capsys, "design", recipe, "--out", tmp_path / "out")
    assert refused.code == 2
    check_plain(refused)
    assert "design.strategies: prefix" in refused.err
    assert "lora is given twice" in refused.err
    assert "design.groups=3: the model has 2 layers in a stack; give at most 2" in refused.err
    sets = {"assignment": [["prefix"], ["lora"]]}
    given = {**given, "model": str(tiny_deberta), "design": {**given["design"], "choices": sets}}
    refused = call(capsys, "design", write_recipe(recipe, given), "--out", tmp_path / "out")
    assert "design.choices.assignment: prefix" in refused.err
