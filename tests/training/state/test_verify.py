"""``iwlora verify``: every changed, missing and added file of a run is named."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from commands import call
from failing_opens import ends_with_each_open_refused
from interruptions import Killed, kill_at
from iwlora import IwloraError
from iwlora.results.comparison.designs import DesignRecord, DrawnRun
from iwlora.results.comparison.record import ComparisonRecord, StoppingRule
from iwlora.results.run import RunResult
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.run import train
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.verify import verify
from kinds import save_model
from planted_designs import ended_search
from runs import recipe, with_options
from tiny_tasks import write_task


@pytest.fixture(scope="module")
def runs(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model, data, and a finished and an interrupted run that measured."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copytree(tiny_bert, folder / "model")
    shutil.copytree(Path(reviews["train"]).parent, folder / "data")
    files = {split: str(folder / "data" / f"{split}.csv") for split in ("train", "validation")}
    task = {**files, "text": "text", "label": "mood"}
    made = with_options(recipe(folder / "model", task, "iw-lora", save_steps=5), max_batches=2)
    train(made, folder / "finished")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(11, patch)
        with pytest.raises(Killed):
            train(made, folder / "interrupted")
    return folder


def not_intact(run: Path, inputs: bool = False) -> dict[str, str]:
    return {check.name: check.state for check in verify(run, inputs) if check.state != "intact"}


@pytest.mark.quick
def test_what_a_run_left_is_intact(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {check.name for check in verify(runs / "finished", inputs=True)}
    assert names >= {
        *("result.json", "sensitivity.json", "adapter/adapter_model.safetensors", "inputs"),
        *("metrics of predictions/validation.csv", "checkpoints/checkpoint-10", "recipe.yaml"),
    }
    for run in ("finished", "interrupted"):
        outcome = call(capsys, "verify", runs / run, "--inputs")
        assert (outcome.code, outcome.err) == (0, "")
        assert all(line.startswith("intact   ") for line in outcome.out.splitlines())


def test_all_runs_of_a_comparison_are_checked(runs: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(runs / "finished", tmp_path / "iw-lora" / f"seed-{seed}")
    ComparisonRecord(model="m", task="t", methods=["iw-lora"], seeds=[0, 1, 2]).save(
        tmp_path / "comparison.yaml"
    )
    assert not_intact(tmp_path) == {"iw-lora/seed-2": "missing"}
    (tmp_path / "iw-lora" / "seed-1" / "adapter" / "adapter_config.json").unlink()
    assert not_intact(tmp_path) == {
        "iw-lora/seed-2": "missing",
        "iw-lora/seed-1: adapter/adapter_config.json": "missing",
    }
    (tmp_path / "comparison.yaml").write_text("methods: []")
    assert not_intact(tmp_path)["comparison.yaml"] == "changed"


def test_where_a_rule_ends_the_draws_an_arm_needs_those_before_its_last_one(
    runs: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        shutil.copytree(runs / "finished", tmp_path / "iw-lora" / f"seed-{seed}")
    ComparisonRecord(
        model="m",
        task="t",
        methods=["iw-lora", "lora"],
        seeds=[0, 1, 2],
        stop=StoppingRule(difference=1.0),
    ).save(tmp_path / "comparison.yaml")
    assert not_intact(tmp_path) == {}
    shutil.rmtree(tmp_path / "iw-lora" / "seed-0")
    assert not_intact(tmp_path) == {"iw-lora/seed-0": "missing"}


def test_the_stages_of_a_search_of_designs_are_checked(runs: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "grouping-01234567"
    shutil.copytree(runs / "finished", stage / "spindle" / "seed-0")
    ComparisonRecord(model="m", task="t", methods=["spindle"], seeds=[0]).save(
        stage / "comparison.yaml"
    )
    record = {
        "space": {"run": {}, "design": {}, "choices": {}},
        "growing": {"draws": [8], "models": 2, "designs": 2},
    }
    DesignRecord.model_validate(record).save(tmp_path / "design.yaml")
    assert not_intact(tmp_path) == {}, "no stage has ended"
    run = DrawnRun(
        choice="spindle", draw=0, seed=0, point={}, folder=f"{inside(stage)}/spindle/seed-0"
    )
    ended_search([run], inside(stage)).save(tmp_path / "summary.json")
    assert not_intact(tmp_path) == {}
    name = f"{inside(stage)}: spindle/seed-0: adapter/adapter_config.json"
    (tmp_path / run.folder / "adapter" / "adapter_config.json").unlink()
    assert not_intact(tmp_path) == {name: "missing"}
    shutil.rmtree(tmp_path / run.folder)
    missing = {f"{inside(stage)}: spindle/seed-0": "missing", run.folder: "missing"}
    assert not_intact(tmp_path) == missing
    (tmp_path / "design.yaml").write_text("space: []")
    assert not_intact(tmp_path)["design.yaml"] == "changed"


def inside(stage: Path) -> str:
    """A stage's folder below that of its search."""
    return f"stages/{stage.name}"


