"""The floors of a comparison: once for its data and model, beside every run, and never stale."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer

from commands import call, execute_in_process, run_settings, write_recipe
from iwlora import IwloraError
from iwlora.compare.execute import floors as execute_floors
from iwlora.compare.execute.comparison import run_comparison
from iwlora.compare.execute.floors import write_floors
from iwlora.compare.plan.recipe import load_plan
from iwlora.compare.report.content import build_content
from iwlora.compare.report.floor_verdict import floor_verdict
from iwlora.compare.report.formats.latex import latex
from iwlora.compare.report.formats.markdown import markdown
from iwlora.compare.report.formats.runs_csv import runs_csv
from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.formats.terminal import terminal_text
from iwlora.compare.statistics.analysis import analyze
from iwlora.inputs.places import reading_errors
from iwlora.results.comparison import load_comparison
from iwlora.results.comparison.floors import ComparisonFloors
from iwlora.results.run import load_run
from kinds import save_model
from tiny_tasks import write_task

NAMES = ["most frequent class", "bag of words", "linear probe"]


@pytest.fixture(scope="module")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    found = run_settings(tiny_bert, reviews, methods=[{"name": "lora", "rank": 2}], seeds=[0, 1])
    del found["method"]
    return found


@pytest.fixture(scope="module")
def compared(
    settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """(folder, what was printed) of one arm and two seeds, which have the same data."""
    folder = tmp_path_factory.mktemp("floors")
    recipe = write_recipe(folder / "plan.yaml", settings)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        execute_in_process(patch)
        assert run_comparison(load_plan(str(recipe)), folder / "out", None, lines.append) == []
    return folder / "out", "\n".join(lines)


@pytest.fixture
def copy(compared: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(compared[0], tmp_path / "out")


def plan_of(folder: Path, settings: dict[str, Any], **changes: Any) -> Any:
    return load_plan(str(write_recipe(folder.parent / "plan.yaml", settings | changes)))


def test_they_are_computed_once_and_stand_beside_each_run(compared: tuple[Path, str]) -> None:
    folder, printed = compared
    assert printed.count("floors on 32 scored rows (" + ", ".join(NAMES) + ")") == 1
    runs = load_comparison(folder).runs
    assert [[floor.name for floor in run.result.floors] for run in runs] == [NAMES] * 2
    for run in runs:
        (most, words, _) = run.result.floors
        assert most.metrics["accuracy"] == 0.5
        assert words.metrics["accuracy"] == 1.0
        assert most.margin == pytest.approx(run.result.metrics["accuracy"] - 0.5)
        assert run.folder is not None
        alone = load_run(run.folder).result.floors
        assert alone == [most], "the rest is computed once, for all runs"


def test_every_format_has_them(compared: tuple[Path, str]) -> None:
    content = build_content(analyze([load_comparison(compared[0])]))
    (section,) = content.sections
    assert section.scores is not None
    rows = {row[0]: row[2] for row in section.scores.rows}
    assert rows["most frequent class (floor)"] == "50.00"
    assert rows["bag of words (floor)"] == "100.00"
    for text in (terminal_text(content), markdown(content), latex(content)):
        assert "linear probe (floor)" in text
    (arm,) = json.loads(summary_json(content))["arms"]
    assert [floor["name"] for floor in arm["floors"]] == NAMES
    lines = list(csv.DictReader(runs_csv(content).splitlines()))
    assert [line["floor: bag of words"] for line in lines] == ["1.0", "1.0"]


def test_the_probe_is_a_logistic_regression_of_mean_features(
    compared: tuple[Path, str], tiny_bert: Path, reviews: dict[str, str]
) -> None:
    """Against transformers and scikit-learn used directly, row by row."""
    model, tokenizer = (
        AutoModel.from_pretrained(tiny_bert),
        AutoTokenizer.from_pretrained(tiny_bert),
    )
    model.eval()

    def read(split: str) -> tuple[Any, list[str]]:
        rows = list(csv.DictReader(Path(reviews[split]).read_text().splitlines()))
        with torch.inference_mode():
            hidden = [
                model(**tokenizer(row["text"], truncation=True, max_length=32, return_tensors="pt"))
                for row in rows
            ]
        features = [output.last_hidden_state[0].mean(0).tolist() for output in hidden]
        return features, [row["mood"] for row in rows]

    train, labels = read("train")
    scored, truth = read("validation")
    scale = StandardScaler().fit(train)
    probe = LogisticRegression(max_iter=1000).fit(scale.transform(train), labels)
    floor = load_comparison(compared[0]).runs[0].result.floors[2]
    expected = probe.score(scale.transform(scored), truth)
    assert floor.metrics["accuracy"] == pytest.approx(expected, abs=1 / 32)


def test_further_runs_use_what_is_known(
    copy: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a run without floors gets some, and the model is not read again."""
    stored = ComparisonFloors.of(copy)
    runs = {name: floors for name, floors in stored.runs.items() if name != "lora/seed-1"}
    stored.model_copy(update={"runs": runs}).save(copy / "floors.json")
    assert len(load_comparison(copy).runs[1].result.floors) == 1
    monkeypatch.setattr(execute_floors, "frozen_model_floors", None)
    announced: list[str] = []
    write_floors(plan_of(copy, settings), copy, announced.append)
    assert announced == []
    assert ComparisonFloors.of(copy) == stored


