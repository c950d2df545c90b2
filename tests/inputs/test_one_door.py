"""Outside of ``iwlora.inputs`` nothing opens a file, a table, a model or a text of others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lines_of_code import SOURCE

pytestmark = pytest.mark.quick

OPENERS = {
    *("open", "read_text", "read_bytes", "fromfile", "memmap", "urlopen", "urlretrieve"),
    *("from_pretrained", "from_file", "load_file", "safe_open", "from_single_file"),
    *("load_dataset", "load_from_disk", "load_dataset_builder", "from_parquet", "from_csv"),
    *("read_parquet", "read_table", "read_csv", "read_json", "read_feather", "open_stream"),
    *("hf_hub_download", "snapshot_download", "try_to_load_from_cache", "cached_file"),
    *("loadtxt", "genfromtxt", "run_path", "memory_map", "OSFile", "ParquetFile", "FileIO"),
}
"""Functions and methods, whatever they belong to."""

LIBRARIES = {
    *("yaml", "pickle", "marshal", "shelve", "sqlite3", "zipfile", "tarfile", "gzip", "bz2"),
    *("lzma", "mmap", "tomllib", "configparser", "fileinput", "linecache", "dill", "joblib"),
}
"""Modules of which nothing is used."""

LOADERS = {
    "json.load",
    "json.loads",
    "numpy.load",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
}

INPUTS = "inputs/"
EXCEPTIONS = {
    ("cli/terminal/streams.py", "io.FileIO"): "standard output",
    ("cli/terminal/streams.py", "os.open"): "the null device",
    ("compare/execute/fork_server.py", "io.FileIO"): "a pipe from the process of a run",
    ("compare/execute/fork_server.py", "os.open"): "the null device",
    ("compare/execute/local.py", "open"): "a log that is written",
    ("compare/execute/packed/executor.py", "open"): "a log that is written",
    ("compare/execute/packed/process.py", "open"): "a log that is written",
    ("compare/execute/ray.py", "open"): "a log that is written",
    ("compare/execute/machine.py", "read_text"): "the kernel's files on control groups",
    ("compare/report/formats/html.py", "read_text"): "a template of this package",
    ("design/report/page.py", "read_text"): "a template of this package",
    ("results/locks.py", "open"): "a lock, of which nothing is read",
    ("results/writing.py", "open"): "a log that is written",
    ("results/writing.py", "os.open"): "a file that was written, to flush it",
    ("training/loop/trainer.py", "pickle.UnpicklingError"): "an error, to say what it means",
    ("training/state/run_folder.py", "read_text"): "the kernel's file on the processor",
}
"""{(file, what opens): what it opens}."""

OWN = "iwlora.training.state.run_folder.RunDir.open"
"""It makes the object for the folder of a run, and opens no file."""


def openings(source: str) -> Iterator[str]:
    """Whatever in a source can open a file, or read what one holds, also under another name."""
    tree = ast.parse(source)
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                origins[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                origins[name.asname or name.name] = f"{node.module}.{name.name}"
    libraries = {origin.partition(".")[0] for origin in origins.values()}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in inner:
            whole = full_name(node, origins)
            library, last = whole.partition(".")[0], whole.rpartition(".")[2]
            if whole.startswith(("iwlora.inputs.", OWN)) or not isinstance(node.ctx, ast.Load):
                continue
            if last in OPENERS or library in LIBRARIES or whole in LOADERS:
                yield whole if library in libraries else last


def full_name(node: ast.expr, origins: dict[str, str]) -> str:
    """``np.load`` as numpy.load; the name of a method where it belongs to a value."""
    if isinstance(node, ast.Name):
        return origins.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, origins)}.{node.attr}"
    return "?"


def all_openings(root: Path) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root).as_posix()
        if not file.startswith(INPUTS):
            for name in openings(path.read_text(encoding="utf-8")):
                found.setdefault((file, name), []).append(name)
    return found


def test_files_are_opened_in_one_package() -> None:
    found = all_openings(SOURCE)
    strange = {key: names for key, names in found.items() if key not in EXCEPTIONS}
    assert not strange, "use iwlora.inputs, or give a reason in EXCEPTIONS"
    assert not EXCEPTIONS.keys() - found.keys(), "these exceptions are not needed"


PLANTED = {
    "open(path)": "open",
    "with path.open() as f: pass": "open",
    "Path(name).read_text()": "read_text",
    "folder.joinpath(a)[0]().read_bytes()": "read_bytes",
    "import io\nio.open(path)": "io.open",
    "import os as system\nsystem.open(path, 0)": "os.open",
    "import pathlib\npathlib.Path.open(path)": "pathlib.Path.open",
    "from pathlib import Path as P\nmap(P.read_text, paths)": "pathlib.Path.read_text",
    "from json import loads as parse\nparse(text)": "json.loads",
    "import json\nread = json.load": "json.load",
    "import yaml\nyaml.safe_load(text)": "yaml.safe_load",
    "from yaml import CSafeLoader": None,
    "from yaml import CSafeLoader as L\nL(text)": "yaml.CSafeLoader",
    "import numpy as np\nnp.load(path)": "numpy.load",
    "import torch\ntorch.load(path, weights_only=True)": "torch.load",
    "from safetensors.torch import load_file as x\nx(path)": "safetensors.torch.load_file",
    "def f():\n    from safetensors import safe_open\n    safe_open(p)": "safetensors.safe_open",
    "import transformers as hf\nhf.AutoModel.from_pretrained(m)": (
        "transformers.AutoModel.from_pretrained"
    ),
    "kind.auto_class(config).from_pretrained(path)": "from_pretrained",
    "import pyarrow.parquet as pq\npq.read_table(p)": "pyarrow.parquet.read_table",
    "import datasets\ndatasets.load_dataset(name)": "datasets.load_dataset",
    "import zipfile\nzipfile.ZipFile(p)": "zipfile.ZipFile",
    "import pickle\npickle.loads(b)": "pickle.loads",
    "Image.open(p)": "open",
    "iwlora.load(path); json_text = opened.loads(text)": None,
    "run = RunDir.openly(out)": None,
}


@pytest.mark.parametrize("code", PLANTED)
def test_what_opens_is_noticed_under_any_name(code: str) -> None:
    expected = PLANTED[code]
    assert list(openings(code)) == ([] if expected is None else [expected])


def test_a_planted_opening_is_reported(tmp_path: Path) -> None:
    for file in ("inputs/places.py", "cli/report.py", "results/locks.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("from safetensors.torch import load_file as x\nx('a')\n")
    found = all_openings(tmp_path)
    assert set(found) == {
        ("cli/report.py", "safetensors.torch.load_file"),
        ("results/locks.py", "safetensors.torch.load_file"),
    }
    assert not found.keys() & EXCEPTIONS.keys()
