"""Hostile folders are the same every time, and the watch notices every kind of harm."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.numpy import save_file

import hostile_folders
import planted_harm
import warm_processes
from hostile import system_calls
from hostile.case import Case, Change, draw, named
from hostile.execute import Outcome
from hostile.fork import Ending
from hostile.judge import PROPERTIES
from hostile.mutations import OPERATORS, change, suits
from hostile.originals import COMMANDS, KINDS, write_spreadsheets
from hostile.output import active_content, control_characters
from hostile.regressions import REGRESSIONS
from hostile.roots import Roots
from planted_harm import PLANTED

FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "recipe.yaml", "train.csv"),
    *("metrics.jsonl", "train.parquet", "data.arrow", "model.safetensors", "row-digests.npz"),
    *("rows.csv.gz", "train.xlsx", "train.ods", "picture.png", "photo.jpg"),
    *("checkpoints/optimizer.pt", "checkpoints/state.json"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small file of every format."""
    sound = tmp_path / "sound"
    (sound / "checkpoints").mkdir(parents=True)
    (tmp_path / "outside" / "model").mkdir(parents=True)
    settings = {
        "model_type": "bert",
        "vocab": {"a": 0},
        "layers": [1, 2],
        "digest": "x",
        "name": None,
    }
    for file in FILES:
        if file.endswith(".json"):
            (sound / file).write_text(json.dumps(settings), encoding="utf-8")
    (sound / "recipe.yaml").write_text("model: x\ntrain:\n  lr: 0.1\n", encoding="utf-8")
    (sound / "train.csv").write_text("text,mood\nit is,pos\nwas,neg\n", encoding="utf-8")
    (sound / "rows.csv.gz").write_bytes(gzip.compress(b"text,mood\nit is,pos\n", mtime=0))
    write_spreadsheets(sound, [["text", "mood"], ["it is", "pos"], ["was", "neg"]])
    (sound / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-8")
    table = pyarrow.table({"text": ["a", "b"]})
    parquet.write_table(table, sound / "train.parquet")
    with pyarrow.ipc.new_stream(str(sound / "data.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("picture.png", "photo.jpg"):
        Image.new("RGB", (3, 2), "red").save(sound / name)
    save_file({"weight": np.zeros((2, 3), np.float32)}, sound / "model.safetensors")
    np.savez(sound / "row-digests.npz", a=np.zeros(2, np.uint64))
    torch.save({"state": torch.zeros(2)}, sound / "checkpoints" / "optimizer.pt")
    return sound


def tree(folder: Path) -> Mapping[bytes, Any]:
    """Everything below a folder: names, types, names of links' targets, content."""
    found: dict[bytes, Any] = {}
    for path, folders, files in os.walk(os.fsencode(folder)):
        for name in [*folders, *files]:
            whole = os.path.join(path, name)
            relative = os.path.relpath(whole, os.fsencode(folder))
            if os.path.islink(whole):
                found[relative] = os.path.basename(os.readlink(whole))
            elif os.path.isfile(whole):
                found[relative] = Path(os.fsdecode(whole)).read_bytes()
            else:
                found[relative] = os.lstat(whole).st_mode
    return found


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_changes_a_folder_in_the_same_way_every_time(
    folder: Path, tmp_path: Path, operator: str
) -> None:
    files = [file for file in FILES if suits(operator, file)]
    assert files
    changed = 0
    for number in range(6):
        trees = []
        for copy in ("a", "b"):
            it = Path(shutil.copytree(folder, tmp_path / copy / "it"))
            change(it, operator, files[number % len(files)], number, tmp_path / "outside")
            trees.append(tree(it))
            shutil.rmtree(tmp_path / copy)
        assert trees[0].keys() == trees[1].keys()
        if operator not in ("Parquet and Arrow", "numbers in PyTorch files"):  # have ids of writers
            assert trees[0] == trees[1]
        changed += trees[0] != tree(folder)
    assert changed >= 3


def test_cases_are_the_same_every_time_and_are_of_every_kind() -> None:
    files = {kind: list(FILES) for kind in KINDS}
    cases = [draw(0, number, files) for number in range(3000)]
    assert cases == [draw(0, number, files) for number in range(3000)]
    assert cases[:50] != [draw(1, number, files) for number in range(50)]
    assert {case.kind for case in cases} == set(KINDS)
    assert {case.command for case in cases} == set(COMMANDS)
    assert {one.operator for case in cases for one in case.changes} == set(OPERATORS)
    assert {case.forged for case in cases} == {True, False}
    most = Counter(case.kind for case in cases).most_common(1)[0][1]
    assert most < len(cases) / 3


def test_the_known_cases_can_be_made() -> None:
    for case in REGRESSIONS:
        assert case.command in KINDS[case.kind].commands
        for one in case.changes:
            assert suits(one.operator, one.file)


@pytest.fixture(scope="module")
def noticed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[list[str]]]:
    """What the watch noticed of each planted command."""
    root = tmp_path_factory.mktemp("planted").resolve()
    process = warm_processes.start(planted_harm.do_all, root)
    process.join(60)
    assert process.exitcode == 0
    found: Mapping[str, list[list[str]]] = json.loads((root / "found.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_planted_harm_is_noticed(noticed: Mapping[str, list[list[str]]], name: str) -> None:
    wanted, found = PLANTED[name][1], noticed[name]
    properties = {broken for broken, _ in found}
    assert properties <= set(PROPERTIES)
    assert (wanted in properties) if wanted else not found, found


def test_every_property_is_broken_by_a_planted_command() -> None:
    assert {wanted for _, wanted in PLANTED.values()} == {None, *PROPERTIES}


HARM_BELOW_PYTHON = """
import ctypes, os, socket, threading
threading.Thread(target=lambda: None).start()
libc = ctypes.CDLL(None)
libc.open({secret!r}.encode(), 0)
libc.mkdir({new!r}.encode(), 0o700)
libc.system(b"true")
new = socket.socket()
new.connect_ex(("127.0.0.1", 9))
open(os.devnull).close()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_harm_below_python_is_noticed(tmp_path: Path) -> None:
    secret, new = tmp_path / "secret é.txt", tmp_path / "new"
    secret.touch()
    code = HARM_BELOW_PYTHON.format(secret=str(secret), new=str(new))
    command = [*system_calls.STRACE, system_calls.CALLS, "-o", str(tmp_path / "calls")]
    process = subprocess.run(
        [*command, sys.executable, "-S", "-c", "import os; print(os.getpid())\n" + code],
        check=True,
        capture_output=True,
        text=True,
    )
    allowed = Roots(("/usr", "/lib", "/etc", sys.prefix, sys.base_prefix), ("/dev/null",))
    found = system_calls.broken(tmp_path / "calls", int(process.stdout), allowed)
    names = Counter(name for name, _ in found)
    assert names["processes"] == 2  # Python itself, and the shell
    assert names["network"] == 1
    opened = [detail for name, detail in found if name == "opens" and str(tmp_path) in detail]
    assert [detail.partition("(")[0] for detail in opened] == ["openat", "mkdir"]


def test_pages_and_terminals() -> None:
    assert not active_content(
        b"<meta http-equiv='Content-Security-Policy'><a href='#x'>&lt;script>"
    )
    assert not active_content(b"<img src='data:image/svg+xml;base64,AA'><p style='color: red'>")
    for page in ("<a href='javascript:x'>", "<meta http-equiv=refresh>", "<object data=x>"):
        assert active_content(page.encode()), page
    assert control_characters(b"\rtraining:  50%|##   | 1/2 [00:01<00:01]\rx") == ["\r"]
    two_bars = (
        b"\r  0%|  | 0/1 [00:00<?, ?it/s]\x1b[A\n\r          \x1b[A\r100%|#| 2/2 [00:01<00:00]\n"
    )
    assert not control_characters(two_bars)
    assert control_characters(two_bars + b"\r50%|#| 1/2 [00:01] and \x1b[2J") == ["\x1b"]
    assert not control_characters("é\n\ttab\r\n💥".encode())
    assert control_characters(b"\x9b31m") == []  # is no character of UTF-8, so no terminal obeys


def test_what_recipes_and_users_name_is_read(tmp_path: Path) -> None:
    it = tmp_path / "it"
    it.mkdir()
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (it / "recipe.yaml").write_text(f"model: '{tmp_path}/model'\ntask:\n  train: {tmp_path}/fifo\n")
    given = ["train", f"task.test={sys.executable}", str(it)]
    found = named(given, it)
    assert found == [Path(sys.executable).resolve(), (tmp_path / "model").resolve()]


def test_the_table_counts_cases_and_properties() -> None:
    case = Case(
        "table", "train table", (Change("cells", "train.csv", Random(0).randrange(9)),), True
    )
    ending = Ending(2, 1.0, 1, b"", b"error: x", (), 0)
    outcomes = [Outcome(case, ending, []), Outcome(case, ending, [("opens", "a"), ("opens", "b")])]
    rows = hostile_folders.table(outcomes).splitlines()
    assert rows[-1].startswith("| all | 2 | 0 | 2 | 1 | 0 |")
    assert "case 3: exit 2: Case(kind='table'" in hostile_folders.describe("case 3", outcomes[1])
