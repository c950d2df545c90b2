"""The arms of a comparison: what an entry of ``methods`` may set, and the control arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.methods import METHODS

OWN = ("label", "train", "search")
"""What an entry of ``methods`` holds beside its name and the method's options."""

_OPTIMIZER = "the other arms would have to be tuned in it too"
_COMPUTING = "times, memory and rounding would differ for another reason than the method"
UNFAIR_TRAIN = {
    "epochs": "an arm that sees the data more often is trained more",
    "batch_size": "it changes the number of optimizer steps and the order of the data",
    "accumulate": _COMPUTING,
    "max_length": "an arm that reads more of each text has other data",
    "warmup": _OPTIMIZER,
    "weight_decay": _OPTIMIZER,
    "max_grad_norm": _OPTIMIZER,
    "precision": _COMPUTING,
    "fast_kernels": _COMPUTING,
    "shard": _COMPUTING,
    "deterministic": _COMPUTING,
    "group_by_length": "it changes the order of the data",
    "seed": "all arms have the same seeds; give them in seeds",
    "save_steps": "writing checkpoints takes time that the other arms do not spend",
    "keep_checkpoints": "writing checkpoints takes time that the other arms do not spend",
    "report_to": "sending records takes time that the other arms do not spend",
}
"""Settings of training that all arms must share, each with the reason."""
UNFAIR = {
    "model": "the arms would start from other weights",
    "task": "the arms would have other data",
    "budget": "an arm with more parameters would have more room",
    "targets": "the arms would adapt other matrices",
    "quantize": "the arms would start from other weights",
    "seeds": "differences are paired by seed, so all arms have the same",
}
"""Parts of a recipe that all arms must share, each with the reason."""


SHARED = (*OWN, *UNFAIR)
"""What is never an option of a method."""


def problems(entry: Any, searched: bool) -> list[str]:
    """Why this entry of ``methods`` would make the comparison unfair, one line for each field.

    >>> problems({"name": "lora", "train": {"epochs": 9}}, searched=False)
    ['methods: lora: train.epochs=9 for one arm alone is unfair: an arm that sees the data more \
often is trained more; set train.epochs for all']
    """
    if not isinstance(entry, Mapping):
        return []
    name = entry.get("label", entry.get("name"))
    found = [
        f"methods: {name}: {key}={entry[key]!r} for one arm alone is unfair: {reason}; "
        f"set {key} for all"
        for key, reason in UNFAIR.items()
        if key in entry
    ]
    train = entry.get("train")
    if train is not None and not isinstance(train, Mapping):
        return [*found, f"methods: {name}: train={train!r}: accepted is a mapping such as lr: 1e-3"]
    for key, value in (train or {}).items():
        if reason := UNFAIR_TRAIN.get(key):
            fix = "remove it" if key == "seed" else f"set train.{key} for all"
            found.append(
                f"methods: {name}: train.{key}={value!r} for one arm alone is unfair: "
                f"{reason}; {fix}"
            )
        elif key == "lr" and searched:
            found.append(
                f"methods: {name}: train.lr={value!r} for one arm alone is unfair where the "
                "others search theirs; remove it, or give this arm a grid: search: {lr: [...]}"
            )
    if "search" in entry and not searched:
        found.append(f"methods: {name}: search for one arm alone is unfair; give search for all")
    return found


def with_controls(entries: Sequence[Any]) -> list[Any]:
    """Each arm, then the control arms that the methods declare for it, with the same options.

    An entry that names the control itself stays the only one of that label.
    """
    named = [_label(entry) for entry in entries]
    arms = []
    for entry in entries:
        arms.append(entry)
        options = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
        for control in METHODS.values():
            if control.control_of is None or control.control_of != options.get("name"):
                continue
            label = control.name
            if "label" in options:
                label = f"{options['label']}.{control.name}"
            if label not in named:
                kept = {key: v for key, v in options.items() if key in control.model_fields}
                own = {key: options[key] for key in ("train", "search") if key in options}
                arms.append({"name": control.name, "label": label, **kept, **own})
    return arms


def _label(entry: Any) -> Any:
    return entry.get("label", entry.get("name")) if isinstance(entry, Mapping) else entry
