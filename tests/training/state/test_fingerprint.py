"""A result is tied to its inputs: a change of any of them is named, and nothing is reused."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import call, snapshot
from interruptions import Killed, kill_at
from iwlora import IwloraError
from iwlora.results import file_digests
from iwlora.results.fingerprint import Fingerprint
from iwlora.results.formats import with_digest
from iwlora.training.prediction.new_rows import predict
from iwlora.training.recipe import Recipe
from iwlora.training.run import train
from iwlora.training.state import fingerprint as module
from iwlora.training.state.fingerprint import check_artifact
from iwlora.training.state.verify import verify
from runs import recipe, weights, with_options


@pytest.fixture(scope="module")
def study(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a model and data of its own, a finished run and an interrupted one."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(tiny_bert, folder / "model")
    shutil.copytree(Path(reviews["train"]).parent, folder / "data")
    train(run_recipe(folder), folder / "finished")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(8, patch)
        for seed, name in ((0, "interrupted"), (1, "other seed")):
            with pytest.raises(Killed):
                train(run_recipe(folder, seed=seed), folder / name)
    return folder


def run_recipe(folder: Path, method: str = "lora", **train: Any) -> Recipe:
    files = {split: str(folder / "data" / f"{split}.csv") for split in ("train", "validation")}
    task = {**files, "text": "text", "label": "mood"}
    return recipe(folder / "model", task, method, **{"save_steps": 3, **train})


def kill_at_once(asked: Recipe, folder: Path) -> None:
    """Before the first step."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(0, patch)
        with pytest.raises(Killed):
            train(asked, folder)


@pytest.fixture
def inputs(study: Path) -> Iterator[Path]:
    """The folder, whose model and data are put back after the test."""
    parts = [study / "model", study / "data"]
    before = {part: snapshot(part) for part in parts}
    yield study
    for part, files in before.items():
        for name, content in files.items():
            (part / name).write_bytes(content)


def lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, *change(rows)]) + "\n", encoding="utf-8")


