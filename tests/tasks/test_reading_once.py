"""Rows that are read once: the same as rows that are read each time, and never old ones."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iwlora.compare.execute.fork_server import _read_rows
from iwlora.errors import IwloraError
from iwlora.tasks import Task, TaskSpec, load, loading
from iwlora.tasks.loading import MOST_TASKS, read_in_advance, reading_once
from warm_processes import start


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[TaskSpec]:
    """What was read from files."""
    specs: list[TaskSpec] = []
    read = loading.load_user_files
    monkeypatch.setattr(loading, "load_user_files", lambda s: (specs.append(s), read(s))[1])
    return specs


def write(file: Path, rows: int = 30, label: str = "ab") -> TaskSpec:
    records = [{"text": f"sentence {k}", "label": label[k % 2]} for k in range(rows)]
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        lines = [f"{record['text']},{record['label']}" for record in records]
        file.write_text("\n".join(["text,label", *lines]) + "\n")
    return TaskSpec(train=str(file), text="text", label="label", max_train=20)


def content(task: Task) -> Any:
    return [(name, split[:]) for name, split in task.splits.items()], task.notes, task.labels


@pytest.mark.quick
def test_every_draw_is_that_of_rows_read_anew(tmp_path: Path, reads: list[TaskSpec]) -> None:
    spec = write(tmp_path / "rows.csv")
    plain = [content(load(spec, seed)) for seed in (0, 1)]
    assert plain[0] != plain[1]
    assert len(reads) == 2
    with reading_once():
        assert [content(load(spec, seed)) for seed in (0, 1, 0)] == [*plain, plain[0]]
        assert len(reads) == 3
        shorter = spec.model_copy(update={"max_train": 10})
        assert len(load(shorter, 0).splits["train"]) == 10
        assert len(reads) == 4
    load(spec, 0)
    assert len(reads) == 5


def test_a_change_of_the_content_is_seen(tmp_path: Path, reads: list[TaskSpec]) -> None:
    spec = write(tmp_path / "rows.csv")
    times = os.stat(tmp_path / "rows.csv")
    with reading_once():
        assert load(spec, 0).labels == ("a", "b")
        write(tmp_path / "rows.csv", label="xy")
        os.utime(tmp_path / "rows.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert load(spec, 0).labels == ("x", "y")
        (tmp_path / "rows.csv").unlink()
        with pytest.raises(IwloraError, match=r"rows\.csv"):
            load(spec, 0)


def write_images(folder: Path) -> TaskSpec:
    for number in range(20):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(file)
    (folder / "a" / "notes.md").touch()
    return TaskSpec(train=str(folder))


def test_a_folder_of_images_is_read_once(tmp_path: Path, reads: list[TaskSpec]) -> None:
    spec = write_images(tmp_path / "images")
    plain = content(load(spec, 0))
    with reading_once():
        read_in_advance(spec)
        assert content(load(spec, 0)) == plain
        assert len(reads) == 2
        Image.new("L", (4, 4), 99).save(tmp_path / "images" / "a" / "0.png")
        assert content(load(spec, 0)) != plain
        (tmp_path / "images" / "b" / "1.png").unlink()
        assert sum(map(len, load(spec, 0).splits.values())) == 19


def test_few_tasks_are_kept(tmp_path: Path, reads: list[TaskSpec]) -> None:
    specs = [write(tmp_path / f"{k}.csv", rows=30 + k) for k in range(MOST_TASKS + 1)]
    with reading_once():
        for spec in specs:
            load(spec, 0)
        load(specs[-1], 0)
        assert len(reads) == len(specs)
        load(specs[0], 0)
        assert len(reads) == len(specs) + 1


def test_the_server_reads_for_the_runs_that_it_forks(
    tmp_path: Path, tiny_bert: Path, reads: list[TaskSpec]
) -> None:
    """What it would not keep, or cannot read, it leaves to the run."""
    spec = write(tmp_path / "rows.csv")
    recipe = tmp_path / "recipe.yaml"

    def write_recipe(spec: TaskSpec) -> None:
        task = spec.model_dump(mode="json", exclude_defaults=True)
        settings = {"model": str(tiny_bert), "task": task, "method": "lora"}
        recipe.write_text(json.dumps(settings))

    write_recipe(spec)
    with reading_once():
        _read_rows(["train", str(recipe)])
        assert len(reads) == 1
        load(spec, 0)
        assert len(reads) == 1
        for name in ("rows.parquet", "missing.csv"):
            other = tmp_path / name
            write_recipe(write(other))
            if name.startswith("missing"):
                other.unlink()
            _read_rows(["train", str(recipe)])
            assert len(reads) == 1
        _read_rows(["train", str(tmp_path / "no-recipe.yaml")])


@pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")
@pytest.mark.parametrize("read", [read_in_advance, load])
def test_reading_in_advance_starts_no_thread(read: Callable[..., Any], tmp_path: Path) -> None:
    """As reading Parquet does: a process with threads cannot be forked."""
    specs = [write(tmp_path / name) for name in ("rows.csv", "rows.jsonl", "rows.parquet")]
    specs.append(write_images(tmp_path / "images"))
    process = start(_exit_with_threads, read, [TaskSpec(name="builtin/entailment"), *specs])
    process.join()
    assert (process.exitcode == 1) == (read is read_in_advance)


def _exit_with_threads(read: Callable[..., Any], specs: list[TaskSpec]) -> None:
    with reading_once():
        for spec in specs:
            read(*((spec,) if read is read_in_advance else (spec, 0)))
    sys.exit(len(os.listdir("/proc/self/task")))
