"""What is done to folders: each operator changes one file, by a rule of the file's format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from hostile.mutations import (
    archives,
    bombs,
    code,
    documents,
    file_types,
    images,
    raw,
    tables,
    weights,
)

Operator = Callable[[Path, Random, Path], None]
"""Changes ``(file, random, outside)``; ``outside`` is a folder that no command may look into."""

_JSON, _YAML, _CSV = "*.json", "*.y*ml", "*.[ct]sv"
_IMAGES = ("*.png", "*.jpg", "*.gif", "*.bmp", "*.tif", "*.webp", "*.ppm")
_CONFIG, _SAFETENSORS = "*config.json", "*.safetensors"

OPERATORS: Mapping[str, tuple[Operator, tuple[str, ...], int]] = {
    "bytes": (raw.damage, ("*",), 4),
    "encoding": (raw.recode, (_JSON, _YAML, _CSV, "*.jsonl", "*.txt", "*.jinja"), 1),
    "fields": (documents.fields, (_JSON, _YAML), 12),
    "paths in fields": (documents.paths, (_JSON, _YAML), 6),
    "JSON and YAML dialects": (documents.dialect, (_JSON, _YAML), 4),
    "cells": (tables.cells, (_CSV,), 3),
    "CSV dialects": (tables.dialect, (_CSV,), 3),
    "JSON lines": (tables.json_lines, ("*.jsonl",), 2),
    "Parquet and Arrow": (tables.columnar, ("*.parquet", "*.arrow"), 5),
    "compressed files": (archives.gzipped, ("*.gz",), 4),
    "spreadsheets": (archives.spreadsheet, ("*.xlsx", "*.ods"), 4),
    "safetensors headers": (weights.header, (_SAFETENSORS,), 4),
    "weights in parts": (weights.in_parts, (_SAFETENSORS,), 2),
    "pickles": (weights.pickled, ("*.pt", "*.pth", "*.npz", _SAFETENSORS), 3),
    "arrays": (weights.array, ("*.npz",), 2),
    "numbers in PyTorch files": (weights.numbers_in_state, ("*.pt", "*.pth"), 1),
    "file types": (file_types.other_type, ("*",), 4),
    "folders elsewhere": (file_types.folder_elsewhere, ("*/*",), 1),
    "files exchanged": (file_types.exchanged, ("*",), 1),
    "files missing": (file_types.missing, ("*",), 1),
    "names": (file_types.names, ("*",), 2),
    "modules": (code.modules, ("*",), 2),
    "classes in modules": (code.auto_map, (_CONFIG,), 5),
    "settings that load": (code.settings, (_CONFIG,), 6),
    "templates": (code.template, ("tokenizer_config.json", "*/tokenizer_config.json"), 2),
    "sizes": (bombs.sizes, (_CONFIG,), 3),
    "tokenizers": (bombs.tokenizer, ("tokenizer.json", "*/tokenizer.json"), 3),
    "repetition": (bombs.repeated, (_JSON,), 1),
    "YAML aliases": (bombs.yaml_aliases, (_YAML,), 2),
    "images": (images.image, _IMAGES, 12),
}
"""name: (operator, the files that it changes, how often it is drawn relative to others)."""


def suits(operator: str, name: str) -> bool:
    """Whether an operator changes a file of this name in a folder."""
    return any(fnmatch(name, pattern) for pattern in OPERATORS[operator][1])


def change(folder: Path, operator: str, file: str, number: int, outside: Path) -> None:
    """Apply an operator to a file, if an earlier change has left it a regular file.

    Args:
        folder: The hostile folder.
        operator: A name in ``OPERATORS``.
        file: The path of the file in the folder.
        number: Seeds all random choices.
        outside: A folder next to it that no command may look into.
    """
    path, (operate, _, _) = folder / file, OPERATORS[operator]
    target = Path(os.path.realpath(path))
    inside = target.is_relative_to(os.path.realpath(folder))
    if inside and path.is_file():
        # A type or name is given to a link itself, other content to the file where it leads.
        of_name = operate.__module__ == file_types.__name__
        with suppress(OSError):  # an earlier change may leave no room for this one
            operate(path if of_name else target, Random(number), outside)
