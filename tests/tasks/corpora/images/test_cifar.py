"""CIFAR's binary files: the pixels and classes that are in them; its pickles are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.corpora.images.cifar import TASKS
from iwlora.tasks.kinds.contract import IMAGE

pytestmark = pytest.mark.quick


def write(folder: Path, name: str, count: int = 2) -> dict[str, np.ndarray]:
    """Random records in the official files: {file: (records, 3, 32, 32)}, with class ids 0, 1, …"""
    corpus, random, pixels = TASKS[name], np.random.default_rng(0), {}
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*corpus.files["train"], *corpus.files["test"]):
        pixels[file] = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)[:, None]
        coarse = np.full((count, corpus.label_bytes - 1), 19, np.uint8)
        records = np.concatenate([coarse, labels, pixels[file].reshape(count, -1)], axis=1)
        (folder / file).write_bytes(records.tobytes())
    return pixels


def read(name: str, folder: Path) -> Task:
    return load(TaskSpec(name=name, data_dir=str(folder)), seed=0)


@pytest.mark.parametrize("name", TASKS)
def test_binary_files(name: str, tmp_path: Path) -> None:
    corpus = TASKS[name]
    pixels = write(tmp_path / corpus.folder, name)
    for folder in (tmp_path, tmp_path / corpus.folder):
        task = read(name, folder)
        assert {split: len(rows) for split, rows in task.splits.items()} == {
            "train": 2 * len(corpus.files["train"]),
            "test": 2,
        }
        expected = np.concatenate([pixels[file] for file in corpus.files["train"]])
        for row, values in zip(task.splits["train"], expected, strict=True):
            image, facts = open_image(row[IMAGE]["bytes"])
            assert facts.digest == row["image"]
            assert (np.asarray(image) == values.transpose(1, 2, 0)).all()
        assert task.splits["train"]["label"][:2] == [0, 1]
    assert len({*corpus.labels}) == {"cifar10": 10, "cifar100": 100}[name]
    assert list(corpus.labels) == sorted(corpus.labels)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        (tmp_path / folder).mkdir()
        for file in TASKS[name].pickles:
            (tmp_path / folder / file).write_bytes(b"\x80\x02}q\x01.")
        for place in (tmp_path, tmp_path / folder):
            with pytest.raises(IwloraError, match="whose files are pickles: loading them can run"):
                read(name, place)
    with pytest.raises(IwloraError, match=r"has neither cifar-10-batches-bin/data_batch_1.bin"):
        read("cifar10", tmp_path / "cifar-100-python")
    write(tmp_path / "cut", "cifar10")
    file = tmp_path / "cut" / "test_batch.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(IwloraError, match="not whole records of 3,073 bytes"):
        read("cifar10", tmp_path / "cut")
    file.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(IwloraError, match="record 1: class 10; accepted are 0 to 9"):
        read("cifar10", tmp_path / "cut")
