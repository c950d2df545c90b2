"""The methods by name: the built-in ones, and those that installed packages declare."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points

from iwlora.errors import IwloraError
from iwlora.methods.contract import Method
from iwlora.methods.deprecated import current_class

GROUP = "iwlora.methods"
_NAME = re.compile(r"\w[\w.+=-]*")  # a comparison has a folder of this name


class Registry(MutableMapping[str, type[Method]]):
    """{name: method}: the built-in methods, then those in the entry points of the group.

    Entry points are listed at the first use and imported when their method is requested.

    Raises:
        IwloraError: at any use, if two packages or a package and iwlora have a method of the same
            name; when a method is requested, if it cannot be imported or is not a method.
    """

    def __init__(self, methods: Mapping[str, type[Method]]) -> None:
        self._methods = dict(methods)
        self._entry_points: dict[str, EntryPoint] | None = None

    def __getitem__(self, name: str) -> type[Method]:
        if name not in self._methods:
            self[name] = _load(self._declared()[name])
        return self._methods[name]

    def __setitem__(self, name: str, method: type[Method]) -> None:
        self._methods[name] = current_class(method)

    def __delitem__(self, name: str) -> None:
        del self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._methods, *self._declared()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._methods or name in self._declared()

    def _declared(self) -> dict[str, EntryPoint]:
        if self._entry_points is None:
            declared: dict[str, EntryPoint] = {}
            for point in entry_points(group=GROUP):
                if point.name in self._methods:
                    raise _refusal(point, "iwlora has a method of this name; rename it")
                if point.name in declared:
                    raise _refusal(
                        point,
                        f"the package {_package(declared[point.name])} has a method of this name; "
                        "uninstall one of the two",
                    )
                if not _NAME.fullmatch(point.name):
                    raise _refusal(
                        point, "a name can contain only letters, digits and _ . + = -; rename it"
                    )
                declared[point.name] = point
            self._entry_points = declared
        return self._entry_points


def _load(point: EntryPoint) -> type[Method]:
    try:
        method = point.load()
    except Exception as error:  # the import of a package may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise _refusal(
            point, f"{point.value} cannot be imported ({reason}); repair or uninstall it"
        ) from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise _refusal(point, f"{point.value} is not a subclass of iwlora.methods.Method")
    missing = [key for key in ("name", "summary", "paper") if not hasattr(method, key)]
    missing += [
        key for key in ("parameters", "attach") if getattr(method, key) is getattr(Method, key)
    ]
    if missing:
        raise _refusal(point, f"{point.value} does not define {', '.join(missing)}")
    if method.name != point.name:
        raise _refusal(point, f"{point.value} has the name {method.name!r}; both must be the same")
    return method


def _refusal(point: EntryPoint, reason: str) -> IwloraError:
    return IwloraError(f"the method {point.name!r} of the package {_package(point)}: {reason}")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"
