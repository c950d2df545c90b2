"""The folder of a run: what lies where, who it belongs to, and that it never tells half."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from commands import run_settings
from failing_opens import RAISES, ends_with_each_open_refused
from iwlora import IwloraError
from iwlora.errors import CannotWrite
from iwlora.results.run.status import Status, state_of
from iwlora.results.writing import write_text
from iwlora.training.recipe import Recipe, build, load
from iwlora.training.run import train
from iwlora.training.state.checkpoints import last_sealed
from iwlora.training.state.run_folder import RunDir, environment

LAYOUT = {
    ".lock",
    "recipe.yaml",
    "environment.json",
    "status.json",
    "fingerprint.json",
    "row-digests.json",
    "metrics.jsonl",
    "result.json",
    "predictions/validation.csv",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
}
ADAPTER = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
PROMISED = (
    "method model task seed metrics selected_on trainable_parameters adapter_parameters "
    "train_seconds measure_seconds examples_per_second peak_memory_bytes"
).split()


@pytest.fixture(scope="module")
def settings(tiny_bert: Path, reviews: dict[str, str]) -> dict[str, Any]:
    return run_settings(tiny_bert, reviews)


@pytest.fixture(scope="module")
def recipe(settings: dict[str, Any]) -> Recipe:
    return build(settings)


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - {"adapter/README.md"}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", ADAPTER),
        ("iw-lora", {*ADAPTER, "sensitivity.json"}),
        ("adalora", ADAPTER),
        ("full", {"model/config.json", "model/model.safetensors"}),
    ],
)
def test_layout(settings: dict[str, Any], tmp_path: Path, method: str, more: set[str]) -> None:
    options = {"name": method} if method == "full" else {"name": method, "rank": 2}
    returned = train(build({**settings, "method": options}), tmp_path / "run")
    assert files(tmp_path / "run") == LAYOUT | more
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == json.loads(json.dumps(returned))
    assert set(PROMISED) <= set(result)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    assert result["measure_seconds"] == 0  # in flight it is a part of the training
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert "step" in json.loads(line)


def test_checkpoints_lie_in_their_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    steps = {**settings["train"], "save_steps": 2}
    train(build({**settings, "train": steps}), tmp_path)
    run = RunDir.finished(tmp_path)
    kept = sorted(folder.name for folder in run.checkpoints.iterdir())
    assert kept == ["checkpoint-4", "checkpoint-6"]
    assert last_sealed(run.checkpoints) == run.checkpoints / "checkpoint-6"


def test_the_result_is_written_last(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def record(path: str | os.PathLike[str], text: str) -> None:
        written.append(Path(path).name)
        write_text(path, text)

    for module in ("results.formats", "training.state.run_folder"):
        monkeypatch.setattr(f"iwlora.{module}.write_text", record)
    train(recipe, tmp_path)
    assert written[0] == "recipe.yaml"
    assert written[-1] == "result.json"
    assert written.count("result.json") == 1


def test_a_status_that_cannot_be_read_now_is_not_missing(tmp_path: Path) -> None:
    Status(state="diverged").save(tmp_path / "status.json")
    assert state_of(tmp_path) == "diverged"
    assert {*ends_with_each_open_refused(lambda: state_of(tmp_path), tmp_path)} == {RAISES}


def test_two_processes_do_not_write_into_one_folder(recipe: Recipe, tmp_path: Path) -> None:
    run = RunDir.open(tmp_path, recipe)
    with run.alone():
        for attempt in (lambda: RunDir.open(tmp_path, recipe), lambda: train(recipe, tmp_path)):
            with pytest.raises(IwloraError, match=r"another process is at work in .*; wait for it"):
                attempt()
        assert not (tmp_path / "status.json").exists()
    RunDir.open(tmp_path, recipe)


def test_a_disk_too_full_for_the_run_is_told_before_it_trains(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr("iwlora.results.writing.shutil.disk_usage", lambda _: usage)
    with pytest.raises(IwloraError, match=r"has 10\.0 MB of disk left, and for the run about 16"):
        train(recipe, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_stored_recipe_is_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    run = RunDir.open(tmp_path, recipe)
    assert run.recipe() == recipe
    assert load(str(tmp_path / "recipe.yaml")).digest() == recipe.digest()


def test_opening_again_is_allowed_for_the_same_recipe_only(
    recipe: Recipe, settings: dict[str, Any], tmp_path: Path
) -> None:
    RunDir.open(tmp_path, recipe)
    RunDir.open(tmp_path, build(settings))
    other = build({**settings, "label": "other"})
    with pytest.raises(IwloraError, match="belongs to another recipe"):
        RunDir.open(tmp_path, other)
    assert RunDir(tmp_path).recipe() == recipe


def test_a_run_that_failed_at_once_makes_room(
    recipe: Recipe, settings: dict[str, Any], tmp_path: Path
) -> None:
    RunDir.open(tmp_path, recipe).set_status("failed", error="a wrong rank")
    other = build({**settings, "label": "other"})
    assert RunDir.open(tmp_path, other).recipe() == other


@pytest.mark.parametrize(
    "trace", ["metrics.jsonl", "sensitivity.json", "result.json", "notes.txt", "checkpoints/x"]
)
def test_a_failed_run_with_a_trace_of_work_does_not(
    recipe: Recipe, settings: dict[str, Any], tmp_path: Path, trace: str
) -> None:
    RunDir.open(tmp_path, recipe).set_status("failed")
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).write_text("{}")
    with pytest.raises(IwloraError, match="belongs to another recipe"):
        RunDir.open(tmp_path, build({**settings, "label": "other"}))


def test_where_a_finished_run_ran_stays_on_record(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, tmp_path)
    before = (tmp_path / "environment.json").read_bytes()
    monkeypatch.setattr("iwlora.training.state.run_folder.environment", lambda: {"python": "other"})
    train(recipe, tmp_path)
    assert (tmp_path / "environment.json").read_bytes() == before
    (tmp_path / "result.json").unlink()
    RunDir.open(tmp_path, recipe)
    assert json.loads((tmp_path / "environment.json").read_text())["python"] == "other"


@pytest.mark.parametrize("state", ["nothing", "file", "other", "begun"])
def test_finished_refuses_what_is_not(recipe: Recipe, tmp_path: Path, state: str) -> None:
    folder = tmp_path / "run"
    if state == "file":
        folder.write_text("mine")
    elif state == "other":
        folder.mkdir()
    elif state == "begun":
        RunDir.open(folder, recipe)
    with pytest.raises(IwloraError, match=str(folder)):
        RunDir.finished(folder)


def test_status_tells_what_happened(settings: dict[str, Any], tmp_path: Path) -> None:
    wrong = build({**settings, "targets": ["querry"]})
    with pytest.raises(IwloraError):
        train(wrong, tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "failed"
    assert "querry" in status["error"]


# --- atomic writes ---


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "deep" / "result.json"
    write_text(target, "old\n")

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, full)
            with pytest.raises(CannotWrite, match=r"No space left .* file is as it was"):
                write_text(target, "new\n")
        assert target.read_text() == "old\n"
        assert [path.name for path in target.parent.iterdir()] == ["result.json"]
    write_text(target, "größe\r\nnew\n")
    assert target.read_bytes() == "größe\r\nnew\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_leaves_nothing_that_looks_finished(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: str | os.PathLike[str], text: str) -> None:
        if Path(path).name == "result.json":
            raise OSError(28, "No space left on device")
        write_text(path, text)

    monkeypatch.setattr("iwlora.results.formats.write_text", write)
    with pytest.raises(CannotWrite, match=r"No space left .*\n.*repeated command begins it anew"):
        train(recipe, tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
    with pytest.raises(IwloraError, match="not finished"):
        RunDir.finished(tmp_path)


# --- environment ---


def test_environment_says_what_a_run_depends_on() -> None:
    import torch

    found = environment()
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["cores"] == torch.get_num_threads()
    assert {"iwlora", "transformers", "peft", "accelerate", "datasets", "gpu"} <= set(found)


def test_environment_holds_no_names_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "USER", "LOGNAME", "HOSTNAME", "HOME"):
        monkeypatch.setenv(name, f"secret-of-{name}")
    monkeypatch.setattr(platform, "node", lambda: "secret-of-node")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-of-host")
    monkeypatch.setattr(getpass, "getuser", lambda: "secret-of-user")
    text = json.dumps(environment())
    assert "secret-of" not in text
    assert str(Path.cwd()) not in text
    assert set(environment()) == {
        "python",
        "iwlora",
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "datasets",
        "platform",
        "processor",
        "cores",
        "gpu",
    }, "a new entry: is it free of names and secrets?"


def test_nothing_that_a_run_writes_names_the_user_or_the_host(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    train(recipe, tmp_path)
    wanted = [b"hf_secretsecret", socket.gethostname().encode()]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            for word in wanted:
                assert word not in path.read_bytes(), path
