"""Files are reached inside the folder that was named, and are regular files of a bounded size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs import lines, places, yaml_json
from iwlora.inputs.places import (
    MOST_BYTES,
    check_folder,
    entries,
    files_below,
    inside,
    open_file,
    read_bytes,
)

pytestmark = pytest.mark.quick

READERS: dict[str, Callable[[Path], Any]] = {
    "open_file": open_file,
    "regular_file": places.regular_file,
    "read_bytes": lambda path: read_bytes(path, "JSON"),
    "read_utf8": yaml_json.read_utf8,
    "read_mapping": yaml_json.read_mapping,
    "read_yaml": yaml_json.read_yaml,
    "read_lines": lambda path: list(lines.read_lines(path)),
}


@pytest.fixture
def special(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A file of each kind that is no regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link-to-pipe").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "socket"))
        yield {
            "a named pipe": tmp_path / "pipe",
            "a named pipe, by a link": tmp_path / "link-to-pipe",
            "a socket": tmp_path / "socket",
            "a folder": tmp_path / "folder",
            "a device": Path("/dev/zero"),
        }


@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read_and_nothing_waits(
    special: dict[str, Path], reader: str
) -> None:
    for kind, path in special.items():
        with pytest.raises(IwloraError) as refused:
            READERS[reader](path)
        name = kind.partition(",")[0]
        assert str(refused.value) == f"cannot read {path}: it is {name}, not a regular file"


def test_a_pipe_that_takes_the_place_of_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "stat", lambda _: os.lstat(tmp_path / "file"))
    with pytest.raises(IwloraError, match="a named pipe"):
        open_file(tmp_path / "pipe")


@pytest.mark.parametrize("reader", READERS)
def test_what_cannot_be_read_is_named(tmp_path: Path, reader: str) -> None:
    absent, odd = tmp_path / "none", Path("a\0b")
    for path, why in ((absent, "no such file"), (odd, "null"), (absent / ("x" * 300), "no such")):
        with pytest.raises(IwloraError, match=f"(?s)cannot read .*{why}"):
            READERS[reader](path)


def test_a_file_is_at_most_so_large(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("1")
    for kind in ("YAML", "JSON"):
        os.truncate(file, MOST_BYTES[kind])
        assert len(read_bytes(file, kind)) == MOST_BYTES[kind]
        os.truncate(file, MOST_BYTES[kind] + 1)
        with pytest.raises(IwloraError, match=r"a\.json: it is larger than .* MiB"):
            read_bytes(file, kind)
    assert MOST_BYTES["YAML"] > 100_000, "a recipe has a few thousand bytes"


def test_a_sparse_file_is_refused_before_memory_is_used(tmp_path: Path) -> None:
    for name in ("recipe.yaml", "result.json", "rows.csv"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from iwlora.errors import IwloraError; from iwlora.inputs import lines, yaml_json\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "readers = (yaml_json.read_yaml, yaml_json.read_mapping, lines.read_text)\n"
        "for read, path in zip(readers, sys.argv[1:], strict=True):\n"
        "    try: read(path)\n"
        "    except IwloraError as error: print(error)\n"
    )
    files = [str(tmp_path / name) for name in ("recipe.yaml", "result.json", "rows.csv")]
    printed = subprocess.run(
        [sys.executable, "-c", code, *files], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert [line.partition(": ")[0] for line in printed] == [f"cannot read {f}" for f in files]


# --- folders ---


def test_names_in_a_folder_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("mine")
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "back").symlink_to(folder / "sub")
    for good in ("a.csv", "sub/a.csv", "back/a.csv", "sub/../a.csv"):
        assert inside(folder, good) == folder / good
    outside = (
        "../secret",
        "out/secret",
        "sub/../../secret",
        str(tmp_path / "secret"),
        "a\0b",
        "..",
    )
    for bad in outside:
        with pytest.raises(IwloraError, match="leads out of"):
            inside(folder, bad)


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder, away = tmp_path / "run", tmp_path / "away"
    (folder / "deep" / "er").mkdir(parents=True)
    away.write_text("mine")
    check_folder(folder)
    (folder / "inner").symlink_to("deep")
    (tmp_path / "named").symlink_to(folder)
    check_folder(folder)
    check_folder(tmp_path / "named")
    link = folder / "deep" / "er" / "link"
    for target in (
        away,
        Path("../../../away"),
        Path("/dev/zero"),
        tmp_path / "not there",
        tmp_path,
    ):
        link.symlink_to(target)
        with pytest.raises(IwloraError) as refused:
            check_folder(folder)
        assert str(refused.value).startswith(
            f"{link} is a symbolic link that leads out of {folder}"
        )
        link.unlink()
    os.mkfifo(link)
    with pytest.raises(IwloraError, match="link: it is a named pipe"):
        check_folder(folder)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A model in the layout of the hub's cache, made by hand."""
    cache = tmp_path / "hub" / "models--a--b"
    snapshot = cache / "snapshots" / "0123abcd"
    (cache / "blobs").mkdir(parents=True)
    (snapshot / "sub").mkdir(parents=True)
    (cache / "blobs" / "e3b0c442").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/e3b0c442")
    (snapshot / "sub" / "config.json").symlink_to("../../../blobs/e3b0c442")
    return snapshot


