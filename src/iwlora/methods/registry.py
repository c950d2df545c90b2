"""The methods by name: rows of our own, and those that installed packages declare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points

from iwlora.errors import IwloraError
from iwlora.methods.contract import Method

GROUP = "iwlora.methods"
_NAME = re.compile(r"\w[\w.+=-]*")  # it names a folder of a comparison


class Registry(MutableMapping[str, type[Method]]):
    """{name: method}: the rows given, then those in the entry points of the group.

    Entry points are looked up at the first use and imported when their method is asked for.
    Raises ``IwloraError`` for a package that takes a name that is taken, at any use, and for
    one whose method cannot be imported or is none, when it is asked for.
    """

    def __init__(self, rows: Mapping[str, type[Method]]) -> None:
        self._rows = dict(rows)
        self._declared: dict[str, EntryPoint] | None = None

    def __getitem__(self, name: str) -> type[Method]:
        if name not in self._rows:
            self._rows[name] = _load(self._entry_points()[name])
        return self._rows[name]

    def __setitem__(self, name: str, method: type[Method]) -> None:
        self._rows[name] = method

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._rows, *self._entry_points()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._entry_points()

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._declared is None:
            found: dict[str, EntryPoint] = {}
            for point in entry_points(group=GROUP):
                if point.name in self._rows:
                    raise _refusal(point, "iwlora has a method of this name; rename it")
                if point.name in found:
                    raise _refusal(
                        point,
                        f"{_package(found[point.name])} has one of this name; uninstall one of the "
                        "two",
                    )
                if not _NAME.fullmatch(point.name):
                    raise _refusal(
                        point, "a name has letters, digits and _ . + = - alone; rename it"
                    )
                found[point.name] = point
            self._declared = found
        return self._declared


def _load(point: EntryPoint) -> type[Method]:
    try:
        found = point.load()
    except Exception as error:  # whatever a package does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise _refusal(
            point, f"{point.value} cannot be imported ({reason}); repair or uninstall it"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise _refusal(point, f"{point.value} is no subclass of iwlora.methods.Method")
    missing = [key for key in ("name", "summary", "paper") if not hasattr(found, key)]
    missing += [key for key in ("parameters", "attach") if key not in _defined(found)]
    if missing:
        raise _refusal(point, f"{point.value} does not define {', '.join(missing)}")
    if found.name != point.name:
        raise _refusal(point, f"{point.value} has the name {found.name!r}; both must be the same")
    return found


def _defined(method: type[Method]) -> set[str]:
    """What the class and its bases define, up to ``Method``."""
    bases = method.__mro__[: method.__mro__.index(Method)]
    return {key for base in bases for key in vars(base)}


def _refusal(point: EntryPoint, reason: str) -> IwloraError:
    return IwloraError(f"the method {point.name!r} of the package {_package(point)}: {reason}")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"
