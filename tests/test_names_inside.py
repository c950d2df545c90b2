"""Names and links in foreign folders that lead out of them: nothing outside is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from commands import Command, Outcome, call, run_settings, write_recipe
from iwlora.errors import IwloraError
from iwlora.results.comparison.combined import load_parts, save_sources
from iwlora.training.model.file_names import check_names
from iwlora.training.recipe import build
from iwlora.training.run import train
from iwlora.training.state.checkpoints import damage
from runs import as_foreign

SECRET = "what-stands-outside"


@pytest.fixture(scope="module")
def finished(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("names") / "run"
    short = {"epochs": 0.4, "batch_size": 16, "max_length": 32, "precision": "fp32"}
    train(build(run_settings(tiny_bert, reviews, train={**short, "save_steps": 1})), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    as_foreign(copied)
    return copied


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs a command, which must end as for bad input and show nothing from outside."""

    def command(*arguments: object) -> Outcome:
        outcome = call(capsys, *arguments)
        assert outcome.code == 2, outcome
        assert "error: " in outcome.err
        shown = outcome.out + outcome.err
        written = [f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()]
        assert SECRET not in shown
        assert not any(SECRET.encode() in content for content in written)
        return outcome

    return command


def test_sources_that_nobody_named(
    run: Path, tmp_path: Path, refused: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = tmp_path / "shared"
    for source in (str(run), "../run", "/etc"):
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        (shared / "sources.yaml").write_text(json.dumps({"sources": [source]}))
        told = refused("report", shared).err
        assert f"'{source}' leads out of {shared}" in told
        assert f"iwlora compare {source} --out {shared}" in told
        assert [path.name for path in shared.iterdir()] == ["sources.yaml"]
        assert refused("compare", shared, "--out", tmp_path / "out").code == 2
    (shared / "sources.yaml").unlink()
    shutil.copytree(run, shared / "inside")
    (shared / "sources.yaml").write_text(json.dumps({"sources": ["inside"]}))
    assert call(capsys, "report", shared).code == 0, "names inside are followed"


def test_sources_that_the_user_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "combined"
    assert call(capsys, "compare", run, "--out", folder).code == 0
    assert call(capsys, "report", folder).code == 0
    moved = folder.rename(tmp_path / "moved")
    assert call(capsys, "report", moved).code == 2, "it may be somebody else's"
    assert call(capsys, "compare", run, "--out", moved).code == 0
    assert call(capsys, "report", moved).code == 0
    stored = (moved / "sources.yaml").read_text()
    (moved / "sources.yaml").write_text(stored.replace(str(run), str(tmp_path)))
    assert call(capsys, "report", moved).code == 2, "it was changed"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")  # where nothing can be noted
    save_sources(tmp_path / "other", [run])
    with pytest.raises(IwloraError, match="leads out"):
        load_parts([tmp_path / "other"])


@pytest.mark.parametrize("split", ["../../outside", "/tmp/outside", "..", "a/b"])
def test_a_split_that_leads_out(run: Path, refused: Command, tmp_path: Path, split: str) -> None:
    (tmp_path / "outside.csv").write_text(f"row,label,prediction\n0,{SECRET},neg\n")
    as_foreign(run, evaluated_on=split)
    assert "evaluated_on" in refused("report", run).err
    assert "evaluated_on" in refused("compare", run, "--out", tmp_path / "out").err


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../x"])
def test_a_seal_that_leads_out(run: Path, name: str) -> None:
    checkpoint = max((run / "checkpoints").glob("checkpoint-*"))
    assert damage(checkpoint) is None
    seal = checkpoint / "complete.json"
    stored = json.loads(seal.read_text())
    stored["files"][name] = [1, 2]
    seal.write_text(json.dumps(stored))
    assert damage(checkpoint) == "its complete.json is damaged"


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "environment.json", "metrics.jsonl", "predictions/validation.csv"]
)
def test_links_in_compared_runs(run: Path, tmp_path: Path, refused: Command, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(run / name, outside)
    with outside.open("a") as stream:
        stream.write(f"# {SECRET}\n")
    (run / name).symlink_to(outside)
    told = f"{run / name} is a symbolic link that leads out"
    assert told in refused("compare", run, "--out", tmp_path / "out").err
    assert told in refused("report", run).err
    assert told in refused("tasks", "average", run).err


def test_a_link_in_place_of_sources(run: Path, tmp_path: Path, refused: Command) -> None:
    (shared := tmp_path / "shared").mkdir()
    (tmp_path / "outside.yaml").write_text(json.dumps({"sources": [SECRET]}))
    (shared / "sources.yaml").symlink_to(tmp_path / "outside.yaml")
    assert "is a symbolic link" in refused("report", shared).err


MODEL_FILES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "weights": (
        "model.safetensors.index.json",
        lambda name: {"metadata": {}, "weight_map": {"classifier.bias": name}},
    ),
    "other weights": (
        "pytorch_model.bin.index.json",
        lambda name: {"weight_map": {"classifier.bias": name}},
    ),
    "vocabulary": ("tokenizer_config.json", lambda name: {"vocab_file": name}),
    "tokenizer": ("tokenizer_config.json", lambda name: {"tokenizer_file": name}),
    "versions": ("tokenizer_config.json", lambda name: {"fast_tokenizer_files": [name]}),
}


@pytest.mark.parametrize("kind", MODEL_FILES)
@pytest.mark.parametrize("name", ["../outside.json", "{outside}"])
def test_names_in_a_model(
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    refused: Command,
    kind: str,
    name: str,
) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text(SECRET)
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    file, content = MODEL_FILES[kind]
    (model / file).write_text(json.dumps(content(name.format(outside=outside))))
    recipe = write_recipe(tmp_path / "r.yaml", run_settings(model, reviews))
    told = refused("train", recipe, "--out", tmp_path / "out").err
    assert f"leads out of {model}" in told


def test_names_that_are_left_over_or_inside(tiny_bert: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    names = {"special_tokens_map_file": "/somebody/else/map.json", "vocab_file": "vocab.txt"}
    (model / "tokenizer_config.json").write_text(json.dumps({**names, "tokenizer_file": None}))
    check_names(model)


@pytest.mark.parametrize("where", ["file", "split", "file of a split"])
def test_names_in_a_saved_dataset(
    tiny_bert: Path, tmp_path: Path, refused: Command, where: str
) -> None:
    rows = {"text": ["good film", "bad film"] * 8, "mood": ["pos", "neg"] * 8}
    DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "outside"))
    folder = tmp_path / "saved"
    DatasetDict({"train": Dataset.from_dict(rows)}).save_to_disk(str(folder))
    if where == "split":
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["../outside/train"]}))
    else:
        state = folder / "train" / "state.json"
        stored = json.loads(state.read_text())
        (name,) = [file["filename"] for file in stored["_data_files"]]
        stored["_data_files"] = [{"filename": f"../../outside/train/{name}"}]
        state.write_text(json.dumps(stored))
    path = folder / "train" if where == "file" else folder
    task = {"train": str(path), "text": "text", "label": "mood"}
    recipe = write_recipe(tmp_path / "r.yaml", run_settings(tiny_bert, task))
    assert "leads out of" in refused("train", recipe, "--out", tmp_path / "out").err
