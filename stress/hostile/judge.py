"""Which properties a case has broken."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Set
from pathlib import Path

from fuzzing.guard import judge_exit
from hostile.case import Case
from hostile.fork import BYTES, SECONDS, Ending
from hostile.mutations.values import CANARY
from hostile.originals import SECRET
from hostile.output import active_content, control_characters, without_bars
from iwlora.inputs.tables.delimited import LONGEST_FIELD

PROPERTIES = (
    *("opens", "imports", "prompts", "processes", "network", "code", "leaks", "tracebacks"),
    *("time", "memory", "endings", "terminal", "pages"),
)
_NO_MEMORY = re.compile(
    rb"MemoryError|out of memory|can't allocate|not enough memory|bad_alloc|alloc_cpu"
)
_ENDS_WITH_1 = ("verify", "verify inputs", "continue")
"""Commands whose exit code 1 is an answer: files differ, runs of a comparison failed."""

Broken = list[tuple[str, str]]


def pages_in(folder: Path) -> set[bytes]:
    """The contents of the reports and figures below a folder."""
    files = [*folder.rglob("report.html"), *folder.rglob("*.svg")]
    return {file.read_bytes() for file in files if file.is_file()}


def judge(
    case: Case,
    ending: Ending,
    folder: Path,
    named_outside: bool = False,
    foreign_pages: Set[bytes] = frozenset(),
) -> Broken:
    """(property, what broke it) of a case that has run.

    Args:
        case: The case.
        ending: How its command ended.
        folder: The folder of the case.
        named_outside: Whether a recipe names a folder outside, so that its content may be shown.
        foreign_pages: The pages that were there before, which the command did not write.
    """
    broken = [(name, f"{detail} at {where}") for name, detail, where in ending.events]
    if ending.answers:
        broken.append(("prompts", f"{ending.answers} bytes of standard input were read"))
    if list(folder.rglob(CANARY)):
        broken.append(("code", "the canary was written"))
    if ending.seconds > SECONDS or ending.code in (-9, -24):
        broken.append(("time", f"{ending.seconds:.1f} s, exit {ending.code}"))
    elif ending.code < 0:
        broken.append(("tracebacks", f"signal {-ending.code}"))
    else:
        broken += _judge_exit(case, ending, folder)
    if ending.peak > BYTES or _NO_MEMORY.search(ending.err):
        broken.append(("memory", f"{ending.peak / 2**20:.0f} MiB, {_last(ending.err)}"))
    if signs := control_characters(ending.out + ending.err):
        broken.append(("terminal", f"{signs!r}"))
    for page in pages_in(folder) - foreign_pages:
        if found := active_content(page):
            broken.append(("pages", f"{found[:5]}"))
    if not named_outside:
        broken += _leaks(ending, folder)
    return broken


def _judge_exit(case: Case, ending: Ending, folder: Path) -> Broken:
    text = without_bars(ending.err.decode("utf-8", "backslashreplace"))
    if ending.code == 1 and case.command in _ENDS_WITH_1 and "Traceback" not in text:
        return []
    lines = [line for line in text.splitlines() if line.startswith(("error: ", "usage: "))]
    verdict, _ = judge_exit(ending.code, "\n".join(lines) if "Traceback" not in text else text)
    if verdict == "traceback" or ending.code not in (0, 2):
        return [("tracebacks", f"exit {ending.code}: {_last(ending.err)}")]
    if ending.code == 0 and (missing := _incomplete(case, ending, folder)):
        return [("endings", f"exit 0, and {missing}")]
    return []


def _incomplete(case: Case, ending: Ending, folder: Path) -> str:
    """What a command that succeeded has not left, or nothing."""
    out, command = folder / "out", case.command
    stopped = (folder / "stopped").exists()
    if stopped or command in ("average", "agreement", "measurements", "dry run", "compare recipe"):
        return ""
    if command in ("compose", "compose prototypes", "add", "remove"):
        return _without(out / "pool.json")
    if command.startswith(("verify", "show", "check", "load", "adapter", "report ")):
        return "" if ending.out.strip() else "nothing was printed"
    if command in ("report", "continue"):
        return _without(folder / "it" / "report.html")
    if command in ("compare", "compare scores"):
        return _without(out / "report.html")
    if command == "resume":
        return _without_result(folder / "it")
    if command.startswith("train"):
        return _without_result(out)
    if command == "measure model":
        return _without_result(out.with_suffix(".json"))
    if command.startswith("predict"):
        return _without_rows(out.with_suffix(".csv"))
    weights = [*out.glob("*.safetensors")] if out.is_dir() else []
    return "" if weights else "no weights were exported"


def _without(file: Path) -> str:
    return "" if file.is_file() and file.stat().st_size else f"there is no {file.name}"


def _without_result(place: Path) -> str:
    file = place / "result.json" if place.is_dir() else place
    try:
        return "" if json.loads(file.read_bytes()) else f"{file.name} is empty"
    except (OSError, ValueError) as error:
        return f"{file.name}: {error}"


def _without_rows(file: Path) -> str:
    limit = csv.field_size_limit(LONGEST_FIELD)  # a cell is written as long as it was read
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return f"{file.name}: {error}"
    finally:
        csv.field_size_limit(limit)
    return "" if len(rows) > 1 and len(set(map(len, rows))) == 1 else f"{file.name} has no rows"


def _leaks(ending: Ending, folder: Path) -> Broken:
    """Where the secret of another folder has turned up."""
    secret = SECRET.encode()
    found = ["the terminal"] if secret in ending.out + ending.err else []
    for path in folder.rglob("*"):
        own = path.is_file() and Path(os.path.realpath(path)).is_relative_to(folder)
        if own and path.stat().st_size < 2**22 and secret in path.read_bytes():
            found.append(path.name)
    return [("leaks", f"the secret is in {name}") for name in found]


def _last(text: bytes) -> str:
    lines = text.decode("utf-8", "backslashreplace").strip().splitlines()
    return lines[-1][:400] if lines else ""
