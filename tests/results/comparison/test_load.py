"""Run folders are read whole or refused by name; what is missing is listed, not guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from iwlora.errors import IwloraError
from iwlora.results.comparison import load, load_comparison
from iwlora.results.run import load_run


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_finished_comparison_is_read_whole(folder: Path) -> None:
    comparison = load_comparison(folder)
    assert comparison.arms == ("full", "lora", "adalora", "iw-lora")
    assert comparison.seeds == (0, 1, 2)
    assert len(comparison.runs) == 12
    assert comparison.missing == ()
    assert comparison.metrics == ("accuracy", "f1", "loss")
    stored = json.loads((folder / "adalora" / "seed-1" / "result.json").read_text())
    assert comparison.values("adalora", "accuracy")[1] == stored["metrics"]["accuracy"]


def test_missing_runs_are_listed_with_their_status_and_never_counted(folder: Path) -> None:
    (folder / "lora" / "seed-1" / "result.json").unlink()
    edit(folder / "lora" / "seed-1" / "status.json", state="failed", error="out of\nmemory")
    (folder / "full" / "seed-0" / "result.json").unlink()
    (folder / "full" / "seed-0" / "status.json").unlink()
    plan = yaml.safe_load((folder / "comparison.yaml").read_text())
    (folder / "comparison.yaml").write_text(yaml.safe_dump(plan | {"seeds": [0, 1, 2, 9]}))
    comparison = load_comparison(folder)
    missing = {(label, seed): status for label, seed, status in comparison.missing}
    assert missing[("lora", 1)] == "no result.json; state: failed: out of memory"
    assert missing[("full", 0)] == "not started"
    assert missing[("adalora", 9)] == "not started"
    assert set(comparison.values("lora", "accuracy")) == {0, 2}


def test_a_diverged_score_is_missing_but_a_diverged_loss_only_leaves_the_loss_out(
    folder: Path,
) -> None:
    for seed, metric in ((0, "accuracy"), (1, "loss")):
        path = folder / "lora" / f"seed-{seed}" / "result.json"
        edit(path, metrics=json.loads(path.read_text())["metrics"] | {metric: float("nan")})
    comparison = load_comparison(folder)
    assert comparison.missing == (("lora", 0, "finished, but its accuracy is not a finite number"),)
    assert set(comparison.values("lora", "accuracy")) == {1, 2}
    assert set(comparison.values("lora", "loss")) == {2}


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"method": "lora", ', "[]", "null", '{"method": "lora"}', "\x00"],
    ids=["empty", "brace", "cut", "list", "null", "fields-missing", "zero-byte"],
)
def test_a_damaged_result_names_its_file(folder: Path, text: str) -> None:
    path = folder / "lora" / "seed-1" / "result.json"
    path.write_text(text)
    with pytest.raises(IwloraError, match=re.escape(str(path))):
        load_comparison(folder)
    with pytest.raises(IwloraError, match=re.escape(str(path))):
        load_run(path.parent)


def test_every_prefix_of_a_result_is_refused(folder: Path) -> None:
    path = folder / "lora" / "seed-1" / "result.json"
    whole = path.read_text()
    for end in range(0, len(whole), 7):
        path.write_text(whole[:end])
        with pytest.raises(IwloraError):
            load_run(path.parent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "1"),
        ("metrics", {"f1": 0.5}),
        ("metrics", {"accuracy": "high"}),
        ("trainable_parameters", -1),
        ("trainable_parameters", 10.5),
        ("train_seconds", float("inf")),
        ("label", "../lora"),
        ("model", "line\nbreak"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(folder: Path, field: str, value: object) -> None:
    path = folder / "lora" / "seed-1" / "result.json"
    edit(path, **{field: value})
    with pytest.raises(IwloraError, match=f"{re.escape(str(path))}: (fields|{field})"):
        load_run(path.parent)


def test_all_damages_are_told_at_once(folder: Path) -> None:
    (folder / "lora" / "seed-0" / "result.json").write_text("{")
    edit(folder / "full" / "seed-2" / "result.json", seed="two", rank=-3)
    with pytest.raises(IwloraError) as caught:
        load_comparison(folder)
    text = str(caught.value)
    assert len(text.splitlines()) == 3
    for words in ("lora/seed-0", "full/seed-2/result.json: seed", "full/seed-2/result.json: rank"):
        assert words in text


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "other/model"), ("task", "glue/mrpc"), ("label", "full"), ("seed", 7)],
)
def test_a_run_of_another_comparison_is_refused(folder: Path, field: str, value: object) -> None:
    path = folder / "lora" / "seed-1" / "result.json"
    edit(path, **{field: value})
    with pytest.raises(IwloraError, match=f"result.json belongs to another.*its {field} is"):
        load_comparison(folder)


@pytest.mark.parametrize("field", ["primary_metric", "evaluated_on", "selected_on"])
def test_a_run_scored_otherwise_is_refused(folder: Path, field: str) -> None:
    edit(folder / "lora" / "seed-1" / "result.json", **{field: "f1"})
    with pytest.raises(IwloraError, match=f"does not compare: its {field} is 'f1'"):
        load_comparison(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": []}, "methods"),
        ({"methods": ["lora", "lora"]}, "only once"),
        ({"methods": ["../lora"]}, "names a folder"),
        ({"seeds": ["0"]}, "seeds.0"),
        ({"seeds": [1, 1]}, "only once"),
        ({"model": None}, "model"),
        ({"vary": ["train.lr"]}, "vary: .*arms may differ in task.max_train, .* not in train.lr"),
    ],
)
def test_a_wrong_plan_is_refused(folder: Path, changes: dict[str, object], words: str) -> None:
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(IwloraError, match=f"comparison.yaml: .*{words}"):
        load_comparison(folder)


@pytest.mark.parametrize("text", ["methods: [", "- a", ""])
def test_a_broken_plan_is_refused(folder: Path, text: str) -> None:
    (folder / "comparison.yaml").write_text(text)
    with pytest.raises(IwloraError, match=r"comparison\.yaml"):
        load(folder)


def test_a_single_run_loads_as_one_arm(folder: Path) -> None:
    comparison = load(folder / "iw-lora" / "seed-2")
    assert (comparison.arms, comparison.seeds) == (("iw-lora",), (2,))
    (run,) = comparison.runs
    measured = run.sensitivity()
    assert measured is not None
    assert len(measured.sites) == 36
    assert run.environment()["cores"] == 2
    assert load(folder / "lora" / "seed-2").runs[0].sensitivity() is None


def test_folders_that_hold_nothing_to_report_say_so(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(IwloraError, match="no such folder"):
        load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IwloraError, match=r"neither a run .* nor a comparison"):
        load(tmp_path / "empty")
    (folder / "lora" / "seed-0" / "result.json").unlink()
    with pytest.raises(IwloraError, match="no finished run"):
        load(folder / "lora" / "seed-0")
    with pytest.raises(IwloraError, match="is no comparison"):
        load_comparison(folder / "lora" / "seed-1")


def test_the_history_is_read_and_a_broken_line_is_named(folder: Path) -> None:
    run = load_run(folder / "lora" / "seed-0")
    assert sum("evaluation" in line for line in run.history()) == 3
    path = run.folder / "metrics.jsonl"
    count = len(path.read_text().splitlines())
    path.write_text(path.read_text() + '{"step": 3')
    with pytest.raises(IwloraError, match=rf"metrics\.jsonl, line {count + 1} is damaged"):
        run.history()
    path.unlink()
    assert run.history() == []


def test_other_model_and_task_names_pass_through(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    folder = comparison_in(tmp_path / "c", arms=["lora"], seeds=1, model="a/b", task="my rows.csv")
    assert load(folder).task == "my rows.csv"
