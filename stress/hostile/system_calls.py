"""The same rules below Python: what ``strace`` says that a process opened, started, reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hostile.judge import Broken
from hostile.roots import Roots

STRACE = ("strace", "-f", "-ff", "-y", "-s", "4096", "--seccomp-bpf", "-e")
CALLS = "trace=file,process,network"

_LINE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+|\?)(?P<rest>.*)")
_OPENED = re.compile(r"^<(/.*)>$")
_TEXT = re.compile(r'(?:(AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_CHANGES = (
    *("unlink", "unlinkat", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "rmdir"),
    *(
        "symlink",
        "symlinkat",
        "link",
        "linkat",
        "chmod",
        "fchmodat",
        "truncate",
        "mknod",
        "mknodat",
    ),
)
_NEW_PROCESS = ("fork", "vfork", "clone", "clone3")


def broken(traces: Path, process: int, roots: Roots) -> Broken:
    """(property, by what) of a process and its threads, whose calls are in ``traces``."""
    found: Broken = []
    waiting, seen = [process], set()
    while waiting:
        task = waiting.pop()
        if task in seen:
            continue
        seen.add(task)
        file = traces.parent / f"{traces.name}.{task}"
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if (match := _LINE.match(line)) is None:
                continue
            name, arguments = match["name"], match["arguments"]
            if name in _NEW_PROCESS and match["result"].isdigit():
                if "CLONE_THREAD" in arguments:
                    waiting.append(int(match["result"]))
                else:
                    found.append(("processes", line[:300]))
            else:
                found += _judge(name, arguments, match["result"], match["rest"], line, roots)
    return found


def _judge(
    name: str, arguments: str, result: str, rest: str, line: str, roots: Roots
) -> Iterator[tuple[str, str]]:
    if name in ("execve", "execveat"):
        yield "processes", line[:300]
    elif name in ("connect", "sendto") and "AF_INET" in arguments:
        yield "network", line[:300]
    elif result.startswith("-"):
        return
    elif name in ("open", "openat", "openat2", "creat"):
        path = _OPENED.match(rest.strip())
        writes = name == "creat" or any(flag in arguments for flag in ("O_WRONLY", "O_RDWR"))
        if path and roots.refuse(_plain(path[1]), writes):
            yield "opens", line[:300]
    elif name in _CHANGES:
        for _, folder, text in _TEXT.findall(arguments)[-1:]:
            if roots.refuse(os.path.join(_plain(folder), _plain(text)), True):
                yield "opens", line[:300]


def _plain(text: str) -> str:
    """A path without strace's escapes."""
    text = text.removesuffix(" (deleted)")
    data = text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1", "replace")
    return os.fsdecode(data)
