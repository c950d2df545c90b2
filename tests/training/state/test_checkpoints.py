"""Checkpoints: sealed when whole, passed over when damaged, kept until a newer one is whole."""

from __future__ import annotations

import logging
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from iwlora.errors import IwloraError
from iwlora.training import prepare as prepare_module
from iwlora.training.loop.callbacks import MetricsLog
from iwlora.training.run import train
from iwlora.training.state.checkpoints import fingerprint_in, last_sealed, seal, seconds_until
from runs import logged, recipe, status, weights


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Three sealed checkpoints, the newest being that of step 100."""
    for step in (9, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "more").mkdir(parents=True)
        (folder / "trainable.safetensors").write_bytes(bytes(range(256)))
        (folder / "more" / "state.json").write_text("{}")
        seal(folder, seconds=float(step))
    return tmp_path


def test_the_newest_counts_and_knows_its_time(checkpoints: Path) -> None:
    newest = last_sealed(checkpoints)
    assert newest == checkpoints / "checkpoint-100"
    assert seconds_until(newest) == 100
    assert last_sealed(checkpoints / "absent") is None
    assert seconds_until(None) == 0


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Any] = {
    "cut short": lambda f: (f / "trainable.safetensors").write_bytes(b"half"),
    "one bit": lambda f: flip(f / "trainable.safetensors"),
    "lost": lambda f: (f / "more" / "state.json").unlink(),
    "added": lambda f: (f / "optimizer.pt").symlink_to("optimizer.pt"),
    "not sealed": lambda f: (f / "complete.json").unlink(),
    "seal cut short": lambda f: (f / "complete.json").write_text('{"files": {'),
    "a foreign seal": lambda f: (f / "complete.json").write_text("[1, 2]"),
    "not a folder": lambda f: (shutil.rmtree(f), f.write_text("file")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_skipped_and_reported(
    damage: Any, checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(checkpoints / "checkpoint-100")
    with caplog.at_level(logging.WARNING, "iwlora"):
        assert last_sealed(checkpoints) == checkpoints / "checkpoint-10"
    assert "checkpoint-100 is not used: " in caplog.text


class Killed(BaseException):
    """What ends a process from outside."""


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killing(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 8:
                raise Killed

    wanted = recipe(tiny_bert, reviews, save_steps=3)
    whole = train(wanted, tmp_path / "whole")
    monkeypatch.setattr(prepare_module, "MetricsLog", Killing)
    with pytest.raises(Killed):
        train(wanted, tmp_path / "run")
    monkeypatch.undo()
    flip(tmp_path / "run" / "checkpoints" / "checkpoint-6" / "optimizer.pt")
    pieces = train(wanted, tmp_path / "run")
    assert pieces["resumed_at_step"] == 3
    assert pieces["train_seconds"] > seconds_until(tmp_path / "run/checkpoints/checkpoint-12") > 0
    assert pieces["metrics"] == whole["metrics"]
    losses = [[r["loss"] for r in logged(tmp_path / run)] for run in ("whole", "run")]
    assert losses[0] == losses[1]
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def reshape(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "trainable.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name][:1]}, checkpoint / "trainable.safetensors")


FOREIGN: dict[str, Any] = {
    # One row would be copied into all rows of the parameter.
    "has the shape": reshape,
    "loss-0.json: sum": lambda f: (f / "loss-0.json").write_text('{"sum": "a", "logged": 3}'),
    "loss-0.json: fields": lambda f: (f / "loss-0.json").write_text("[]"),
    "trainer_state.json is damaged": lambda f: (f / "trainer_state.json").write_text('"a'),
    "trainer_state.json is that of step": lambda f: (f / "trainer_state.json").write_text(
        (f / "trainer_state.json").read_text().replace('"global_step": 3', '"global_step": []')
    ),
}


@pytest.mark.quick  # with the oldest versions too
def test_a_foreign_checkpoint_whose_seal_fits_is_refused(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killing(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                raise Killed

    wanted = recipe(tiny_bert, reviews, save_steps=3)
    monkeypatch.setattr(prepare_module, "MetricsLog", Killing)
    with pytest.raises(Killed):
        train(wanted, tmp_path / "run")
    monkeypatch.undo()
    for named, change in FOREIGN.items():
        run = tmp_path / "".join(filter(str.isalpha, named))
        shutil.copytree(tmp_path / "run", run)
        checkpoint = run / "checkpoints" / "checkpoint-3"
        change(checkpoint)
        fingerprint = fingerprint_in(checkpoint)
        (checkpoint / "complete.json").unlink()
        seal(checkpoint, 1.0, fingerprint)
        with pytest.raises(IwloraError, match=named):
            train(wanted, run)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(MetricsLog):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                stack.enter_context(no_file_above(2000))

    from contextlib import ExitStack

    wanted = recipe(tiny_bert, reviews, save_steps=3)
    monkeypatch.setattr(prepare_module, "MetricsLog", Filling)
    told = r"cannot write the checkpoint of step 6 into .*checkpoints \(.*MB of its disk are free"
    with ExitStack() as stack, pytest.raises(IwloraError, match=told):
        train(wanted, tmp_path)
    monkeypatch.undo()
    assert status(tmp_path)["state"] == "failed"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert last_sealed(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-3"
    assert train(wanted, tmp_path)["resumed_at_step"] == 3
