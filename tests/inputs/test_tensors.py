"""Damaged and hostile safetensors files: each is refused, none takes memory or waits."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from iwlora.errors import IwloraError, is_of_system
from iwlora.inputs.tensors import (
    load_arrays,
    load_tensors,
    opening_errors,
    tensor_metadata,
    tensor_names,
)

pytestmark = pytest.mark.quick

READERS: list[Callable[[Path], Any]] = [load_arrays, load_tensors, tensor_metadata, tensor_names]


def with_header(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A file of the format: the length of the header, the header, the tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "empty": b"",
    "a length only": struct.pack("<Q", 10),
    "a header of 2^60 bytes": with_header({}, length=2**60),
    "a header of 2^64 - 1 bytes": with_header({}, length=2**64 - 1),
    "a header of 200 MB": with_header({}, length=200_000_000),
    "no JSON": with_header(b"\xff\xfe{"),
    "a list": with_header([1]),
    "deep": with_header(b'{"a":' * 100_000),
    "an unknown type": with_header({"a": entry("F7")}),
    "a type of Python": with_header({"a": entry("O")}),
    "beyond the end": with_header({"a": entry(offsets=(0, 17), shape=(4,))}),
    "far beyond the end": with_header({"a": entry(offsets=(0, 2**62), shape=(2**60,))}),
    "backwards": with_header({"a": entry(offsets=(16, 0))}),
    "negative": with_header({"a": entry(offsets=(-16, 0))}),
    "a shape that overflows": with_header({"a": entry(shape=(2**32, 2**32, 4))}),
    "a shape that does not fit": with_header({"a": entry(shape=(5,))}),
    "two in one place": with_header({"a": entry(), "b": entry()}),
    "a hole": with_header({"a": entry("U8", (8,), (8, 16))}),
    "more than the tensors": with_header({"a": entry()}, bytes(17)),
    "metadata that is no text": with_header({"__metadata__": {"a": 1}, "a": entry()}),
    "a pickle": b"\x80\x02cos\nsystem\nq\x00.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(HOSTILE[name])
    for read in READERS:
        with pytest.raises(IwloraError, match=r"a\.safetensors is damaged"):
            read(file)


def test_none_of_them_takes_memory(tmp_path: Path) -> None:
    for number, content in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.safetensors").write_bytes(content)
    code = (
        "import resource, sys\n"
        "from iwlora.errors import IwloraError; from iwlora.inputs.tensors import load_arrays\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_arrays(path)\n"
        "    except IwloraError: print(path)\n"
    )
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", code, *files], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == files


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in READERS:
        for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent", Path("/dev/zero")):
            with pytest.raises(IwloraError, match="cannot read"):
                read(path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("unable to open file <a> in read-only mode: Permission denied (13)", IwloraError),
        ("DefaultCPUAllocator: can't allocate memory", RuntimeError),
    ],
)
def test_errors_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, told: type[Exception]
) -> None:
    def open_nothing(*_: Any, **__: Any) -> None:
        raise RuntimeError(error)

    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr("safetensors.torch.safe_open", open_nothing)
    with pytest.raises(Exception, match=r"Permission denied|can't allocate") as raised:
        load_tensors(tmp_path / "a.safetensors")
    assert type(raised.value) is told


@contextmanager
def no_further_file() -> Iterator[None]:
    """The system opens no further file for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("open_it", "reason"),
    [
        (lambda path: safe_open(path, framework="np"), "it could not be opened"),
        (lambda path: torch.UntypedStorage.from_file(str(path), False, 8), "Too many open files"),
    ],
    ids=["safetensors", "torch"],
)
def test_a_file_that_cannot_be_opened_now_is_not_missing(
    tmp_path: Path, open_it: Callable[[Path], Any], reason: str
) -> None:
    """A repeated command may succeed, so nothing may go on as if there were no such file."""
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(OSError, match=reason) as raised, opening_errors(), no_further_file():
        open_it(file)
    assert is_of_system(raised.value)
    assert raised.value.filename == str(file)
    file.unlink()
    with pytest.raises((FileNotFoundError, RuntimeError)) as raised, opening_errors():
        open_it(file)
    assert not is_of_system(raised.value)


def test_good_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    stored = {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.int8)}
    save_file(stored, file, metadata={"score": "1"})
    assert sorted(tensor_names(file)) == ["a", "b"]
    assert tensor_metadata(file) == {"score": "1"}
    for name, tensor in load_tensors(file).items():
        assert torch.equal(tensor, stored[name])
    for name, array in load_arrays(file).items():
        assert np.array_equal(array, stored[name].numpy())
    save_file({"a": torch.ones(1)}, file)
    assert tensor_metadata(file) == {}
