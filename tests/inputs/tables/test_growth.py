"""Small tables that unfold into huge ones, and saved data sets that name files elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from iwlora.errors import IwloraError
from iwlora.inputs import limits
from iwlora.inputs.tables.records import read_records

MIB = 2**20


def same(text: str, rows: int) -> pa.Array:
    """One text in every row, which is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([text]))


def rows_of_one_text(file: Path) -> None:
    parquet.write_table(pa.table({"text": same("a" * 100, 2_500_000)}), file)


def one_large_text(file: Path) -> None:
    parquet.write_table(pa.table({"text": same("a" * MIB, 10_240)}), file)  # 10 GiB


def lists(file: Path) -> None:
    ends = pa.array(np.arange(0, 401, dtype=np.int32) * 50_000)
    values = pa.array(np.zeros(20_000_000, np.int8))
    parquet.write_table(pa.table({"text": pa.ListArray.from_arrays(ends, values)}), file)


def shared_beginnings(file: Path) -> None:
    texts = pa.table({"text": pa.array(["a" * MIB] * 40)})
    encoding = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    parquet.write_table(texts, file, **encoding)


def compressed(file: Path) -> None:
    texts = pa.table({"text": pa.array(["a" * MIB] * 40)})
    parquet.write_table(texts, file, compression="zstd", use_dictionary=False)


BOMBS = (rows_of_one_text, one_large_text, lists, shared_beginnings, compressed)

CHILD = """
import resource, sys
import pyarrow.parquet
from iwlora.errors import IwloraError
from iwlora.inputs import limits
from iwlora.inputs.tables import arrow, records
arrow.BATCH_MEMORY, limits.SMALL_TABLE = 2**26, 2**24
virtual = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (virtual + 2**32, virtual + 2**32))
for path in sys.argv[1:]:
    try:
        print(sum(1 for _ in records.read_records(path, ["text"], [])))
    except IwloraError as error:
        print(error)
"""


def test_a_small_parquet_file_that_unfolds_is_refused(tmp_path: Path) -> None:
    files = []
    for bomb in BOMBS:
        files.append(tmp_path / f"{bomb.__name__}.parquet")
        bomb(files[-1])
        assert files[-1].stat().st_size < MIB / 10
    child = [sys.executable, "-c", CHILD, *map(str, files)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == len(files)
    for file, line in zip(files, told, strict=True):
        assert "unfolds into" in line or "GiB of memory" in line, line
        assert str(file) in line


def test_what_a_file_says_of_its_size_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": same("a" * 5_000, 200_000)}), file)  # 1 GB
    monkeypatch.setattr("iwlora.inputs.tables.arrow._stated_bytes", lambda *_: 0)
    seen = count()
    with pytest.raises(IwloraError, match="unfolds into"):
        list(zip(read_records(str(file), ["text"], []), seen, strict=False))
    assert 5_000 * next(seen) < 2 * limits.SMALL_TABLE


def test_a_table_that_was_compressed_well_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = [f"a film number {number}" for number in range(50_000)]
    parquet.write_table(pa.table({"text": rows}), file, compression="zstd", row_group_size=1_000)
    assert [fields[0] for _, fields in read_records(str(file), ["text"], [])] == rows


# --- folders that datasets saved ---


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    rows.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def read(folder: Path, column: str = "text") -> list[object]:
    return [fields[0] for _, fields in read_records(str(folder), [column], [])]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_saved_folder_is_read_as_it_is_stored(saved: Path) -> None:
    edit(saved / "state.json", lambda state: state.update(_format_type="torch"))
    assert read(saved) == ["a", "b"]


def test_a_class_without_a_name_is_refused(saved: Path) -> None:
    classes = {"_type": "ClassLabel", "names": ["bad"]}
    edit(saved / "dataset_info.json", lambda info: info["features"].update(label=classes))
    with pytest.raises(IwloraError, match="holds class 1; it names 1 classes"):
        read(saved, "label")


def test_files_elsewhere_are_not_read(saved: Path, tmp_path: Path) -> None:
    other = datasets.Dataset.from_dict({"text": ["mine"], "label": [0]})
    other.save_to_disk(tmp_path / "other")
    name = "../other/data-00000-of-00001.arrow"
    assert (saved / name).is_file()
    edit(saved / "state.json", lambda state: state.update(_data_files=[{"filename": name}]))
    with pytest.raises(IwloraError, match="leads out of"):
        read(saved)
    both = tmp_path / "both"
    both.mkdir()
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["../other"]}))
    with pytest.raises(IwloraError, match="leads out of"):
        read(both)


def test_a_split_that_is_listed_again_and_again(saved: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(saved, both / "train")
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["train"] * 9}))
    with pytest.raises(IwloraError, match="lists a split twice"):
        read(both)


def test_a_file_of_data_that_is_listed_again_and_again(saved: Path) -> None:
    edit(saved / "state.json", lambda state: state.update(_data_files=state["_data_files"] * 9))
    with pytest.raises(IwloraError, match="lists a file of data twice"):
        read(saved)


@pytest.mark.parametrize("content", ["{}", "[]", '{"_data_files": 1}', '{"_data_files": [1]}'])
def test_a_folder_without_a_list_of_its_files(saved: Path, content: str) -> None:
    (saved / "state.json").write_text(content)
    with pytest.raises(IwloraError, match=r"state\.json"):
        read(saved)
    (saved / "dataset_dict.json").write_text(content)
    with pytest.raises(IwloraError, match=r"dataset_dict\.json"):
        read(saved)


def test_links_out_of_a_saved_folder_are_not_followed(saved: Path, tmp_path: Path) -> None:
    file = next(saved.glob("*.arrow"))
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IwloraError, match="leads out of"):
        read(saved)


def test_an_image_that_a_row_names_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("mine")
    named = {"bytes": None, "path": str(secret)}
    fields = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = datasets.Dataset.from_dict({"text": [named]}, datasets.Features({"text": fields}))
    rows.save_to_disk(tmp_path / "saved")
    images = {"features": {"text": {"_type": "Image"}}}
    edit(tmp_path / "saved" / "dataset_info.json", lambda info: info.update(images))
    assert read(tmp_path / "saved") == [named]


def test_a_saved_folder_that_unfolds_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SMALL_TABLE", 2**24)
    file = next(saved.glob("*.arrow"))
    batch = pa.table({"text": ["a" * (20 * MIB)], "label": [0]})
    with ipc.new_stream(file, batch.schema, options=ipc.IpcWriteOptions(compression="zstd")) as new:
        new.write_table(batch)
    assert file.stat().st_size < MIB / 10
    with pytest.raises(IwloraError, match="unfolds into"):
        read(saved)


@pytest.mark.parametrize("seconds", [253_402_300_800, 2**50], ids=["year 10000", "far later"])
def test_a_time_that_python_has_not_is_refused(tmp_path: Path, seconds: int) -> None:
    times = pa.array([seconds], pa.timestamp("s"))
    parquet.write_table(pa.table({"text": ["a"], "label": times}), tmp_path / "a.parquet")
    with pytest.raises(IwloraError, match=r"a\.parquet has a value that cannot be read: "):
        list(read_records(str(tmp_path / "a.parquet"), ["text", "label"], []))
