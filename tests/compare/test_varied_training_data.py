"""A comparison of two sizes of the training data, as a user makes, extends and reports it."""

from __future__ import annotations

import csv
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from commands import call, execute_in_process, run_settings, write_recipe
from counted import accuracy, predictions, read, result, table
from iwlora.cli import main
from iwlora.errors import IwloraError
from iwlora.results.comparison.combined import load_parts
from iwlora.training.recipe import load as load_recipe
from iwlora.training.run import train
from runs import as_foreign

SEEDS = (0, 1)
SMALL = "lora-max_train=32"


@pytest.fixture(scope="module")
def grown(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, list[list[str]]]:
    """(recipe, folder, commands): one arm lost a run, and an arm with fewer rows was added."""
    folder = tmp_path_factory.mktemp("sizes")
    data = shutil.copytree(Path(reviews["train"]).parent, folder / "data")
    own = {split: str(data / f"{split}.csv") for split in ("train", "validation")}
    reviews = {**reviews, **own}
    settings = run_settings(tiny_bert, reviews, methods=[{"name": "lora", "rank": 4}])
    del settings["method"]
    settings |= {"seeds": list(SEEDS), "train": {**settings["train"], "epochs": 4, "batch_size": 8}}
    recipe = write_recipe(folder / "plan.yaml", settings)
    with pytest.MonkeyPatch.context() as patch:
        started = execute_in_process(patch)
        assert main(["compare", str(recipe), "--out", str(folder / "out")]) == 0
        shutil.rmtree(folder / "out" / "lora" / "seed-1")
        small = {"name": "lora", "rank": 4, "task": {"max_train": 32}}
        settings |= {"methods": [*settings["methods"], small], "vary": ["task.max_train"]}
        write_recipe(recipe, settings)
        assert main(["compare", str(recipe), "--out", str(folder / "out")]) == 0
    return recipe, folder / "out", started


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    return execute_in_process(monkeypatch)


def differences(folder: Path) -> list[float]:
    """By seed, from the predictions that the runs saved."""
    scores = [
        [accuracy(predictions(folder / label / f"seed-{seed}")) for seed in SEEDS]
        for label in (SMALL, "lora")
    ]
    return [float(a - b) for a, b in zip(*scores, strict=True)]


def test_a_comparison_goes_on_and_grows_by_an_arm_with_other_training_data(
    grown: tuple[Path, Path, list[list[str]]],
) -> None:
    _, folder, started = grown
    assert [Path(command[-1]).relative_to(folder).as_posix() for command in started] == [
        *("lora/seed-0", "lora/seed-1"),
        *(f"{SMALL}/seed-0", "lora/seed-1", f"{SMALL}/seed-1"),
    ], "what is done is not done again"
    for label, rows in (("lora", 96), (SMALL, 32)):
        for seed in SEEDS:
            assert result(folder, label, seed)["train_examples"] == rows
            assert len(predictions(folder / label / f"seed-{seed}")) == 32
    heads = {result(folder, label, 0)["head_digest"] for label in ("lora", SMALL)}
    assert len(heads) == 1


def test_the_statistics_are_those_of_the_saved_predictions(
    grown: tuple[Path, Path, list[list[str]]],
) -> None:
    _, folder, _ = grown
    summary = read(folder / "summary.json")
    (row,) = summary["differences"]
    expected = differences(folder)
    assert expected[0] != expected[1], "else there is no interval"
    assert (row["arm"], row["baseline"], row["seeds"]) == (SMALL, "lora", list(SEEDS))
    assert row["summary"]["mean"] == pytest.approx(np.mean(expected))
    interval = stats.t.interval(0.95, 1, np.mean(expected), stats.sem(expected))
    assert (row["summary"]["low"], row["summary"]["high"]) == pytest.approx(interval)
    flipped = [np.dot(signs, expected) for signs in itertools.product((1, -1), repeat=2)]
    p_value = np.mean([abs(total) >= abs(sum(expected)) - 1e-12 for total in flipped])
    assert row["p_value"] == pytest.approx(p_value)


def test_every_format_says_what_differs_and_what_is_paired(
    grown: tuple[Path, Path, list[list[str]]],
    in_process: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, folder, _ = grown
    outcome = call(capsys, "report", folder)
    assert outcome.code == 0, outcome.err
    shown = table(outcome.out)
    assert {
        label: row["training rows"] for label, row in shown.items() if "floor" not in label
    } == {
        "lora": "96",
        SMALL: "32",
    }
    pages = [(folder / name).read_text("utf-8") for name in ("summary.md", "report.html")]
    caveat = (
        "The arms have different training data, as declared: lora (task.max_train=null); "
        f"{SMALL} (task.max_train=32). Their differences come from data and method together; equal "
        "numbers of adapter parameters do not mean equal training"
    )
    for text in (outcome.out, *pages):
        assert caveat in text
    for text in pages:
        assert (
            "paired by seed on the same scored rows with training data that differ in "
            "task.max_train" in text
        )
    summary = read(folder / "summary.json")
    assert (summary["vary"], summary["verified"]) == (["task.max_train"], True)
    assert [arm["training_data"] for arm in summary["arms"]] == [
        {"task.max_train": None},
        {"task.max_train": 32},
    ]
    with (folder / "summary.csv").open() as stream:
        rows = {(row["method"], row["train_examples"]) for row in csv.DictReader(stream)}
    assert rows == {("lora", "96"), (SMALL, "32")}


def replant(run: Path, **parts: str) -> None:
    """Change digests of the inputs of a finished run."""
    fingerprint = read(run / "result.json")["fingerprint"]
    as_foreign(run, fingerprint={**fingerprint, "parts": {**fingerprint["parts"], **parts}})


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("labels of validation", "the labels of validation.csv changed"),
        ("class names", "the class names are others"),
        ("model weights", "the model weights are others"),
        ("tokenizer", "the tokenizer is another one"),
    ],
)
def test_a_run_with_other_scored_rows_classes_or_model_is_in_no_pair_and_no_pool(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path, part: str, words: str
) -> None:
    """Planned, in one folder without a plan, and in two folders; other training rows are none."""
    _, folder, _ = grown
    copy = Path(shutil.copytree(folder, tmp_path / "out"))
    replant(copy / SMALL / "seed-1", **{"labels of train": "another"})
    load_parts([copy])
    replant(copy / SMALL / "seed-1", **{part: "another"})
    with pytest.raises(IwloraError, match=f"seed-1 does not compare with .*: {words}"):
        load_parts([copy])
    (copy / "comparison.yaml").unlink()
    for sources in ([copy], [copy / "lora", copy / SMALL], [copy / SMALL]):
        with pytest.raises(IwloraError, match=f"seed-1 does not compare with .*: {words}"):
            load_parts(sources, ["task.max_train"])


