"""Each point of SECURITY.md, tried."""

from __future__ import annotations

import ast
import html
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Command, Outcome, call, run_settings, snapshot, spawn
from commands import write_recipe as write
from iwlora.errors import IwloraError
from iwlora.methods.loading import load_adapter
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import build, load
from iwlora.training.run import train
from iwlora.training.state.checkpoints import fingerprint_in, seal
from runs import as_foreign

ROOT = Path(__file__).parents[1]


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


FORMATS: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": lambda value, file: file.write_bytes(pickle.dumps(value, protocol=2)),
    "torch": lambda value, file: torch.save({"state": value}, file),
}


@pytest.fixture(scope="module")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    wanted = run_settings(tiny_bert, reviews)
    return {**wanted, "train": {**wanted["train"], "save_steps": 2}}


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security") / "run"
    train(build(settings), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command, which must end as for bad input, and returns what it said."""

    def run(*arguments: object) -> Outcome:
        outcome = call(capsys, *arguments)
        assert outcome.code == 2, outcome
        assert "error: " in outcome.err  # after the progress bar, if it has begun
        assert "Traceback" not in outcome.err
        return outcome

    return run


# --- 1. no pickle is ever loaded ---


def test_the_payload_works_where_pickles_are_loaded(mark: Path) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))  # a check that cannot fail is none
    assert mark.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_with_a_pickle(
    run: Path, mark: Path, refused: Command, name: str, form: str
) -> None:
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / "checkpoint-6")
    newest = run / "checkpoints" / "checkpoint-4"
    FORMATS[form](Payload(mark), newest / name)
    seal(newest, 1.0, fingerprint_in(newest))  # as whoever put it there would
    told = refused("train", run / "recipe.yaml", "--out", run).err
    assert (
        "checkpoint-4 contains pickled objects other than tensors and numbers, which are never "
        "loaded; remove it" in told
    )
    assert not mark.exists()
    assert newest.is_dir()


@pytest.mark.parametrize("form", FORMATS)
def test_a_model_of_pickles(
    settings: dict[str, Any], tmp_path: Path, mark: Path, refused: Command, form: str
) -> None:
    model = Path(shutil.copytree(settings["model"], tmp_path / "model"))
    (model / "model.safetensors").unlink()
    FORMATS[form](Payload(mark), model / "pytorch_model.bin")
    recipe = write(tmp_path / "r.yaml", {**settings, "model": str(model)})
    told = refused("train", recipe, "--out", tmp_path / "out").err
    assert "a file in it contains pickled objects" in told
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_an_adapter_of_pickles(
    settings: dict[str, Any], run: Path, mark: Path, refused: Command, form: str
) -> None:
    as_foreign(run)
    adapter = run / "adapter"
    weights = adapter / "adapter_model.safetensors"
    FORMATS[form](Payload(mark), adapter / "adapter_model.bin")
    weights.rename(adapter / "other.safetensors")
    message = refused("export", run, "--merge", "--to", run.parent / "out").err
    assert "adapter_model.safetensors" in message, "what a run saved is read in this form only"
    (adapter / "other.safetensors").unlink()
    assert "lacks files" in refused("export", run, "--to", run.parent / "out").err
    backbone, _ = load_backbone(settings["model"], ["neg", "pos"])
    with pytest.raises(IwloraError, match="contains pickled objects other than tensors"):
        load_adapter(backbone, adapter)
    assert not mark.exists()


def test_a_run_writes_no_pickles_but_those_of_the_trainer(finished: Path) -> None:
    suffixes = {file.suffix for file in finished.rglob("*") if file.is_file()}
    own = {"", ".json", ".jsonl", ".yaml", ".csv", ".safetensors", ".md"}
    assert suffixes <= {*own, ".pt", ".pth"}
    for file in [*finished.rglob("*.pt"), *finished.rglob("*.pth")]:
        with torch.serialization.safe_globals([]):
            allowed = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
        assert not [name for name in allowed if not name.startswith("numpy.")], file


# --- 2. no code that comes with a model is run ---

CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import BertConfig, BertForSequenceClassification
class Config(BertConfig):
    model_type = "own"
class Model(BertForSequenceClassification):
    config_class = Config
"""


@pytest.fixture
def model_with_code(settings: dict[str, Any], tmp_path: Path, mark: Path) -> Path:
    model = Path(shutil.copytree(settings["model"], tmp_path / "with-code"))
    (model / "own.py").write_text(CODE.format(mark=str(mark)))
    config = json.loads((model / "config.json").read_text())
    auto = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (model / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": auto})
    )
    return model


def test_code_of_a_model_is_run_only_where_it_is_trusted(
    settings: dict[str, Any],
    model_with_code: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    mark: Path,
    refused: Command,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks is answered
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    recipe = write(
        tmp_path / "r.yaml", {**settings, "model": str(model_with_code), "targets": ["query"]}
    )
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    measure = ["measure", "--model", model_with_code, *task, "--out", tmp_path / "s.json"]
    told = "comes with Python code, which runs only with trust_remote_code=true"
    assert told in refused("train", recipe, "--out", tmp_path / "out").err
    assert told in refused(*measure).err
    assert not mark.exists()
    assert not caplog.records

    out = tmp_path / "trusted"
    train(build({**settings, "model": str(model_with_code), "trust_remote_code": True}), out)
    assert mark.exists()
    assert "code that comes with" in caplog.text
    mark.unlink()
    rows = ["--input", reviews["validation"], "--output", tmp_path / "rows.csv"]
    assert told in refused("predict", out, *rows).err
    assert told in refused("export", out, "--merge", "--to", tmp_path / "merged").err
    assert not mark.exists()


# --- 3. YAML is data ---


@pytest.mark.parametrize(
    "text",
    [
        'model: !!python/object/apply:pathlib.Path.touch ["{mark}"]',
        "model: !!python/name:os.system",
    ],
    ids=["call", "name"],
)
def test_yaml_makes_no_objects(text: str, tmp_path: Path, mark: Path, refused: Command) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text.replace("{mark}", str(mark)))
    assert "r.yaml is not valid YAML" in refused("train", recipe, "--out", tmp_path / "out").err
    assert not mark.exists()


# --- 4. no shell ---

FORBIDDEN = {
    *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "pickle.load", "pickle.loads", "torch.load", "yaml.load"),
}


