"""Which method supports which architecture: each method is tried on a tiny model of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import read_utf8
from iwlora.methods.contract import Method
from iwlora.methods.tiny_models import (
    ARCHITECTURES,
    IMAGE_ARCHITECTURES,
    tiny_batch,
    tiny_model,
)
from iwlora.results.sensitivity import Sensitivity
from iwlora.sites import sites as find_sites

_SIZE = 2
# Kind of a convolution -> an architecture that has it.
_CONVOLUTIONS = {"patch_embedding": "vit", "downsampling": "convnext", "depthwise": "convnext"}
Support = dict[str, dict[str, str | None]]
"""{method: {architecture, or kind of convolution: None if it is supported, else the message}}

Methods that adapt no sites of their targets have no kinds of convolutions.
"""


def shipped_table() -> str:
    """What :func:`support_table` says of the built-in methods, as it was when iwlora was released.

    A test tries the methods anew and compares; ``iwlora methods --try`` prints what to store.
    """
    return read_utf8(Path(__file__).with_suffix(".txt")).rstrip("\n")


def try_methods(methods: Mapping[str, Method]) -> Support:
    """Attach each method to a random model of each architecture, and to each kind of convolution.

    The message of an unexpected error starts with the error's type.
    """
    support: Support = {name: {} for name in methods}
    columns = {name: (name, "all") for name in (*ARCHITECTURES, *IMAGE_ARCHITECTURES)}
    columns |= {kind: (architecture, kind) for kind, architecture in _CONVOLUTIONS.items()}
    for column, (architecture, targets) in columns.items():
        measured: dict[str, Sensitivity] = {}
        for name, method in methods.items():
            if targets != "all" and not method.adapts_sites:
                continue
            try:
                _attach(method, architecture, targets, measured)
                support[name][column] = None
            except IwloraError as refusal:
                support[name][column] = str(refusal)
            except Exception as failure:  # a method of another package may raise anything
                support[name][column] = f"{type(failure).__name__}: {failure}"
    return support


def support_table(support: Support) -> str:
    """Text tables with a row for each method: models of texts, of images, kinds of convolutions.

    Each is followed by each error message once.
    """
    remark = "as classifiers; MiniLM has the type bert, DeBERTa-v3 the type deberta-v2"
    tables = [
        _table(support, ARCHITECTURES, remark),
        _table(support, IMAGE_ARCHITECTURES, "as image classifiers"),
    ]
    of_sites = {name: row for name, row in support.items() if row.keys() & _CONVOLUTIONS}
    if of_sites:
        tables.append(
            _table(of_sites, list(_CONVOLUTIONS), "convolutions, which are targets only by name")
        )
    return "\n\n".join(tables)


def _table(support: Support, architectures: Sequence[str], remark: str) -> str:
    width = max(len(name) for name in support)
    lines = [f"{'':<{width}}  {'  '.join(architectures)}"]
    messages: dict[str, list[str]] = {}
    for name, row in support.items():
        cells = [("-" if row[name] else "yes").ljust(len(name)) for name in architectures]
        lines.append(f"{name:<{width}}  {'  '.join(cells)}".rstrip())
        for architecture in architectures:
            if message := row[architecture]:
                at = messages.setdefault(message, [])
                at += [] if architecture in at else [architecture]
    lines.append(f"({remark})")
    return "\n".join([*lines, *(f"{', '.join(at)}: {text}" for text, at in messages.items())])


def _attach(
    method: Method, architecture: str, targets: str, measured: dict[str, Sensitivity]
) -> None:
    """Attach to a fresh model; methods that measure with the same arguments share the result."""
    from iwlora.sensitivity.measure import measure

    model = tiny_model(architecture, blocks=2 if targets in _CONVOLUTIONS else 1)
    sites = method.adaptable(find_sites(model, targets), targets)
    method = method.sized(_SIZE) if method.size_knob else method
    method.check_model(model, sites)
    method.check(sites)
    arguments = method.calibration()
    key = repr(arguments)
    if arguments is not None and key not in measured:
        measured[key] = measure(model, [tiny_batch(architecture)], sites=sites, **arguments)
    method.attach(model, sites, seed=0, sensitivity=measured.get(key))
