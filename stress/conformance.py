"""Run every conformance check of every method on every architecture that the method supports.

    python stress/conformance.py [--images] [METHOD ...]

Besides the methods there are mixtures of ``grouped``, by the names in ``mixtures.py``.

``tests/methods/test_conformance.py`` runs a part of them, see there. This takes some minutes; each
method and architecture trains once, and two processes train all of them in one go.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from iwlora.methods import METHODS
from iwlora.methods.contract import Method
from iwlora.testing import Case, Check, cases, train_in_two_processes
from mixtures import MIXTURES, blocks_of


def method(name: str) -> Method:
    """A method with its default options, or a mixture."""
    return MIXTURES[name] if name in MIXTURES else METHODS[name]()


def checks_of(name: str, of_images: bool = False) -> list[tuple[str, Check]]:
    """[(architecture, check)] of a method or mixture."""
    return cases(method(name), True, of_images, blocks_of(name))


def failures(names: Sequence[str], folder: Path, of_images: bool = False) -> list[str]:
    """A line for each failed check of these methods, and for each that nothing supports."""
    checks = {name: checks_of(name, of_images) for name in names}
    pairs = [(name, where) for name in names for where in dict.fromkeys(a for a, _ in checks[name])]
    prepared = {}
    for name, architecture in pairs:
        empty = folder / f"{name}-{architecture}"
        empty.mkdir()
        case = Case(method(name), architecture, empty, blocks_of(name))
        prepared[name, architecture] = case
    train_in_two_processes(list(prepared.values()))
    lines = [f"{name}: no architecture supports it" for name in names if not checks[name]]
    for name, architecture in pairs:
        for check in (check for where, check in checks[name] if where == architecture):
            try:
                check(prepared[name, architecture])
            except AssertionError as error:
                lines.append(f"{name} on {architecture}: {check.__name__}: {error}")
        print(f"{name} on {architecture}: checked", flush=True)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each failure; the exit status is 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="default: all methods")
    parser.add_argument(
        "--images", action="store_true", help="on the architectures that read images"
    )
    given = parser.parse_args(arguments)
    names = given.methods or [*METHODS, *({} if given.images else MIXTURES)]
    with tempfile.TemporaryDirectory() as folder:
        failed = failures(names, Path(folder), given.images)
    print("\n".join(failed) or "all checks passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
