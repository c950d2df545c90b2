"""What a case is: a kind of folder, what is done to it, and the command that opens it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fuzzing.inputs import KEEP, MODEL
from hostile.mutations import OPERATORS, change, suits
from hostile.originals import COMMANDS, IT, KINDS, OUT, ROOT

_RECIPES = ("recipe.yaml", "run.yaml", "arms.yaml", "comparison.yaml")
_CHANGES = (1, 1, 1, 1, 1, 2, 2, 3)
_FORGED = 0.6
SOUND_TABLES = ("train.csv", "rows/state.json")
"""What is opened where nothing is changed: a table, and a saved data set."""


@dataclass(frozen=True)
class Change:
    """An operator on a file; ``number`` seeds the operator's random choices."""

    operator: str
    file: str
    number: int


@dataclass(frozen=True)
class Case:
    """A hostile folder and the command that opens it: plain data, the same on every machine.

    Args:
        kind: A name in ``KINDS``.
        command: A name in ``COMMANDS``.
        changes: What is done to a copy of the sound folder.
        forged: Whether digests are then removed or made to fit, as an attacker would.
    """

    kind: str
    command: str
    changes: tuple[Change, ...]
    forged: bool

    @property
    def touches_recipe(self) -> bool:
        """Whether a recipe is changed, which may rightly ask for days of training."""
        return any(change.file.endswith((".yaml", ".yml")) for change in self.changes)

    @property
    def table(self) -> str:
        """The table, or the saved data set, that is changed first."""
        file = self.changes[0].file if self.changes else SOUND_TABLES[self.kind == "saved dataset"]
        return file.partition("/")[0] if self.kind == "saved dataset" else file


def names_of_files(originals: Path) -> dict[str, list[str]]:
    """{kind: the paths of all files in its sound folder}."""
    return {
        name: sorted(
            str(path.relative_to(originals / kind.original))
            for path in (originals / kind.original).rglob("*")
            if path.is_file() and path.suffix not in (".png", ".svg")
        )
        for name, kind in KINDS.items()
    }


def draw(seed: int, number: int, files: Mapping[str, Sequence[str]]) -> Case:
    """Case ``number`` of a seed; ``files`` are :func:`names_of_files`."""
    random = Random(f"{seed}:{number}")
    (kind,) = random.choices(list(KINDS), [kind.weight for kind in KINDS.values()])
    command = random.choice(KINDS[kind].commands)
    operators = [name for name in OPERATORS if any(suits(name, file) for file in files[kind])]
    changes = []
    for _ in range(random.choice(_CHANGES)):
        (operator,) = random.choices(operators, [OPERATORS[name][2] for name in operators])
        file = random.choice([name for name in files[kind] if suits(operator, name)])
        changes.append(Change(operator, file, random.randrange(10**9)))
    return Case(kind, command, tuple(changes), random.random() < _FORGED)


def prepare(case: Case, root: Path, folder: Path) -> list[str]:
    """Make the hostile folder ``folder/it``, and return the command with its paths filled in.

    Args:
        case: What to make.
        root: The folder that ``originals.make`` filled.
        folder: A new folder for the case.
    """
    it, originals = folder / "it", root / "originals"
    shutil.copytree(originals / KINDS[case.kind].original, it, symlinks=True)
    for one in case.changes:
        change(it, one.operator, one.file, one.number, root / "secret")
    if case.forged:
        _forge(it)
    places = {
        IT: str(it),
        OUT: str(folder / "out"),
        ROOT: str(originals),
        KEEP: str(originals / "keep"),
        MODEL: str(originals / "model"),
        "{table}": case.table,
    }
    return [_filled(argument, places) for argument in COMMANDS[case.command]]


def named(arguments: Sequence[str], it: Path) -> list[Path]:
    """Files and folders that the user's command, or a recipe in a folder, names: these are read.

    A device or FIFO is never read.
    """
    found = []
    for argument in arguments:
        path = Path(argument.rpartition("=")[2])
        if path.is_absolute() and path != it and _is_plain(path):
            found.append(Path(os.path.realpath(path)))
    for name in _RECIPES:
        for file in sorted(it.rglob(name)):
            if file.is_symlink() or not file.is_file():
                continue
            text = file.read_bytes().decode("utf-8", "replace")
            for value in re.findall(
                r"(?:model|train|validation|test|data_dir)['\"]?\s*:\s*(.+)", text
            ):
                path = Path(str(it), value.strip().strip("'\"").replace("\0", ""))
                if len(value) < 4000 and _is_plain(path):
                    found.append(Path(os.path.realpath(path)))
    return found


def _is_plain(path: Path) -> bool:
    try:
        return path.is_file() or path.is_dir() or not path.exists()  # and then nothing is read
    except (OSError, ValueError):  # a name too long for the file system
        return False


def _filled(text: str, places: Mapping[str, str]) -> str:
    for name, path in places.items():
        text = text.replace(name, path)
    return text


def _forge(it: Path) -> None:
    """Remove the digests of results and fingerprints; seal checkpoints and pools again."""
    for file in sorted(it.rglob("*.json")):
        if file.is_symlink() or not file.is_file():
            continue
        try:
            document = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            continue
        if not isinstance(document, dict) or "digest" not in document:
            continue
        del document["digest"]
        if file.name == "complete.json":
            document["files"] = {
                path.name: [path.stat().st_size, zlib.crc32(path.read_bytes())]
                for path in sorted(file.parent.iterdir())
                if path.is_file() and not path.is_symlink() and path != file
            }
        elif isinstance(document.get("files"), dict):
            del document["files"]
        try:
            text = json.dumps(document, ensure_ascii=False)
        except (ValueError, RecursionError):
            continue
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    _forge_pool(it)


def _forge_pool(it: Path) -> None:
    """Let ``pool.json`` list the files that its sources have now."""
    file, sources = it / "pool.json", it / "sources"
    if file.is_symlink() or not file.is_file() or sources.is_symlink() or not sources.is_dir():
        return
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    document["sources"] = {
        source.name: {
            path.relative_to(source).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(source.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
        for source in sorted(sources.iterdir())
        if source.is_dir() and not source.is_symlink()
    }
    text = json.dumps(document, ensure_ascii=False)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
