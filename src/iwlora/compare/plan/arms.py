"""The arms of a comparison: which settings all arms must share, their labels, the control arms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from iwlora.compare.plan.training_data import (
    SHARED_TASK_SETTINGS,
    data_label,
    own_training_data,
)
from iwlora.methods import METHODS
from iwlora.results.comparison.record import TRAINING_DATA

_OPTIMIZER = "the other arms would have to be tuned in it too"
_COMPUTING = "times, memory and rounding would differ for another reason than the method"
_DATA = "the arms would have other data"
_CHECKPOINTS = "writing checkpoints takes time that the other arms do not spend"

SHARED_TRAIN_SETTINGS = {
    "epochs": "an arm that sees the data more often is trained more",
    "max_steps": "an arm that takes more steps is trained more",
    "optimizer": _OPTIMIZER,
    "betas": _OPTIMIZER,
    "scheduler": _OPTIMIZER,
    "early_stopping": "the arms would be trained for other lengths of time",
    "average_last": "a mean over steps varies less between seeds than the last weights do",
    "class_weights": "the arms would minimize other losses",
    "sampler": _DATA,
    "batch_size": "it changes the number of optimizer steps and the order of the data",
    "accumulate": _COMPUTING,
    "max_length": "an arm that reads more of each text has other data",
    "warmup": _OPTIMIZER,
    "weight_decay": _OPTIMIZER,
    "max_grad_norm": _OPTIMIZER,
    "precision": _COMPUTING,
    "frozen_dtype": "the arms would start from other weights",
    "gradient_checkpointing": _COMPUTING,
    "fast_kernels": _COMPUTING,
    "cache_frozen": "the arms would have dropout in other blocks",
    "cache_images": "times would differ for another reason than the method",
    "shard": _COMPUTING,
    "deterministic": _COMPUTING,
    "group_by_length": "it changes the order of the data",
    "seed": "all arms have the same seeds; give them in seeds",
    "save_steps": _CHECKPOINTS,
    "keep_checkpoints": _CHECKPOINTS,
    "report_to": "sending records takes time that the other arms do not spend",
}
"""Fields of ``train`` that one arm alone may not set, each with the reason."""

SHARED_SETTINGS = {
    "model": "the arms would start from other weights",
    "budget": "an arm with more parameters would have more room",
    "targets": "the arms would adapt other matrices",
    "exclude": "the arms would adapt other matrices",
    "quantize": "the arms would start from other weights",
    "seeds": "differences are paired by seed, so all arms have the same",
}
"""Fields of a recipe that one arm alone may not set, each with the reason."""

NOT_METHOD_OPTIONS = ("label", "train", "search", "task", *SHARED_SETTINGS)
"""Keys of an entry of ``methods`` that are not options of its method."""


def arm_label(arm: Mapping[str, Any]) -> Any:
    """The label of an arm: its own, or the name of its method and of its own training data.

    >>> arm_label({"name": "lora", "task": {"max_train": 1600}})
    'lora-max_train=1600'
    """
    label, name = arm.get("label"), arm.get("name")
    if label is not None or not isinstance(name, str):
        return name if label is None else label
    return name + data_label(own_training_data(arm))


def unfair_settings(
    arm: Mapping[str, Any], searched: bool, vary: Collection[str] = ()
) -> list[str]:
    """One message for each setting of an arm that would make the comparison unfair.

    Args:
        arm: An entry of ``methods``.
        searched: Whether all arms search their learning rate.
        vary: The fields of the training data that arms may set for themselves.

    Example:
        >>> unfair_settings({"name": "lora", "train": {"epochs": 9}}, searched=False)
        ['methods: lora: train.epochs=9 for one arm alone is unfair: an arm that sees the data \
more often is trained more; set train.epochs for all']
    """
    prefix = f"methods: {arm.get('label') or arm.get('name')}"
    problems = [
        f"{prefix}: {key}={arm[key]!r} for one arm alone is unfair: {reason}; set {key} for all"
        for key, reason in SHARED_SETTINGS.items()
        if key in arm
    ]
    reasons = {f"task.{name}": reason for name, reason in SHARED_TASK_SETTINGS.items()}
    reasons |= {f"train.{name}": reason for name, reason in SHARED_TRAIN_SETTINGS.items()}
    reasons |= dict.fromkeys(set(TRAINING_DATA) - set(vary), _DATA)
    for part, example in (("task", "max_train: 1600"), ("train", "lr: 1e-3")):
        settings = arm.get(part)
        if settings is not None and not isinstance(settings, Mapping):
            problems.append(
                f"{prefix}: {part}={settings!r}: accepted is a mapping such as {example}"
            )
            continue
        for key, value in (settings or {}).items():
            field = f"{part}.{key}"
            if reason := None if field in vary else reasons.get(field):
                fix = "remove it" if key == "seed" else f"set {field} for all"
                if field in TRAINING_DATA:
                    fix += f", or declare that arms differ in it: vary: [{field}]"
                problems.append(
                    f"{prefix}: {field}={value!r} for one arm alone is unfair: {reason}; {fix}"
                )
            elif field == "train.lr" and searched:
                problems.append(
                    f"{prefix}: train.lr={value!r} for one arm alone is unfair while the others "
                    "search their learning rate; remove it, or give this arm a grid: "
                    "search: {lr: [...]}"
                )
    if "search" in arm and not searched:
        problems.append(f"{prefix}: search for one arm alone is unfair; give search for all")
    return problems


def add_controls(arms: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each arm, followed by the control arms of its method with the same options.

    An entry that names a control arm itself replaces the one that would be added.
    """
    labels = [arm_label(arm) for arm in arms]
    with_controls = []
    for arm in arms:
        with_controls.append(arm)
        for control in METHODS.values():
            if control.control_of is None or control.control_of != arm.get("name"):
                continue
            same = {*control.model_fields, "train", "search", "task"}
            kept = {key: value for key, value in arm.items() if key in same}
            kept["name"] = control.name
            label = f"{arm['label']}.{control.name}" if "label" in arm else arm_label(kept)
            if label not in labels:
                with_controls.append({**kept, "label": label})
    return with_controls
