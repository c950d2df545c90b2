"""Commands that do what no command may, to be noticed by the watch of hostile folders."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hostile.case import Case
from hostile.fork import run
from hostile.judge import judge
from hostile.mutations.values import CANARY
from hostile.originals import SECRET
from hostile.roots import Roots, roots

CASE = Case("run", "report", (), False)
LIMIT = 2**28 + 2**27  # bytes of a process that has imported torch, and a little more


def _report(text: str = "<p>fine</p>") -> int:
    Path("report.html").write_text(text, encoding="utf-8")
    return 0


def _import_module() -> int:
    Path("canary_module.py").write_text(f"open({CANARY!r}, 'w')")
    sys.path.insert(0, str(Path.cwd()))
    __import__("canary_module")
    return _report()


def _read_zero() -> int:
    with open("/dev/zero", "rb") as device:
        device.read(9)
    return _report()


def _ask() -> int:
    input("run it? ")
    return _report()


def _read_answers() -> int:
    os.read(0, 2)
    return _report()


def _fork() -> int:
    if os.fork() == 0:
        os._exit(0)
    return _report()


def _print(text: str) -> int:
    print(text)
    return _report()


def _refuse(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _connect() -> int:
    with socket.socket() as new:
        new.connect(("127.0.0.1", 9))
    return _report()


def _leak() -> int:
    return _report(f"<p>{SECRET}</p>")


def _raise() -> int:
    raise KeyError("x")


def _work() -> int:
    while True:
        pass


PLANTED: Mapping[str, tuple[Callable[[], int], str | None]] = {
    "nothing": (_report, None),
    "a refusal": (lambda: _refuse("error: no such file: x", 2), None),
    "a link that leads out": (lambda: len(Path("link").read_text()) * 0 + _report(), "opens"),
    "a file elsewhere": (
        lambda: bool(Path("../../secret/new").write_text("x")) * _report(),
        "opens",
    ),
    "a folder elsewhere": (lambda: len(os.listdir("../../secret")) * 0 + _report(), "opens"),
    "/dev/zero": (_read_zero, "opens"),
    "a module of the folder": (_import_module, "imports"),
    "code of the folder": (lambda: bool(open(CANARY, "w").close()) or _report(), "code"),
    "a question": (_ask, "prompts"),
    "reading the answer": (_read_answers, "prompts"),
    "a program": (lambda: subprocess.call(["true"]) or _report(), "processes"),
    "a shell": (lambda: os.system("true") or _report(), "processes"),
    "a fork": (_fork, "processes"),
    "a connection": (_connect, "network"),
    "the secret": (_leak, "leaks"),
    "an exception": (_raise, "tracebacks"),
    "a refusal without a reason": (lambda: _refuse("", 2), "tracebacks"),
    "a refusal with another code": (lambda: _refuse("error: no", 3), "tracebacks"),
    "a signal": (lambda: os.kill(os.getpid(), 11) or 0, "tracebacks"),
    "work without end": (_work, "time"),
    "waiting without end": (lambda: time.sleep(99) or 0, "time"),  # type: ignore[func-returns-value]
    "memory": (lambda: len(b"x" * LIMIT) * 0 + _report(), "memory"),
    "no result": (lambda: 0, "endings"),
    "escapes": (lambda: _print("\x1b[31mred"), "terminal"),
    "the other direction": (lambda: _print("\u202eabc"), "terminal"),
    "a script": (lambda: _report("<p><script>x</script>"), "pages"),
    "an image elsewhere": (lambda: _report("<img src=//evil.test/x>"), "pages"),
    "an event": (lambda: _report("<svg onload=x>"), "pages"),
    "control characters in a page": (lambda: _report("<p>\x07"), "pages"),
}
"""name: (a command, the property that it breaks, None for a good command)."""


def do_all(root: Path) -> None:
    """Run every planted command in its own fork; ``root/found.json`` says what was noticed."""
    found = {}
    (root / "secret").mkdir()
    (root / "secret" / "secret.txt").write_text(SECRET, encoding="utf-8")
    for number, (name, (work, wanted)) in enumerate(PLANTED.items()):
        folder = root / str(number)
        (folder / "it").mkdir(parents=True)
        (folder / "it" / "link").symlink_to(root / "secret" / "secret.txt")
        allowed: Roots = roots(folder, root)
        limits = {"seconds": 0.3} if wanted == "time" else {"limit": LIMIT}
        ending = run(work, folder, allowed, **limits)  # type: ignore[arg-type]
        found[name] = judge(CASE, ending, folder)
    (root / "found.json").write_text(json.dumps(found), encoding="utf-8")
