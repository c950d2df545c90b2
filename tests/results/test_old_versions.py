"""Runs and comparisons that version 0.1.0 wrote are read, used and continued as it would have."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import iwlora
from commands import call, execute_in_process, snapshot
from iwlora.compare.execute.comparison import check_folder, run_comparison
from iwlora.compare.plan.recipe import load_plan
from iwlora.methods.low_rank.lora import Lora
from iwlora.results import layout
from iwlora.results.comparison import load, load_comparison
from iwlora.results.comparison.combined import load_parts
from iwlora.results.comparison.record import ComparisonRecord
from iwlora.results.formats import VERSIONS
from iwlora.results.run import load_run
from iwlora.sensitivity.options import DEFAULTS
from iwlora.training.recipe import FORMER_DEFAULTS, Recipe, build
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from runs import logged, weights

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
FINISHED = ("iw-lora", "adalora", "full")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version-0.1.0")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders; the recipes in them have paths relative to it."""
    folder = Path(shutil.copytree(unpacked, tmp_path / "old"))
    monkeypatch.chdir(folder)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.quick
@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_says_what_it_said(old: Path, name: str) -> None:
    folder = old / "runs" / name
    stored = json.loads((folder / "result.json").read_text())
    assert "format" not in stored
    fields = load_run(folder).result.fields()
    newer = {key: value for key, value in fields.items() if key not in stored}
    assert fields == {**stored, **newer}
    assert not any(newer.values()), "what only newer versions store is not known"
    (run,) = load(folder).runs
    assert run.environment() == json.loads((folder / "environment.json").read_text())
    assert run.history() == logged(folder)
    before = snapshot(folder)
    recipe = iwlora.load_recipe(str(folder / "recipe.yaml"))
    returned = train(recipe, folder)
    assert {key: returned[key] for key in stored} == stored, "not repeated"
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_predicts_what_it_predicted(old: Path, name: str) -> None:
    answers = rows(iwlora.predict(old / "runs" / name, old / "validation.csv", old / "a.csv"))
    stored = rows(old / "runs" / name / "predictions" / "validation.csv")
    assert [row["prediction"] for row in answers] == [row["prediction"] for row in stored]
    for answer, row in zip(answers, stored, strict=True):
        margin = float(row["logit_pos"]) - float(row["logit_neg"])
        expected = 1 / (1 + math.exp(-margin))
        assert float(answer["probability_pos"]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "merge"), [("iw-lora", False), ("adalora", True)])
def test_a_finished_run_is_exported(old: Path, name: str, merge: bool) -> None:
    exported = iwlora.export(old / "runs" / name, old / "exported", merge=merge)
    expected = "model.safetensors" if merge else "adapter_model.safetensors"
    assert (exported / expected).is_file()
    assert (exported / "tokenizer.json").is_file()


def test_an_interrupted_run_ends_as_one_left_alone(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, alone = old / "runs" / "interrupted", old / "runs" / "uninterrupted"
    recipe = (run / "recipe.yaml").read_text()
    outcome = call(capsys, "train", run / "recipe.yaml", "--out", run)
    assert outcome.code == 0, outcome.err
    result, expected = load_run(run).result, load_run(alone).result
    assert result.resumed_at_step == 8
    assert result.metrics == pytest.approx(expected.metrics, abs=1e-6)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(run)[name], tensor)
    assert (run / "recipe.yaml").read_text() == recipe, "it stays a run of its version"
    steps = [record["step"] for record in load_run(run).history()]
    assert steps == [record["step"] for record in load_run(alone).history()]


def kept(now: Any, before: Any) -> Any:
    """What is stored now, without the fields that were not stored before."""
    if isinstance(before, dict):
        return {key: kept(now[key], value) for key, value in before.items()}
    if isinstance(before, list):
        return [kept(*pair) for pair in zip(now, before, strict=True)]
    return now


