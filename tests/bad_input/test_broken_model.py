"""Models that cannot be used, and what is said without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Command, check_unfinished, run_settings, write_recipe
from families.checkpoints import save_checkpoint
from tiny_tasks import write_task

PAPER = Path(__file__).parents[2] / "recipes" / "paper" / "rte.yaml"


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _rename_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    save_file({f"other.{name}": value for name, value in load_file(weights).items()}, weights)


def _lead_out(folder: Path) -> None:
    elsewhere = folder.parent / "tokenizer.json"
    (folder / "tokenizer.json").rename(elsewhere)
    (folder / "tokenizer.json").symlink_to(elsewhere)


def _lead_to_pipe(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    os.mkfifo(folder / "vocab.txt")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda m: (m / "config.json").unlink(), "without a config.json"),
        (lambda m: _cut(m / "config.json"), "cannot load the model in"),
        (lambda m: _edit_config(m, model_type="unheard-of"), "unheard-of"),
        (
            lambda m: _edit_config(m, model_type="vit"),
            "it reads pixel_values, and the task has texts",
        ),
        (lambda m: _edit_config(m, hidden_size="x"), "hidden_size"),
        (lambda m: _edit_config(m, num_attention_heads=3), "attention heads"),
        (lambda m: _edit_config(m, intermediate_size=20), "6 have another shape"),
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors"),
        (lambda m: _cut(m / "model.safetensors"), "cannot load the model in"),
        (_rename_weights, "25 are missing"),
        (lambda m: _cut(m / "tokenizer.json"), "cannot load the tokenizer"),
        (lambda m: [f.unlink() for f in m.glob("[tv]o[kc]*")], "has no tokenizer"),
        (_lead_out, "tokenizer.json is a symbolic link that leads out of"),
        (_lead_to_pipe, "vocab.txt: it is a named pipe"),
    ],
    ids=[
        "no config",
        "cut config",
        "unknown type",
        "no text model",
        "wrong type of field",
        "impossible shape",
        "weights of another shape",
        "no weights",
        "cut weights",
        "weights of other names",
        "cut tokenizer",
        "no tokenizer",
        "a link",
        "a pipe",
    ],
)
def test_a_broken_model(
    recipe: Path,
    tiny_bert: Path,
    tmp_path: Path,
    refused: Command,
    damage: Callable[[Path], object],
    expected: str,
) -> None:
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    damage(model)
    outcome = refused("train", recipe, f"model={model}", "--out", tmp_path / "run")
    assert expected in outcome.err
    assert len(outcome.err.splitlines()) == 1
    check_unfinished(tmp_path / "run")


def test_a_comparison_is_refused_before_its_first_run(
    settings: dict[str, Any], tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwlora.compare.execute.local.subprocess.Popen", None)
    plan = {**settings, "methods": ["full", {"name": "lora", "rank": 4}], "seeds": [0, 1]}
    del plan["method"]
    recipe = write_recipe(tmp_path / "plan.yaml", plan)
    for override, expected in (
        ("model=no/such", "model=no/such"),
        ("task.train=no/such.csv", "cannot read no/such.csv"),
        ("task.label=moods", "unknown column 'moods'"),
        ("train.max_length=65", "at most 64"),
        ("targets=[querry]", "unknown target 'querry'"),
        ("methods=[{name: lora, rank: 17}]", "method.rank=17"),
        ("methods=[{name: lora, rank: 2}, {name: adalora, rank: 8}]", "same budget"),
    ):
        outcome = refused("compare", recipe, override, "--out", tmp_path / "out")
        assert expected in outcome.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mnli", "rte", "sst2"])
def test_a_paper_recipe_without_a_network_names_the_way_out(
    tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    outcome = refused("compare", PAPER.with_name(f"{name}.yaml"), "--out", tmp_path / "out")
    assert len(outcome.err.splitlines()) == 1
    assert "microsoft/deberta-v3-base" in outcome.err
    assert "give model=FOLDER, and for GLUE task.data_dir=FOLDER" in outcome.err
    assert ". " not in outcome.err.removesuffix("\n"), "one sentence"
    assert not (tmp_path / "out").exists()


def test_a_hub_model_that_cannot_be_used_is_not_reported_as_missing(
    tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    def unsupported(*_: Any, **__: Any) -> None:
        raise ValueError("Unrecognized model in some/model")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unsupported)
    out = tmp_path / "out"
    outcome = refused("compare", PAPER, "model=some/model", "--out", out)
    assert outcome.err == "error: cannot load model=some/model: Unrecognized model in some/model\n"
    assert not out.exists()


def test_a_cached_model_without_its_weights_is_not_reported_as_missing(
    tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    reason = "some/model does not appear to have a file named model.safetensors"

    def incomplete(*_: Any, **__: Any) -> None:
        raise OSError(f"{reason}.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", incomplete)
    outcome = refused("compare", PAPER, "model=some/model", "--out", tmp_path / "out")
    assert f"cannot load model=some/model from the hub or its local cache: {reason};" in outcome.err


def test_glue_without_a_network_names_the_way_out(
    tiny_bert: Path, tmp_path: Path, refused: Command
) -> None:
    out = tmp_path / "out"
    outcome = refused("compare", PAPER, f"model={tiny_bert}", "train.max_length=64", "--out", out)
    assert len(outcome.err.splitlines()) == 1
    assert "task.data_dir=FOLDER" in outcome.err
    assert not out.exists()


def test_a_model_that_needs_more_than_texts_is_refused(tmp_path: Path, refused: Command) -> None:
    """BROS needs the boxes of words on a page; what transformers says is the reason."""
    model = save_checkpoint(tmp_path / "model", "bros", "token-labels")
    task, _ = write_task(tmp_path / "task", "token-labels")
    recipe = write_recipe(tmp_path / "r.yaml", run_settings(model, task))
    done = refused("train", recipe, "--out", tmp_path / "run")
    assert "cannot compute texts: You have to specify bbox" in done.err
    check_unfinished(tmp_path / "run")
