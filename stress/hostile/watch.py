"""The audit hook of a fork: everything that Python is about to open, import, start or ask."""

from __future__ import annotations

import json
import os
import sys
from types import CodeType, FrameType
from typing import Any

from hostile.roots import Roots, installed_code

_PROCESSES = (
    *("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("os.system", "os.startfile", "pty.spawn"),
)
_NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
_PROMPTS = ("builtins.input",)
_LISTED = ("os.listdir", "os.scandir")
_WRITTEN = (
    *("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.chmod", "os.utime"),
    *("shutil.rmtree", "shutil.move"),
)


def install(roots: Roots, events: int) -> None:
    """Write a line of JSON, ``[property, detail]``, for each event that breaks a rule.

    A process that would be started, or an address that would be reached, is stopped.

    Args:
        roots: The folders that may be opened.
        events: The descriptor of an open file.
    """
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            found = _judge(event, arguments, roots)
            if found:
                os.write(events, (json.dumps([*found, _caller()]) + "\n").encode())
        finally:
            busy = False
        if found and found[0] in ("processes", "network"):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(hook)


def _judge(event: str, arguments: tuple[Any, ...], roots: Roots) -> tuple[str, str] | None:
    """(the property that is broken, by what)."""
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, (str, bytes)):
            return None
        writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else False
        writes |= isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return _outside(path, writes, roots)
    if event in _LISTED:
        return _outside(arguments[0] or ".", False, roots)
    if event in _WRITTEN:
        place = arguments[1] if event in ("os.symlink", "shutil.move") else arguments[0]
        return _outside(place, True, roots)
    if event == "os.rename":
        return _outside(arguments[1], True, roots)
    if event in _PROCESSES:
        return "processes", f"{event} {arguments!r:.300}"
    if event in _NETWORK:
        return "network", f"{event} {arguments[-4:]!r:.300}"
    if event in _PROMPTS:
        return "prompts", f"{event} {arguments!r:.300}"
    if event == "exec" and isinstance(arguments[0], CodeType):
        file = arguments[0].co_filename
        if not file.startswith("<") and not installed_code(file):
            return "imports", file
    return None


def _outside(path: Any, writes: bool, roots: Roots) -> tuple[str, str] | None:
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)
    verb = "writes" if writes else "reads"
    return ("opens", f"{verb} {text}") if roots.refuse(text, writes) else None


def _caller() -> str:
    """The innermost lines of iwlora, or else of anything, that led here."""
    frame: FrameType | None = sys._getframe(2)
    lines: list[str] = []
    while frame is not None and len(lines) < 60:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    own = [line for line in lines if "/iwlora/" in line]
    return " < ".join((own or lines)[:3])