def test_a_comparison_is_reported_as_it_was(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = old / "runs" / "compared"
    before = json.loads((folder / "summary.json").read_text())
    assert call(capsys, "report", folder).code == 0
    after = json.loads((folder / "summary.json").read_text())
    for arm, stored in zip(after["arms"], before["arms"], strict=True):
        assert {key: arm[key] for key in ("label", "metrics", "learning_rates")} == {
            key: stored[key] for key in ("label", "metrics", "learning_rates")
        }
    assert after["missing"] == before["missing"] == []
    assert kept(after["search"], before["search"]) == before["search"]


@pytest.mark.quick
def test_results_are_combined_as_they_were(
    old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(old)  # version 0.1.0 wrote the names of results as they were given
    folder = Path("runs/from-runs")
    named = "iwlora compare runs/iw-lora runs/adalora --out runs/from-runs"
    with pytest.raises(iwlora.IwloraError, match=named):
        load_parts([folder])
    assert call(capsys, *named.split()[1:]).code == 0
    (part,) = load_parts([folder])
    assert part.arms == ("iw-lora", "adalora")
    assert load_parts([old / "scores.csv"])[0].values("lora", "score") == {0: 0.8, 1: 0.7}


def test_a_finished_comparison_runs_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = execute_in_process(monkeypatch)
    announced: list[str] = []
    plan = load_plan(str(old / "comparison.yaml"))
    assert run_comparison(plan, old / "runs" / "compared", announce=announced.append) == []
    assert started == []
    assert "6 of 10 runs are done already" in announced, "the trials; then the choice is known"


def test_a_comparison_runs_what_is_missing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = execute_in_process(monkeypatch)
    out = old / "runs" / "half-compared"
    plan = load_plan(str(old / "comparison.yaml"))
    for _ in range(2):
        assert run_comparison(plan, out, announce=lambda _: None) == []
        assert [Path(arguments[-1]) for arguments in started] == [out / "iw-lora" / "seed-1"]
        assert ComparisonRecord.load(out / layout.COMPARISON).recipe_format == 1
    comparison, expected = load_comparison(out), load_comparison(old / "runs" / "compared")
    assert "lora, seed 0 crashed (exit -9) and was tried again" in comparison.remarks
    for metric in ("accuracy", "loss"):
        values = comparison.values("iw-lora", metric)
        assert values == pytest.approx(expected.values("iw-lora", metric), abs=1e-6)
    first, second = (RunDir(out / "iw-lora" / f"seed-{seed}").recipe() for seed in (0, 1))
    assert first.method == second.method


# --- changed defaults ---


@pytest.fixture
def new_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """This version of iwlora has another default rank than version 0.1.0 had."""
    monkeypatch.setattr(Lora, "former_defaults", {1: {"rank": 2}})


def recipe_of(model: Path, task: dict[str, str], **method: Any) -> Recipe:
    train = {"epochs": 1, "max_length": 32, "precision": "fp32"}
    options = {"name": "lora", **method}
    return build({"model": str(model), "task": task, "method": options, "train": train})


def begin_with_version(version: int, folder: Path, recipe: Recipe) -> None:
    """The folder of a run of an older version, whose recipe has no fields that came later."""
    RunDir.open(folder, recipe)
    stored = yaml.safe_load((folder / layout.RECIPE).read_text())
    for last, parts in FORMER_DEFAULTS.items():
        for part, fields in parts.items():
            for field in fields if version <= last else ():
                del stored[part][field]
    stored["format"] = f"iwlora-recipe/{version}"
    if version == 1:
        del stored["format"]
    (folder / layout.RECIPE).write_text(yaml.safe_dump(stored))


@pytest.mark.usefixtures("new_default")
def test_an_old_run_continues_with_the_defaults_of_its_version(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    begin_with_version(1, tmp_path / "run", recipe_of(tiny_bert, reviews, rank=2))
    given = recipe_of(tiny_bert, reviews)
    assert given.method.size == 8
    for _ in range(2):
        assert RunDir.open(tmp_path / "run", given).recipe().method.size == 2
    assert train(given, tmp_path / "run")["rank"] == 2


@pytest.mark.quick
@pytest.mark.usefixtures("new_default")
def test_what_the_user_sets_is_no_default(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    begin_with_version(1, tmp_path / "run", recipe_of(tiny_bert, reviews, rank=2))
    explicit = recipe_of(tiny_bert, reviews, rank=8)
    assert explicit.with_former_defaults().method is explicit.method
    with pytest.raises(iwlora.IwloraError, match="belongs to another recipe"):
        RunDir.open(tmp_path / "run", explicit)


@pytest.mark.quick
@pytest.mark.usefixtures("new_default")
def test_a_new_run_has_the_new_defaults_only(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    RunDir.open(tmp_path / "run", recipe_of(tiny_bert, reviews, rank=2))
    with pytest.raises(iwlora.IwloraError, match="belongs to another recipe"):
        RunDir.open(tmp_path / "run", recipe_of(tiny_bert, reviews))


@pytest.mark.quick
def test_importance_was_measured_before_training_up_to_format_3(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    former = {"name": "iw-lora", "measure": "before", "estimator": "exact"}
    begin_with_version(3, tmp_path / "run", recipe_of(tiny_bert, reviews, **former))
    given = recipe_of(tiny_bert, reviews, name="iw-lora")
    assert given.method.calibration() is None
    continued = RunDir.open(tmp_path / "run", given).recipe()
    assert continued.method.calibration() == {**DEFAULTS.measure_arguments()}
    in_flight = recipe_of(tiny_bert, reviews, name="iw-lora", measure="in-flight")
    with pytest.raises(iwlora.IwloraError, match=r"belongs to another recipe.*measure"):
        RunDir.open(tmp_path / "run", in_flight)


@pytest.mark.quick
@pytest.mark.parametrize("version", [1, 2])
def test_a_run_keeps_the_defaults_of_its_format(
    version: int, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    given, run = recipe_of(tiny_bert, reviews), tmp_path / "run"
    begin_with_version(version, run, given)
    continued = RunDir.open(run, given).recipe()
    former = FORMER_DEFAULTS[2]["task"]
    assert continued.task.model_dump(include=set(former)) == former
    assert given.task.split != continued.task.split
    replayed = iwlora.load_recipe(str(run / layout.RECIPE))
    assert (replayed.digest() == continued.digest()) == (version == 2), "1 has no format"
    assert RunDir.open(run, replayed).recipe().digest() == continued.digest()
    explicit = build({**given.settings(), "task": {**reviews, "split": "grouped"}})
    with pytest.raises(iwlora.IwloraError, match="belongs to another recipe"):
        RunDir.open(run, explicit)


@pytest.mark.usefixtures("new_default")
def test_an_old_comparison_keeps_the_defaults_of_its_version(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execute_in_process(monkeypatch)
    settings = {
        "model": str(tiny_bert),
        "task": reviews,
        "methods": ["lora", {"name": "lora", "rank": 4, "label": "four"}],
        "seeds": [0],
        "unequal_budgets": True,
        "train": {"epochs": 1, "max_length": 32, "precision": "fp32"},
    }
    recipe = tmp_path / "comparison.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    for version, rank in ((1, 2), (VERSIONS["recipe"], 8)):
        out = tmp_path / f"version-{version}"
        out.mkdir()
        record = {"model": str(tiny_bert), "task": "train.csv", "methods": ["lora", "four"]}
        if version == 1:
            (out / layout.COMPARISON).write_text(yaml.safe_dump({**record, "seeds": [0]}))
        assert run_comparison(load_plan(str(recipe)), out, announce=lambda _: None) == []
        ranks = {run.result.label: run.result.rank for run in load_comparison(out).runs}
        assert ranks == {"lora": rank, "four": 4}
        assert ComparisonRecord.load(out / layout.COMPARISON).recipe_format == version


@pytest.mark.quick
def test_a_comparison_keeps_the_splits_of_its_format(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    recipe, out = tmp_path / "comparison.yaml", tmp_path / "out"
    search = {"lr": [1e-4, 1e-3, 1e-2], "seeds": [1]}
    settings = {"model": str(tiny_bert), "task": reviews, "methods": ["lora"], "search": search}
    recipe.write_text(yaml.safe_dump(settings))
    out.mkdir()
    for version in (2, VERSIONS["recipe"]):
        record = load_plan(str(recipe)).record().model_copy(update={"recipe_format": version})
        record.save(out / layout.COMPARISON)
        plan = check_folder(load_plan(str(recipe)), out)
        assert plan.record().recipe_format == version
        splits = {run.recipe.task.split for run in (*plan.runs, *plan.trials)}
        assert splits == {"by-class" if version == 2 else "grouped"}