def calls_of_danger(source: str) -> list[str]:
    """Calls that give a text to a shell or an interpreter, or load an object from bytes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            shell = any(k.arg == "shell" for k in node.keywords)
            safe = name == "yaml.load" and ast.unparse(node.args[1]) == "_Loader"
            if (name in FORBIDDEN and not safe) or shell:
                found.append(name)
    return found


def test_no_text_becomes_a_command() -> None:
    sources = sorted((ROOT / "src").rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        assert not calls_of_danger(source.read_text(encoding="utf-8")), source
    for text in ("eval(x)", "subprocess.run(x, shell=True)", "yaml.load(x, Loader)"):
        assert calls_of_danger(text), text


def test_names_are_no_commands(
    settings: dict[str, Any], tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"$(touch mark); `touch mark` & touch mark;{'x' * 3}"
    few = {**settings, "train": {**settings["train"], "epochs": 0.1}}
    recipe = write(tmp_path / "r.yaml", few)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert call(capsys, "train", recipe, "--out", out).code == 0
        assert call(capsys, "report", out).code == 0
    finally:
        os.chdir(before)
    assert (out / "report.html").is_file()
    assert not mark.exists()


# --- 5. nothing outside the named output is written ---


@pytest.mark.slow
def test_commands_write_where_they_are_told_to(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home", "here", "given", "out"):
        (tmp_path / name).mkdir()
    model = shutil.copytree(settings["model"], tmp_path / "given" / "model")
    few = {**settings["train"], "epochs": 0.1}
    recipe = write(tmp_path / "given" / "r.yaml", {**settings, "model": str(model), "train": few})
    before = snapshot(tmp_path / "given")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    outcome = spawn("train", recipe, "--out", tmp_path / "out" / "run", cwd=tmp_path / "here")
    assert outcome.code == 0, outcome.err
    assert snapshot(tmp_path / "given") == before
    assert not list((tmp_path / "here").iterdir())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]
    left = {path.relative_to(tmp_path / "home").parts[0] for path in (tmp_path / "home").iterdir()}
    assert left <= {".cache", ".config"}


LINKS = ("checkpoints", "metrics.jsonl", "adapter", "predictions", ".lock", "new", "tokenizer/x")


@pytest.mark.parametrize("link", LINKS)
def test_a_link_out_of_the_folder_is_not_followed(
    run: Path, reviews: dict[str, str], tmp_path: Path, refused: Command, link: str
) -> None:
    away = tmp_path / "away"
    place = run / link
    if place.is_dir():
        shutil.move(place, away)
    else:
        away.write_text("mine")
        place.unlink(missing_ok=True)
    place.symlink_to(away)
    before = snapshot(tmp_path)
    told = f"{place} is a symbolic link that leads out of {run}"
    rows = ["--input", reviews["validation"], "--output", tmp_path / "rows.csv"]
    readers: list[list[object]] = [
        ["export", run, "--to", tmp_path / "exported"],
        ["predict", run, *rows],
        ["report", run],
        ["train", run / "recipe.yaml", "--out", run],
    ]
    for command in readers:
        assert told in refused(*command).err, command
    (run / "result.json").rename(tmp_path / "result.json")  # so that there is something to do
    assert told in refused("train", run / "recipe.yaml", "--out", run).err
    (tmp_path / "result.json").rename(run / "result.json")
    assert snapshot(tmp_path) == before


def test_links_inside_and_to_the_folder_are_followed(finished: Path, tmp_path: Path) -> None:
    inside = Path(shutil.copytree(finished, tmp_path / "inside"))
    (inside / "also").symlink_to(inside / "adapter")
    (tmp_path / "link").symlink_to(inside)
    recipe = load(str(tmp_path / "link" / "recipe.yaml"))
    assert train(recipe, tmp_path / "link")["seed"] == 0


# --- 6. a foreign folder stays inside itself ---


def test_names_that_lead_out_of_a_comparison_are_refused(
    run: Path, tmp_path: Path, refused: Command
) -> None:
    plan = {"model": "m", "task": "t", "methods": ["../run"], "seeds": [0]}
    folder = tmp_path / "comparison"
    folder.mkdir()
    (folder / "comparison.yaml").write_text(json.dumps(plan))
    assert "comparison.yaml: methods" in refused("report", folder).err


def test_a_label_that_leads_out_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(IwloraError, match="label"):
        build({**settings, "label": "../../elsewhere"})


# --- 7. the report is escaped ---

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_what_a_run_says_is_text_in_the_report(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_foreign(run, model=EVIL, task=EVIL, notes=[EVIL])
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text() + f"# {EVIL}\n")
    assert call(capsys, "report", run).code == 0
    page = (run / "report.html").read_text()
    assert html.escape(EVIL) in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)


# --- 8. no secrets are recorded ---


def test_no_file_of_a_run_holds_a_secret(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    secret = "hf_0123456789secret"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, secret)
    few = {**settings, "train": {**settings["train"], "epochs": 0.1}}
    out = tmp_path / "run"
    train(build(few), out)
    assert call(capsys, "report", out).code == 0
    files = snapshot(out)
    assert {"environment.json", "report.html"} <= set(files)
    assert not [name for name, content in files.items() if secret.encode() in content]
