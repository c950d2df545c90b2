"""Where a command may read and write while it opens a foreign folder, and why."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from huggingface_hub.constants import HF_HOME

import iwlora

SYSTEM: Mapping[str, str] = {
    "/proc/self": "the process looks at itself",
    "/proc": "psutil and torch read memory and cores",
    "/sys": "psutil and torch read cores and caches",
    "/dev/null": "output that nobody wants",
    "/dev/urandom": "seeds",
    "/dev/shm": "locks of multiprocessing",
    "/usr/share/zoneinfo": "time zones",
    "/etc/localtime": "the time zone",
    "/usr/lib/locale": "the language of the system's messages",
    "/usr/share/locale": "the language of the system's messages",
    "/usr/share/fonts": "fonts of figures",
    "/usr/lib": "shared libraries, and the system's own Python",
    "/lib": "shared libraries",
    "/etc/ld.so.cache": "shared libraries",
    "/etc/mime.types": "names of file types",
}
"""Where the system and libraries read."""

WRITABLE_DEVICES = ("/dev/null", "/dev/shm")
FORBIDDEN = ("/proc/self/environ", "/proc/self/mem", "/proc/self/fd")
"""Parts of the above that are secret, or endless."""


@dataclass(frozen=True)
class Roots:
    """The folders that may be read, and those that may be written; links are followed first."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]

    def refuse(self, path: str, writes: bool) -> bool:
        """Whether a path that is opened lies outside of the allowed folders."""
        real = os.path.realpath(path)
        if _below(path, FORBIDDEN) or _below(real, FORBIDDEN):
            return True
        allowed = self.writable if writes else (*self.readable, *self.writable)
        return not _below(real, allowed)


def roots(folder: Path, root: Path, named: Sequence[Path] = ()) -> Roots:
    """The roots of a case.

    Args:
        folder: Of the case: the hostile folder and what the command writes.
        root: What ``originals.make`` filled; the sound folders in it are read.
        named: What the user, or a recipe in the hostile folder, names as model and data.
    """
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed = [*paths, *site.getsitepackages(), sys.prefix, sys.base_prefix]
    caches = [HF_HOME, matplotlib.get_configdir(), matplotlib.get_cachedir()]
    own = [Path(iwlora.__file__).parent, *filter(None, sys.path)]  # where imports are looked for
    readable = [*SYSTEM, *installed, *own, root / "originals", *named]
    writable = [*WRITABLE_DEVICES, *caches, folder]
    return Roots(_real(readable), _real(writable))


def installed_code(path: str) -> bool:
    """Whether a file with code belongs to the interpreter, an installed package or iwlora."""
    places = [sysconfig.get_path("stdlib"), sysconfig.get_path("platlib")]
    places += [*site.getsitepackages(), str(Path(iwlora.__file__).parent)]
    places += [sys.base_prefix, sys.prefix]
    return _below(os.path.realpath(path), _real(places))


def _real(paths: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(str(path)) for path in paths))


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