def other_label(row: str) -> str:
    return f"{row[:-3]}{'neg' if row.endswith('pos') else 'pos'}"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rename_class(folder: Path) -> None:
    for split in ("train", "validation"):
        lines(
            folder / "data" / f"{split}.csv",
            lambda rows: [f"{row}itive" if row.endswith("pos") else row for row in rows],
        )


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "labels": (
        lambda f: lines(f / "data/train.csv", lambda r: [*map(other_label, r[:12]), *r[12:]]),
        "the labels of 12 rows of train.csv changed",
    ),
    "scored labels": (
        lambda f: lines(f / "data/validation.csv", lambda r: [other_label(r[0]), *r[1:]]),
        "the labels of 1 row of validation.csv changed",
    ),
    "texts": (
        lambda f: lines(f / "data/train.csv", lambda r: [r[0].replace("film", "book"), *r[1:]]),
        "the texts of 1 row of train.csv changed",
    ),
    "order": (
        lambda f: lines(f / "data/train.csv", lambda r: r[::-1]),
        "the rows of train.csv are in another order",
    ),
    "a row more": (
        lambda f: lines(f / "data/train.csv", lambda r: [*r, "96,it is a good film,pos"]),
        "train.csv has 97 rows, and it had 96",
    ),
    "class names": (rename_class, "the class names are others"),
    "tokenizer": (
        lambda f: (f / "model/tokenizer.json").write_text(
            (f / "model/tokenizer.json").read_text().replace("great", "grand")
        ),
        "the tokenizer is another one",
    ),
    "one byte of the weights": (
        lambda f: flip(f / "model/model.safetensors"),
        "the model weights are others",
    ),
    "configuration": (
        lambda f: (f / "model/config.json").write_text(
            (f / "model/config.json").read_text().replace('"gelu"', '"relu"')
        ),
        "the model configuration is another one",
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_input_is_named_and_nothing_is_reused(inputs: Path, change: str) -> None:
    make, clause = CHANGES[change]
    make(inputs)
    for run, consequence in (("finished", "is finished, and its"), ("interrupted", "cannot be re")):
        before = snapshot(inputs / run)
        with pytest.raises(IwloraError) as refused:
            train(run_recipe(inputs), inputs / run)
        assert consequence in str(refused.value)
        assert f"began: {clause}; restore" in str(refused.value), "this change and no other"
        after = snapshot(inputs / run)
        del before["status.json"], after["status.json"], before["environment.json"]
        del after["environment.json"]
        assert after == before


def test_the_command_line_prints_no_score_of_other_labels(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", inputs / "finished" / "recipe.yaml", "--out", inputs / "finished")
    assert "accuracy" in call(capsys, *command).out
    CHANGES["scored labels"][0](inputs)
    outcome = call(capsys, *command)
    assert outcome.code == 2
    assert "accuracy" not in outcome.out
    assert "the labels of 1 row of validation.csv changed" in outcome.err


def test_large_weights_are_read_once_on_a_machine(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run, of another seed, opens them only to load the model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = study / "model" / "model.safetensors"
    monkeypatch.setattr(file_digests, "CACHED_FROM_BYTES", file.stat().st_size)
    monkeypatch.setattr(file_digests, "_SETTLED_SECONDS", -1.0)  # the file is new
    opened: list[Path] = []
    read = file_digests._read
    monkeypatch.setattr(file_digests, "_read", lambda path: opened.append(path) or read(path))
    for seed, times in ((2, 1), (3, 1)):
        kill_at_once(run_recipe(study, seed=seed), tmp_path / f"seed {seed}")
        assert opened.count(file.resolve()) == times


def test_data_that_are_gone_are_named(inputs: Path) -> None:
    (inputs / "data" / "train.csv").unlink()
    with pytest.raises(
        IwloraError, match=r"can no longer be read; 'iwlora report .*finished' shows"
    ):
        train(run_recipe(inputs), inputs / "finished")


def test_another_recipe_is_named_by_its_fields(study: Path) -> None:
    with pytest.raises(IwloraError, match=r"another recipe .*: train.lr=0.5 \(not 0.01\); choose"):
        train(run_recipe(study, lr=0.5), study / "finished")


@pytest.mark.quick
def test_without_a_change_everything_is_reused_without_a_word(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(study / "interrupted", tmp_path / "run")
    stored = json.loads((study / "finished" / "result.json").read_text())
    with caplog.at_level(logging.WARNING, "iwlora"):
        assert train(run_recipe(study), study / "finished") == stored
        resumed = train(run_recipe(study), tmp_path / "run")
    assert [record for record in caplog.records if record.name == "iwlora"] == []
    assert resumed["resumed_at_step"] == 6
    assert resumed["fingerprint"] == stored["fingerprint"]
    whole = weights(study / "finished")
    assert all(torch.equal(whole[name], t) for name, t in weights(tmp_path / "run").items())


def test_changed_data_begin_anew_before_there_is_work(inputs: Path, tmp_path: Path) -> None:
    kill_at_once(run_recipe(inputs), tmp_path / "run")
    first = (tmp_path / "run" / "fingerprint.json").read_bytes()
    CHANGES["labels"][0](inputs)
    result = train(run_recipe(inputs), tmp_path / "run")
    assert (tmp_path / "run" / "fingerprint.json").read_bytes() != first
    assert (
        Fingerprint.load(tmp_path / "run" / "fingerprint.json").parts
        == (result["fingerprint"]["parts"])
    )


def test_a_checkpoint_of_another_seed_is_refused(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study / "interrupted", tmp_path / "run")
    for name in ("checkpoint-3", "checkpoint-6"):
        target = tmp_path / "run" / "checkpoints" / name
        shutil.rmtree(target)
        shutil.copytree(study / "other seed" / "checkpoints" / name, target)
    expected = r"checkpoint-6 belongs to another run: the seed is 0, and it was 1; remove it"
    with pytest.raises(IwloraError, match=expected):
        train(run_recipe(study), tmp_path / "run")


def test_a_checkpoint_on_other_weights_is_refused(inputs: Path, tmp_path: Path) -> None:
    """In a run that began on the present weights."""
    flip(inputs / "model/model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(8, patch)
        with pytest.raises(Killed):
            train(run_recipe(inputs), tmp_path / "other")
    flip(inputs / "model/model.safetensors")
    shutil.copytree(inputs / "interrupted", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", tmp_path / "run" / "checkpoints")
    (check,) = [check for check in verify(tmp_path / "run") if "checkpoint-6" in check.name]
    assert check.detail == "it belongs to another run: the model weights are others"
    with pytest.raises(IwloraError, match="checkpoint-6 belongs to another run: the model weights"):
        train(run_recipe(inputs), tmp_path / "run")


def test_a_measurement_of_other_rows_is_refused(inputs: Path, tmp_path: Path) -> None:
    measuring = with_options(run_recipe(inputs, "iw-lora"), measure="before", max_batches=2)
    kill_at_once(measuring, tmp_path / "before")
    CHANGES["labels"][0](inputs)
    kill_at_once(measuring, tmp_path / "after")
    shutil.copy(tmp_path / "before" / "sensitivity.json", tmp_path / "after")
    expected = r"sensitivity\.json belongs to another run: the labels of train\.csv changed; remove"
    with pytest.raises(IwloraError, match=expected):
        train(measuring, tmp_path / "after")


def test_other_numerics_refuse_and_other_versions_warn(
    study: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_version", lambda name: "99.0" if name == "peft" else None)
    train(run_recipe(study), study / "finished")
    assert "finished was begun with other versions: peft 99.0, and it was " in caplog.text
    monkeypatch.setattr(module, "NUMERICS_VERSION", 99)
    with pytest.raises(IwloraError, match="this version of iwlora computes other numbers"):
        train(run_recipe(study), study / "finished")


@pytest.mark.quick
def test_an_adapter_does_not_predict_on_another_model(inputs: Path, tmp_path: Path) -> None:
    CHANGES["one byte of the weights"][0](inputs)
    with pytest.raises(IwloraError, match=r"belongs to another model than .*: the model weights"):
        predict(inputs / "finished", inputs / "data" / "validation.csv", tmp_path / "answers.csv")


def as_before_fingerprints(run: Path) -> None:
    """Turn a run into one of a version without fingerprints."""
    for file in (run / "fingerprint.json", run / "row-digests.json"):
        file.unlink()
    for file in [*run.glob("result.json"), *run.glob("checkpoints/*/complete.json")]:
        fields = json.loads(file.read_text())
        newer = {"fingerprint", "digest", *(["files"] if file.name == "result.json" else [])}
        file.write_text(json.dumps({k: v for k, v in fields.items() if k not in newer}))


def test_a_run_from_before_is_warned_of_and_gets_a_fingerprint(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("interrupted", "finished"):
        shutil.copytree(study / name, tmp_path / name)
        as_before_fingerprints(tmp_path / name)
    train(run_recipe(study), tmp_path / "finished")
    assert caplog.text.count("cannot be verified") == 1
    caplog.clear()
    result = train(run_recipe(study), tmp_path / "interrupted")
    assert caplog.text.count("cannot be verified") == 1
    assert result["resumed_at_step"] == 6
    assert result["fingerprint"]["since_beginning"] is False
    assert sum("cannot be verified" in note for note in result["notes"]) == 1


def test_a_checkpoint_without_a_fingerprint_is_refused_in_a_run_with_one(study: Path) -> None:
    with pytest.raises(IwloraError, match="checkpoint-3 has no fingerprint"):
        check_artifact(None, Fingerprint(parts={"seed": "0"}), "checkpoint-3")


def test_a_fingerprint_that_was_edited_is_refused(study: Path, tmp_path: Path) -> None:
    stored = json.loads((study / "finished" / "fingerprint.json").read_text())
    assert (
        stored["digest"] == with_digest({k: stored[k] for k in stored if k != "digest"})["digest"]
    )
    stored["parts"]["seed"] = "7"
    (tmp_path / "fingerprint.json").write_text(json.dumps(stored))
    with pytest.raises(IwloraError, match="is damaged"):
        Fingerprint.load(tmp_path / "fingerprint.json")
