"""Methods of other packages that were written for version 0.1.0 still work; remove after 0.2.

In version 0.1.0, ``attach``, ``parameters`` and ``check`` had an argument ``size``, and
``not_quantizable`` was called ``unpackable``.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from iwlora.methods.contract import Method

_NEW_SIGNATURES = {
    "attach": "attach(self, model, sites, seed, sensitivity=None)",
    "parameters": "parameters(self, model, sites)",
    "check": "check(self, sites)",
}


def current_class(method: type[Method]) -> type[Method]:
    """The method; if it has signatures of version 0.1.0, a subclass that translates the calls.

    A method of version 0.1.0 causes a ``DeprecationWarning`` that says what to change.
    """
    old = [name for name in _NEW_SIGNATURES if _takes_size(method, name)]
    unpackable = [cls for cls in _own_classes(method) if "unpackable" in vars(cls)]
    if not old and not unpackable:
        return method
    changes = [f"{_NEW_SIGNATURES[name]}, with self.size in place of size" for name in old]
    changes += ["not_quantizable in place of unpackable"] if unpackable else []
    warnings.warn(
        f"the method {method.name!r} ({method.__module__}.{method.__qualname__}) has the contract "
        f"of iwlora 0.1.0, which the next version will refuse; write {'; '.join(changes)}",
        DeprecationWarning,
        stacklevel=3,
    )
    translated = _translate(method, old)
    if unpackable:
        translated.not_quantizable = vars(unpackable[0])["unpackable"]
    return translated


def current_method(method: Method) -> Method:
    """The same for a method with options."""
    cls = current_class(type(method))
    return method if cls is type(method) else cls.model_construct(**dict(method))


def _translate(method: type[Method], old: Sequence[str]) -> type[Method]:
    cls: Any = method  # whose signatures differ from those that type checkers know
    classes = [*_own_classes(method), Method]
    base: Any = next(c for c in classes if not any(_takes_size(c, name) for name in old))

    class Called(base):  # type: ignore[misc]
        """What the old method's calls of ``super()`` reach: old signatures."""

        def attach(
            self, model: Any, sites: Any, size: Any, seed: int, sensitivity: Any = None
        ) -> Any:
            return base.attach(_resized(self, size), model, sites, seed, sensitivity)

        def parameters(self, model: Any, sites: Any, size: Any = None) -> Any:
            return base.parameters(_resized(self, size), model, sites)

        def check(self, sites: Any, size: Any = None) -> Any:
            return base.check(_resized(self, size), sites)

    for name in _NEW_SIGNATURES.keys() - set(old):  # these call super() as today
        delattr(Called, name)

    class Translated(cls, Called):  # type: ignore[misc]
        """The old method with the new signatures; it can also call itself with the old ones."""

        def attach(  # type: ignore[override]
            self, model: Any, sites: Any, seed: int, sensitivity: Any = None
        ) -> Any:
            arguments = (self.size, seed) if "attach" in old else (seed,)
            return cls.attach(self, model, sites, *arguments, sensitivity)

        def parameters(self, model: Any, sites: Any, size: Any = None) -> Any:
            arguments = (size or self.size,) if "parameters" in old else ()
            return cls.parameters(self, model, sites, *arguments)

        def check(self, sites: Any, size: Any = None) -> Any:
            arguments = (size or self.size,) if "check" in old else ()
            return cls.check(self, sites, *arguments)

    Translated.__name__, Translated.__qualname__ = method.__name__, method.__qualname__
    Translated.__module__ = method.__module__
    return Translated


def _takes_size(method: type[Method], name: str) -> bool:
    size = inspect.signature(getattr(method, name)).parameters.get("size")
    return size is not None and size.default is inspect.Parameter.empty


def _own_classes(method: type[Method]) -> list[type]:
    """The class and its bases up to ``Method``."""
    return list(method.__mro__[: method.__mro__.index(Method)])


def _resized(method: Any, size: int | None) -> Any:
    return method if size in (None, method.size) else method.sized(size)
