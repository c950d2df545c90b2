"""Every stored file says its version, and one of a newer version is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import TRAIN, call, write_recipe
from iwlora import IwloraError
from iwlora.compare.plan.recipe import load_plan
from iwlora.compare.report.write import write_report
from iwlora.results.comparison import load, load_comparison
from iwlora.results.comparison.combined import load_parts, save_sources
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.results.comparison.record import Crash, Search
from iwlora.results.formats import VERSIONS, stamped, unstamped
from iwlora.results.pool import PoolRecord
from iwlora.results.run import RunResult, load_run
from iwlora.training.recipe import build
from iwlora.training.recipe import load as load_recipe
from iwlora.training.run import train
from iwlora.training.sharing.export import export
from runs import as_foreign

# CSV has no version (see iwlora.results.layout); these formats are not ours.
FOREIGN = ("README.md", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
CHECKPOINT_STATE = ("trainer_state.json", "loss-0.json", "sensitivity-in-flight.json")


@pytest.fixture(scope="module")
def compared(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A comparison of one run, with checkpoints, and a folder that combines it."""
    folder = tmp_path_factory.mktemp("formats")
    out = folder / "out"
    recipe = write_recipe(
        folder / "plan.yaml",
        {
            "model": str(tiny_bert),
            "task": reviews,
            "methods": [{"name": "iw-lora", "rank": 2}],
            "seeds": [0],
            "train": {**TRAIN, "batch_size": 8, "save_steps": 10},
        },
    )
    plan = load_plan(str(recipe))
    train(plan.runs[0].recipe, plan.runs[0].folder(out))
    plan.record().save(out / "comparison.yaml")
    Search().save(out / "search.json")
    ComparisonFloors().save(out / "floors.json")
    PoolRecord(weights="mean", average=None, sources={"a": {}}).save(folder / "pool.json")
    crash = {"run": "iw-lora, seed 0", "label": "iw-lora", "seed": 0, "trial": False, "exit": 1}
    Crash(**crash, error="killed", tried_again=True).append(out / "failures.jsonl")
    export(plan.runs[0].folder(out), out / "exported")
    save_sources(folder / "combined", [out])
    write_report(folder / "combined")
    return folder


def own_files(folder: Path) -> list[Path]:
    suffixes = {".json", ".jsonl", ".yaml"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes]
    return [p for p in files if p.name not in (*FOREIGN, *CHECKPOINT_STATE, "plan.yaml")]


def records(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)]


def test_every_file_has_a_version(compared: Path) -> None:
    seen = set()
    for path in own_files(compared):
        for record in records(path):
            name, version = record["format"].removeprefix("iwlora-").split("/")
            assert int(version) == VERSIONS[name], path
            seen.add(name)
    elsewhere = {"design", "decisions", "proxies"}  # tests/design reads those
    elsewhere |= {"images"}  # tests/cli/test_generate.py
    assert seen == set(VERSIONS) - elsewhere, "a format that nothing here writes"


RUN = "iw-lora/seed-0"
READERS: dict[str, Callable[[Path], Any]] = {
    "comparison.yaml": load_comparison,
    "search.json": load_comparison,
    "floors.json": load_comparison,
    "failures.jsonl": load_comparison,
    f"{RUN}/result.json": lambda folder: load(folder / RUN),
    f"{RUN}/recipe.yaml": lambda folder: load_recipe(str(folder / RUN / "recipe.yaml")),
    f"{RUN}/environment.json": lambda folder: load_run(folder / RUN).environment(),
    f"{RUN}/metrics.jsonl": lambda folder: load_run(folder / RUN).history(),
    f"{RUN}/sensitivity.json": lambda folder: load_run(folder / RUN).sensitivity(),
    "../combined/sources.yaml": lambda folder: load_parts([folder.parent / "combined"]),
}


@pytest.mark.parametrize("file", READERS)
def test_a_newer_version_is_refused(compared: Path, file: str) -> None:
    path = compared / "out" / file
    READERS[file](compared / "out")
    text, result = path.read_text(), compared / "out" / RUN / "result.json"
    before = result.read_text()
    as_foreign(result.parent)  # its result does not say what the other files hold
    (stamp,) = {record["format"] for record in records(path)}
    newer = text.replace(stamp, stamp.split("/")[0] + "/99")
    path.write_text(re.sub(r',\s*"digest": "[0-9a-f]+"(?=\s*}$)', "", newer, flags=re.MULTILINE))
    try:
        with pytest.raises(IwloraError, match=r"newer iwlora .*upgrade") as refused:
            READERS[file](compared / "out")
        assert path.name in str(refused.value) or path.suffix == ".yaml"
    finally:
        result.write_text(before)
        path.write_text(text)


@pytest.mark.quick
def test_a_newer_recipe_is_refused_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", {"format": "iwlora-recipe/99", "model": "x"})
    for command in ("train", "compare"):
        outcome = call(capsys, command, recipe, "methods=[lora]", "--out", tmp_path / "run")
        assert outcome.code == 2
        assert "newer iwlora" in outcome.err
        assert "Traceback" not in outcome.err


@pytest.mark.quick
@pytest.mark.parametrize("stamp", ["iwlora-run/2", "recipe/1", 7, None, ["iwlora-recipe/1"]])
def test_another_format_is_refused(stamp: Any) -> None:
    with pytest.raises(IwloraError, match="accepted is iwlora-recipe"):
        unstamped("recipe", {"format": stamp}, "a file")


@pytest.mark.quick
def test_the_page_on_stored_files_lists_the_versions() -> None:
    page = Path(__file__).parents[2] / "docs" / "stored-files.md"
    rows = re.findall(
        r"^\| .* \| `iwlora-(\w+)` \| (\d+) \|$", page.read_text("utf-8"), re.MULTILINE
    )
    assert {name: int(version) for name, version in rows} == VERSIONS


@pytest.mark.quick
def test_a_replayed_recipe_is_the_same() -> None:
    recipe = build({"model": "m", "task": "glue/rte", "method": "lora"})
    assert build(stamped("recipe", recipe.settings())).digest() == recipe.digest()
    former = build({"format": "iwlora-recipe/1", **recipe.settings()})
    assert former == recipe.model_copy(update={"targets": "all-linear"}), "as all meant then"


@pytest.mark.quick
def test_a_metric_that_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    known = {"model": "m", "metrics": {"f1": float("nan"), "accuracy": 0.5}}
    result = RunResult.from_score("lora", "t", 0, "f1", 0.0, **known)
    assert result.score is None
    result.save(tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["f1"] is None
    again = RunResult.load(tmp_path / "result.json")
    assert again == result
    assert again.metrics == {"accuracy": 0.5}