def test_one_scored_label_that_differs_is_counted(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path
) -> None:
    """Of a run that was trained after the label of one scored row was changed."""
    _, folder, _ = grown
    recipe = load_recipe(str(folder / "lora" / "seed-0" / "recipe.yaml"))
    assert recipe.task.validation
    scored = Path(recipe.task.validation)
    before = scored.read_text()
    scored.write_text(before.replace(",pos\n", ",neg\n", 1))
    train(recipe.with_train(max_steps=1), tmp_path / "theirs" / "seed-0")
    scored.write_text(before)
    expected = r"the labels of 1 row of validation\.csv changed"
    with pytest.raises(IwloraError, match=f"theirs/seed-0 does not compare .*: {expected}$"):
        load_parts([folder, tmp_path / "theirs"])


def test_arms_of_equal_declared_data_have_the_same_training_rows(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path
) -> None:
    _, folder, _ = grown
    again = Path(shutil.copytree(folder / SMALL, tmp_path / "again"))
    parts = load_parts([folder, again])
    assert [part.vary for part in parts] == [("task.max_train",)]
    replant(again / "seed-1", **{"labels of train": "another"})
    expected = (
        r"no field of their recipes differs, so a file was changed(.|\n)*lora-max_train=32 "
        r"\(again\) and .* at seed 1: not the same training rows \(the labels of train"
    )
    with pytest.raises(IwloraError, match=expected):
        load_parts([folder, again])


def test_seeds_of_one_arm_do_not_mix_training_data(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path
) -> None:
    _, folder, _ = grown
    shutil.copytree(folder / "lora" / "seed-0", tmp_path / "runs" / "a")
    run = Path(shutil.copytree(folder / SMALL / "seed-1", tmp_path / "runs" / "b"))
    as_foreign(run, label="lora")
    with pytest.raises(IwloraError, match=r"b and .*/a are no runs of one arm: their task\.max"):
        load_parts([tmp_path / "runs"], ["task.max_train"])


def test_the_same_scored_rows_are_one_task_whatever_their_files_are_called(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path
) -> None:
    _, folder, _ = grown
    moved = Path(shutil.copytree(folder / "lora", tmp_path / "moved"))
    for seed in SEEDS:
        as_foreign(moved / f"seed-{seed}", task="elsewhere/train.csv")
    (part,) = load_parts([folder, moved])
    assert part.arms == ("lora (out)", SMALL, "lora (moved)")
    assert any("elsewhere/train.csv" in remark for remark in part.remarks)


def undeclared(folder: Path, copy: Path) -> Path:
    """The comparison without what it declares."""
    shutil.copytree(folder, copy)
    path = copy / "comparison.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"vary": []}))
    return copy


def test_without_the_declaration_the_comparison_is_refused(
    grown: tuple[Path, Path, list[list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder, _ = grown
    outcome = call(capsys, "report", undeclared(folder, tmp_path / "out"))
    assert outcome.code == 2
    expected = (
        f"{SMALL} and lora did not start alike at seed 0: not the same training rows (train.csv "
        "has 32 rows, and it had 96)"
    )
    assert expected in outcome.err
    assert "task.max_train differs; if that is what you compare, declare it" in outcome.err
    assert "iwlora compare FOLDER ... 'vary=[task.max_train]' --out OTHER" in outcome.err


def test_folders_of_results_declare_it_too(
    grown: tuple[Path, Path, list[list[str]]],
    in_process: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, folder, _ = grown
    sources = [folder / label for label in ("lora", SMALL)]
    refused = call(capsys, "compare", *sources, "--out", tmp_path / "both")
    assert refused.code == 2
    assert "not the same training rows (train.csv has 32 rows, and it had 96)" in refused.err
    outcome = call(capsys, "compare", *sources, "vary=[task.max_train]", "--out", tmp_path / "both")
    assert outcome.code == 0, outcome.err
    again = call(capsys, "report", tmp_path / "both")
    assert again.code == 0, again.err
    of_folders, planned = (read(path / "summary.json") for path in (tmp_path / "both", folder))
    assert of_folders["vary"] == ["task.max_train"]
    assert of_folders["differences"] == planned["differences"]
    wrong = call(capsys, "compare", *sources, "vary=[task.text]", "--out", tmp_path / "other")
    assert "arms may not differ in task.text" in wrong.err
    more = "vary=[task.max_train,task.mix]"
    unused = call(capsys, "compare", *sources, more, "--out", tmp_path / "other")
    assert "vary: task.mix is declared, and no arm has its own" in unused.err
