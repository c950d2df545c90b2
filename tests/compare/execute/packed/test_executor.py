"""The executor of packs: which runs train together, what is left alone, what a killed pack does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from iwlora.compare.execute.packed import executor as executor_module
from iwlora.compare.execute.packed.executor import PackedExecutor
from iwlora.compare.execute.packed.planner import (
    MOST_RUNS,
    not_packable,
    pack_key,
    runs_that_fit,
)
from iwlora.compare.execute.scheduling.scheduler import Scheduler
from iwlora.compare.plan.planned_runs import Plan
from iwlora.errors import IwloraError
from iwlora.results.writing import write_text
from iwlora.training.recipe import build
from iwlora.training.state.run_folder import RunDir
from runs import recipe
from simulated_runs import result_of


class Alone:
    """Stands in for the local executor."""

    def __init__(self, jobs: int, lock: Any) -> None:
        self.started: list[Path] = []
        self.running: list[Path] = []

    def start(self, folder: Path, log: Path) -> None:
        self.started.append(folder)
        self.running.append(folder)

    def wait(self, timeout: float) -> list[tuple[Path, int]]:
        return [(self.running.pop(), 0)]

    def stop(self) -> None:
        self.running.clear()


Begin = Callable[[Mapping[str, str]], tuple[PackedExecutor, list[Path]]]


@pytest.fixture
def begin(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Begin:
    """An executor with a waiting run of each {name: method}."""
    monkeypatch.setattr(executor_module, "LocalExecutor", Alone)
    monkeypatch.setattr(executor_module.machine, "available_gpus", list)

    def start(methods: Mapping[str, str]) -> tuple[PackedExecutor, list[Path]]:
        executor, folders = PackedExecutor(fitting=lambda _recipe, _free: 3), []
        for name, method in methods.items():
            assert executor.has_capacity(0)
            folder = RunDir.open(tmp_path / name, recipe(with_dropout, reviews, method)).path
            executor.start(folder, tmp_path / f"{name}.txt")
            folders.append(folder)
        return executor, folders

    return start


def ended(executor: PackedExecutor, count: int) -> dict[str, int]:
    found: dict[str, int] = {}
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found |= {folder.name: code for folder, code in executor.wait(1.0)}
    return found


def say(monkeypatch: pytest.MonkeyPatch, code: str) -> list[tuple[list[str], int]]:
    """Let packs be processes that execute some code; returns what each was asked for."""
    asked: list[tuple[list[str], int]] = []

    def command(runs: Sequence[tuple[Path, Path]], most_runs: int) -> list[str]:
        asked.append(([folder.name for folder, _ in runs], most_runs))
        return [
            sys.executable,
            "-c",
            code,
            json.dumps({"runs": [folder.name for folder, _ in runs]}),
        ]

    monkeypatch.setattr(executor_module, "pack_command", command)
    return asked


@pytest.mark.quick
def test_runs_of_one_model_train_together_and_others_alone(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"run": number, "exit": code}) for number, code in ((1, 0), (0, 2))]
    asked = say(monkeypatch, f"print({lines[0]!r}); print({lines[1]!r})")
    executor, folders = begin({"a": "lora", "b": "full", "c": "iw-lora"})
    assert ended(executor, 3) == {"a": 2, "c": 0, "b": 0}
    assert asked == [(["a", "c"], 3)]
    for folder in folders:
        executor.start(folder, folder.with_suffix(".txt"))
    assert ended(executor, 3) == {"a": 0, "b": 0, "c": 0}, "what failed is tried again alone"
    assert len(asked) == 1
    executor.stop()


def test_a_killed_pack_is_halved_until_its_runs_fit(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two runs fit: the scheduler, which tries a run once more only, hears of no kill."""
    said = [json.dumps({"run": number, "exit": 0}) for number in range(2)]
    code = (
        "import json, os, sys; fit = len(json.loads(sys.argv[1])['runs']) <= 2; "
        f"print({said[0]!r}, flush=True); fit or os.kill(os.getpid(), 9); print({said[1]!r})"
    )
    asked = say(monkeypatch, code)
    executor, _ = begin(dict.fromkeys("abcdefgh", "lora"))
    assert ended(executor, 8) == dict.fromkeys("abcdefgh", 0)
    assert [names for names, _ in asked] == [
        [*"abcdefgh"],
        [*"bcde"],
        *([*"fg"], [*"hc"], [*"de"]),
    ]
    assert "trained 8 runs together was killed by signal 9" in caplog.text
    assert "at most 2 together" in caplog.text
    executor.stop()


