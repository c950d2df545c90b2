"""What else than a regular file can stand under a name, and what names POSIX allows."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from random import Random


def other_type(file: Path, random: Random, outside: Path) -> None:
    """A link out of the folder, into itself or to nothing; a FIFO, socket, device or folder."""
    how = random.randrange(13)
    whole = file.read_bytes() if how in (6, 10) else b""
    file.unlink()
    if how <= 5:
        targets = (
            *(outside / "secret.txt", outside, outside / "model" / file.name, "/dev/zero"),
            *("/etc/passwd", "/proc/self/environ"),
        )
        target = str(targets[how])
        if random.random() < 0.4 and target.startswith(str(outside)):
            target = os.path.relpath(target, file.parent)
        os.symlink(target, file)
    elif how == 6:  # a link that stays inside
        (file.parent / "moved").write_bytes(whole)
        os.symlink("moved", file)
    elif how == 7:
        os.symlink(random.choice((file.name, ".", "..", "no-such-file", "/no/such")), file)
    elif how == 8:
        os.mkfifo(file)
    elif how == 9:
        _socket(file)
    elif how == 10:
        (file.parent / "real").mkdir(exist_ok=True)
        (file.parent / "real" / file.name).write_bytes(whole)
        os.symlink(file.parent / "real" / file.name, file)  # absolute, and inside
    elif how == 11:
        _device(file)
    else:
        file.mkdir()


def folder_elsewhere(file: Path, random: Random, outside: Path) -> None:
    """The folder of a file becomes a link: to its own copy outside, to a secret, to its parent."""
    folder, how = file.parent, random.randrange(3)
    if how == 0:
        moved = Path(tempfile.mkdtemp(dir=outside)) / folder.name
        shutil.move(folder, moved)
        folder.symlink_to(moved)
    else:
        shutil.rmtree(folder)
        folder.symlink_to((outside / "model", folder.parent)[how - 1])


def exchanged(file: Path, random: Random, _outside: Path) -> None:
    """A file with the content of another one of the folder."""
    found = sorted(file.parent.iterdir())
    others = [path for path in found if path.is_file() and not path.is_symlink() and path != file]
    if others:
        shutil.copyfile(random.choice(others), file)


def missing(file: Path, random: Random, _outside: Path) -> None:
    """A file, or its whole folder, is not there."""
    if random.random() < 0.75:
        file.unlink()
    else:
        shutil.rmtree(file.parent)


NAMES = (
    *(b"a\nb", b"\x1b[31mred", b"\xff\xfe", b"a\x07", b"-rf", b" ", b"...", b"..x", b"x" * 255),
    *(b"<script>alert(1)<", b'"><img src=x onerror=alert(1)>', "\u202etxt.exe".encode()),
    *(b"$(touch canary)", b"`touch canary`", b"a;touch canary", b"*", b"?", b"[a]", b"~", b"%s"),
    *(
        b"CON",
        b"a:b",
        b"a\\b",
        "e\u0301".encode(),
        b"\xed\xa0\x80",
        b"checkpoint-99999999999999999",
    ),
    *(b"checkpoint--1", b"seed-0\x1b[2J", b"seed-" + b"9" * 200, b".iwlora-part", b"lr-nan"),
)


def names(file: Path, random: Random, _outside: Path) -> None:
    """Next to a file, a file or folder of a hostile name; or its folder has that name."""
    name = os.fsencode(file.parent) + b"/" + random.choice(NAMES)
    how = random.randrange(4)
    if how == 0:
        shutil.copyfile(file, name)
    elif how == 1:
        os.makedirs(name, exist_ok=True)
        shutil.copyfile(file, name + b"/" + os.fsencode(file.name))
    elif how == 2:
        shutil.copytree(
            file.parent, os.fsdecode(name), symlinks=True, dirs_exist_ok=True, ignore=_not_itself
        )
    else:
        os.rename(file, name)


def _not_itself(_folder: object, found: list[str]) -> set[str]:
    return {name for name in found if os.fsencode(name) in NAMES}


def _socket(file: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(file.parent)  # the address of a socket has at most 107 bytes
        bound.bind(file.name[:100])
    finally:
        os.chdir(here)
        bound.close()


def _device(file: Path) -> None:
    """``/dev/zero`` under another name, where the user may make one; else a link to it."""
    try:
        os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        os.symlink("/dev/zero", file)