def test_floors_of_another_result_do_not_count(copy: Path) -> None:
    result = copy / "lora" / "seed-0" / "result.json"
    run = load_run(result.parent).result
    run.model_copy(update={"notes": ["trained again"]}).save(result)
    first, second = load_comparison(copy).runs
    assert (len(first.result.floors), len(second.result.floors)) == (1, 3)


def test_data_that_changed_have_no_floors(
    copy: Path, settings: dict[str, Any], reviews: dict[str, str], tmp_path: Path
) -> None:
    changed = tmp_path / "train.csv"
    lines = Path(reviews["train"]).read_text().splitlines(keepends=True)
    changed.write_text("".join(lines[:-1]))
    (copy / "floors.json").unlink()
    plan = plan_of(copy, settings, task={**reviews, "train": str(changed)})
    announced: list[str] = []
    write_floors(plan, copy, announced.append)
    assert [line.partition(": ")[0] for line in announced] == [
        "lora, seed 0 has no floors",
        "lora, seed 1 has no floors",
    ]
    assert "its data changed since it was trained" in announced[0]
    assert not (copy / "floors.json").exists()


def cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_a_field(content: bytes) -> bytes:
    *lines, last = content.splitlines(keepends=True)
    return b"".join([*lines, last.split(b",", 1)[1]])


@pytest.mark.parametrize("name", ["train.csv", "config.json"])
def test_what_cannot_be_read_now_ends_the_command(
    name: str, copy: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floors would be missing from a report that seems complete."""

    def refused(*_: Any) -> Any:
        with reading_errors(name):
            raise PermissionError(13, "Permission denied", name)

    (copy / "floors.json").unlink()
    monkeypatch.setattr(execute_floors, "_task_floors", refused)
    with pytest.raises(IwloraError, match=f"cannot read {name}: Permission denied"):
        write_floors(plan_of(copy, settings), copy, print)
    assert not (copy / "floors.json").exists()


def without_a_row(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-1])


@pytest.mark.parametrize(
    ("damage", "has_digests", "problem"),
    [
        (cut_in_half, True, "is damaged: it is not what the run left; restore it"),
        (without_a_field, True, "is damaged: it is not what the run left; restore it"),
        (without_a_field, False, "fields, the header has"),  # older versions kept no digests
        (without_a_row, False, "31 predictions of 32 scored rows are stored; restore"),
    ],
)
def test_damaged_predictions_have_no_floors(
    damage: Callable[[bytes], bytes],
    has_digests: bool,
    problem: str,
    copy: Path,
    settings: dict[str, Any],
) -> None:
    result = copy / "lora" / "seed-0" / "result.json"
    if not has_digests:
        load_run(result.parent).result.model_copy(update={"files": {}}).save(result)
    stored = result.parent / "predictions" / "validation.csv"
    stored.write_bytes(damage(stored.read_bytes()))
    (copy / "floors.json").unlink()
    announced: list[str] = []
    write_floors(plan_of(copy, settings), copy, announced.append)
    (line,) = [str(event) for event in announced if "has no floors" in str(event)]
    assert line.startswith("lora, seed 0 has no floors: ")
    assert problem in line
    assert list(ComparisonFloors.of(copy).runs) == ["lora/seed-1"]


def test_a_damaged_file_is_refused(copy: Path) -> None:
    file = copy / "floors.json"
    file.write_text(file.read_text().replace("0.5", "0.6", 1))
    with pytest.raises(IwloraError, match=r"floors\.json is damaged"):
        load_comparison(copy)


def test_verify_checks_the_file(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "floors.json" in call(capsys, "verify", copy).out
    file = copy / "floors.json"
    file.write_text(file.read_text().replace("0.5", "0.6", 1))
    outcome = call(capsys, "verify", copy)
    assert outcome.code == 1
    assert any("changed" in line and "floors.json" in line for line in outcome.out.splitlines())


def test_the_untuned_model_is_the_floor_of_a_perplexity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that hardly moves has its perplexity, and learned nothing; one that moves beats it."""
    execute_in_process(monkeypatch)
    task, _ = write_task(tmp_path / "task", "instruction")
    task["kind"]["metric"] = "perplexity"
    train = {"epochs": 8, "batch_size": 4, "max_length": 32, "precision": "fp32"}
    methods = [
        {"name": "lora", "rank": 2, "label": label, "train": {"lr": lr}}
        for label, lr in (("still", 1e-12), ("moving", 2e-2))
    ]
    settings = {"model": str(save_model(tmp_path / "gpt2", "gpt2")), "task": task}
    settings |= {"methods": methods, "seeds": [0], "train": train}
    plan = load_plan(str(write_recipe(tmp_path / "plan.yaml", settings)))
    assert run_comparison(plan, tmp_path / "out", None, lambda _: None) == []
    still, moving = (run.result for run in load_comparison(tmp_path / "out").runs)
    (floor,) = still.floors
    assert (floor.name, floor.trivial) == ("untuned model", True)
    assert floor.metrics["perplexity"] == pytest.approx(still.metrics["perplexity"], rel=1e-4)
    assert "learned nothing" in floor_verdict("perplexity", still.floors)
    assert moving.floors[0].margin == pytest.approx(
        floor.metrics["perplexity"] - moving.metrics["perplexity"], rel=1e-4
    )
    assert floor_verdict("perplexity", moving.floors).startswith("beats the untuned model by ")