def test_no_run_is_lost_where_the_memory_holds_two(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler tries a run that has failed once more, and counts no kill of a pack."""
    sizes: list[int] = []

    def command(runs: Sequence[tuple[Path, Path]], most_runs: int) -> list[str]:
        sizes.append(len(runs))
        if len(runs) > 2:
            return [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
        for folder, _ in runs:
            result = result_of(RunDir(folder).recipe(), 0.9)
            write_text(folder / "result.json", json.dumps(result))
        lines = [json.dumps({"run": number, "exit": 0}) for number in range(len(runs))]
        return [sys.executable, "-c", f"print(*{lines!r}, sep='\\n')"]

    monkeypatch.setattr(executor_module, "pack_command", command)
    monkeypatch.setattr(executor_module.machine, "available_gpus", list)
    plan, said = make_plan(seeds=[0, 1, 2, 3]), list[str]()
    executor = PackedExecutor(fitting=lambda *_: 64)
    scheduler = Scheduler(plan, tmp_path / "comparison", executor, said.append)
    scheduler.prepare()
    assert scheduler.execute() == []
    executor.stop()
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert set(scheduler.states.values()) == {"done"}
    assert not [line for line in said if "failed" in line]


def test_a_run_that_is_killed_again_and_again_is_tried_alone_at_last(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = say(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    executor, _ = begin(dict.fromkeys("abcd", "lora"))
    assert ended(executor, 4) == dict.fromkeys("abcd", 0)  # from the local executor
    assert [len(names) for names, _ in asked] == [4, 2]
    executor.stop()


def test_what_else_is_printed_to_standard_output_is_no_message(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        *(b"onednn_verbose,v1,info", b"\xff\xfe", b"", b"3", b"[0]", b"{}", b"[" * 10_000),
        *(b'{"run": 7, "exit": 0}', b'{"run": "0", "exit": 0}', b'{"run": [], "exit": 0}'),
        *(b'{"run": 1, "exit": 0}', b'{"run": 1, "exit": 1}', b'NCCL {"run": 0, "exit": 0}'),
    ]
    text = b"\n".join(lines)
    say(monkeypatch, f"import sys; sys.stdout.buffer.write({text!r})")
    executor, _ = begin({"a": "lora", "b": "lora"})
    assert ended(executor, 2) == {"b": 0, "a": 1}, "a run that is not named ends with the process"
    executor.stop()


def test_packs_refuse_jobs() -> None:
    with pytest.raises(IwloraError, match=r"--jobs 8: .* leave out --jobs, or take"):
        PackedExecutor(8)


def test_a_pack_ends_when_it_is_stopped(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "import time; time.sleep(600)")
    executor, _ = begin({"a": "lora", "b": "lora"})
    assert executor.wait(0.1) == []
    assert not executor.has_capacity(0)
    (pack,) = executor._packs
    executor.stop()
    assert pack.process.poll() == -15


def test_what_is_not_packed_has_a_reason(with_dropout: Path, reviews: dict[str, str]) -> None:
    lora = recipe(with_dropout, reviews, "lora")
    assert not_packable(lora) is None
    assert pack_key(lora) == pack_key(recipe(with_dropout, reviews, "head", seed=5, lr=1e-3))
    assert pack_key(lora) != pack_key(recipe(with_dropout, reviews, "lora", max_length=16))
    refused = {
        "full: ": recipe(with_dropout, reviews, "full"),
        "train.deterministic": recipe(with_dropout, reviews, "lora", deterministic=True),
        "train.gradient_checkpointing": recipe(
            with_dropout, reviews, "lora", gradient_checkpointing=True
        ),
        "train.cache_frozen=2": recipe(with_dropout, reviews, "lora", cache_frozen=2),
        "quantize=4bit": build({**lora.settings(), "quantize": "4bit"}),
    }
    for reason, run_recipe in refused.items():
        assert (not_packable(run_recipe) or "").startswith(reason)
        assert pack_key(run_recipe) is None


def test_memory_limits_the_runs_of_a_pass(with_dropout: Path, reviews: dict[str, str]) -> None:
    """Two blocks of width 16 with 2 heads: 2·2·32·16·16 · (34 + 5·2·32/16) bytes for a run."""
    lora = recipe(with_dropout, reviews, "lora")
    of_run = 4 * 32 * 16 * 16 * 54
    assert runs_that_fit(lora, int(10.5 * of_run / 0.7)) == 10
    assert runs_that_fit(lora, 0) == 1
    assert MOST_RUNS == 64
