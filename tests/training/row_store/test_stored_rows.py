"""Rows on the disk: what is read is what was added, by anyone, or it is not read at all."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from iwlora.results import layout
from iwlora.results.locks import exclusive
from iwlora.training import device
from iwlora.training.row_store.stored_rows import StoredRows, describe_kept

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def _warns_each_time() -> None:
    device.warn_once.cache_clear()


def store(folder: Path, name: str = "key", most: int = 10**9) -> StoredRows:
    return StoredRows(folder / name, 4, torch.float32, most)


def row(number: int, tokens: int = 3) -> tuple[bytes, Tensor]:
    values = torch.randn(tokens, 4, generator=torch.Generator().manual_seed(number))
    return number.to_bytes(16, "little"), values


def assert_has(rows: StoredRows, *numbers: int) -> None:
    for number in numbers:
        key, values = row(number)
        (found,) = rows.read([key])
        assert found is not None
        assert torch.equal(found, values)


def test_everybody_reads_what_one_adds(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    assert first.read([row(1)[0]]) == [None]
    first.add(dict([row(1), row(2)]))
    second.add(dict([row(2), row(3)]))
    for rows in (first, second, store(tmp_path)):
        assert_has(rows, 1, 2, 3)
        assert rows.stored_bytes == 3 * 3 * 4 * 4  # the second row once


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_type_comes_back_bit_by_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    rows = StoredRows(tmp_path / "key", 4, dtype)
    key, values = row(1)
    rows.add({key: values.to(dtype)})
    (found,) = rows.read([key])
    assert found is not None
    assert found.dtype == dtype
    assert torch.equal(found, values.to(dtype))


def test_the_limit_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = store(tmp_path, most=2 * 3 * 4 * 4)
    with caplog.at_level(logging.WARNING, "iwlora"):
        rows.add(dict(row(number) for number in range(5)))
        rows.add(dict([row(7)]))
    assert_has(rows, 0, 1)
    assert rows.read([row(2)[0], row(7)[0]]) == [None, None]
    assert (tmp_path / "key" / "rows.bin").stat().st_size == 2 * 3 * 4 * 4
    assert [record.message for record in caplog.records if "limit" in record.message] != []


def test_other_folders_count_for_the_limit(tmp_path: Path) -> None:
    store(tmp_path, "other").add(dict([row(1)]))
    taken = sum(file.stat().st_size for file in (tmp_path / "other").iterdir())
    rows = store(tmp_path, most=taken + 3 * 4 * 4)
    rows.add(dict([row(2), row(3)]))
    assert_has(rows, 2)
    assert rows.read([row(3)[0]]) == [None]


def test_a_limit_that_others_fill_is_no_negative_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path, "other").add(dict([row(1)]))
    with caplog.at_level(logging.WARNING, "iwlora"):
        store(tmp_path, most=0).add(dict([row(2)]))
    assert f"limit of 0.0 GB, which other files in {tmp_path}" in caplog.text


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    assert describe_kept(tmp_path) == ("", 0)
    StoredRows(tmp_path / layout.FROZEN_LAYERS / "key", 4, torch.float32).add(
        dict([row(1, 30_000)])
    )
    text, size = describe_kept(tmp_path)
    assert size == 30_000 * 4 * 4 + 36
    assert text.endswith("frozen-layers has 0.5 MB for further runs; remove it if there are none")


@pytest.mark.parametrize("file", ["rows.bin", "index.bin"])
def test_a_changed_byte_is_noticed_and_the_row_is_added_again(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path).add(dict([row(1), row(2)]))
    path = tmp_path / "key" / file
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    rows = store(tmp_path)
    with caplog.at_level(logging.WARNING, "iwlora"):
        assert rows.read([row(1)[0]]) == [None]
    assert f"{file} is damaged" in caplog.text
    assert_has(rows, 2)
    rows.add(dict([row(1)]))
    assert_has(rows, 1, 2)
    assert_has(store(tmp_path), 1, 2)


def test_the_rows_of_another_model_do_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path, "other").add(dict([row(1)]))
    (tmp_path / "other").rename(tmp_path / "key")
    with caplog.at_level(logging.WARNING, "iwlora"):
        assert store(tmp_path).read([row(1)[0]]) == [None]
    assert "damaged" in caplog.text


def test_what_a_killed_process_was_writing_is_written_over(tmp_path: Path) -> None:
    store(tmp_path).add(dict([row(1)]))
    for name in ("rows.bin", "index.bin"):
        with (tmp_path / "key" / name).open("ab") as stream:
            stream.write(b"half a record")
    rows = store(tmp_path)
    rows.add(dict([row(2)]))
    assert_has(store(tmp_path), 1, 2)


def test_files_that_are_cut_off_are_noticed(tmp_path: Path) -> None:
    store(tmp_path).add(dict([row(1), row(2)]))
    (tmp_path / "key" / "rows.bin").write_bytes(b"short")
    assert store(tmp_path).read([row(2)[0]]) == [None]
    (tmp_path / "key" / "rows.bin").unlink()
    assert store(tmp_path).read([row(2)[0]]) == [None]


def test_nobody_waits_for_another_writer(tmp_path: Path) -> None:
    rows = store(tmp_path)
    rows.add(dict([row(1)]))
    with exclusive(tmp_path / "key" / ".lock") as held:
        assert held
        rows.add(dict([row(2)]))
    assert rows.read([row(2)[0]]) == [None]
    rows.add(dict([row(2)]))
    assert_has(rows, 1, 2)


def test_many_writers_leave_every_row_whole(tmp_path: Path) -> None:
    def write(first: int) -> None:
        rows = store(tmp_path)
        for number in range(first, first + 40):
            rows.add(dict([row(number)]))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = store(tmp_path)
    found = [number for number in range(80) if rows.read([row(number)[0]]) != [None]]
    assert found  # a row is left out where another writer is at work
    assert_has(rows, *found)


def test_a_folder_that_cannot_be_written_costs_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").write_text("a file")
    rows = store(tmp_path)
    with caplog.at_level(logging.WARNING, "iwlora"):
        rows.add(dict([row(1)]))
    assert "computed each time from now on" in caplog.text
    assert rows.read([row(1)[0]]) == [None]