@pytest.mark.parametrize("run", ["finished", "interrupted"])
def test_every_flipped_bit_is_named(runs: Path, run: str) -> None:
    """In each file that a run left."""
    draw = random.Random(0)
    files = [f for f in sorted((runs / run).rglob("*")) if f.is_file() and f.name != ".lock"]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        for _ in range(2):
            changed = bytearray(content)
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(7)
            file.write_bytes(changed)
            named = " ".join(not_intact(runs / run))
            inside = file.relative_to(runs / run)
            folder = "/".join(inside.parts[:2])
            assert inside.as_posix() in named or folder in named, (file, bytes(changed))
        file.write_bytes(content)
    assert not_intact(runs / run) == {}


def test_missing_and_added_files_are_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs / "finished", tmp_path / "run"))
    (run / "adapter" / "adapter_config.json").unlink()
    (run / "adapter" / "iwlora_adapter.json").write_text("{}")
    (run / "report.html").write_text("a report belongs to no run")
    assert not_intact(run) == {
        "adapter/adapter_config.json": "missing",
        "adapter/iwlora_adapter.json": "changed",
    }
    outcome = call(capsys, "verify", run)
    assert outcome.code == 1
    assert "missing  adapter/adapter_config.json\n" in outcome.out
    assert "changed  adapter/iwlora_adapter.json: it was not there" in outcome.out


def test_metrics_that_do_not_follow_from_the_predictions_are_named(
    runs: Path, tmp_path: Path
) -> None:
    """Even where whoever changed them made all digests fit."""
    run = Path(shutil.copytree(runs / "finished", tmp_path / "run"))
    result = RunResult.load(run / "result.json")
    better = {**result.metrics, "accuracy": result.metrics["accuracy"] / 2 + 0.123}
    result.model_copy(update={"metrics": better}).save(run / "result.json")
    (check,) = [check for check in verify(run) if check.state != "intact"]
    assert check.name == "metrics of predictions/validation.csv"
    assert f"the result says {better['accuracy']:.6g}" in check.detail


KINDS = {
    "multi-label": ("bert", {}, ()),
    "token-labels": ("bert", {}, ("loss",)),
    "question-answering": ("bert", {}, ("loss",)),
    "seq2seq": ("t5", {}, ()),
    "instruction": ("gpt2", {"metric": "perplexity"}, ()),
    "chat": ("llama", {}, ()),
    "language-modeling": ("gpt2", {}, ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_follow_from_the_predictions_of_every_kind(kind: str, tmp_path: Path) -> None:
    architecture, options, undetermined = KINDS[kind]
    task, _ = write_task(tmp_path, kind)
    task["kind"] = {**task["kind"], **options}
    model = save_model(tmp_path / "model", architecture)
    result = RunResult.parse(
        train(recipe(model, task, max_steps=1, epochs=1.0), tmp_path / "run"), "result"
    )
    name = "metrics of predictions/validation.csv"
    unknown = [f"{', '.join(undetermined)} in the {name}"] if undetermined else []
    assert [check.name for check in verify(tmp_path / "run") if check.state != "intact"] == unknown
    assert not any(check.matters for check in verify(tmp_path / "run") if check.state != "intact")
    determined = result.metrics.keys() - {*undetermined}
    assert determined >= {result.primary_metric}
    for metric in determined:
        wrong = {**result.metrics, metric: result.metrics[metric] + 0.01}
        result.model_copy(update={"metrics": wrong}).save(tmp_path / "run" / "result.json")
        (check,) = [check for check in verify(tmp_path / "run") if check.state == "changed"]
        assert check.name == name
        assert check.detail.startswith(f"{metric} is ")


def test_inputs_are_read_without_the_cache(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that weights whose size and time were put back are seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("iwlora.results.file_digests.CACHED_FROM_BYTES", 1)
    file = runs / "model" / "model.safetensors"
    content = file.read_bytes()
    os.utime(file, ns=(10**18, 10**18))
    assert not_intact(runs / "finished", inputs=True) == {}
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(10**18, 10**18))
    assert not_intact(runs / "finished") == {}
    details = [check.detail for check in verify(runs / "finished", inputs=True) if check.detail]
    file.write_bytes(content)
    assert details == ["the model weights are others"]


def test_a_recipe_that_was_edited_is_an_input_that_changed(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "interrupted", tmp_path / "run"))
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("lr: 0.01", "lr: 0.02"))
    assert {(c.name, c.detail) for c in verify(run, inputs=True) if c.detail} == {
        ("recipe.yaml", "it was edited"),
        ("inputs", "the recipe is another one"),
    }