def test_the_layout_of_the_hubs_cache_is_accepted(snapshot: Path, tmp_path: Path) -> None:
    check_folder(snapshot)
    check_folder(snapshot / "sub")
    (tmp_path / "named").symlink_to(snapshot)
    check_folder(tmp_path / "named")
    assert yaml_json.read_mapping(inside(snapshot, "config.json")) == {}


@pytest.mark.parametrize(
    "target",
    ["../../../secret", "../../blobs/link", "../../blobs/deeper/x", "../../refs/main", "../1/x"],
)
def test_only_blobs_are_reached_from_a_snapshot(snapshot: Path, target: str) -> None:
    cache = snapshot.parents[1]
    (cache.parent / "secret").write_text("mine")
    (cache / "blobs" / "link").symlink_to("../../secret")
    for folder in ("refs", "blobs/deeper", "snapshots/1"):
        (cache / folder).mkdir()
    (snapshot / "link").symlink_to(target)
    with pytest.raises(IwloraError, match="leads out of"):
        check_folder(snapshot)
    with pytest.raises(IwloraError, match="leads out of"):
        inside(snapshot, "link")


def test_a_folder_of_blobs_that_is_a_link_is_refused(snapshot: Path, tmp_path: Path) -> None:
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IwloraError, match="leads out of"):
        check_folder(snapshot)


# --- texts ---


@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-16"),
     ("latin-1", "not UTF-8"), ("cp1252", "not UTF-8"), ("shift-jis", "not UTF-8")],
)  # fmt: skip
def test_a_table_in_another_encoding(tmp_path: Path, encoding: str, told: str) -> None:
    file = tmp_path / "a.csv"
    text = "本,b\n" if encoding == "shift-jis" else "café,b\n"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(IwloraError, match=f"line 1: .*{told}.*save the file as UTF-8"):
        list(lines.read_lines(file))
    file.write_bytes(text.encode("utf-8-sig"))
    assert list(lines.read_lines(file)) == [(1, text.strip())]


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", {"line": 8})
    file = tmp_path / "a.csv"
    file.write_text("1234567\n1234567\n123")
    assert [line for _, line in lines.read_lines(file)] == ["1234567", "1234567", "123"]
    file.write_text("1234567\n123456789")
    with pytest.raises(IwloraError, match="a line is longer than"):
        list(lines.read_lines(file))


def test_a_folder_that_cannot_be_read_is_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/one.txt", "a/b/two.txt", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in entries(tmp_path)] == ["a", "c.txt", "gone"]
    assert [path.name for path in files_below(tmp_path)] == ["two.txt", "one.txt", "c.txt"]
    assert entries(tmp_path / "missing") == files_below(tmp_path / "c.txt") == []

    def forbid(path: object = ".") -> object:
        raise PermissionError(13, "Permission denied", str(path))

    for function in ("scandir", "listdir"):
        monkeypatch.setattr(os, function, forbid)
    for read in (entries, files_below, check_folder):
        with pytest.raises(PermissionError):
            read(tmp_path)


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(IwloraError, match="is a symbolic link that leads to itself; remove it"):
        check_folder(tmp_path)
