"""Which method goes on which architecture, found by trying each on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.methods.contract import Method
from iwlora.methods.tiny_models import ARCHITECTURES, tiny_config, tiny_model
from iwlora.sites import sites

if TYPE_CHECKING:
    from iwlora.results.sensitivity import Sensitivity

_SIZE = 2
Attempts = dict[str, dict[str, str | None]]


def attempts(methods: Mapping[str, Method]) -> Attempts:
    """{method: {architecture: what it said where it cannot go, or None}}.

    Each method is attached to a random model of one block of each architecture. A failure that
    is no refusal is told with its type.
    """
    found: Attempts = {name: {} for name in methods}
    for architecture in ARCHITECTURES:
        measured: dict[str, Sensitivity] = {}
        for name, method in methods.items():
            try:
                _attach(method, architecture, measured)
                found[name][architecture] = None
            except IwloraError as refusal:
                found[name][architecture] = str(refusal)
            except Exception as failure:  # another package's method may fail in any way
                found[name][architecture] = f"{type(failure).__name__}: {failure}"
    return found


def table(found: Attempts) -> str:
    """The attempts as lines of text: a row for each method, then each refusal once."""
    width = max(len(name) for name in found)
    lines = [f"{'':<{width}}  {'  '.join(ARCHITECTURES)}"]
    told: dict[str, list[str]] = {}
    for name, row in found.items():
        cells = [("-" if row[one] else "yes").ljust(len(one)) for one in ARCHITECTURES]
        lines.append(f"{name:<{width}}  {'  '.join(cells)}".rstrip())
        for architecture, why in row.items():
            if why:
                told.setdefault(why, []).append(architecture)
    lines.append("(as classifiers; MiniLM is of the type bert, DeBERTa-v3 of the type deberta-v2)")
    return "\n".join([*lines, *(f"{', '.join(at)}: {why}" for why, at in told.items())])


def _attach(method: Method, architecture: str, measured: dict[str, Sensitivity]) -> None:
    """Attach to a fresh model; what is measured the same way is measured once."""
    from iwlora.sensitivity.measure import measure

    model = tiny_model(architecture, blocks=1)
    places = sites(model)
    size = _SIZE if method.size_knob else None
    method.check_model(model, places)
    method.check(places, size)
    wanted = method.calibration()
    key = repr(wanted)
    if wanted is not None and key not in measured:
        measured[key] = measure(model, [_batch(architecture)], sites=places, **wanted)
    method.attach(model, places, size, seed=0, sensitivity=measured.get(key))


def _batch(architecture: str) -> dict[str, Any]:
    import torch

    config = tiny_config(architecture)
    ids = torch.arange(6, 22).view(2, 8)
    if config.is_encoder_decoder:
        ids[:, -1] = config.eos_token_id
    labels = torch.tensor([0, 1])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