def test_runs_of_older_versions_are_unknown(runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "finished", tmp_path / "run"))
    stored = json.loads((run / "result.json").read_text())
    for name in ("fingerprint", "files", "digest"):
        del stored[name]
    (run / "result.json").write_text(json.dumps(stored))
    (run / "fingerprint.json").unlink()
    assert not_intact(run, inputs=True) == {"result.json": "unknown", "inputs": "unknown"}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        IwloraError, match=r"neither a run nor a comparison nor a search of designs nor an exp"
    ):
        verify(tmp_path)


@pytest.mark.parametrize("options", [[], ["--merge"]])
def test_every_flipped_bit_of_an_export_is_named(
    runs: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert call(capsys, "export", runs / "finished", "--to", folder, *options).code == 0
    record = json.loads((folder / "iwlora_export.json").read_text())
    stored = json.loads((runs / "finished" / "result.json").read_text())
    assert record["fingerprint"] == stored["fingerprint"]
    assert call(capsys, "verify", folder).code == 0
    draw = random.Random(0)
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(7)
        file.write_bytes(changed)
        is_card = file.name == "README.md"  # which its owner may edit
        assert not_intact(folder).keys() == (set() if is_card else {file.name}), bytes(changed)
        file.write_bytes(content)
    ends = ends_with_each_open_refused(lambda: not_intact(folder), folder)
    assert {} not in ends  # what was not read is not intact
    (folder / "tokenizer.json").unlink()
    assert not_intact(folder) == {"tokenizer.json": "missing"}
    assert "verify the run" in call(capsys, "verify", folder, "--inputs").err


def test_a_list_of_files_that_leads_out_of_its_folder_is_refused(
    runs: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs / "finished", tmp_path / "run"))
    result = RunResult.load(run / "result.json")
    result.model_copy(update={"files": {"../secret": "0"}}).save(run / "result.json")
    assert not_intact(run)["result.json"] == "changed"
    with pytest.raises(IwloraError, match="stays in the folder"):
        RunResult.load(run / "result.json")


def test_a_measurement_in_flight_belongs_to_its_inputs(runs: Path, tmp_path: Path) -> None:
    """Finished, unfinished, and as a checkpoint has it."""
    made = json.loads((runs / "finished" / "result.json").read_text())["fingerprint"]["parts"]
    task = {**RunDir(runs / "finished").recipe().task.model_dump(exclude_none=True)}
    asked = with_options(
        recipe(runs / "model", task, "iw-lora", save_steps=3),
        estimator="lora",
        max_batches=8,
        tolerance=0.0,
    )
    with pytest.MonkeyPatch.context() as patch:
        kill_at(7, patch)
        with pytest.raises(Killed):
            train(asked, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-6"
    partial = checkpoint / "sensitivity-in-flight.json"
    seal = json.loads((checkpoint / "complete.json").read_text())
    assert partial.name in seal["files"]
    assert (
        seal["fingerprint"]["parts"].items()
        >= {name: part for name, part in made.items() if name != "recipe"}.items()
    )
    content = partial.read_bytes()
    partial.write_bytes(content.replace(b"1", b"2", 1))
    assert not_intact(tmp_path / "run") == {"checkpoints/checkpoint-6": "changed"}
    partial.write_bytes(content)
    result = train(asked, tmp_path / "run")
    measured = Sensitivity.load(tmp_path / "run" / "sensitivity.json")
    assert measured.fingerprint is not None
    assert measured.fingerprint.parts == result["fingerprint"]["parts"]
    assert not_intact(tmp_path / "run", inputs=True) == {}
